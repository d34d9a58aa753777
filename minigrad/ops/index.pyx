# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Indexing: x[index], x[index] = value as a recorded op, and embedding.

A *basic* index is made of ints, slices, None and Ellipsis. x[index] is then a view, and its
gradient is added into that part of x's gradient buffer: taking the T steps of a sequence apart
costs O(T), not O(T^2). Any other index (int arrays, masks, lists, and mixes of these) copies. Row
numbers, i.e. an int array alone, have kernels: gather forwards, scatter_add backwards. Where an
index names an element several times, its gradients are added in the order of the index.

The rule keeps the index itself; arrays in it are copied, since the caller may change them before
backward.
"""
cimport numpy as cnp
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memmove, memset
from minigrad.ops.elementwise cimport mul, where
from minigrad.core.kernels cimport LONG, array_like, mg_kernels, new_array
from minigrad.core.array cimport PyArray_CHKFLAGS, add_into, copied, kernels_of
from minigrad.core.modes cimport recording
from minigrad.core.tape cimport checked_slot, mark_view, owner_of, record1, record2, settle
from minigrad.core.tensor cimport (
    DETACHED,
    OWN,
    UNRECORDED,
    Binary,
    Node,
    Tensor,
    as_input,
    as_operand,
    bump,
    contiguous,
    operators,
    stale,
    tracked,
    tracked2,
    wrap,
)

import operator
import reprlib

import numpy as np

from minigrad.core.array import check_data, made_array

cnp.import_array()

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        pass
    ctypedef struct PySliceObject:
        PyObject *start
        PyObject *stop
        PyObject *step
    PyObject *Py_None
    bint PyLong_CheckExact(PyObject *x) noexcept
    Py_ssize_t PyTuple_GET_SIZE(object x) noexcept
    PyObject *PyTuple_GET_ITEM(object x, Py_ssize_t i) noexcept
    int PySlice_Unpack(object slice, Py_ssize_t *start, Py_ssize_t *stop, Py_ssize_t *step) noexcept
    Py_ssize_t PySlice_AdjustIndices(Py_ssize_t length, Py_ssize_t *start, Py_ssize_t *stop, Py_ssize_t step) noexcept
    Py_ssize_t PyNumber_AsSsize_t(object number, object error) noexcept
    PyObject *PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(object error) noexcept
    void PyErr_Clear() noexcept

cdef extern from "numpy/arrayobject.h":
    object PyArray_EMPTY(int nd, cnp.npy_intp *dims, int typenum, int fortran)
    object PyArray_New(PyTypeObject *type, int nd, cnp.npy_intp *dims, int typenum, cnp.npy_intp *strides, void *data,
                       int itemsize, int flags, object base)
    int PyArray_CopyInto(cnp.ndarray target, cnp.ndarray source) except -1
    PyTypeObject PyArray_Type

cdef enum:
    MAX_DIMS = 64

cdef object np_integer = np.integer
cdef object np_bool = np.bool_
cdef object masked_array = np.ma.MaskedArray


# ---------------------------------------------------------------- basic indices

cdef cnp.ndarray view_of(cnp.ndarray x, int nd, cnp.npy_intp *shape, cnp.npy_intp *strides, char *data):
    """An array of another shape and strides (in bytes) that looks at x's memory from `data` on."""
    cdef int flags = cnp.NPY_ARRAY_WRITEABLE if PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_WRITEABLE) else 0
    cdef cnp.ndarray view = <cnp.ndarray>PyArray_New(&PyArray_Type, nd, shape, cnp.PyArray_TYPE(x), strides, data, 0, flags, None)
    cnp.set_array_base(view, x)
    return view


cdef inline bint is_plain(object part) noexcept:
    """Is this an int, or a slice made of ints, that nobody can change?"""
    if PyLong_CheckExact(<PyObject *>part):
        return True
    if type(part) is slice:
        return (is_bound((<PySliceObject *>part).start) and is_bound((<PySliceObject *>part).stop)
                and is_bound((<PySliceObject *>part).step))
    return part is None or part is Ellipsis

cdef inline bint is_bound(PyObject *bound) noexcept:
    return bound == Py_None or PyLong_CheckExact(bound)

cdef inline bint all_plain(object index) noexcept:
    cdef Py_ssize_t i
    if type(index) is not tuple:
        return is_plain(index)
    for i in range(PyTuple_GET_SIZE(index)):
        if not is_plain(<object>PyTuple_GET_ITEM(index, i)):
            return False
    return True

