# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The sweep: from a tensor back to the leaves that it was made from, the newest node first.
tensor.pyx tells how it works."""
cimport numpy as cnp
from minigrad.core.array cimport (
    PyArray_CHKFLAGS,
    add_into,
    copied,
    round_sums,
    rows_first,
    rows_into,
    same_form,
)
from minigrad.core.kernels cimport array_of_shape
from minigrad.core.modes cimport ANOMALY, STUDYING, checking, recording_flag
from minigrad.core.recording cimport nanoseconds, note_rule
from minigrad.core.tape cimport already_freed, checked_slot, own
from minigrad.core.tensor cimport (
    RETAIN,
    LeafStandIn,
    Node,
    Output,
    Slot,
    Sweep,
    Tensor,
    key_of,
    make_addable,
    operators,
    original,
    slot_of,
    wrap,
)

import numpy as np

from minigrad.core.tape import record
from minigrad.core.tensor import install

cnp.import_array()


# ---------------------------------------------------------------- what was gathered

cdef Tensor sum_of_rows(Tensor start, list parts, tuple shape):
    """start (None for zeros) + the parts, in their order, those of another shape summed over the
    dimensions along which `shape` was broadcast to theirs: what `give` and `give_unbroadcast` make
    of the same contributions without create_graph, to the bit, and differentiable."""
    cdef Tensor part = parts[0]
    cdef int typenum = cnp.PyArray_TYPE(part._array)
    cdef cnp.ndarray y
    if start is None:
        y = array_of_shape(shape, typenum, True)
    else:
        y = copied(start._array)
    cdef cnp.ndarray low = array_of_shape(shape, cnp.NPY_DOUBLE, True)
    for part in parts:
        if part.shape == shape:
            add_into(y, part._array)
        else:
            rows_into(y, low, rows_first(part._array, shape))
    round_sums(y, low)
    shapes = []
    for part in parts:
        shapes.append(part.shape)
    if start is not None:
        parts = [start, *parts]
        shapes = [shape, *shapes]

    def backward(g):
        return tuple(map(g.broadcast_to, shapes))
    return record("sum", y, tuple(parts), backward)


cdef Tensor whole(Sweep run, Slot slot):
    """The whole gradient gathered at a place: `inflight`, and what was kept beside it."""
    pending = None if run.sums is None else run.sums.pop(key_of(slot), None)
    if pending is None:
        return slot.inflight
    if run.create_graph:
        shape, parts = pending
        slot.inflight = sum_of_rows(slot.inflight, parts, shape)
        slot.fresh = True
    else:
        round_sums(slot.inflight._array, pending)
    return slot.inflight


cdef Tensor leaf_of(Slot place):
    return (<LeafStandIn>place).leaf if type(place) is LeafStandIn else <Tensor>place


cdef Tensor gathered(Slot place, bint create_graph):
    """The gradient that was gathered, in memory of its own: later ones are added to it in place."""
    cdef Tensor gradient = place.inflight
    if place.fresh and (create_graph
                        or PyArray_CHKFLAGS(gradient._array, cnp.NPY_ARRAY_C_CONTIGUOUS)):
        return gradient
    return own(gradient, create_graph)


cdef Tensor run_hooks(Sweep run, Slot slot, Tensor gradient):
    """Run the hooks of a slot, each on the gradient that the one before has left; return what the
    last has left.

    A hook is given a copy: it may keep it, and what it does to it in place changes this gradient
    and no other.
    """
    cdef Tensor new
    cdef bint create_graph = run.create_graph
    hooks = dict(slot.hooks)
    hooks.pop(RETAIN, None)
    for hook in hooks.values():
        new = own(gradient, create_graph)
        result = hook(new)
        if result is None:
            if new.version is None or new.version.count == 0:
                continue
        elif not isinstance(result, Tensor):
            raise TypeError(f"hook: must return a Tensor or None, got {type(result).__name__}")
        else:
            new = <Tensor>result
        if new.shape != gradient.shape or new._array.dtype != gradient._array.dtype:
            raise RuntimeError(
                f"hook: the gradient has shape {gradient.shape} and dtype {gradient._array.dtype}, "
                f"the hook returned {new.shape} and {new._array.dtype}")
        gradient = own(new, create_graph)
    return gradient


cdef int keep_retained(Sweep run, Slot slot, Tensor gradient) except -1:
    """Note the gradient that the hooks have left, if the tensor retains it."""
    retaining = slot.hooks.get(RETAIN)
    tensor = None if retaining is None else retaining()
    if tensor is not None:
        if run.retained is None:
            run.retained = []
        run.retained.append((tensor, own(gradient, run.create_graph)))
    return 0


cdef int check_gradients(Node node) except -1:
    cdef Slot slot
    for i in range(len(node.slots)):
        slot = <Slot>node.slots[i]
        slot = None if slot is None else node.run.find(slot)
        if slot is not None and not finite_so_far(node.run, slot):
            raise RuntimeError(f"anomaly: the backward of {node.name} made the first non-finite "
                               f"gradient, for its input {i}; the op was recorded at {node.line}")
    return 0


cdef bint finite_so_far(Sweep run, Slot slot) except -1:
    """Is all that has arrived at a slot finite?"""
    pending = None if run.sums is None else run.sums.get(key_of(slot))
    if pending is None:
        arrays = []
    elif run.create_graph:
        arrays = []
        for part in pending[1]:
            arrays.append((<Tensor>part)._array)
    else:
        arrays = [pending]
    if slot.inflight is not None:
        arrays.append(slot.inflight._array)
    for array in arrays:
        if not np.isfinite(array).all():
            return False
    return True


# ---------------------------------------------------------------- from the newest to the oldest

cdef void release(Node node) noexcept:
    """Let go of what the node saved."""
    node.freed = True
    node.saved0 = node.saved1 = node.saved_further = node.checksums = node.extra = None
    node.slots = ()
    if type(node) is Output:
        (<Output>node).main = None


cdef int walk(Sweep run) except -1:
    cdef Node node
    cdef bint ran
    while run.pending > 0:
        node = run.pop()
        ran = False
        try:
            visit(run, node, &ran)
        finally:
            close(run, node, ran)
    return 0


cdef int visit(Sweep run, Node node, bint *ran) except -1:
    cdef Tensor dy = arrive(run, node)
    return run_rule(run, node, dy, ran)


cdef Tensor arrive(Sweep run, Node node):
    """The turn of a node has come: its whole gradient, after its hooks."""
    cdef Node real = original(node)
    cdef Tensor dy = whole(run, node)
    if real.freed:
        raise already_freed(node)
    if real.hooks and dy is not None:
        dy = run_hooks(run, real, dy)
        node.fresh = node.fresh or dy is not node.inflight
    return dy


cdef int run_rule(Sweep run, Node node, Tensor dy, bint *ran) except -1:
    """Run the node's rule, if it leads to what is wanted; `ran` becomes whether it did."""
    cdef Node real = original(node)
    if real.hooks and dy is not None:
        keep_retained(run, real, dy)
    node.inflight = None
    ran[0] = run.wanted is None or leads_on(node, run.needed)
    if run.wanted is not None and real in run.wanted:
        run.wanted[real] = own(dy, run.create_graph) if ran[0] or not node.fresh else dy
    cdef int looks = checking()
    if ran[0]:
        if looks & STUDYING:
            run_rule_timed(node, dy)
        else:
            node.rule(node, dy)
    if looks & ANOMALY:
        check_gradients(node)
    return 0


