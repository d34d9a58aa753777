# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Changes in place: x[index] = value as a recorded op, and x += y and the like.

The memory is changed at once, and all views see it. While recording, the change is part of the
history of the tensor that owns the memory: from then on that tensor is the output of the
assignment. A view that is changed, or read after its memory was changed, is recorded as a part of
its owner. What an index may be is in index.pyx.
"""
cimport numpy as cnp
from libc.string cimport memmove, memset
from minigrad.core.array cimport (
    PyArray_CHKFLAGS,
    add_into,
    copied,
    repeats_elements,
    same_shape,
    view_of,
)
from minigrad.core.kernels cimport MAX_DIMS, array_like
from minigrad.core.modes cimport recording
from minigrad.core.operands cimport as_operand
from minigrad.core.tape cimport bump, checked_slot, owner_of, record1, record2, settle
from minigrad.core.tensor cimport (
    DETACHED,
    OWN,
    UNRECORDED,
    Binary,
    Node,
    Tensor,
    operators,
    stale,
    wrap,
)
from minigrad.ops.elementwise cimport mul, where
from minigrad.ops.index cimport all_plain, get_item, getitem, owned, plain, put, region, set_item

import numpy as np

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    int PyArray_CopyInto(cnp.ndarray target, cnp.ndarray source) except -1


# ---------------------------------------------------------------- what may be changed

cdef int check_writable(Tensor x, str op) except -1:
    """May x's memory be changed in place?"""
    if recording() and x._requires_grad and x.node is None:
        raise RuntimeError(f"{op}: a leaf that requires grad cannot be changed in place while "
                           f"recording: use no_grad() to set its value")
    if repeats_elements(x._array):
        raise RuntimeError(f"{op}: several elements of an expanded view share one memory location: "
                           f"copy it first")
    if not PyArray_CHKFLAGS(x._array, cnp.NPY_ARRAY_WRITEABLE):
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
        raise RuntimeError(
            f"{op}: the tensor shares memory with the one that it was detached from, whose history "
            f"would miss the change: copy it first, as in x.detach() * 1")
    if x.seen <= UNRECORDED:
        raise RuntimeError(
            f"{op}: the tensor is a view that was taken under no_grad() and shares memory with the "
            f"tensor that it was taken from, whose history would miss the change: take the view "
            f"while recording, or copy it first")
    cdef bint is_view = owner is not None and owner is not x and x.seen >= 0
    if is_view and owner._requires_grad and owner.node is None:
        raise RuntimeError(f"{op}: a view of a leaf that requires grad cannot be changed in place "
                           f"while recording: use no_grad() to set its value")
    checked_slot(x, op)
    checked_slot(v, op)
    return True


cdef int check_broadcast(cnp.ndarray value, cnp.ndarray place, str op) except -1:
    cdef int lead = cnp.PyArray_NDIM(place) - cnp.PyArray_NDIM(value), d
    cdef bint fits = lead >= 0
    if fits:
        for d in range(cnp.PyArray_NDIM(value)):
            fits &= (cnp.PyArray_DIM(value, d) == 1
                     or cnp.PyArray_DIM(value, d) == cnp.PyArray_DIM(place, lead + d))
    if not fits:
        raise ValueError(f"{op}: could not broadcast a value of shape {(<object>value).shape} "
                         f"into a place of shape {(<object>place).shape}")
    return 0


# ---------------------------------------------------------------- assignment

# x[index] = v             dx = dy but zero at the index, dv = dy[index]

cdef int setitem(Tensor x, object index, object value) except -1:
    """What Tensor.__setitem__ calls. The history of x goes on: from here on x is the output of the
    assignment."""
    cdef Tensor v = as_operand(value, x, "assignment")
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
    if recorded and x.seen != OWN and owner_of(x) is not None:
        if basic:
            return change(x, place, v, "assignment")
        return change_by_copy(x, index, v)
    if basic:
        copy_into(place, v._array)
    else:
        # For a mask NumPy reads and writes the same memory in one pass.
        overlap = np.may_share_memory(x._array, v._array)
        set_item(x._array, index, v._array.copy() if overlap else v._array)
    bump(x)
    if recorded:
        record2(x, setitem_rule, "assignment", x, v).extra = (index, v.shape, basic)
        count_change(x)
    return 0

cdef int change_by_copy(Tensor x, object index, Tensor v) except -1:
    """x[index] = v for a view x and an index that is not basic: a changed copy of x is written into
    all of x."""
    cdef Tensor whole = mul(x, 1.0)
    setitem(whole, index, v)
    return change(x, x._array, whole, "assignment")