cdef object plain(object index, str op):
    """`index` with Python's own ints for all that counts as one: an array in a slice may change
    later, or be another number next time."""
    if type(index) is tuple:
        parts = []
        for part in <tuple>index:
            parts.append(plain_part(part, op))
        return tuple(parts)
    return plain_part(index, op)

cdef object plain_part(object part, str op):
    if is_plain(part):
        return part
    if type(part) is slice:
        try:
            return slice(plain_bound(part.start, op), plain_bound(part.stop, op), plain_bound(part.step, op))
        except TypeError:
            raise TypeError(f"{op}: slice indices must be integers or None, got {reprlib.repr(part)}") from None
    if isinstance(part, (bool, np.ndarray, np.bool_, list, tuple, Tensor)) or not hasattr(part, "__index__") \
            or (hasattr(part, "__array__") and not isinstance(part, np_integer)):
        return part
    return plain_bound(part, op)

cdef object plain_bound(object bound, str op):
    if bound is None:
        return None
    try:
        return operator.index(bound)
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"{op}: an index must be made of ints, got {type(bound).__name__}: {error}") from None


cdef inline bint is_int(object part) noexcept:
    return type(part) is int or isinstance(part, np_integer) or (isinstance(part, int) and not isinstance(part, bool))


cdef int raise_pending() except -1:
    """Raise the exception that a function of C has set."""
    return -1

cdef int slice_error(str op) except -1:
    try:
        return raise_pending()
    except (TypeError, ValueError) as error:
        raise type(error)(f"{op}: {error}") from None


cdef cnp.ndarray region(cnp.ndarray x, object index, str op):
    """x[index] as a view, or None if the index is not basic."""
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef char *data = <char *>cnp.PyArray_DATA(x)
    cdef bint several = type(index) is tuple
    cdef int nd = cnp.PyArray_NDIM(x), axis = 0, to = 0, used = 0, new = 0, dots = 0, left
    cdef Py_ssize_t parts = len(<tuple>index) if several else 1, p, i, start, stop, step
    for p in range(parts):
        part = (<tuple>index)[p] if several else index
        if part is None:
            new += 1
        elif part is Ellipsis:
            dots += 1
        elif type(part) is slice or is_int(part):
            used += 1
        else:
            return None
    if used > nd:
        raise IndexError(f"{op}: too many indices: the tensor has {nd} dimensions, but {used} were indexed")
    if dots > 1:
        raise IndexError(f"{op}: an index can only have a single ellipsis ('...')")
    if nd + new > MAX_DIMS:
        raise IndexError(f"{op}: the result would have more than {MAX_DIMS} dimensions")
    for p in range(parts + (not dots)):
        part = Ellipsis if p == parts else (<tuple>index)[p] if several else index
        if part is None:
            shape[to], strides[to] = 1, 0
            to += 1
        elif part is Ellipsis:
            for left in range(nd - used):
                shape[to], strides[to] = cnp.PyArray_DIM(x, axis), cnp.PyArray_STRIDE(x, axis)
                axis += 1
                to += 1
        elif type(part) is slice:
            if PySlice_Unpack(part, &start, &stop, &step) < 0:
                slice_error(op)
            shape[to] = PySlice_AdjustIndices(cnp.PyArray_DIM(x, axis), &start, &stop, step)
            strides[to] = cnp.PyArray_STRIDE(x, axis) * step
            if shape[to] > 0:
                data += start * cnp.PyArray_STRIDE(x, axis)
            axis += 1
            to += 1
        else:
            i = PyNumber_AsSsize_t(part, IndexError)
            if i == -1 and PyErr_Occurred() != NULL:
                if not PyErr_ExceptionMatches(IndexError):
                    raise_pending()
                PyErr_Clear()
                i = cnp.PyArray_DIM(x, axis)
            if i < 0:
                i += cnp.PyArray_DIM(x, axis)
            if not 0 <= i < cnp.PyArray_DIM(x, axis):
                raise IndexError(f"{op}: index {part} is out of bounds for axis {axis} with size {cnp.PyArray_DIM(x, axis)}, "
                                 f"in a tensor of shape {(<object>x).shape}")
            data += i * cnp.PyArray_STRIDE(x, axis)
            axis += 1
    return view_of(x, to, shape, strides, data)


# y = x[index], a view             dx = zeros but dx[index] = dy

cdef Tensor slice_view(Tensor x, cnp.ndarray view, object index, str name):
    cdef Tensor y = wrap(view)
    mark_view(y, x)
    if tracked(x):
        record1(y, slice_rule, name, x).extra = (index, x.shape)
    return y

