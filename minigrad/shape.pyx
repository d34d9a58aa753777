# cython: language_level=3
"""Ops that move elements without changing them: reshape, transpose, join, cut, index, assign, embed.

Where NumPy gives a view, so do these: the result shares memory with its input. The gradient of a slice is added into a slice of one buffer, so taking the T
steps of a sequence apart costs O(T), not O(T^2).
"""
cimport numpy as cnp
from libc.stdint cimport int64_t
from minigrad.elementwise cimport where
from minigrad.kernels cimport mg_kernels
from minigrad.tensor cimport (Node, Rule, Tensor, add_into, as_input, as_operand, bump, contiguous, kernels_of, mark_view, operators, record1, record2,
                              recordn, recording, tracked, tracked2, wrap)

import operator

import numpy as np

from minigrad.tensor import checked_dtype, install

cnp.import_array()


cdef Tensor moved(Tensor x, cnp.ndarray array, Rule rule, str name, object extra):
    """y = x's elements as `array`: a view of x's memory, or a copy."""
    cdef Tensor y = wrap(array)
    if cnp.PyArray_BASE(array) != NULL and (cnp.PyArray_BASE(array) == <void *>x._array or np.may_share_memory(array, x._array)):
        mark_view(y, x)
    if tracked(x):
        record1(y, rule, name, x).extra = extra
    return y


