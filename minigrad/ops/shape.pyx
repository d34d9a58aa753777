# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Ops that move elements and leave their values: another shape, another order, padding; and cumsum
and astype.

reshape, transpose, swapaxes, squeeze, unsqueeze, broadcast_to and flip give views: the result
shares its input's memory (a reshape that no strides can express copies). What an axis may be is in
axes.pyx, indexing in index.pyx, joining and cutting in join.pyx.
"""
cimport numpy as cnp
from minigrad.core.array cimport PyArray_CHKFLAGS, ints_of, view_of
from minigrad.core.kernels cimport MAX_DIMS
from minigrad.core.operands cimport as_input, as_operand
from minigrad.core.tape cimport mark_view, record1
from minigrad.core.tensor cimport Node, Rule, Tensor, tracked, wrap
from minigrad.ops.axes cimport mark_axes, one_axis, plain_axis
from minigrad.ops.index cimport getitem

import reprlib

import numpy as np

from minigrad import checks
from minigrad.core.array import checked_dtype, checked_shape
from minigrad.core.tensor import install

cnp.import_array()


# ---------------------------------------------------------------- what the ops share

cdef Tensor seen_as(Tensor x, int nd, cnp.npy_intp *shape, cnp.npy_intp *strides, Py_ssize_t offset,
                    Rule rule, str name, object extra):
    """A view of x with another shape and strides (in bytes), `offset` bytes further on, recorded
    with its rule."""
    cdef char *data = <char *>cnp.PyArray_DATA(x._array) + offset
    cdef Tensor y = wrap(view_of(x._array, nd, shape, strides, data))
    mark_view(y, x)
    if tracked(x):
        record1(y, rule, name, x).extra = extra
    return y


cdef object axes_of(object axes, int nd, str op):
    """None, one axis, or several in a tuple or list, as plain_axis has them."""
    return plain_axis(tuple(axes) if type(axes) is list else axes, op)


# ---------------------------------------------------------------- another shape

# y = x in another shape           dx = dy in x's shape

cpdef Tensor reshape(x, shape):
    """x with another shape, in C order; one dimension may be -1: what is left. A view where strides
    can express it, else a copy.

    Args:
        x: Of any shape.
        shape: An int or a tuple of ints, for as many elements as x has.

    Raises:
        TypeError: `shape` is not made of ints.
        ValueError: `shape` is for another number of elements, or has more than one -1.

    >>> import minigrad as mg
    >>> mg.reshape(mg.Tensor([1.0, 2.0, 3.0, 4.0]), (2, -1))
    Tensor([[1., 2.],
            [3., 4.]])
    """
    cdef Tensor t = as_input(x, "reshape")
    cdef cnp.npy_intp to[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef cnp.npy_intp size = cnp.PyArray_SIZE(t._array), stride = cnp.PyArray_ITEMSIZE(t._array)
    cdef int nd, d, unknown = -1
    cdef tuple dims = <tuple>shape if all_ints(shape) else ints_of(shape)
    if dims is None:
        raise TypeError(f"reshape: shape must be made of ints, got {reprlib.repr(shape)}")
    nd = len(dims)
    known = 1
    for d in range(nd):
        n = dims[d]
        if n < -1 or (n == -1 and unknown >= 0):
            raise ValueError(
                f"reshape: shape must have no negative dimension but one -1, got {dims}")
        if n == -1:
            unknown = d
        else:
            known *= n
    if nd > MAX_DIMS or (known != size if unknown < 0 else known == 0 or size % known != 0):
        raise invalid_shape(t, dims)
    if size == 0 or not PyArray_CHKFLAGS(t._array, cnp.NPY_ARRAY_C_CONTIGUOUS):
        return reshape_by_numpy(t, dims)
    for d in range(nd - 1, -1, -1):
        to[d] = size // <cnp.npy_intp>known if d == unknown else dims[d]
        strides[d] = stride
        stride *= to[d]
    return seen_as(t, nd, to, strides, 0, reshape_rule, "reshape", t.shape)

cdef bint all_ints(object shape) noexcept:
    """Is this a tuple of Python's own ints?"""
    if type(shape) is not tuple:
        return False
    for n in <tuple>shape:
        if type(n) is not int:
            return False
    return True