cdef Tensor sliced(Tensor x, object index, str name):
    """x[index] for a basic index, recorded under the name of the op that it is a part of."""
    return slice_view(x, region(x._array, index, name), index, name)

cdef int slice_rule(Node node, Tensor dy) except -1:
    index, shape = <tuple>node.extra
    if node.run.create_graph:
        return node.give(0, put(dy, index, shape), True)
    if node.wants(0):
        add_into(region(node.buffer(0, shape, cnp.PyArray_TYPE(dy._array))._array, index, node.name), dy._array)
    return 0


# ---------------------------------------------------------------- other indices

cdef extern from *:
    """
    /* Where memory runs out NumPy may fail without an exception. */
    static PyObject *mg_get_item(PyObject *x, PyObject *index) {
        PyObject *found = PyObject_GetItem(x, index);
        if (!found && !PyErr_Occurred()) PyErr_NoMemory();
        return found;
    }
    static int mg_set_item(PyObject *x, PyObject *index, PyObject *value) {
        int status = PyObject_SetItem(x, index, value);
        if (status < 0 && !PyErr_Occurred()) PyErr_NoMemory();
        return status;
    }
    """
    object get_item "mg_get_item"(object x, object index)
    int set_item "mg_set_item"(object x, object index, object value) except -1


cdef object owned(object index, str op):
    """An index that is not basic, with lists made arrays and arrays copied."""
    if type(index) is tuple:
        parts = []
        for part in <tuple>index:
            parts.append(owned_part(part, op))
        return tuple(parts)
    return owned_part(index, op)

cdef object owned_part(object part, str op):
    if isinstance(part, Tensor):
        raise TypeError(f"{op}: a Tensor of floats cannot index: use an integer or boolean NumPy array")
    if isinstance(part, masked_array):
        raise TypeError(f"{op}: a masked array cannot index, the mask would be lost: use part.filled(value)")
    if not isinstance(part, (list, tuple, range, np.ndarray)) and not hasattr(part, "__array__"):
        if part is None or part is Ellipsis or isinstance(part, (slice, bool, int, np.generic)):
            return part
        check_data(part, op, "index")
        raise IndexError(f"{op}: only integers, slices, None, '...' and arrays of ints or bool can index, "
                         f"got {type(part).__name__}")
    return index_array(part, op, "index")

cdef object index_array(object part, str op, str name):
    """An array of our own."""
    try:
        array = np.array(made_array(part, op, name))
    except ValueError as error:
        raise IndexError(*error.args) from None
    return array.astype(np.intp) if array.size == 0 and not hasattr(part, "dtype") else array


cdef cnp.ndarray row_numbers(cnp.ndarray index, Py_ssize_t rows, bint negative, str op):
    """index, an array of ints, as int64 row numbers of our own, from 0 to rows - 1; `negative` ones
    count from the end."""
    cdef cnp.ndarray found = <cnp.ndarray>PyArray_EMPTY(cnp.PyArray_NDIM(index), cnp.PyArray_DIMS(index), cnp.NPY_INT64, 0)
    cdef int64_t *data = <int64_t *>cnp.PyArray_DATA(found)
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(found)
    cdef int64_t row
    PyArray_CopyInto(found, index)
    if (<object>index).dtype.kind == "u":           # from 2^63 on they have become negative
        negative = False
    for i in range(n):
        row = data[i]
        if row < 0 and negative:
            row += rows
            data[i] = row
        if row < 0 or row >= rows:
            place = tuple(map(int, np.unravel_index(i, (<object>index).shape)))
            if op == "embedding":
                raise IndexError(f"embedding: indices must be from 0 to {rows - 1}, got {index[place]} at position {place}")
            raise IndexError(f"{op}: index {index[place]} is out of bounds for axis 0 with size {rows}, "
                             f"at position {place} of the index")
    return found


# y[i] = x[rows[i]]                dx = zeros, and dx[rows[i]] += dy[i]