cdef int run_rule_timed(Node node, Tensor dy) except -1:
    cdef long long start = nanoseconds()
    node.rule(node, dy)
    return note_rule(node, dy, start)


cdef void close(Sweep run, Node node, bint ran) noexcept:
    """The walk leaves a node, or gives it up after an error. If its rule ran, it lets go of
    what it saved; but not while another sweep is busy with it: that one does it then."""
    cdef Node real = node.original
    cdef Py_ssize_t i
    node.inflight = None
    if node.outputs is not None:
        for i in range(len(node.outputs)):
            node.outputs[i] = None
    node.run = None
    if real is None:
        if (ran and not run.retain) or node.freed:
            release(node)
    elif ran and not run.retain:
        real.freed = True
        if real.run is None:
            release(real)


cdef int finish_leaves(Sweep run) except -1:
    """Run the hooks of leaves; for grad(), note the gradients."""
    cdef Slot place
    cdef Tensor leaf, gradient
    cdef Py_ssize_t i
    for i in range(len(run.leaves)):
        place = <Slot>run.leaves[i]
        leaf = leaf_of(place)
        whole(run, place)
        if leaf.hooks:
            gradient = run_hooks(run, leaf, place.inflight)
            keep_retained(run, leaf, gradient)
            place.fresh = place.fresh or gradient is not place.inflight
            place.inflight = gradient
        if run.wanted is not None and key_of(leaf) in run.wanted:
            run.wanted[key_of(leaf)] = gathered(place, run.create_graph)
    return 0


