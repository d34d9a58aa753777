# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Reading by index: x[index], and embedding. Assigning is in assign.pyx.

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
from minigrad.core.array cimport PyArray_CHKFLAGS, add_into, is_masked, kernels_of, view_of
from minigrad.core.kernels cimport LONG, MAX_DIMS, mg_kernels, new_array
from minigrad.core.operands cimport as_input
from minigrad.core.tape cimport mark_view, record1
from minigrad.core.tensor cimport Node, Tensor, contiguous, operators, tracked, wrap

import operator
import reprlib

import numpy as np

from minigrad.core.array import check_data, made_array

cnp.import_array()

cdef extern from "Python.h":
    ctypedef struct PySliceObject:
        PyObject *start
        PyObject *stop
        PyObject *step
    PyObject *Py_None
    bint PyLong_CheckExact(PyObject *x) noexcept
    Py_ssize_t PyTuple_GET_SIZE(object x) noexcept
    PyObject *PyTuple_GET_ITEM(object x, Py_ssize_t i) noexcept
    int PySlice_Unpack(object slice, Py_ssize_t *start, Py_ssize_t *stop, Py_ssize_t *step) noexcept
    Py_ssize_t PySlice_AdjustIndices(Py_ssize_t length, Py_ssize_t *start, Py_ssize_t *stop,
                                     Py_ssize_t step) noexcept
    Py_ssize_t PyNumber_AsSsize_t(object number, object error) noexcept
    PyObject *PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(object error) noexcept
    void PyErr_Clear() noexcept

cdef extern from "numpy/arrayobject.h":
    object PyArray_EMPTY(int nd, cnp.npy_intp *dims, int typenum, int fortran)
    int PyArray_CopyInto(cnp.ndarray target, cnp.ndarray source) except -1

cdef object np_integer = np.integer


# ---------------------------------------------------------------- basic indices

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

cdef bint all_plain(object index) noexcept:
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
            return slice(plain_bound(part.start, op), plain_bound(part.stop, op),
                         plain_bound(part.step, op))
        except TypeError:
            raise TypeError(f"{op}: slice indices must be integers or None, "
                            f"got {reprlib.repr(part)}") from None
    if isinstance(part, np_integer):
        return plain_bound(part, op)
    if isinstance(part, (bool, np.ndarray, np.bool_, list, tuple, Tensor)):
        return part
    if not hasattr(part, "__index__") or hasattr(part, "__array__"):
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
        raise TypeError(f"{op}: an index must be made of ints, "
                        f"got {type(bound).__name__}: {error}") from None


cdef inline bint is_int(object part) noexcept:
    if type(part) is int or isinstance(part, np_integer):
        return True
    return isinstance(part, int) and not isinstance(part, bool)


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
    cdef int nd = cnp.PyArray_NDIM(x), axis = 0, to = 0, used = 0, new = 0, dots = 0
    cdef Py_ssize_t parts = len(<tuple>index) if several else 1, p
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
        raise IndexError(f"{op}: too many indices: the tensor has {nd} dimensions, "
                         f"but {used} were indexed")
    if dots > 1:
        raise IndexError(f"{op}: an index can only have a single ellipsis ('...')")
    if nd + new > MAX_DIMS:
        raise IndexError(f"{op}: the result would have more than {MAX_DIMS} dimensions")
    for p in range(parts + (not dots)):
        if p == parts:
            part = Ellipsis             # what is not named comes last
        else:
            part = (<tuple>index)[p] if several else index
        if part is None:
            shape[to] = 1
            strides[to] = 0
            to += 1
        elif part is Ellipsis:
            for _ in range(nd - used):
                shape[to] = cnp.PyArray_DIM(x, axis)
                strides[to] = cnp.PyArray_STRIDE(x, axis)
                axis += 1
                to += 1
        elif type(part) is slice:
            data += sliced_axis(x, axis, part, &shape[to], &strides[to], op)
            axis += 1
            to += 1
        else:
            data += position(x, axis, part, op) * cnp.PyArray_STRIDE(x, axis)
            axis += 1
    return view_of(x, to, shape, strides, data)