cdef Tensor gathered(Tensor x, cnp.ndarray rows, str name):
    """The rows of x (its parts along axis 0) with the given numbers, as row_numbers made them."""
    cdef cnp.npy_intp shape[2 * MAX_DIMS]
    cdef int nd = cnp.PyArray_NDIM(rows), d
    cdef size_t length = 1, n = cnp.PyArray_SIZE(rows)
    cdef const mg_kernels *K = kernels_of(x._array)
    cdef cnp.ndarray value
    if nd + cnp.PyArray_NDIM(x._array) - 1 > MAX_DIMS:
        raise IndexError(f"{name}: the result would have more than {MAX_DIMS} dimensions")
    for d in range(nd):
        shape[d] = cnp.PyArray_DIM(rows, d)
    for d in range(1, cnp.PyArray_NDIM(x._array)):
        shape[nd] = cnp.PyArray_DIM(x._array, d)
        length *= shape[nd]
        nd += 1
    if PyArray_CHKFLAGS(x._array, cnp.NPY_ARRAY_C_CONTIGUOUS):
        value = new_array(nd, shape, cnp.PyArray_TYPE(x._array), False)
        if n * length < LONG:
            K.gather(n, <int64_t *>cnp.PyArray_DATA(rows), length, cnp.PyArray_DATA(x._array), cnp.PyArray_DATA(value))
        else:
            with nogil:
                K.gather(n, <int64_t *>cnp.PyArray_DATA(rows), length, cnp.PyArray_DATA(x._array), cnp.PyArray_DATA(value))
    else:
        value = x._array.take(rows, axis=0)
    cdef Tensor y = wrap(value)
    if tracked(x):
        record1(y, pick_rule, name, x).extra = (rows, x.shape)
    return y


# y = x[index], a copy             dx = zeros, and dx[index] += dy, in the order of the index

cdef Tensor picked(Tensor x, object index):
    cdef cnp.ndarray value
    cdef Tensor y
    if type(index) is not np.ndarray or index.dtype.kind not in "iub":
        index = owned(index, "index")
    if type(index) is np.ndarray:
        if index.dtype.kind in "iu" and cnp.PyArray_NDIM(x._array):
            return gathered(x, row_numbers(<cnp.ndarray>index, cnp.PyArray_DIM(x._array, 0), True, "index"), "index")
        index = index.copy()
    try:
        value = np.asarray(get_item(x._array, index))
    except (IndexError, OverflowError) as error:
        raise IndexError(f"index: {error}, in a tensor of shape {x.shape}") from None
    y = wrap(value.copy() if np.may_share_memory(value, x._array) else value)
    if tracked(x):
        record1(y, pick_rule, "index", x).extra = (index, x.shape)
    return y

cdef int pick_rule(Node node, Tensor dy) except -1:
    index, shape = <tuple>node.extra
    if node.run.create_graph:
        return node.give(0, put(dy, index, shape), True)
    if node.wants(0):
        add_at(node.buffer(0, shape, cnp.PyArray_TYPE(dy._array))._array, index, dy)
    return 0


cdef int add_at(cnp.ndarray y, object index, Tensor values) except -1:
    """y[index] += values for a contiguous y and an index of `picked`: row numbers, a mask, or a
    tuple."""
    cdef const mg_kernels *K = kernels_of(y)
    cdef cnp.ndarray rows, source, order
    cdef size_t n, length
    if type(index) is np.ndarray and index.dtype.kind == "b":
        y[index] += values._array
        return 0
    if type(index) is not np.ndarray:               # the numbers of the elements it names, which are then rows of length 1
        index = np.ascontiguousarray(np.arange(y.size).reshape((<object>y).shape)[index], np.int64)
        y = y.reshape(-1)
    if cnp.PyArray_SIZE(values._array):
        rows, source = <cnp.ndarray>index, contiguous(values)
        order = in_order(rows, cnp.PyArray_DIM(y, 0))
        n = cnp.PyArray_SIZE(rows)
        length = cnp.PyArray_SIZE(source) // n
        if n * length < LONG:
            K.scatter_add(n, <int64_t *>cnp.PyArray_DATA(rows), <int64_t *>cnp.PyArray_DATA(order), length,
                          cnp.PyArray_DATA(source), cnp.PyArray_DATA(y))
        else:
            with nogil:
                K.scatter_add(n, <int64_t *>cnp.PyArray_DATA(rows), <int64_t *>cnp.PyArray_DATA(order), length,
                              cnp.PyArray_DATA(source), cnp.PyArray_DATA(y))
    return 0


cdef cnp.ndarray in_order(cnp.ndarray rows, Py_ssize_t count):
    """The positions in `rows`, numbers below count, by ascending number and then position: by
    counting where that is less work."""
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(rows)
    if n < count // 8:
        return np.ascontiguousarray(rows.ravel().argsort(kind="stable"), np.int64)
    cdef cnp.ndarray starts = np.zeros(count + 1, np.int64), order = np.empty(n, np.int64)
    cdef int64_t *start = <int64_t *>cnp.PyArray_DATA(starts)
    cdef int64_t *found = <int64_t *>cnp.PyArray_DATA(order)
    cdef const int64_t *row = <const int64_t *>cnp.PyArray_DATA(rows)
    with nogil:
        for i in range(n):
            start[row[i] + 1] += 1
        for i in range(count):
            start[i + 1] += start[i]
        for i in range(n):
            found[start[row[i]]] = i
            start[row[i]] += 1
    return order