cdef int commit(Sweep run) except -1:
    """Add the gradients to ``grad``: all of them or, after an error, none."""
    cdef Tensor target, old, gradient
    cdef list targets = [], gradients = [], olds, sums
    cdef Py_ssize_t i
    cdef bint unchanged = False
    if run.wanted is None:
        for place in run.leaves:
            targets.append(leaf_of(<Slot>place))
            gradients.append(gathered(<Slot>place, run.create_graph))
    if run.retained is not None:
        for target, gradient in run.retained:
            targets.append(target)
            gradients.append(gradient)
    while not unchanged:
        # Whatever can fail: where a sum is new memory, it is made here.
        olds, sums = [], []
        for i in range(len(targets)):
            target = <Tensor>targets[i]
            gradient = <Tensor>gradients[i]
            old = target._grad
            if not same_form(gradient._array, target._array):
                raise RuntimeError(
                    f"backward: a tensor got its data by __init__ after it had been used: "
                    f"its gradient has shape {gradient.shape}, it has shape {target.shape}")
            if old is not None and run.create_graph:
                gradient = operators.add(old, gradient, 0)
            elif old is not None:
                make_addable(old, target)
            olds.append(old)
            sums.append(gradient)
        # From here on nothing fails and no Python code runs: other threads see all of it or
        # nothing. If one of them came in between, once more.
        unchanged = True
        for i in range(len(targets)):
            unchanged = unchanged and (<Tensor>targets[i])._grad is <Tensor>olds[i]
        if unchanged:
            for i in range(len(targets)):
                target = <Tensor>targets[i]
                old = <Tensor>olds[i]
                gradient = <Tensor>sums[i]
                if old is None or run.create_graph:
                    target._grad = gradient
                else:
                    add_into(old._array, gradient._array)
                    old.version.count += 1
    return 0


cdef void close_all(Sweep run) noexcept:
    """No slot keeps anything of this sweep."""
    cdef Slot place
    cdef Py_ssize_t i
    cdef Node node
    while run.pending > 0:
        node = run.pop()
        if node.run is run:
            close(run, node, False)
    for i in range(len(run.leaves)):
        place = <Slot>run.leaves[i]
        place.inflight = None
        place.run = None


cdef int sweep(list roots, list seeds, bint retain, bint create_graph, dict wanted) except -1:
    """Walk back from the roots. wanted is None: commit the leaves' gradients; else fill it and
    commit nothing."""
    cdef Sweep run = Sweep.__new__(Sweep)
    cdef Tensor root, seed
    cdef Slot slot
    run.retain = retain
    run.create_graph = create_graph
    run.wanted = wanted
    if wanted is not None:
        run.needed = find_needed(roots, wanted)
    run.enter(recording_flag(), create_graph, None)
    try:
        for root, seed in zip(roots, seeds):
            slot = slot_of(root)
            if not run.takes(slot):
                continue
            slot = run.place(slot)
            if slot.inflight is None:
                slot.inflight = seed
                slot.fresh = False
            else:
                slot.inflight = operators.add(slot.inflight, seed, 0)
                slot.fresh = True
        walk(run)
        finish_leaves(run)
        commit(run)
    finally:
        close_all(run)
        run.leave()
    return 0


# ---------------------------------------------------------------- what grad() needs

cdef bint leads_on(Node node, set needed) except -1:
    """Does one of the node's inputs lie on the way to what grad() wants?"""
    cdef Slot slot
    for slot in node.slots:
        if slot is not None and key_of(slot) in needed:
            return True
    return False


cdef set find_needed(list roots, dict wanted):
    """The slots on the way from the roots to the wanted ones: both ends, and every node that leads
    to a wanted slot.

    First a walk from the newest node to the oldest, as the sweep does it; then back, so that each
    node is looked at after its inputs. A node is pushed once by each that it was an input of. All
    of these are newer, so the copies leave the heap together.
    """
    cdef Sweep walk = Sweep.__new__(Sweep)
    cdef Tensor root
    cdef Node node, last = None
    cdef Slot slot
    needed = set(wanted)
    reached = []
    try:
        for root in roots:
            push_slot(walk, slot_of(root))
        while walk.pending > 0:
            node = walk.pop()
            if node is not last:
                reached.append(node)
                for slot in node.slots:
                    push_slot(walk, slot)
                last = node
    finally:
        close_all(walk)
    for node in reversed(reached):
        if leads_on(node, needed):
            needed.add(node)
    return needed


cdef int push_slot(Sweep walk, Slot slot) except -1:
    if slot is not None and not slot.is_leaf:
        walk.reserve()
        walk.push(<Node>slot)
    return 0


# ---------------------------------------------------------------- what users call