cdef object invalid_shape(Tensor x, tuple dims):
    return ValueError(f"reshape: shape {dims} is invalid for a tensor of shape {x.shape} "
                      f"with {x.size} elements")

cdef Tensor reshape_by_numpy(Tensor t, tuple dims):
    """The reshape of a tensor that is empty or not contiguous; NumPy tells whether strides can
    express it."""
    cdef cnp.ndarray array
    try:
        array = t._array.reshape(dims)
    except (ValueError, OverflowError):
        raise invalid_shape(t, dims) from None
    cdef Tensor y = wrap(array)
    if np.may_share_memory(array, t._array):
        mark_view(y, t)
    if tracked(t):
        record1(y, reshape_rule, "reshape", t).extra = t.shape
    return y

cdef int reshape_rule(Node node, Tensor dy) except -1:
    return node.give(0, reshape(dy, node.extra), False)


# y = x without axes of length 1, or with a new one          dx = dy in x's shape

def squeeze(x, axis=None) -> Tensor:
    """x without its axes of length 1: all of them, or those that `axis` names. A view.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes of length 1. Negative ones count from
            the end. Default: None.

    Raises:
        TypeError: `axis` is not of ints.
        ValueError: x does not have such an axis, or it has another length.

    >>> import minigrad as mg
    >>> mg.squeeze(mg.ones((1, 3, 1)), 0).shape
    (3, 1)
    """
    cdef Tensor t = as_input(x, "squeeze")
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef bint dropped[MAX_DIMS]
    cdef int nd = cnp.PyArray_NDIM(t._array), to = 0, d
    mark_axes(dropped, axes_of(axis, nd, "squeeze"), nd, "squeeze")
    for d in range(nd):
        if dropped[d] and cnp.PyArray_DIM(t._array, d) == 1:
            continue
        if dropped[d] and axis is not None:
            raise ValueError(f"squeeze: axis {d} must have length 1, got shape {t.shape}")
        shape[to] = cnp.PyArray_DIM(t._array, d)
        strides[to] = cnp.PyArray_STRIDE(t._array, d)
        to += 1
    return seen_as(t, to, shape, strides, 0, reshape_rule, "squeeze", t.shape)


def unsqueeze(x, axis) -> Tensor:
    """x with a new axis of length 1, which is axis `axis` of the result. A view.

    Args:
        x: Of any shape.
        axis: An int. Negative ones count from the end of the result.

    Raises:
        TypeError: `axis` is not an int.
        ValueError: The result does not have such an axis.

    >>> import minigrad as mg
    >>> mg.unsqueeze(mg.ones(3), -1).shape
    (3, 1)
    """
    cdef Tensor t = as_input(x, "unsqueeze")
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef int nd = cnp.PyArray_NDIM(t._array) + 1, place = one_axis(axis, nd, "unsqueeze"), d
    if nd > MAX_DIMS:
        raise ValueError(f"unsqueeze: the result would have more than {MAX_DIMS} dimensions")
    for d in range(nd):
        if d == place:
            shape[d] = 1
            strides[d] = 0
        else:
            shape[d] = cnp.PyArray_DIM(t._array, d - (d > place))
            strides[d] = cnp.PyArray_STRIDE(t._array, d - (d > place))
    return seen_as(t, nd, shape, strides, 0, reshape_rule, "unsqueeze", t.shape)


# y = x repeated along new axes and those of length 1        dx = dy summed along them

