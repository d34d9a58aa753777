# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Ops that move elements and leave their values: another shape, another order, joining, cutting,
padding; and cumsum and astype.

reshape, transpose, swapaxes, squeeze, unsqueeze, broadcast_to, flip and split give views: the
result shares its input's memory (a reshape that no strides can express copies). What an axis may be
is in axes.pyx, indexing in index.pyx.
"""
cimport numpy as cnp
from libc.string cimport memcpy
from minigrad.core.array cimport PyArray_CHKFLAGS, ints_of, same_shape, view_of
from minigrad.core.kernels cimport MAX_DIMS, csrc, new_array
from minigrad.core.modes cimport recording
from minigrad.core.operands cimport as_input, as_operand
from minigrad.core.tape cimport mark_view, record1, recordn
from minigrad.core.tensor cimport Node, Rule, Tensor, stale, tracked, wrap
from minigrad.ops.axes cimport mark_axes, one_axis, plain_axis
from minigrad.ops.index cimport getitem, sliced

import reprlib

import numpy as np

from minigrad import checks
from minigrad.core.array import checked_dtype, checked_shape
from minigrad.core.tensor import install

cnp.import_array()

cdef object MOST_PARTS = 2**31              # of an empty axis, which any number divides
cdef object masked_array = np.ma.MaskedArray


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
    """x without its axes of length 1: all of them, or those that `axis` names, an int or a tuple of
    ints. A view.

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


# ---------------------------------------------------------------- joining and cutting

cdef tuple several(object tensors, str op):
    """A sequence of at least one Tensor, all of one dtype."""
    cdef Tensor first = None, tensor
    cdef bint one_type = True
    cdef bint usual = type(tensors) is list or type(tensors) is tuple
    if not usual and (isinstance(tensors, Tensor) or not hasattr(tensors, "__iter__")):
        raise TypeError(
            f"{op}: tensors must be a sequence of Tensors, got {type(tensors).__name__}")
    if not usual and isinstance(tensors, masked_array):
        raise TypeError(f"{op}: tensors must not be a masked array, the mask would be lost: "
                        f"use tensors.filled(value)")
    cdef tuple found = tuple(tensors)
    if not found:
        raise ValueError(f"{op}: tensors must hold at least one Tensor, got none")
    for part in found:
        if not isinstance(part, Tensor):
            one_type = False
            continue
        tensor = <Tensor>part
        if first is None:
            first = tensor
        one_type &= cnp.PyArray_TYPE(tensor._array) == cnp.PyArray_TYPE(first._array)
    if one_type:
        return found
    if first is None:
        first = as_input(found[0], op)
    operands = []
    for part in found:
        operands.append(as_operand(part, first, op))
    return tuple(operands)


cdef bint too_large(cnp.ndarray x, double times) noexcept:
    """May `times` as many elements as x has be too many? Expanded views can have far more than fit
    into memory."""
    cdef int d
    for d in range(cnp.PyArray_NDIM(x)):
        times *= max(cnp.PyArray_DIM(x, d), 1)
    return times >= 2.0**58


cdef int copy_part(cnp.ndarray y, cnp.ndarray x, int axis, bint new_axis,
                   cnp.npy_intp start) except -1:
    """y[..., start : start + n, ...] = x along `axis`, which is x's own, of length n, or a new one,
    where n = 1; y is contiguous."""
    cdef int nd = cnp.PyArray_NDIM(x), d
    cdef cnp.npy_intp item = cnp.PyArray_ITEMSIZE(x), rows = 1, run = item, o
    cdef cnp.npy_intp step = item if new_axis and axis == nd else cnp.PyArray_STRIDE(y, axis)
    cdef char *to = <char *>cnp.PyArray_DATA(y) + start * step
    cdef const char *source = <const char *>cnp.PyArray_DATA(x)
    cdef ptrdiff_t sx[MAX_DIMS]
    cdef ptrdiff_t sy[MAX_DIMS]
    if not PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS):
        for d in range(nd):
            sx[d] = cnp.PyArray_STRIDE(x, d) // item
            sy[d] = cnp.PyArray_STRIDE(y, d + (new_axis and d >= axis)) // item
        csrc.copy_strided(item, nd, <const ptrdiff_t *>cnp.PyArray_DIMS(x), source, sx, to, sy)
        return 0
    for d in range(nd):
        if d < axis:
            rows *= cnp.PyArray_DIM(x, d)
        else:
            run *= cnp.PyArray_DIM(x, d)
    cdef cnp.npy_intp row_stride = cnp.PyArray_STRIDE(y, axis - 1) if axis else 0
    for o in range(rows):
        memcpy(to + o * row_stride, source + o * run, run)
    return 0


