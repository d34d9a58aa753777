# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Joining and cutting: concatenate, stack and split.

The parts that split gives are views: they share their input's memory. Other ops that move elements
are in shape.pyx.
"""
cimport numpy as cnp
from libc.string cimport memcpy
from minigrad.core.array cimport PyArray_CHKFLAGS, as_int, ints_of, is_masked, same_shape
from minigrad.core.kernels cimport MAX_DIMS, csrc, new_array
from minigrad.core.modes cimport recording
from minigrad.core.operands cimport as_input, as_operand
from minigrad.core.tape cimport recordn
from minigrad.core.tensor cimport Node, Tensor, stale, wrap
from minigrad.ops.axes cimport one_axis
from minigrad.ops.index cimport getitem, sliced

import reprlib

from minigrad.core.array import checked_shape
from minigrad.core.tensor import install

cnp.import_array()

cdef object MOST_PARTS = 2**31              # of an empty axis, which any number divides


# ---------------------------------------------------------------- joining

cdef tuple several(object tensors, str op):
    """A sequence of at least one Tensor, all of one dtype."""
    cdef Tensor first = None, tensor
    cdef bint one_type = True
    cdef bint usual = type(tensors) is list or type(tensors) is tuple
    if not usual and (isinstance(tensors, Tensor) or not hasattr(tensors, "__iter__")):
        raise TypeError(
            f"{op}: tensors must be a sequence of Tensors, got {type(tensors).__name__}")
    if not usual and is_masked(tensors):
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


cdef tuple joined_shape(tuple parts, int along):
    """The shape of the concatenation, with Python's ints, which do not overflow."""
    shape = list((<Tensor>parts[0]).shape)
    shape[along] = 0
    for part in parts:
        shape[along] += (<Tensor>part).shape[along]
    return tuple(shape)


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
    cdef size_t end = 0
    cdef double times = 0
    cdef bint fits
    if nd == 0:
        raise ValueError("concatenate: 0-d tensors cannot be concatenated: use stack")
    along = one_axis(axis, nd, "concatenate")
    ends = [0]
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
        times += cnp.PyArray_DIM(part._array, along)
        ends.append(end)
    if too_large(first._array, times / max(cnp.PyArray_DIM(first._array, along), 1)):
        checked_shape(joined_shape(parts, along), "concatenate")
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

    Args:
        tensors: A list of Tensors of one shape and dtype.
        axis: An int. Negative ones count from the end of the result. Default: 0.

    Raises:
        TypeError: They are not Tensors of one dtype, or `axis` is not an int.
        ValueError: Their shapes differ, there are none, or the result has no such axis.

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


# ---------------------------------------------------------------- cutting

# y_0, y_1, ... = parts of x               dx's parts = dy_0, dy_1, ...: each is added into its part
# of one buffer

cdef object not_parts(object parts):
    return TypeError(f"split: parts must be an int or a list of ints, got {reprlib.repr(parts)}")


cpdef list split(x, parts, axis=0):
    """x cut along an axis into a list of views: `parts` equal ones (an int), or ones of the given
    lengths.

    Args:
        x: Of at least one dimension.
        parts: An int, the number of equal parts; or a list of lengths.
        axis: An int. Default: 0.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: x does not have the axis, or cannot be cut so.

    >>> import minigrad as mg
    >>> mg.split(mg.Tensor([1.0, 2.0, 3.0]), [1, 2])
    [Tensor([1.]), Tensor([2., 3.])]
    """
    cdef Tensor t = as_input(x, "split")
    cdef int nd = cnp.PyArray_NDIM(t._array), along = one_axis(axis, nd, "split")
    cdef Py_ssize_t length = cnp.PyArray_DIM(t._array, along), start = 0
    cdef tuple lead = (slice(None),) * along
    cdef tuple sizes
    cdef object count
    if isinstance(parts, (list, tuple)):
        sizes = ints_of(parts)
        if sizes is None:
            raise not_parts(parts)
        if min(sizes, default=0) < 0 or sum(sizes) != length:
            raise ValueError(f"split: parts must be lengths that add up to {length}, "
                             f"the length of axis {along}, got {parts}")
    else:
        count = as_int(parts)
        if count is None:
            raise not_parts(parts)
        if count < 1 or length % count or count > MOST_PARTS:
            raise ValueError(f"split: axis {along} of length {length} cannot be cut into {parts} "
                             f"equal parts")
        sizes = (length // count,) * count
    pieces = []
    for size in sizes:
        pieces.append(sliced(t, (*lead, slice(start, start + size)), "split"))
        start += size
    return pieces


install("split", split)