cdef Py_ssize_t sliced_axis(cnp.ndarray x, int axis, object part, cnp.npy_intp *length,
                            cnp.npy_intp *stride, str op) except? -1:
    """Length and stride of a sliced axis, and by how many bytes its first element is further on."""
    cdef Py_ssize_t start, stop, step
    if PySlice_Unpack(part, &start, &stop, &step) < 0:
        slice_error(op)
    length[0] = PySlice_AdjustIndices(cnp.PyArray_DIM(x, axis), &start, &stop, step)
    stride[0] = cnp.PyArray_STRIDE(x, axis)
    if length[0] > 1:                   # else a step may be too large to be multiplied
        stride[0] *= step
    return start * cnp.PyArray_STRIDE(x, axis) if length[0] > 0 else 0

cdef Py_ssize_t position(cnp.ndarray x, int axis, object part, str op) except -1:
    """An int as a position along an axis, counted from the start."""
    cdef Py_ssize_t i = PyNumber_AsSsize_t(part, IndexError), size = cnp.PyArray_DIM(x, axis)
    if i == -1 and PyErr_Occurred() != NULL:
        if not PyErr_ExceptionMatches(IndexError):
            raise_pending()
        PyErr_Clear()
        i = size
    if i < 0:
        i += size
    if not 0 <= i < size:
        raise IndexError(f"{op}: index {part} is out of bounds for axis {axis} with size {size}, "
                         f"in a tensor of shape {(<object>x).shape}")
    return i


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
    cdef Tensor dx
    index, shape = <tuple>node.extra
    if node.run.create_graph:
        return node.give(0, put(dy, index, shape), True)
    dx = node.buffer(0, shape, cnp.PyArray_TYPE(dy._array))
    return add_into(region(dx._array, index, node.name), dy._array)


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
        raise TypeError(
            f"{op}: a Tensor of floats cannot index: use an integer or boolean NumPy array")
    if is_masked(part):
        raise TypeError(f"{op}: a masked array cannot index, the mask would be lost: "
                        f"use part.filled(value)")
    if not isinstance(part, (list, tuple, range, np.ndarray)) and not hasattr(part, "__array__"):
        if part is None or part is Ellipsis or isinstance(part, (slice, bool, int, np.generic)):
            return part
        check_data(part, op, "index")
        raise IndexError(f"{op}: only integers, slices, None, '...' and arrays of ints or bool "
                         f"can index, got {type(part).__name__}")
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
    cdef cnp.ndarray found = new_array(cnp.PyArray_NDIM(index), cnp.PyArray_DIMS(index),
                                       cnp.NPY_INT64, False)
    cdef int64_t *data = <int64_t *>cnp.PyArray_DATA(found)
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(found)
    cdef int64_t row
    PyArray_CopyInto(found, index)
    # Of unsigned ones those from 2^63 on have become negative.
    cdef bint from_end = negative and (<object>index).dtype.kind != "u"
    for i in range(n):
        row = data[i]
        if row < 0 and from_end:
            row += rows
            data[i] = row
        if row < 0 or row >= rows:
            place = tuple(map(int, np.unravel_index(i, (<object>index).shape)))
            if not negative:
                raise IndexError(f"{op}: indices must be from 0 to {rows - 1}, "
                                 f"got {index[place]} at position {place}")
            raise IndexError(f"{op}: index {index[place]} is out of bounds for axis 0 with size "
                             f"{rows}, at position {place} of the index")
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
    cdef const int64_t *numbers = <const int64_t *>cnp.PyArray_DATA(rows)
    cdef void *source = cnp.PyArray_DATA(x._array)
    cdef void *to
    if PyArray_CHKFLAGS(x._array, cnp.NPY_ARRAY_C_CONTIGUOUS):
        value = new_array(nd, shape, cnp.PyArray_TYPE(x._array), False)
        to = cnp.PyArray_DATA(value)
        if n * length < LONG:
            K.gather(n, numbers, length, source, to)
        else:
            with nogil:
                K.gather(n, numbers, length, source, to)
    else:
        value = x._array.take(rows, axis=0)
    cdef Tensor y = wrap(value)
    if tracked(x):
        record1(y, pick_rule, name, x).extra = (rows, x.shape)
    return y


# y = x[index], a copy             dx = zeros, and dx[index] += dy, in the order of the index