cdef bint wanted(tuple parts):
    """Does one of the parts want a gradient, and is recording on?"""
    if recording():
        for part in parts:
            if (<Tensor>part)._requires_grad or stale(<Tensor>part):
                return True
    return False


# y = [x_0, x_1, ...] along an axis        dx_i = its part of dy, a view

def concatenate(tensors, axis=0) -> Tensor:
    """Tensors joined along an axis that they have; their other dimensions must agree.

    Args:
        tensors: A list of Tensors of one dtype.
        axis: An int. Default: 0.

    >>> import minigrad as mg
    >>> mg.concatenate([mg.zeros(1), mg.ones(2)])
    Tensor([0., 1., 1.])
    """
    cdef tuple parts = several(tensors, "concatenate")
    cdef Tensor first = <Tensor>parts[0], part, y
    cdef int nd = cnp.PyArray_NDIM(first._array), along, d
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef bint fits
    if nd == 0:
        raise ValueError("concatenate: 0-d tensors cannot be concatenated: use stack")
    along = one_axis(axis, nd, "concatenate")
    end, ends = 0, [0]
    for part in parts:
        fits = cnp.PyArray_NDIM(part._array) == nd
        if fits:
            for d in range(nd):
                fits &= (d == along or cnp.PyArray_DIM(part._array, d)
                         == cnp.PyArray_DIM(first._array, d))
        if not fits:
            raise ValueError(
                f"concatenate: all tensors must have the shape of the first, {first.shape}, "
                f"but along axis {along}; tensor {len(ends) - 1} has {part.shape}")
        end += cnp.PyArray_DIM(part._array, along)
        ends.append(end)
    if too_large(first._array, end / max(cnp.PyArray_DIM(first._array, along), 1)):
        checked_shape(first.shape[:along] + (end,) + first.shape[along + 1:], "concatenate")
    for d in range(nd):
        shape[d] = end if d == along else cnp.PyArray_DIM(first._array, d)
    y = wrap(new_array(nd, shape, cnp.PyArray_TYPE(first._array), False))
    for i, part in enumerate(parts):
        if cnp.PyArray_SIZE(part._array):
            copy_part(y._array, part._array, along, False, ends[i])
    if wanted(parts):
        recordn(y, concatenate_rule, "concatenate", parts).extra = (along, ends)
    return y

def adjoin(Tensor whole not None, parts) -> Tensor:
    """`whole` as the concatenation of `parts` along the last axis: they lie side by side in its
    memory, so nothing is copied."""
    cdef tuple pieces = tuple(parts)
    cdef int last = whole.ndim - 1
    cdef tuple shape = whole.shape
    cdef Tensor part
    if last < 0:
        raise ValueError("adjoin: whole must have at least one dimension, got a 0-d tensor")
    end, ends = 0, [0]
    for part in pieces:
        if part is None or part.ndim != len(shape) or part.shape[:last] != shape[:last]:
            raise ValueError(f"adjoin: the parts must be Tensors that make up the shape {shape} "
                             f"along its last axis")
        end += part.shape[last]
        ends.append(end)
    if end != shape[last]:
        raise ValueError(f"adjoin: the parts must have {shape[last]} columns together, got {end}")
    if wanted(pieces):
        recordn(whole, concatenate_rule, "concatenate", pieces).extra = (last, ends)
    return whole

cdef int concatenate_rule(Node node, Tensor dy) except -1:
    axis, ends = <tuple>node.extra
    lead = (slice(None),) * axis
    for i in range(len(node.slots)):
        if node.wants(i):
            node.give(i, getitem(dy, (*lead, slice(ends[i], ends[i + 1]))), False)
    return 0


# y[i] = x_i along a new axis              dx_i = dy[i], a view