cdef int axis_of(object axis, int nd, str op) except -1:
    """A valid axis as a number from 0 to nd - 1."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise TypeError(f"{op}: axis must be an int, got {type(axis).__name__}") from None
    if not -nd <= number < nd:
        raise ValueError(f"{op}: axis {number} is out of range for a tensor of {nd} dimensions")
    return number % nd


cdef tuple axes_of(object axes, int nd, str op):
    """Axes, one or several, as distinct numbers from 0 to nd - 1."""
    found = tuple([axis_of(axis, nd, op) for axis in (axes if isinstance(axes, (tuple, list)) else (axes,))])
    if len(set(found)) != len(found):
        raise ValueError(f"{op}: axes must be distinct, got {axes}")
    return found


# ---------------------------------------------------------------- one tensor

# y = x in another shape           dx = dy in x's shape

def reshape(x, shape) -> Tensor:
    """x with another shape, in C order; one dimension may be -1. A view where possible.

    >>> import minigrad as mg
    >>> mg.reshape(mg.Tensor([1.0, 2.0, 3.0, 4.0]), (2, -1))
    Tensor([[1., 2.],
            [3., 4.]])
    """
    cdef Tensor t = as_input(x, "reshape")
    try:
        dims = tuple([operator.index(d) for d in shape]) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    except TypeError:
        raise TypeError(f"reshape: shape must be made of ints, got {shape!r}") from None
    if min(dims, default=0) < -1 or dims.count(-1) > 1:
        raise ValueError(f"reshape: shape must have no negative dimension but one -1, got {dims}")
    try:
        array = t._array.reshape(dims)
    except ValueError:
        raise ValueError(f"reshape: shape {dims} is invalid for a tensor of shape {t.shape} with {t.size} elements") from None
    return moved(t, array, reshape_rule, "reshape", t.shape)

cdef int reshape_rule(Node node, Tensor dy) except -1:
    return node.give(0, reshape(dy, node.extra), False)


# y[i, j, ...] = x[axes permuted]          dx = dy permuted back

def transpose(x, axes=None) -> Tensor:
    """x with its axes in another order, reversed by default; a view.

    >>> import minigrad as mg
    >>> mg.transpose(mg.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    cdef Tensor t = as_input(x, "transpose")
    order = tuple(range(t.ndim))[::-1] if axes is None else axes_of(axes, t.ndim, "transpose")
    if len(order) != t.ndim:
        raise ValueError(f"transpose: axes must name each of the {t.ndim} dimensions once, got {axes}")
    return moved(t, t._array.transpose(order), transpose_rule, "transpose", order)

cdef int transpose_rule(Node node, Tensor dy) except -1:
    order = node.extra
    back = [0] * len(order)
    for i, axis in enumerate(order):
        back[axis] = i
    return node.give(0, transpose(dy, tuple(back)), False)


def swapaxes(x, axis1, axis2) -> Tensor:
    """x with two axes exchanged; a view.

    >>> import minigrad as mg
    >>> mg.swapaxes(mg.ones((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    cdef Tensor t = as_input(x, "swapaxes")
    pair = axis_of(axis1, t.ndim, "swapaxes"), axis_of(axis2, t.ndim, "swapaxes")
    return moved(t, t._array.swapaxes(*pair), swapaxes_rule, "swapaxes", pair)

cdef int swapaxes_rule(Node node, Tensor dy) except -1:
    return node.give(0, swapaxes(dy, *node.extra), False)


def squeeze(x, axis=None) -> Tensor:
    """x without the axes of length 1: all of them, or those named. A view.

    >>> import minigrad as mg
    >>> mg.squeeze(mg.ones((1, 3, 1)), 0).shape
    (3, 1)
    """
    cdef Tensor t = as_input(x, "squeeze")
    axes = tuple([d for d in range(t.ndim) if t.shape[d] == 1]) if axis is None else axes_of(axis, t.ndim, "squeeze")
    for d in axes:
        if t.shape[d] != 1:
            raise ValueError(f"squeeze: axis {d} must have length 1, got shape {t.shape}")
    return moved(t, t._array.squeeze(axes), reshape_rule, "squeeze", t.shape)


def unsqueeze(x, axis) -> Tensor:
    """x with a new axis of length 1 at place `axis` of the result. A view.

    >>> import minigrad as mg
    >>> mg.unsqueeze(mg.ones(3), -1).shape
    (3, 1)
    """
    cdef Tensor t = as_input(x, "unsqueeze")
    return moved(t, np.expand_dims(t._array, axis_of(axis, t.ndim + 1, "unsqueeze")), reshape_rule, "unsqueeze", t.shape)


# y = x repeated along new and length-1 axes       dx = dy summed along them

def broadcast_to(x, shape) -> Tensor:
    """x broadcast to `shape` as NumPy does; a view that cannot be assigned to.

    >>> import minigrad as mg
    >>> mg.broadcast_to(mg.Tensor([1.0, 2.0]), (2, 2))
    Tensor([[1., 2.],
            [1., 2.]])
    """
    cdef Tensor t = as_input(x, "broadcast_to")
    try:
        array = np.broadcast_to(t._array, shape)
    except (ValueError, TypeError) as error:
        raise type(error)(f"broadcast_to: a tensor of shape {t.shape} cannot be broadcast to {shape}") from None
    return moved(t, array, broadcast_rule, "broadcast_to", t.shape)

cdef int broadcast_rule(Node node, Tensor dy) except -1:
    return node.give_unbroadcast(0, dy, node.extra, False)


# y = x backwards along axes               dx = dy backwards

def flip(x, axis=None) -> Tensor:
    """x in reverse order along one axis, several, or all. A view.

    >>> import minigrad as mg
    >>> mg.flip(mg.Tensor([1.0, 2.0, 3.0]))
    Tensor([3., 2., 1.])
    """
    cdef Tensor t = as_input(x, "flip")
    axes = tuple(range(t.ndim)) if axis is None else axes_of(axis, t.ndim, "flip")
    return moved(t, np.flip(t._array, axes), flip_rule, "flip", axes)

cdef int flip_rule(Node node, Tensor dy) except -1:
    return node.give(0, flip(dy, node.extra), False)


# y_i = x_0 + ... + x_i            dx = the same from the end

def cumsum(x, axis) -> Tensor:
    """The running sums along an axis.

    >>> import minigrad as mg
    >>> mg.cumsum(mg.Tensor([1.0, 2.0, 3.0]), 0)
    Tensor([1., 3., 6.])
    """
    cdef Tensor t = as_input(x, "cumsum")
    number = axis_of(axis, t.ndim, "cumsum")
    return moved(t, np.cumsum(t._array, number), cumsum_rule, "cumsum", number)

cdef int cumsum_rule(Node node, Tensor dy) except -1:
    return node.give(0, flip(cumsum(flip(dy, node.extra), node.extra), node.extra), False)


# y = x with a frame of a constant         dx = dy without the frame

def pad(x, widths, value=0.0) -> Tensor:
    """x with widths[d] = (before, after) elements of `value` added along each axis d.

    >>> import minigrad as mg
    >>> mg.pad(mg.Tensor([1.0, 2.0]), [(1, 2)])
    Tensor([0., 1., 2., 0., 0.])
    """
    cdef Tensor t = as_input(x, "pad")
    try:
        pairs = [(operator.index(before), operator.index(after)) for before, after in widths]
    except (TypeError, ValueError):
        raise TypeError(f"pad: widths must be a pair (before, after) of ints for each dimension, got {widths!r}") from None
    if len(pairs) != t.ndim or any([min(pair) < 0 for pair in pairs]):
        raise ValueError(f"pad: widths must be {t.ndim} pairs of ints that are not negative, got {widths}")
    if isinstance(value, complex) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"pad: value must be a number, got {type(value).__name__}")
    inside = tuple([slice(before, before + n) for (before, _), n in zip(pairs, t.shape)])
    array = np.full([before + n + after for (before, after), n in zip(pairs, t.shape)], value, t._array.dtype)
    array[inside] = t._array
    return moved(t, array, pad_rule, "pad", inside)

cdef int pad_rule(Node node, Tensor dy) except -1:
    return node.give(0, getitem(dy, node.extra), False)


# y = x in another dtype           dx = dy in x's dtype

def astype(x, dtype) -> Tensor:
    """x as float32 or float64; x itself if it is that already.

    >>> import minigrad as mg
    >>> mg.astype(mg.ones(2), "float64")
    Tensor([1., 1.], dtype=float64)
    """
    cdef Tensor t = as_input(x, "astype")
    target = checked_dtype(dtype, "astype")
    if target == t._array.dtype:
        return t
    return moved(t, t._array.astype(target), astype_rule, "astype", t._array.dtype)

cdef int astype_rule(Node node, Tensor dy) except -1:
    return node.give(0, astype(dy, node.extra), False)


# ---------------------------------------------------------------- joining and cutting

cdef list several(object tensors, str op):
    """A sequence of at least one Tensor, all of one dtype."""
    cdef Tensor first
    if isinstance(tensors, Tensor) or not hasattr(tensors, "__iter__"):
        raise TypeError(f"{op}: tensors must be a sequence of Tensors, got {type(tensors).__name__}")
    found = list(tensors)
    if not found:
        raise ValueError(f"{op}: tensors must hold at least one Tensor, got none")
    first = next((t for t in found if isinstance(t, Tensor)), None)
    if first is None:
        first = as_input(found[0], op)
    return [as_operand(t, first, op) for t in found]


# y = [x_0, x_1, ...] along an axis        dx_i = its part of dy

def concatenate(tensors, axis=0) -> Tensor:
    """Tensors joined along an axis that they have; the other dimensions must agree.

    >>> import minigrad as mg
    >>> mg.concatenate([mg.zeros(1), mg.ones(2)])
    Tensor([0., 1., 1.])
    """
    cdef Tensor t
    parts = several(tensors, "concatenate")
    t = parts[0]
    if t.ndim == 0:
        raise ValueError("concatenate: 0-d tensors cannot be concatenated: use stack")
    number = axis_of(axis, t.ndim, "concatenate")
    for i, part in enumerate(parts):
        if part.ndim != t.ndim or part.shape[:number] + part.shape[number + 1:] != t.shape[:number] + t.shape[number + 1:]:
            raise ValueError(f"concatenate: all tensors must have the shape of the first, {t.shape}, but along axis {number}; "
                             f"tensor {i} has {part.shape}")
    cdef Tensor y = wrap(np.concatenate([(<Tensor>part)._array for part in parts], number))
    if recording() and any([part.requires_grad for part in parts]):
        ends = np.cumsum([part.shape[number] for part in parts]).tolist()
        recordn(y, concatenate_rule, "concatenate", tuple(parts)).extra = (number, [0, *ends])
    return y

cdef int concatenate_rule(Node node, Tensor dy) except -1:
    axis, ends = node.extra
    lead = (slice(None),) * axis
    for i in range(len(node.slots)):
        if node.wants(i):
            node.give(i, getitem(dy, lead + (slice(ends[i], ends[i + 1]),)), False)
    return 0


# y[i] = x_i along a new axis              dx_i = dy[i]

def stack(tensors, axis=0) -> Tensor:
    """Tensors of one shape joined along a new axis.

    >>> import minigrad as mg
    >>> mg.stack([mg.zeros(2), mg.ones(2)])
    Tensor([[0., 0.],
            [1., 1.]])
    """
    cdef Tensor t
    parts = several(tensors, "stack")
    t = parts[0]
    number = axis_of(axis, t.ndim + 1, "stack")
    for i, part in enumerate(parts):
        if part.shape != t.shape:
            raise ValueError(f"stack: all tensors must have the shape of the first, {t.shape}; tensor {i} has {part.shape}")
    cdef Tensor y = wrap(np.stack([(<Tensor>part)._array for part in parts], number))
    if recording() and any([part.requires_grad for part in parts]):
        recordn(y, stack_rule, "stack", tuple(parts)).extra = number
    return y

cdef int stack_rule(Node node, Tensor dy) except -1:
    lead = (slice(None),) * node.extra
    for i in range(len(node.slots)):
        if node.wants(i):
            node.give(i, getitem(dy, lead + (i,)), False)
    return 0


# y_0, y_1, ... = parts of x               dx's parts = dy_0, dy_1, ...

def split(x, parts, axis=0) -> list:
    """x cut along an axis: into `parts` equal parts (an int), or into parts of the given lengths. Views.

    >>> import minigrad as mg
    >>> mg.split(mg.Tensor([1.0, 2.0, 3.0]), [1, 2])
    [Tensor([1.]), Tensor([2., 3.])]
    """
    cdef Tensor t = as_input(x, "split")
    number = axis_of(axis, t.ndim, "split")
    length = t.shape[number]
    if isinstance(parts, (list, tuple)):
        try:
            sizes = [operator.index(size) for size in parts]
        except TypeError:
            raise TypeError(f"split: parts must be an int or a list of ints, got {parts!r}") from None
        if any([size < 0 for size in sizes]) or sum(sizes) != length:
            raise ValueError(f"split: parts must be lengths that add up to {length}, the length of axis {number}, got {parts}")
    else:
        try:
            count = operator.index(parts)
        except TypeError:
            raise TypeError(f"split: parts must be an int or a list of ints, got {parts!r}") from None
        if count < 1 or length % count:
            raise ValueError(f"split: axis {number} of length {length} cannot be cut into {parts} equal parts")
        sizes = [length // count] * count
    lead, at, pieces = (slice(None),) * number, 0, []
    for size in sizes:
        index = lead + (slice(at, at + size),)
        pieces.append(moved(t, t._array[index], slice_rule, "split", (index, t.shape)))
        at += size
    return pieces

cdef int slice_rule(Node node, Tensor dy) except -1:
    """The gradient of x[basic index]: added into that part of x's gradient. extra: the index, x's shape."""
    index, shape = node.extra
    if node.run.create_graph:
        return node.give(0, put(dy, index, shape), True)
    if node.wants(0):
        add_into(node.buffer(0, shape, cnp.PyArray_TYPE(dy._array))._array[index], dy._array)
    return 0


# ---------------------------------------------------------------- indexing

cdef bint is_basic(object index) except -1:
    """Only ints, slices, None and Ellipsis: NumPy gives a view."""
    if type(index) is int or type(index) is slice:
        return True
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, (bool, np.bool_)) or not (part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer))):
            return False
    return True


cdef object checked_index(object index):
    """Lists become arrays; Tensors cannot index."""
    if isinstance(index, Tensor) or (isinstance(index, tuple) and any([isinstance(part, Tensor) for part in index])):
        raise TypeError("index: a Tensor of floats cannot index: use an integer or boolean NumPy array")
    if isinstance(index, list):
        return np.asarray(index, dtype=np.intp if not index else None)
    return index


# y = x[index]             dx = zeros, with dy added at the index

cdef Tensor getitem(object x, object index):
    cdef Tensor t = <Tensor>x
    cdef bint basic = is_basic(index)
    if not basic:
        index = checked_index(index)
    elif cnp.PyArray_NDIM(t._array) == 1 or type(index) is tuple:
        index = (*index, Ellipsis) if isinstance(index, tuple) and Ellipsis not in index else index if isinstance(index, tuple) else (index, Ellipsis)
    try:
        array = t._array[index]
    except IndexError as error:
        raise IndexError(f"index: {error}, in a tensor of shape {t.shape}") from None
    if basic:
        return moved(t, array, slice_rule, "index", (index, t.shape))
    return moved(t, np.asarray(array), gather_rule, "index", (index, t.shape))

cdef int gather_rule(Node node, Tensor dy) except -1:
    index, shape = node.extra
    if node.run.create_graph:
        return node.give(0, put(dy, index, shape), True)
    if node.wants(0):
        add_at(node.buffer(0, shape, cnp.PyArray_TYPE(dy._array))._array, index, dy._array)
    return 0


cdef int add_at(cnp.ndarray y, object index, cnp.ndarray values) except -1:
    """y[index] += values, where an index may occur several times: in the order of the index."""
    cdef const mg_kernels *K = kernels_of(y)
    cdef cnp.ndarray rows
    cdef size_t n, length
    if not isinstance(index, np.ndarray) or index.dtype.kind not in "iu" or not y.size:
        np.add.at(y, index, values)
        return 0
    rows = np.ascontiguousarray(index, np.int64).ravel()
    rows = np.where(rows < 0, rows + y.shape[0], rows)
    values = np.ascontiguousarray(values)
    n = rows.shape[0]
    length = y.size // y.shape[0]
    K.scatter_add(n, <const int64_t *>cnp.PyArray_DATA(rows), length, cnp.PyArray_DATA(values), cnp.PyArray_DATA(y))
    return 0


# y = zeros with the values added at the index: what getitem's gradient is          dvalues = dy[index]

cdef Tensor put(Tensor values, object index, tuple shape):
    cdef Tensor y = wrap(np.zeros(shape, (<object>values._array).dtype))
    if is_basic(index):
        y._array[index] = values._array
    else:
        add_at(y._array, index, values._array)
    if tracked(values):
        record1(y, put_rule, "put", values).extra = index
    return y

cdef int put_rule(Node node, Tensor dy) except -1:
    return node.give(0, getitem(dy, node.extra), False)


# x[index] = v             dx = dy with zeros at the index, dv = dy[index]

cdef int setitem(Tensor x, object index, object value) except -1:
    cdef Tensor v = as_operand(value, x, "assignment")
    cdef bint basic = is_basic(index)
    if not basic:
        index = checked_index(index)
    if recording() and x._requires_grad and x.node is None:
        raise RuntimeError("assignment: a leaf that requires grad cannot be changed in place while recording; use no_grad() to set its value")
    cdef bint track = tracked2(x, v)
    if track and x.seen >= 0:
        raise RuntimeError("assignment: a view cannot be assigned to while a gradient is recorded: assign to the tensor that it was taken from")
    if cnp.PyArray_SIZE(x._array) and any([stride == 0 and n > 1 for stride, n in zip((<object>x._array).strides, (<object>x._array).shape)]):
        raise RuntimeError("assignment: several elements of an expanded view share one memory location: copy it first")
    if not x._array.flags.writeable:
        raise ValueError("assignment: the tensor's memory is read-only")
    try:
        x._array[index] = v._array
    except IndexError as error:
        raise IndexError(f"assignment: {error}, in a tensor of shape {x.shape}") from None
    except ValueError as error:
        raise ValueError(f"assignment: {error}") from None
    bump(x)
    if track:
        recordn(x, setitem_rule, "setitem", (x, v)).extra = (index, v.shape)
    return 0

cdef int setitem_rule(Node node, Tensor dy) except -1:
    cdef Tensor dv
    index, shape = node.extra
    if node.wants(1):
        dv = getitem(dy, index)
        if not is_basic(index):         # where places repeat, the last value was the one that stayed
            order = np.arange(dv.size).reshape(dv.shape)
            places = np.zeros(dy.shape, np.intp)
            places[index] = order
            dv = where(places[index] == order, dv, 0.0)
        elif not node.run.create_graph:
            dv = wrap(dv._array.copy())         # dy may be changed below
        node.give_unbroadcast(1, dv, shape, True)
    if node.wants(0):
        if node.run.create_graph:
            mask = np.zeros(dy.shape, np.bool_)
            mask[index] = True
            return node.give(0, where(mask, 0.0, dy), True)
        if not node.fresh:
            dy = wrap(np.array(dy._array, order="C"))
        dy._array[index] = 0
        node.give(0, dy, True)
    return 0


# y = rows of weight, by index             dweight = zeros, with dy's rows added

def embedding(weight, indices) -> Tensor:
    """Rows of `weight` (N, D) picked by integer `indices` of any shape: (..., D).

    >>> import minigrad as mg
    >>> mg.embedding(mg.Tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0, 1])
    Tensor([[3., 4.],
            [1., 2.],
            [3., 4.]])
    """
    cdef Tensor w = as_input(weight, "embedding")
    if w.ndim != 2:
        raise ValueError(f"embedding: weight must have shape (N, D), got {w.shape}")
    if isinstance(indices, Tensor):
        raise TypeError("embedding: indices must be integers, got a Tensor of floats")
    array = np.asarray(indices)
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"embedding: indices must be integers, got {array.dtype}")
    bad = (array < 0) | (array >= w.shape[0])
    if bad.any():
        place = tuple([int(k) for k in np.argwhere(bad)[0]])
        raise IndexError(f"embedding: indices must be from 0 to {w.shape[0] - 1}, got {array[place]} at position {place}")
    cdef cnp.ndarray rows = np.ascontiguousarray(array, np.int64), source = contiguous(w)
    cdef size_t n = rows.size, length = w.shape[1]
    cdef cnp.ndarray target = np.empty(array.shape + (w.shape[1],), w._array.dtype)
    kernels_of(source).gather(n, <const int64_t *>cnp.PyArray_DATA(rows), length, cnp.PyArray_DATA(source), cnp.PyArray_DATA(target))
    return moved(w, target, gather_rule, "embedding", (rows, w.shape))


# ---------------------------------------------------------------- the operators and methods of Tensor

operators.getitem, operators.setitem = getitem, setitem


def _reshape(x, *shape):
    return reshape(x, shape[0] if len(shape) == 1 and not hasattr(shape[0], "__index__") else shape)


def _transpose(x, *axes):
    return transpose(x, None if not axes else axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes)


_reshape.__doc__, _transpose.__doc__ = reshape.__doc__, transpose.__doc__
install("reshape", _reshape)
install("transpose", _transpose)
install("T", property(transpose, doc="The transpose: all axes in reverse order."))
for _name, _function in (("swapaxes", swapaxes), ("squeeze", squeeze), ("unsqueeze", unsqueeze), ("broadcast_to", broadcast_to), ("flip", flip),
                         ("cumsum", cumsum), ("split", split), ("astype", astype)):
    install(_name, _function)