# y = zeros, and y[index] += v: the gradient of indexing as an op          dv = dy[index]

cdef Tensor put(Tensor values, object index, tuple shape):
    cdef Tensor y = wrap(np.zeros(shape, (<object>values._array).dtype))
    cdef cnp.ndarray part = region(y._array, index, "put")
    if part is not None:
        PyArray_CopyInto(part, values._array)
    else:
        add_at(y._array, index, values)
    if tracked(values):
        record1(y, put_rule, "put", values).extra = index
    return y

cdef int put_rule(Node node, Tensor dy) except -1:
    return node.give(0, getitem(dy, node.extra), False)


cdef Tensor getitem(object x, object index):
    """x[index]: what Tensor.__getitem__ calls."""
    cdef Tensor t = <Tensor>x
    if not all_plain(index):
        index = plain(index, "index")
    cdef cnp.ndarray view = region(t._array, index, "index")
    return picked(t, index) if view is None else slice_view(t, view, index, "index")


# ---------------------------------------------------------------- assignment

cdef int check_writable(Tensor x, str op) except -1:
    """May x's memory be changed in place?"""
    cdef cnp.ndarray array = x._array
    cdef int d
    if recording() and x._requires_grad and x.node is None:
        raise RuntimeError(f"{op}: a leaf that requires grad cannot be changed in place while recording: "
                           "use no_grad() to set its value")
    for d in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_STRIDE(array, d) == 0 and cnp.PyArray_DIM(array, d) > 1 and cnp.PyArray_SIZE(array):
            raise RuntimeError(f"{op}: several elements of an expanded view share one memory location: copy it first")
    if not PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_WRITEABLE):
        raise ValueError(f"{op}: the tensor's memory is read-only")
    return 0


cdef bint check_history(Tensor x, Tensor v, str op) except -1:
    """Is a change of x by v recorded? It must then be possible to record it."""
    cdef Tensor owner = owner_of(x)
    if not recording():
        return False
    if not (x._requires_grad or v._requires_grad or stale(x) or stale(v)
            or (owner is not None and owner._requires_grad and x.seen != DETACHED)):
        return False
    settle(x)
    if x.seen == DETACHED:
        raise RuntimeError(f"{op}: the tensor shares memory with the one that it was detached from, whose history would miss the change: "
                           f"copy it first, as in x.detach() * 1")
    if x.seen <= UNRECORDED:
        raise RuntimeError(f"{op}: the tensor is a view that was taken under no_grad() and shares memory with the tensor that it was "
                           f"taken from, whose history would miss the change: take the view while recording, or copy it first")
    if owner is not None and owner is not x and owner._requires_grad and owner.node is None and x.seen >= 0:
        raise RuntimeError(f"{op}: a view of a leaf that requires grad cannot be changed in place while recording: "
                           "use no_grad() to set its value")
    checked_slot(x, op)
    checked_slot(v, op)
    return True


cdef int check_broadcast(cnp.ndarray value, cnp.ndarray place, str op) except -1:
    cdef int lead = cnp.PyArray_NDIM(place) - cnp.PyArray_NDIM(value), d
    cdef bint fits = lead >= 0
    if fits:
        for d in range(cnp.PyArray_NDIM(value)):
            fits &= cnp.PyArray_DIM(value, d) == 1 or cnp.PyArray_DIM(value, d) == cnp.PyArray_DIM(place, lead + d)
    if not fits:
        raise ValueError(f"{op}: could not broadcast a value of shape {(<object>value).shape} "
                         f"into a place of shape {(<object>place).shape}")
    return 0


# x[index] = v             dx = dy but zero at the index, dv = dy[index]