def stack(tensors, axis=0) -> Tensor:
    """Tensors of one shape joined along a new axis, which is axis `axis` of the result.

    >>> import minigrad as mg
    >>> mg.stack([mg.zeros(2), mg.ones(2)])
    Tensor([[0., 0.],
            [1., 1.]])
    """
    cdef tuple parts = several(tensors, "stack")
    cdef Tensor first = <Tensor>parts[0], part, y
    cdef int nd = cnp.PyArray_NDIM(first._array) + 1, along = one_axis(axis, nd, "stack"), d
    cdef cnp.npy_intp shape[MAX_DIMS]
    if nd > MAX_DIMS:
        raise ValueError(f"stack: the result would have more than {MAX_DIMS} dimensions")
    for i, part in enumerate(parts):
        if not same_shape(part._array, first._array):
            raise ValueError(f"stack: all tensors must have the shape of the first, "
                             f"{first.shape}; tensor {i} has {part.shape}")
    if too_large(first._array, len(parts)):
        checked_shape((len(parts),) + first.shape, "stack")
    for d in range(nd):
        if d == along:
            shape[d] = len(parts)
        else:
            shape[d] = cnp.PyArray_DIM(first._array, d - (d > along))
    y = wrap(new_array(nd, shape, cnp.PyArray_TYPE(first._array), False))
    if cnp.PyArray_SIZE(first._array):
        for i, part in enumerate(parts):
            copy_part(y._array, part._array, along, True, i)
    if wanted(parts):
        recordn(y, stack_rule, "stack", parts).extra = along
    return y

cdef int stack_rule(Node node, Tensor dy) except -1:
    cdef tuple lead = (slice(None),) * node.extra
    for i in range(len(node.slots)):
        if node.wants(i):
            node.give(i, getitem(dy, (*lead, i) if lead else i), False)
    return 0


# y_0, y_1, ... = parts of x               dx's parts = dy_0, dy_1, ...: each is added into its part
# of one buffer

cpdef list split(x, parts, axis=0):
    """x cut along an axis into a list of views: `parts` equal ones (an int), or ones of the given
    lengths.

    Args:
        parts: An int, the number of equal parts; or a list of lengths.
        axis: An int. Default: 0.

    >>> import minigrad as mg
    >>> mg.split(mg.Tensor([1.0, 2.0, 3.0]), [1, 2])
    [Tensor([1.]), Tensor([2., 3.])]
    """
    cdef Tensor t = as_input(x, "split")
    cdef int nd = cnp.PyArray_NDIM(t._array), along = one_axis(axis, nd, "split")
    cdef Py_ssize_t length = cnp.PyArray_DIM(t._array, along), start = 0
    cdef tuple lead = (slice(None),) * along
    cdef bint lengths = isinstance(parts, (list, tuple))
    cdef tuple sizes = ints_of(parts if lengths else (parts,))
    if sizes is None:
        raise TypeError(
            f"split: parts must be an int or a list of ints, got {reprlib.repr(parts)}")
    if lengths:
        if min(sizes, default=0) < 0 or sum(sizes) != length:
            raise ValueError(f"split: parts must be lengths that add up to {length}, "
                             f"the length of axis {along}, got {parts}")
    else:
        (count,) = sizes
        if count < 1 or length % count or count > MOST_PARTS:
            raise ValueError(f"split: axis {along} of length {length} cannot be cut into {parts} "
                             f"equal parts")
        sizes = (length // count,) * count
    pieces = []
    for size in sizes:
        pieces.append(sliced(t, (*lead, slice(start, start + size)), "split"))
        start += size
    return pieces


# y = x with a frame of a constant         dx = dy without the frame

def pad(x, widths, value=0.0) -> Tensor:
    """x with before and after elements of `value` added along each axis d, where widths[d] =
    (before, after).

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
    """x.reshape(2, 3), or x.reshape((2, 3)): see minigrad.reshape."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        return reshape(x, shape[0])
    return reshape(x, shape)


def _transpose(x, *axes):
    """x.transpose(1, 0), x.transpose((1, 0)), or x.transpose() for all axes in reverse order: see
    minigrad.transpose."""
    if len(axes) == 1 and not hasattr(axes[0], "__index__"):
        return transpose(x, axes[0])
    return transpose(x, axes or None)


install("reshape", _reshape)
install("transpose", _transpose)
install("T", property(transpose, doc="The transpose: all axes in reverse order."))
for _function in (swapaxes, squeeze, unsqueeze, broadcast_to, flip, cumsum, split, astype):
    install(_function.__name__, _function)
