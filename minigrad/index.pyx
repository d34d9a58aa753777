# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Indexing: x[index], x[index] = value as a recorded op, and embedding.

A *basic* index is made of ints, slices, None and Ellipsis. x[index] is then a view, and its gradient is added into that part of
x's gradient buffer: taking the T steps of a sequence apart costs O(T), not O(T^2). Any other index (int arrays, masks, lists, and
mixes of these) copies. Row numbers, i.e. an int array alone, have kernels: gather forwards, scatter_add backwards. Where an index
names an element several times, its gradients are added in the order of the index.

The rule keeps the index itself; arrays in it are copied, since the caller may change them before backward.
"""
cimport numpy as cnp
from libc.stdint cimport int64_t
from libc.string cimport memmove, memset
from minigrad.elementwise cimport where
from minigrad.kernels cimport array_like, mg_kernels, new_array
from minigrad.tensor cimport (Node, Tensor, add_into, as_input, as_operand, bump, checked_slot, contiguous, copied, kernels_of, mark_view,
                              operators, record1, record2, recording, tracked, tracked2, wrap)

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        pass
    int PySlice_Unpack(object slice, Py_ssize_t *start, Py_ssize_t *stop, Py_ssize_t *step) except -1
    Py_ssize_t PySlice_AdjustIndices(Py_ssize_t length, Py_ssize_t *start, Py_ssize_t *stop, Py_ssize_t step) noexcept
    Py_ssize_t PyNumber_AsSsize_t(object number, object error) except? -1

cdef extern from "numpy/arrayobject.h":
    object PyArray_EMPTY(int nd, cnp.npy_intp *dims, int typenum, int fortran)
    object PyArray_New(PyTypeObject *type, int nd, cnp.npy_intp *dims, int typenum, cnp.npy_intp *strides, void *data,
                       int itemsize, int flags, object base)
    int PyArray_CopyInto(cnp.ndarray target, cnp.ndarray source) except -1
    int PyArray_CHKFLAGS(cnp.ndarray, int flags) noexcept
    PyTypeObject PyArray_Type

cdef enum:
    MAX_DIMS = 64
    LONG = 16384                # elements from which a kernel runs without the GIL

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


cdef inline bint is_int(object part) noexcept:
    return type(part) is int or isinstance(part, np_integer) or (isinstance(part, int) and not isinstance(part, bool))


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
            try:
                PySlice_Unpack(part, &start, &stop, &step)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{op}: {error}") from None
            shape[to] = PySlice_AdjustIndices(cnp.PyArray_DIM(x, axis), &start, &stop, step)
            strides[to] = cnp.PyArray_STRIDE(x, axis) * step
            if shape[to] > 0:
                data += start * cnp.PyArray_STRIDE(x, axis)
            axis += 1
            to += 1
        else:
            try:
                i = PyNumber_AsSsize_t(part, IndexError)
            except IndexError:
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

cdef object owned(object index, str op):
    """An index that is not basic, with lists made arrays and arrays copied."""
    if type(index) is tuple:
        return tuple([owned_part(part, op) for part in <tuple>index])
    return owned_part(index, op)

cdef object owned_part(object part, str op):
    if isinstance(part, Tensor):
        raise TypeError(f"{op}: a Tensor of floats cannot index: use an integer or boolean NumPy array")
    if isinstance(part, masked_array):
        raise TypeError(f"{op}: a masked array cannot index, the mask would be lost: use part.filled(value)")
    if not isinstance(part, (list, tuple, range, np.ndarray)) and not hasattr(part, "__array__"):
        return part
    try:
        array = np.array(part)
    except ValueError as error:
        raise IndexError(f"{op}: the index is not an array: {error}") from None
    return array.astype(np.intp) if array.size == 0 and not hasattr(part, "dtype") else array


cdef cnp.ndarray row_numbers(cnp.ndarray index, Py_ssize_t rows, bint negative, str op):
    """index, an array of ints, as int64 row numbers of our own, from 0 to rows - 1; `negative` ones count from the end."""
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
            place = tuple([int(k) for k in np.unravel_index(i, (<object>index).shape)])
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
    if type(index) is not np.ndarray:
        index = owned(index, "index")
    if type(index) is np.ndarray:
        if index.dtype.kind in "iu" and cnp.PyArray_NDIM(x._array):
            return gathered(x, row_numbers(<cnp.ndarray>index, cnp.PyArray_DIM(x._array, 0), True, "index"), "index")
        index = index.copy()
    try:
        value = np.asarray(x._array[index])
    except IndexError as error:
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
    """y[index] += values for a contiguous y and an index of `picked`: row numbers, a mask, or a tuple."""
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
    """The positions in `rows`, numbers below count, by ascending number and then position: by counting where that is less work."""
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
    cdef cnp.ndarray view = region(t._array, index, "index")
    return picked(t, index) if view is None else slice_view(t, view, index, "index")


# ---------------------------------------------------------------- assignment

cdef int check_assignable(Tensor x, Tensor v) except -1:
    """May x be assigned to?"""
    cdef cnp.ndarray array = x._array
    cdef int d
    if recording() and x._requires_grad and x.node is None:
        raise RuntimeError("assignment: a leaf that requires grad cannot be changed in place while recording: "
                           "use no_grad() to set its value")
    if tracked2(x, v):
        if x.seen >= 0:
            raise RuntimeError("assignment: a view cannot be assigned to while a gradient is recorded: "
                               "assign to the tensor that it was taken from")
        checked_slot(v, "assignment")
    for d in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_STRIDE(array, d) == 0 and cnp.PyArray_DIM(array, d) > 1 and cnp.PyArray_SIZE(array):
            raise RuntimeError("assignment: several elements of an expanded view share one memory location: copy it first")
    if not PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_WRITEABLE):
        raise ValueError("assignment: the tensor's memory is read-only")
    return 0


cdef int check_broadcast(cnp.ndarray value, cnp.ndarray place) except -1:
    cdef int lead = cnp.PyArray_NDIM(place) - cnp.PyArray_NDIM(value), d
    cdef bint fits = lead >= 0
    if fits:
        for d in range(cnp.PyArray_NDIM(value)):
            fits &= cnp.PyArray_DIM(value, d) == 1 or cnp.PyArray_DIM(value, d) == cnp.PyArray_DIM(place, lead + d)
    if not fits:
        raise ValueError(f"assignment: could not broadcast a value of shape {(<object>value).shape} "
                         f"into a place of shape {(<object>place).shape}")
    return 0


# x[index] = v             dx = dy but zero at the index, dv = dy[index]

cdef int setitem(Tensor x, object index, object value) except -1:
    """What Tensor.__setitem__ calls. The history of x goes on: from here on x is the output of the assignment."""
    cdef Tensor v = as_operand(value, x, "assignment")
    cdef cnp.ndarray place = region(x._array, index, "assignment")
    cdef bint basic = place is not None
    if not basic:
        index = owned(index, "assignment")
        try:
            place = np.asarray(x._array[index])
        except IndexError as error:
            raise IndexError(f"assignment: {error}, in a tensor of shape {x.shape}") from None
    check_assignable(x, v)
    check_broadcast(v._array, place)
    if basic:
        copy_into(place, v._array)
    else:
        x._array[index] = v._array
    bump(x)
    if tracked2(x, v):
        record2(x, setitem_rule, "assignment", x, v).extra = (index, v.shape, basic)
        x.version.recorded += 1         # views of x's memory do not know of this
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
            dy._array[index] = 0
        node.give(0, dy, True)
    return 0

cdef Tensor assigned(Tensor dv, object index, bint basic, tuple shape):
    """dv = dy[index], zero for the values that did not stay: where the index names an element several times, the last one did."""
    if basic:
        return dv
    order = np.arange(cnp.PyArray_SIZE(dv._array)).reshape(dv.shape)
    stayed = np.zeros(shape, np.intp)
    stayed[index] = order
    return where(stayed[index] == order, dv, 0.0)


# ---------------------------------------------------------------- embedding

# y[i] = W[indices[i]]             dW = zeros, and dW[indices[i]] += dy[i], i ascending

def embedding(weight, indices) -> Tensor:
    """The rows of `weight` (N, D) with the given numbers: integers from 0 to N - 1 of any shape (...), giving (..., D).

    A number out of range, negative ones too, is an IndexError that names it and its position.

    >>> import minigrad as mg
    >>> mg.embedding(mg.Tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0, 1])
    Tensor([[3., 4.],
            [1., 2.],
            [3., 4.]])
    """
    cdef Tensor w = as_input(weight, "embedding")
    cdef cnp.ndarray array
    if cnp.PyArray_NDIM(w._array) != 2:
        raise ValueError(f"embedding: weight must have shape (N, D), got {w.shape}")
    array = <cnp.ndarray>indices if type(indices) is np.ndarray else np.asarray(owned_part(indices, "embedding"))
    if (<object>array).dtype.kind not in "iu":
        raise TypeError(f"embedding: indices must be integers, got {array.dtype}")
    return gathered(w, row_numbers(array, cnp.PyArray_DIM(w._array, 0), False, "embedding"), "embedding")


operators.getitem, operators.setitem = getitem, setitem