cdef int setitem(Tensor x, object index, object value) except -1:
    """What Tensor.__setitem__ calls. The history of x goes on: from here on x is the output of the
    assignment."""
    cdef Tensor v = as_operand(value, x, "assignment"), part
    if not all_plain(index):
        index = plain(index, "assignment")
    cdef cnp.ndarray place = region(x._array, index, "assignment")
    cdef bint basic = place is not None, recorded
    if not basic:
        index = owned(index, "assignment")
        try:
            place = np.asarray(get_item(x._array, index))
        except (IndexError, OverflowError) as error:
            raise IndexError(f"assignment: {error}, in a tensor of shape {x.shape}") from None
    check_writable(x, "assignment")
    check_broadcast(v._array, place, "assignment")
    if basic and same_place(x, v, place):       # x[i] += y has changed x[i] by now
        return 0
    recorded = check_history(x, v, "assignment")
    if recorded and not basic and x.seen != OWN and owner_of(x) is not None:
        part = mul(x, 1.0)
        setitem(part, index, v)
        change(x, x._array, part, "assignment")
    elif recorded and basic and x.seen != OWN and owner_of(x) is not None:
        change(x, place, v, "assignment")
    else:
        if basic:
            copy_into(place, v._array)
        else:
            # For a mask NumPy reads and writes the same memory in one pass.
            set_item(x._array, index, v._array.copy() if np.may_share_memory(x._array, v._array) else v._array)
        bump(x)
        if recorded:
            record2(x, setitem_rule, "assignment", x, v).extra = (index, v.shape, basic)
            count_change(x)
    return 0

cdef bint same_place(Tensor x, Tensor v, cnp.ndarray place) except -1:
    """Is v the part of x that `place` is, also as far as gradients go?"""
    cdef int nd = cnp.PyArray_NDIM(place), d
    if v.version is None or v.version is not x.version or stale(x) or stale(v) or (v is not x and (v.seen < 0 or x.seen < OWN)):
        return False
    if cnp.PyArray_DATA(v._array) != cnp.PyArray_DATA(place) or cnp.PyArray_NDIM(v._array) != nd:
        return False
    for d in range(nd):
        if (cnp.PyArray_DIM(v._array, d) != cnp.PyArray_DIM(place, d)
                or (cnp.PyArray_DIM(place, d) > 1 and cnp.PyArray_STRIDE(v._array, d) != cnp.PyArray_STRIDE(place, d))):
            return False
    return True

cdef int count_change(Tensor x) except -1:
    """A change of x's memory is on the tape, as part of x's history: views do not know of it."""
    x.version.recorded += 1
    if x.seen >= 0:
        x.seen = x.version.recorded
    return 0

cdef int copy_into(cnp.ndarray place, cnp.ndarray value) except -1:
    """place = value, broadcast; they may overlap."""
    cdef int nd = cnp.PyArray_NDIM(place)
    if (cnp.PyArray_SIZE(place) == cnp.PyArray_SIZE(value) and PyArray_CHKFLAGS(place, cnp.NPY_ARRAY_C_CONTIGUOUS)
            and PyArray_CHKFLAGS(value, cnp.NPY_ARRAY_C_CONTIGUOUS)):
        memmove(cnp.PyArray_DATA(place), cnp.PyArray_DATA(value), cnp.PyArray_NBYTES(place))
        return 0
    return PyArray_CopyInto(place, value)

cdef int setitem_rule(Node node, Tensor dy) except -1:
    cdef Tensor dv
    cdef cnp.ndarray place
    index, shape, basic = <tuple>node.extra
    if node.run.create_graph:
        if node.wants(1):
            node.give_unbroadcast(1, assigned(getitem(dy, index), index, basic, dy.shape), shape, False)
        if node.wants(0):
            mask = np.zeros(dy.shape, np.bool_)
            mask[index] = True
            node.give(0, where(mask, 0.0, dy), True)
        return 0
    if node.wants(1):
        if basic:
            place = region(dy._array, index, "assignment")
            dv = wrap(array_like(place))
            copy_into(dv._array, place)
        else:
            dv = assigned(getitem(dy, index), index, basic, dy.shape)
        node.give_unbroadcast(1, dv, shape, True)
    if node.wants(0):
        if not node.fresh or node.hooks or (node.run.wanted is not None and node in node.run.wanted):
            dy = wrap(copied(dy._array))               # others see this gradient; the one that goes on is ours
        if basic:
            place = region(dy._array, index, "assignment")
            if PyArray_CHKFLAGS(place, cnp.NPY_ARRAY_C_CONTIGUOUS):
                memset(cnp.PyArray_DATA(place), 0, cnp.PyArray_NBYTES(place))
            else:
                place.fill(0)
        else:
            set_item(dy._array, index, 0)
        node.give(0, dy, True)
    return 0

cdef Tensor assigned(Tensor dv, object index, bint basic, tuple shape):
    """dv = dy[index], zero for the values that did not stay: where the index names an element
    several times, the last one did."""
    if basic:
        return dv
    order = np.arange(cnp.PyArray_SIZE(dv._array)).reshape(dv.shape)
    stayed = np.zeros(shape, np.intp)
    stayed[index] = order
    return where(stayed[index] == order, dv, 0.0)