cdef Tensor picked(Tensor x, object index):
    cdef cnp.ndarray value
    cdef Py_ssize_t count
    cdef Tensor y
    if type(index) is not np.ndarray or index.dtype.kind not in "iub":
        index = owned(index, "index")
    if type(index) is np.ndarray:
        if index.dtype.kind in "iu" and cnp.PyArray_NDIM(x._array):
            count = cnp.PyArray_DIM(x._array, 0)
            return gathered(x, row_numbers(<cnp.ndarray>index, count, True, "index"), "index")
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
    return add_at(node.buffer(0, shape, cnp.PyArray_TYPE(dy._array))._array, index, dy)


cdef int add_at(cnp.ndarray y, object index, Tensor values) except -1:
    """y[index] += values for a contiguous y and an index of `picked`: row numbers, a mask, or a
    tuple."""
    cdef const mg_kernels *K = kernels_of(y)
    cdef cnp.ndarray rows, source, order
    cdef size_t n, length
    cdef const int64_t *numbers
    cdef const int64_t *turns
    cdef const void *given
    cdef void *to
    if type(index) is np.ndarray and index.dtype.kind == "b":
        y[index] += values._array
        return 0
    if type(index) is not np.ndarray:
        # The numbers of the elements that it names, which are then rows of length 1.
        numbered = np.arange(y.size).reshape((<object>y).shape)
        index = np.ascontiguousarray(numbered[index], np.int64)
        y = y.reshape(-1)
    if cnp.PyArray_SIZE(values._array) == 0:
        return 0
    rows = <cnp.ndarray>index
    source = contiguous(values)
    order = in_order(rows, cnp.PyArray_DIM(y, 0))
    n = cnp.PyArray_SIZE(rows)
    length = cnp.PyArray_SIZE(source) // n
    numbers = <const int64_t *>cnp.PyArray_DATA(rows)
    turns = <const int64_t *>cnp.PyArray_DATA(order)
    given = cnp.PyArray_DATA(source)
    to = cnp.PyArray_DATA(y)
    if n * length < LONG:
        K.scatter_add(n, numbers, turns, length, given, to)
    else:
        with nogil:
            K.scatter_add(n, numbers, turns, length, given, to)
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


cdef Tensor getitem(Tensor x, object index):
    """x[index]: what Tensor.__getitem__ calls."""
    if not all_plain(index):
        index = plain(index, "index")
    cdef cnp.ndarray view = region(x._array, index, "index")
    return picked(x, index) if view is None else slice_view(x, view, index, "index")


# ---------------------------------------------------------------- embedding

# y[i] = W[indices[i]]             dW = zeros, and dW[indices[i]] += dy[i], i ascending

def embedding(weight, indices) -> Tensor:
    """The rows of `weight` (N, D) with the given numbers: integers from 0 to N - 1 of any shape
    (...), giving (..., D).

    A number out of range, negative ones too, is an IndexError that names it and its position.

    Args:
        weight: (N, D).
        indices: Ints from 0 to N - 1, of any shape.

    Raises:
        TypeError: `indices` are not ints.
        IndexError: An index is out of range.

    >>> import minigrad as mg
    >>> mg.embedding(mg.Tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0, 1])
    Tensor([[3., 4.],
            [1., 2.],
            [3., 4.]])
    """
    return lookup(weight, indices, "embedding")

cpdef Tensor lookup(weight, indices, str op):
    """`embedding`, which messages call `op`."""
    cdef Tensor w = as_input(weight, op)
    cdef cnp.ndarray array
    if isinstance(indices, Tensor):
        raise TypeError(f"{op}: a Tensor of floats cannot index: use an integer NumPy array")
    if cnp.PyArray_NDIM(w._array) != 2:
        raise ValueError(f"{op}: weight must have shape (N, D), got {w.shape}")
    if type(indices) is np.ndarray and indices.dtype.kind in "iu":
        array = <cnp.ndarray>indices
    else:
        array = index_array(indices, op, "indices")
    if (<object>array).dtype.kind not in "iu":
        raise TypeError(f"{op}: indices must be integers, got {array.dtype}")
    cdef Py_ssize_t count = cnp.PyArray_DIM(w._array, 0)
    return gathered(w, row_numbers(array, count, False, op), "embedding")


operators.getitem = getitem