cdef bint same_place(Tensor x, Tensor v, cnp.ndarray place) except -1:
    """Is v the part of x that `place` is, also as far as gradients go?"""
    cdef int d
    if v.version is None or v.version is not x.version or stale(x) or stale(v):
        return False
    if v is not x and (v.seen < 0 or x.seen < OWN):
        return False
    if cnp.PyArray_DATA(v._array) != cnp.PyArray_DATA(place) or not same_shape(v._array, place):
        return False
    for d in range(cnp.PyArray_NDIM(place)):
        if (cnp.PyArray_DIM(place, d) > 1
                and cnp.PyArray_STRIDE(v._array, d) != cnp.PyArray_STRIDE(place, d)):
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
    if (cnp.PyArray_SIZE(place) == cnp.PyArray_SIZE(value)
            and PyArray_CHKFLAGS(place, cnp.NPY_ARRAY_C_CONTIGUOUS)
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
            dv = assigned(getitem(dy, index), index, basic, dy.shape)
            node.give_unbroadcast(1, dv, shape, False)
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
        if seen_by_others(node):
            dy = wrap(copied(dy._array))
        if basic:
            fill_with_zeros(region(dy._array, index, "assignment"))
        else:
            set_item(dy._array, index, 0)
        node.give(0, dy, True)
    return 0

cdef bint seen_by_others(Node node) except -1:
    """Does anybody else look at the gradient that came to this node?"""
    if not node.fresh or node.hooks:
        return True
    return node.run.wanted is not None and node in node.run.wanted

cdef int fill_with_zeros(cnp.ndarray place) except -1:
    if PyArray_CHKFLAGS(place, cnp.NPY_ARRAY_C_CONTIGUOUS):
        memset(cnp.PyArray_DATA(place), 0, cnp.PyArray_NBYTES(place))
    else:
        place.fill(0)
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
        shape[d] = part_shape[d]
        strides[d] = part_strides[d] * item
        if shape[d] > 1 and strides[d] == 0:
            return None
    cdef char *data = <char *>cnp.PyArray_DATA(dy) + offset * item
    return view_of(dy, len(part_shape), shape, strides, data)

cdef cnp.ndarray numbers_of(tuple place):
    """For each element of the place its number in the owner, counted in C order."""
    offset, shape, strides, whole_shape, whole_strides = place
    left = np.full(shape, offset, np.int64)
    for d, (n, step) in enumerate(zip(shape, strides)):
        left += (np.arange(n) * step).reshape((n,) + (1,) * (len(shape) - 1 - d))
    number = np.zeros(shape, np.int64)
    size = int(np.prod(whole_shape))
    steps = np.abs(whole_strides)
    widest_first = np.argsort(-steps, kind="stable")
    for axis in widest_first:                           # memory is counted from its lowest address
        if whole_strides[axis] < 0:
            left += steps[axis] * (whole_shape[axis] - 1)
    for axis in widest_first:
        if whole_shape[axis] == 1 or size == 0:
            continue
        position = left // steps[axis]
        left -= position * steps[axis]
        if whole_strides[axis] < 0:
            position = whole_shape[axis] - 1 - position
        number += position * int(np.prod(whole_shape[axis + 1:]))
    return number


# y = the part of x at a place             dx = zeros, and dx there += dy

cdef int renew(Tensor x, str name) except -1:
    """Record x, a view of memory that was changed since, as a part of what the memory's owner is
    now."""
    cdef Tensor owner = owner_of(x)
    if x.seen <= UNRECORDED:
        raise RuntimeError(
            f"{name}: an input of shape {x.shape} is a stale view: it was taken under no_grad(), "
            f"and its memory was assigned to since: take the view again while recording, or copy "
            f"it when it is taken")
    if owner is None or (x._requires_grad and x.node is None):
        raise RuntimeError(
            f"{name}: an input of shape {x.shape} is a stale view: its memory was assigned to "
            f"since it was taken, and the tensor that it was taken from is gone: take the view "
            f"again, or copy it when it is taken")
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
    buffer = node.buffer(0, whole, cnp.PyArray_TYPE(dy._array))._array
    part = part_of(buffer, place)
    if part is not None:
        return add_into(part, dy._array)
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
    cdef Tensor dv
    place, shape = <tuple>node.extra
    if node.run.create_graph:
        numbers = numbers_of(place)
        if node.wants(1):
            dv = getitem(gradient.reshape((dy.size,)), numbers)
            node.give_unbroadcast(1, dv, shape, False)
        if node.wants(0):
            mask = np.zeros(dy.size, np.bool_)
            mask[numbers] = True
            node.give(0, where(mask.reshape(dy.shape), 0.0, dy), True)
        return 0
    whole = copied(dy._array)
    part = part_of(whole, place)
    numbers = np.unravel_index(numbers_of(place), place[3]) if part is None else None
    if node.wants(1):
        if part is not None:
            dv = wrap(copied(part))
        else:
            dv = wrap(np.asarray((<object>whole)[numbers]))
        node.give_unbroadcast(1, dv, shape, True)
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
    z = op(a, b, 0)
    check_result(z, x, name)
    if not recorded:
        copy_into(x._array, z._array)
        bump(x)
    elif x.seen != OWN and owner_of(x) is not None:
        change(x, x._array, z, name)
    else:
        copy_into(x._array, z._array)
        bump(x)
        x.node = z.node
        x._requires_grad = z._requires_grad
        count_change(x)
    return x

cdef int check_result(Tensor z, Tensor x, str name) except -1:
    if z.shape != x.shape:
        raise ValueError(f"{name}: the tensor has shape {x.shape}, the result has {z.shape}: "
                         f"only the right side is broadcast in place")
    return 0

cdef Tensor copy_of(Tensor x):
    """x with memory of its own and the same history."""
    cdef Tensor y
    if x._requires_grad and x.node is None:
        return mul(x, 1.0)
    y = wrap(copied(x._array))
    y.node = x.node
    y._requires_grad = x._requires_grad
    return y


operators.setitem = setitem
operators.inplace = inplace
operators.renew = renew