# ---------------------------------------------------------------- parts of memory
#
# A view that is changed, or read after its memory was changed, is recorded as a part of its owner,
# by place in memory: which ops made the view does not matter. A place is (offset, shape, strides,
# the owner's shape and strides), in elements.

cdef tuple place_in(cnp.ndarray part, cnp.ndarray whole):
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(whole)
    cdef Py_ssize_t offset = <char *>cnp.PyArray_DATA(part) - <char *>cnp.PyArray_DATA(whole)
    return (offset // item, (<object>part).shape, steps_of(part, item),
            (<object>whole).shape, steps_of(whole, item))

cdef tuple steps_of(cnp.ndarray array, Py_ssize_t item):
    """The strides in elements."""
    steps = []
    for d in range(cnp.PyArray_NDIM(array)):
        steps.append(cnp.PyArray_STRIDE(array, d) // item)
    return tuple(steps)

cdef cnp.ndarray part_of(cnp.ndarray dy, tuple place):
    """The place in a gradient of the owner, as a view; None if no strides express it: gradients are
    in C order, the owner may not be."""
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(dy), offset, expected = 1
    cdef int d
    offset, part_shape, part_strides, whole_shape, whole_strides = place
    if not PyArray_CHKFLAGS(dy, cnp.NPY_ARRAY_C_CONTIGUOUS):
        return None
    for d in range(len(whole_shape) - 1, -1, -1):
        if whole_shape[d] > 1 and whole_strides[d] != expected:
            return None
        expected *= whole_shape[d]
    for d in range(len(part_shape)):
        shape[d], strides[d] = part_shape[d], part_strides[d] * item
        if shape[d] > 1 and strides[d] == 0:
            return None
    return view_of(dy, len(part_shape), shape, strides, <char *>cnp.PyArray_DATA(dy) + offset * item)

cdef cnp.ndarray numbers_of(tuple place):
    """For each element of the place its number in the owner, counted in C order."""
    offset, shape, strides, whole_shape, whole_strides = place
    left = np.full(shape, offset, np.int64)
    for d, (n, step) in enumerate(zip(shape, strides)):
        left += (np.arange(n) * step).reshape((n,) + (1,) * (len(shape) - 1 - d))
    number = np.zeros(shape, np.int64)
    size = int(np.prod(whole_shape))
    axes = sorted(range(len(whole_shape)), key=lambda axis: -abs_of(whole_strides[axis]))
    weights = []
    for axis in range(len(whole_shape)):
        weights.append(int(np.prod(whole_shape[axis + 1:])))
    for axis in axes:                                   # memory is counted from its lowest address
        if whole_strides[axis] < 0:
            left -= whole_strides[axis] * (whole_shape[axis] - 1)
    for axis in axes:
        if whole_shape[axis] == 1 or size == 0:
            continue
        at = left // abs_of(whole_strides[axis])
        left -= at * abs_of(whole_strides[axis])
        number += (at if whole_strides[axis] > 0 else whole_shape[axis] - 1 - at) * weights[axis]
    return number

cdef object abs_of(object number):
    return -number if number < 0 else number


# y = the part of x at a place             dx = zeros, and dx there += dy

cdef int renew(Tensor x, str name) except -1:
    """Record x, a view of memory that was changed since, as a part of what the memory's owner is
    now."""
    cdef Tensor owner = owner_of(x)
    if x.seen <= UNRECORDED:
        raise RuntimeError(f"{name}: an input of shape {x.shape} is a stale view: it was taken under no_grad(), and its memory was "
                           f"assigned to since: take the view again while recording, or copy it when it is taken")
    if owner is None or (x._requires_grad and x.node is None):
        raise RuntimeError(f"{name}: an input of shape {x.shape} is a stale view: its memory was assigned to since it was taken, and the "
                           f"tensor that it was taken from is gone: take the view again, or copy it when it is taken")
    if owner._requires_grad:
        record1(x, part_rule, "view", owner).extra = place_in(x._array, owner._array)
    x.seen = x.version.recorded
    return 0

cdef int part_rule(Node node, Tensor dy) except -1:
    cdef tuple place = <tuple>node.extra, whole = place[3]
    cdef cnp.ndarray buffer, part
    if node.run.create_graph:
        flat = put(dy, numbers_of(place), (int(np.prod(whole)),))
        return node.give(0, (<object>flat).reshape(whole), False)
    if node.wants(0):
        buffer = node.buffer(0, whole, cnp.PyArray_TYPE(dy._array))._array
        part = part_of(buffer, place)
        if part is not None:
            add_into(part, dy._array)
        else:
            np.add.at(buffer, np.unravel_index(numbers_of(place), whole), dy._array)
    return 0


# x, but v at a place              dx = dy but zero there, dv = dy there

cdef int change(Tensor x, cnp.ndarray place, Tensor v, str name) except -1:
    """Write v into `place`, a part of the view x, as an op of the memory's owner."""
    cdef Tensor owner = owner_of(x)
    copy_into(place, v._array)
    bump(x)
    record2(owner, change_rule, name, owner, v).extra = (place_in(place, owner._array), v.shape)
    count_change(owner)
    return renew(x, name)

cdef int change_rule(Node node, Tensor dy) except -1:
    cdef cnp.ndarray part, whole
    cdef object gradient = dy
    place, shape = <tuple>node.extra
    if node.run.create_graph:
        numbers = numbers_of(place)
        if node.wants(1):
            node.give_unbroadcast(1, getitem(gradient.reshape((dy.size,)), numbers), shape, False)
        if node.wants(0):
            mask = np.zeros(dy.size, np.bool_)
            mask[numbers] = True
            node.give(0, where(mask.reshape(dy.shape), 0.0, dy), True)
        return 0
    whole = copied(dy._array)
    part = part_of(whole, place)
    numbers = np.unravel_index(numbers_of(place), place[3]) if part is None else None
    if node.wants(1):
        node.give_unbroadcast(1, wrap(copied(part) if part is not None else np.asarray((<object>whole)[numbers])), shape, True)
    if node.wants(0):
        if part is not None:
            part.fill(0)
        else:
            (<object>whole)[numbers] = 0
        node.give(0, wrap(whole), True)
    return 0


# ---------------------------------------------------------------- x += y and the like

cdef Tensor inplace(Tensor x, object y, Binary op, str name):
    """x with op(x, y) written into its memory: what Tensor.__iadd__ and the others call."""
    cdef Tensor a = x, b, z
    cdef bint recorded
    check_writable(x, name)
    b = as_operand(y, x, name)
    recorded = check_history(x, b, name)
    if recorded:
        if name != "+=" and name != "-=" and (b._requires_grad or name == "**="):
            a = copy_of(x)              # the rule reads what x was
        if b is x or (b.version is not None and b.version is x.version):
            b = copy_of(b)
    z = op(a, b)
    check_result(z, x, name)
    if not recorded:
        copy_into(x._array, z._array)
        bump(x)
    elif x.seen != OWN and owner_of(x) is not None:
        change(x, x._array, z, name)
    else:
        copy_into(x._array, z._array)
        bump(x)
        x.node, x._requires_grad = z.node, z._requires_grad
        count_change(x)
    return x

cdef int check_result(Tensor z, Tensor x, str name) except -1:
    if z.shape != x.shape:
        raise ValueError(f"{name}: the tensor has shape {x.shape}, the result has {z.shape}: only the right side is broadcast in place")
    return 0

cdef Tensor copy_of(Tensor x):
    """x with memory of its own and the same history."""
    cdef Tensor y
    if x._requires_grad and x.node is None:
        return mul(x, 1.0)
    y = wrap(copied(x._array))
    y.node, y._requires_grad = x.node, x._requires_grad
    return y


# ---------------------------------------------------------------- embedding

# y[i] = W[indices[i]]             dW = zeros, and dW[indices[i]] += dy[i], i ascending

def embedding(weight, indices) -> Tensor:
    """The rows of `weight` (N, D) with the given numbers: integers from 0 to N - 1 of any shape
    (...), giving (..., D).

    A number out of range, negative ones too, is an IndexError that names it and its position.

    >>> import minigrad as mg
    >>> mg.embedding(mg.Tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0, 1])
    Tensor([[3., 4.],
            [1., 2.],
            [3., 4.]])
    """
    cdef Tensor w = as_input(weight, "embedding")
    cdef cnp.ndarray array
    if isinstance(indices, Tensor):
        raise TypeError("embedding: a Tensor of floats cannot index: use an integer NumPy array")
    if cnp.PyArray_NDIM(w._array) != 2:
        raise ValueError(f"embedding: weight must have shape (N, D), got {w.shape}")
    array = <cnp.ndarray>indices if type(indices) is np.ndarray and indices.dtype.kind in "iu" else index_array(indices, "embedding", "indices")
    if (<object>array).dtype.kind not in "iu":
        raise TypeError(f"embedding: indices must be integers, got {array.dtype}")
    return gathered(w, row_numbers(array, cnp.PyArray_DIM(w._array, 0), False, "embedding"), "embedding")


operators.getitem, operators.setitem, operators.inplace, operators.renew = getitem, setitem, inplace, renew