def broadcast_to(x, shape) -> Tensor:
    """x repeated to `shape` as in NumPy's broadcasting: new axes come in front, axes of length 1
    take any length.

    A view in which several elements share one memory location; it cannot be assigned to.

    Args:
        x: Of any shape.
        shape: An int or a tuple of ints, the shape of the result.

    Raises:
        TypeError: `shape` is not made of ints.
        ValueError: x does not broadcast to `shape`.

    >>> import minigrad as mg
    >>> mg.broadcast_to(mg.Tensor([1.0, 2.0]), (2, 2))
    Tensor([[1., 2.],
            [1., 2.]])
    """
    cdef Tensor t = as_input(x, "broadcast_to")
    cdef cnp.npy_intp to[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef tuple dims = checked_shape(shape, "broadcast_to")
    cdef int nd = len(dims), lead = nd - cnp.PyArray_NDIM(t._array), d
    cdef bint fits = lead >= 0
    if fits:
        for d in range(nd):
            to[d] = dims[d]
            strides[d] = 0
            if d >= lead and cnp.PyArray_DIM(t._array, d - lead) == to[d]:
                strides[d] = cnp.PyArray_STRIDE(t._array, d - lead)
            elif d >= lead:
                fits &= cnp.PyArray_DIM(t._array, d - lead) == 1
    if not fits:
        raise ValueError(f"broadcast_to: a tensor of shape {t.shape} cannot be broadcast to {dims}")
    return seen_as(t, nd, to, strides, 0, broadcast_rule, "broadcast_to", t.shape)

cdef int broadcast_rule(Node node, Tensor dy) except -1:
    return node.give_unbroadcast(0, dy, node.extra, False)


# ---------------------------------------------------------------- another order

# y[i_a, i_b, ...] = x[i_0, i_1, ...]      dx = dy with the axes put back

def transpose(x, axes=None) -> Tensor:
    """x with its axes in another order: axis d of the result is axis axes[d] of x. Reversed by
    default. A view.

    Args:
        x: Of any shape.
        axes: A tuple with each axis of x once. Default: None, the reverse order.

    >>> import minigrad as mg
    >>> mg.transpose(mg.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    cdef Tensor t = as_input(x, "transpose")
    cdef int nd = cnp.PyArray_NDIM(t._array), d
    cdef bint named[MAX_DIMS]
    order = []
    if axes is None:
        for d in range(nd - 1, -1, -1):
            order.append(d)
        return permuted(t, tuple(order), False)
    found = axes_of(axes, nd, "transpose")
    if mark_axes(named, found, nd, "transpose") != nd:
        raise ValueError(
            f"transpose: axes must name each of the {nd} dimensions once, got {axes}")
    for axis in found if type(found) is tuple else (found,):
        order.append(axis + nd if axis < 0 else axis)
    return permuted(t, tuple(order), False)

cdef Tensor permuted(Tensor x, tuple order, bint back):
    """x with its axes in the given order, or put back from it."""
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef int nd = cnp.PyArray_NDIM(x._array), d, source, target
    for d in range(nd):
        source = d if back else order[d]
        target = order[d] if back else d
        shape[target] = cnp.PyArray_DIM(x._array, source)
        strides[target] = cnp.PyArray_STRIDE(x._array, source)
    return seen_as(x, nd, shape, strides, 0, transpose_rule, "transpose", (order, back))

cdef int transpose_rule(Node node, Tensor dy) except -1:
    order, back = <tuple>node.extra
    return node.give(0, permuted(dy, order, not back), False)


# y[..., i, ..., j, ...] = x[..., j, ..., i, ...]            dx = dy with the axes exchanged again

cpdef Tensor swapaxes(x, axis1, axis2):
    """x with the axes `axis1` and `axis2` exchanged. A view.

    Args:
        x: With at least one dimension.
        axis1: An int. Negative ones count from the end.
        axis2: An int, as axis1.

    Raises:
        TypeError: One of them is not an int.
        ValueError: x does not have such an axis.

    >>> import minigrad as mg
    >>> mg.swapaxes(mg.ones((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    cdef Tensor t = as_input(x, "swapaxes")
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef int nd = cnp.PyArray_NDIM(t._array), d
    cdef int a = one_axis(axis1, nd, "swapaxes"), b = one_axis(axis2, nd, "swapaxes")
    for d in range(nd):
        shape[d] = cnp.PyArray_DIM(t._array, d)
        strides[d] = cnp.PyArray_STRIDE(t._array, d)
    shape[a] = cnp.PyArray_DIM(t._array, b)
    strides[a] = cnp.PyArray_STRIDE(t._array, b)
    shape[b] = cnp.PyArray_DIM(t._array, a)
    strides[b] = cnp.PyArray_STRIDE(t._array, a)
    return seen_as(t, nd, shape, strides, 0, swapaxes_rule, "swapaxes", (a, b))

cdef int swapaxes_rule(Node node, Tensor dy) except -1:
    axis1, axis2 = <tuple>node.extra
    return node.give(0, swapaxes(dy, axis1, axis2), False)


# y[i] = x[n - 1 - i]              dx[i] = dy[n - 1 - i]

cpdef Tensor flip(x, axis=None):
    """x in reverse order along one axis, several, or all. A view.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Default: None.

    >>> import minigrad as mg
    >>> mg.flip(mg.Tensor([1.0, 2.0, 3.0]))
    Tensor([3., 2., 1.])
    """
    cdef Tensor t = as_input(x, "flip")
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef bint flipped[MAX_DIMS]
    cdef int nd = cnp.PyArray_NDIM(t._array), d
    cdef Py_ssize_t offset = 0
    cdef object axes = axes_of(axis, nd, "flip")
    mark_axes(flipped, axes, nd, "flip")
    for d in range(nd):
        strides[d] = cnp.PyArray_STRIDE(t._array, d)
        if flipped[d]:
            if cnp.PyArray_SIZE(t._array):
                offset += strides[d] * (cnp.PyArray_DIM(t._array, d) - 1)
            strides[d] = -strides[d]
    return seen_as(t, nd, cnp.PyArray_DIMS(t._array), strides, offset, flip_rule, "flip", axes)

cdef int flip_rule(Node node, Tensor dy) except -1:
    return node.give(0, flip(dy, node.extra), False)


# ---------------------------------------------------------------- padding

# y = x with a frame of a constant         dx = dy without the frame

def pad(x, widths, value=0.0) -> Tensor:
    """x with elements of one value added before and after it along each axis.

    Args:
        x: Of any shape.
        widths: A pair of ints (before, after), at least 0, for each axis.
        value: The number to add. Default: 0.0.

    Raises:
        TypeError: The widths are not pairs of ints, or `value` is not a number.
        ValueError: There are not as many pairs as axes, or a width is negative.

    >>> import minigrad as mg
    >>> mg.pad(mg.Tensor([1.0, 2.0]), [(1, 2)])
    Tensor([0., 1., 2., 0., 0.])
    """
    cdef Tensor t = as_input(x, "pad"), y
    cdef tuple pairs = pairs_of(widths)
    inside, shape = [], []
    if pairs is None:
        raise TypeError(f"pad: widths must be a pair (before, after) of ints for each dimension, "
                        f"got {reprlib.repr(widths)}")
    if len(pairs) != t.ndim or min(map(min, pairs), default=0) < 0:
        raise ValueError(f"pad: widths must be {t.ndim} pairs of ints that are not negative, "
                         f"got {widths}")
    value = checks.real("pad", "value", value)
    for (before, after), n in zip(pairs, t.shape):
        inside.append(slice(before, before + n))
        shape.append(before + n + after)
    y = wrap(np.full(checked_shape(shape, "pad"), as_operand(value, t, "pad")._array))
    y._array[tuple(inside)] = t._array
    if tracked(t):
        record1(y, pad_rule, "pad", t).extra = tuple(inside)
    return y

cdef tuple pairs_of(object widths):
    """Pairs of Python's own ints; None for anything else."""
    pairs = []
    try:
        for before, after in widths:
            pairs.append(ints_of((before, after)))
    except MemoryError:
        raise
    except Exception:                   # what iterates may raise what it likes
        return None
    return None if None in pairs else tuple(pairs)

cdef int pad_rule(Node node, Tensor dy) except -1:
    return node.give(0, getitem(dy, node.extra), False)


# ---------------------------------------------------------------- running sums; the other dtype

# y_i = x_0 + ... + x_i            dx_i = dy_i + ... + dy_{n-1}, added from the end

cpdef Tensor cumsum(x, axis):
    """The running sums along an axis.

    Args:
        x: Of any shape but ().
        axis: An int.

    >>> import minigrad as mg
    >>> mg.cumsum(mg.Tensor([1.0, 2.0, 3.0]), 0)
    Tensor([1., 3., 6.])
    """
    cdef Tensor t = as_input(x, "cumsum"), y
    cdef int along = one_axis(axis, cnp.PyArray_NDIM(t._array), "cumsum")
    y = wrap(running_sums(t._array, along))
    if tracked(t):
        record1(y, cumsum_rule, "cumsum", t).extra = along
    return y

cdef cnp.ndarray running_sums(cnp.ndarray x, int axis):
    """As `sum` in csrc/reduce.inc: float32 in double, float64 with the errors of the additions
    (TwoSum) added up beside them."""
    with np.errstate(all="ignore"):
        high = np.cumsum(x, axis, np.float64)
        if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT:
            return high.astype(np.float32)
        before = np.zeros_like(high)                # the sum before each element
        if x.shape[axis]:
            before.swapaxes(0, axis)[1:] = high.swapaxes(0, axis)[:x.shape[axis] - 1]
        from_x = high - before
        low = np.cumsum((before - (high - from_x)) + (x - from_x), axis)
        return np.where(np.isfinite(low), high + low, high)

cdef int cumsum_rule(Node node, Tensor dy) except -1:
    return node.give(0, flip(cumsum(flip(dy, node.extra), node.extra), node.extra), False)


# y = x in another dtype           dx = dy in x's dtype

cpdef Tensor astype(x, dtype):
    """x as float32 or float64, rounded to nearest; x itself if it is that already.

    Args:
        x: Of any shape.
        dtype: float32 or float64, by name or as a NumPy dtype.

    Raises:
        TypeError: `dtype` is another one.

    >>> import minigrad as mg
    >>> mg.astype(mg.ones(2), "float64")
    Tensor([1., 1.], dtype=float64)
    """
    cdef Tensor t = as_input(x, "astype"), y
    target = checked_dtype(dtype, "astype")
    if target == t._array.dtype:
        return t
    with np.errstate(all="ignore"):
        y = wrap(t._array.astype(target, order="C"))
    if tracked(t):
        record1(y, astype_rule, "astype", t).extra = t._array.dtype
    return y

cdef int astype_rule(Node node, Tensor dy) except -1:
    return node.give(0, astype(dy, node.extra), True)


# ---------------------------------------------------------------- methods of Tensor

def _reshape(x, *shape):
    """The numbers of x in another shape: see minigrad.reshape.

    Args:
        x: Of any shape.
        shape: Ints, or one tuple of them.
    """
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        return reshape(x, shape[0])
    return reshape(x, shape)


def _transpose(x, *axes):
    """x with its axes in another order: see minigrad.transpose.

    Args:
        x: Of any shape.
        axes: Each axis of x once, as ints or as one tuple of them; nothing for the reverse order.
    """
    if len(axes) == 1 and not hasattr(axes[0], "__index__"):
        return transpose(x, axes[0])
    return transpose(x, axes or None)


install("reshape", _reshape)
install("transpose", _transpose)
install("T", property(transpose, doc="The transpose: all axes in reverse order."))
for _function in (swapaxes, squeeze, unsqueeze, broadcast_to, flip, cumsum, astype):
    install(_function.__name__, _function)