cdef Tensor check_seed(Tensor root, object gradient, str op):
    cdef Tensor seed
    checked_slot(root, op)
    if not root._requires_grad:
        raise RuntimeError(
            f"{op}: the tensor does not require grad and was not made from one that does")
    if gradient is None:
        if cnp.PyArray_SIZE(root._array) != 1:
            raise RuntimeError(
                f"{op}: a gradient can be created implicitly only for a scalar, the output has "
                f"shape {root.shape}: give gradient=, of that shape")
        return wrap(np.ones(root.shape, root._array.dtype))
    if not isinstance(gradient, Tensor):
        dtype = None if isinstance(gradient, np.ndarray) else root._array.dtype
        gradient = Tensor(gradient, dtype=dtype)
    seed = <Tensor>gradient
    if seed._array.dtype != root._array.dtype:
        raise TypeError(f"{op}: gradient must have dtype {root._array.dtype} like the output, "
                        f"got {seed._array.dtype}")
    if seed.shape != root.shape:
        raise ValueError(f"{op}: gradient must have shape {root.shape} like the output, "
                         f"got {seed.shape}")
    return seed


def backward(Tensor self not None, gradient=None, retain_graph=None, create_graph=False) -> None:
    """Add the gradient of this tensor to the ``grad`` of every leaf that it was made from.

    If anything fails, no ``grad`` changes.

    Args:
        gradient: What the sweep starts from, of this tensor's shape: the gradient of the loss with
            respect to this tensor, which many texts call the *cotangent*. Default: None, which is
            1, for a tensor with one element.
        retain_graph: Whether the graph is kept for another call. Default: as create_graph.
        create_graph: Whether the gradients can be differentiated again. Default: False.

    Raises:
        RuntimeError: The tensor was not made from one that requires a gradient; `gradient` is
            missing; the graph was freed, or a saved tensor was changed in place.
        TypeError, ValueError: `gradient` has another dtype or shape than this tensor.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).backward(mg.Tensor([1.0, 10.0]))
    >>> x.grad
    Tensor([ 2., 40.])
    """
    if retain_graph is None:
        retain_graph = create_graph
    sweep([self], [check_seed(self, gradient, "backward")], retain_graph, create_graph, None)


def grad(outputs, inputs, grad_outputs=None, *, retain_graph=None, create_graph=False,
         allow_unused=False) -> tuple:
    """The gradients of `outputs` with respect to `inputs`. No leaf's ``grad`` changes.

    Args:
        outputs: A Tensor or several.
        inputs: A Tensor or several.
        grad_outputs: For each output the gradient to start from, of its shape, which many texts
            call the *cotangent*. What several outputs give is added up. Default: None, which is 1
            for each, if each has one element.
        retain_graph: Whether the graph is kept for another call. Default: as create_graph.
        create_graph: Whether the result can be differentiated again. Default: False.
        allow_unused: Whether an input that the outputs do not depend on gets None (True) or is an
            error (False, the default).

    Returns:
        A tuple with a Tensor for each input, of its shape.

    Raises:
        RuntimeError: An input or output does not require a gradient, or an input was not used; the
            graph was freed, or a saved tensor was changed in place.
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> x = mg.Tensor([3.0], requires_grad=True)
    >>> (dx,) = mg.grad(x ** 3, x, create_graph=True)
    >>> (ddx,) = mg.grad(dx, x)
    >>> print(dx.item(), ddx.item())
    27.0 18.0
    """
    cdef Tensor x
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None:
        grad_outputs = [None] * len(outputs)
    elif isinstance(grad_outputs, (Tensor, np.ndarray)):
        grad_outputs = [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: grad_outputs must have one entry for each of the {len(outputs)} "
                         f"outputs, got {len(grad_outputs)}")
    for name, tensors in (("outputs", outputs), ("inputs", inputs)):
        for given in tensors:
            if not isinstance(given, Tensor):
                raise TypeError(f"grad: {name} must be Tensors, got {type(given).__name__}")
            x = <Tensor>given
            if not x._requires_grad:
                raise RuntimeError(f"grad: one of the {name} does not require grad and was not "
                                   f"made from a tensor that does")
    seeds = []
    for x, gradient in zip(outputs, grad_outputs):
        seeds.append(check_seed(x, gradient, "grad"))
    wanted = {key_of(slot_of(x)): None for x in inputs}
    if retain_graph is None:
        retain_graph = create_graph
    sweep(outputs, seeds, retain_graph, create_graph, wanted)
    found = []
    for i, x in enumerate(inputs):
        gradient = wanted[key_of(slot_of(x))]
        if gradient is None and not allow_unused:
            raise RuntimeError(f"grad: input {i} was not used to compute the outputs; "
                               f"allow_unused=True gives None for it")
        found.append(gradient)
    return tuple(found)


install("backward", backward)
