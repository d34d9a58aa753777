# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""A sweep that stops before each node's rule, to be looked at and edited there. The sweep is that
of sweep.pyx, one node at a time; minigrad/study/stepping.py is what users see of it."""
cimport cython
cimport numpy as cnp
from minigrad.core.array cimport copied, round_sums
from minigrad.core.modes cimport STUDYING, checking, recording_flag
from minigrad.core.recording cimport nanoseconds, note_rule
from minigrad.core.sweep cimport (
    arrive,
    check_seed,
    close,
    close_all,
    commit,
    find_needed,
    finish_leaves,
    keep_retained,
    leaf_of,
    run_rule,
    sum_of_rows,
    whole,
)
from minigrad.core.tape cimport already_freed, own
from minigrad.core.tensor cimport (
    Node,
    Output,
    Slot,
    Sweep,
    Tensor,
    key_of,
    leaf_stand_in,
    original,
    slot_of,
    stand_in,
    wrap,
)

cnp.import_array()


# ---------------------------------------------------------------- a sweep that stops

def serial_of(Node node not None) -> int:
    return node.serial


@cython.no_gc_clear
cdef class Stepper:
    """Stepper(roots, gradients, retain_graph, create_graph, inputs=None): a sweep from the Tensors
    `roots` that stops before each node.

    `advance` goes on to the next node, and after the last one commits the gradients; with `inputs`,
    a list of Tensors, it notes theirs in `found` instead, as `grad` does. Until then `close` gives
    the sweep up, as does the end of this object, and no ``grad`` changes. The mode of recording is
    the sweep's only while something of it runs.
    """
    cdef Sweep run              # None when it is over
    cdef Node at                # the node whose rule runs next; its hooks have run
    cdef tuple instead          # what the user gives the inputs in place of the rule, or None
    cdef list inputs            # whose gradients are wanted; None for those of all leaves
    cdef readonly list found    # in the end: their gradients, None where none arrived
    cdef readonly bint create_graph
    cdef bint busy
    cdef readonly bint over     # committed, or given up
    cdef readonly bint committed

    def __init__(self, list roots not None, list gradients not None, bint retain_graph,
                 bint create_graph, list inputs=None):
        if self.run is not None or self.over:
            raise RuntimeError("steps: __init__ has been called before")
        cdef Sweep run = Sweep.__new__(Sweep)
        cdef Slot slot
        seeds = []
        for root, gradient in zip(roots, gradients):
            seeds.append(check_seed(<Tensor>root, gradient, "steps"))
            slot = slot_of(<Tensor>root)
            if not slot.is_leaf and (<Node>slot).freed:
                raise already_freed(<Node>slot)
        run.retain = retain_graph or create_graph
        run.create_graph = self.create_graph = create_graph
        if inputs is not None:
            run.wanted = {}
            for x in inputs:
                run.wanted[key_of(slot_of(<Tensor>x))] = None
            run.needed = find_needed(roots, run.wanted)
        self.inputs = inputs
        self.run = run
        for root, seed in zip(roots, seeds):
            slot = run.place(slot_of(<Tensor>root))
            slot.inflight = <Tensor>seed        # no two of them are outputs of one node
            slot.fresh = False

    def __dealloc__(self):
        if self.run is not None and self.run.leaves is not None:
            close_all(self.run)

    # -- going on

    def advance(self) -> bool:
        """Run the rule of the node where the sweep stands, and stop at the next. False when there
        is none: the gradients are committed then."""
        if self.run is None:
            return False
        self.enter()
        try:
            self.go_on()
        except BaseException:
            self.give_up()
            raise
        finally:
            self.leave()
        return not self.over

    cdef int go_on(self) except -1:
        cdef Sweep run = self.run
        cdef Node node = self.at
        cdef Tensor dy
        cdef bint ran = False
        if node is not None:
            run.pop()
            self.at = None
            dy = node.inflight
            try:
                if self.instead is None:
                    run_rule(run, node, dy, &ran)
                else:
                    self.give_instead(node, dy)
                    ran = True
            finally:
                self.instead = None
                close(run, node, ran)
        if run.pending > 0:
            node = <Node>run.heap[0]
            node.inflight = arrive(run, node)
            self.at = node
            return 0
        finish_leaves(run)
        commit(run)
        if self.inputs is not None:
            self.note_found(run)
        close_all(run)
        self.committed = self.over = True
        return 0

    cdef int note_found(self, Sweep run) except -1:
        self.found = []
        for x in self.inputs:
            self.found.append(run.wanted[key_of(slot_of(<Tensor>x))])
        return 0

    cdef int give_instead(self, Node node, Tensor dy) except -1:
        """As run_rule, with the gradients that the user assigned to `dx`."""
        cdef Node real = original(node)
        cdef Py_ssize_t i
        if real.hooks and dy is not None:
            keep_retained(self.run, real, dy)
        node.inflight = None
        for i in range(len(self.instead)):
            if self.instead[i] is not None and node.wants(i):
                node.give(i, <Tensor>self.instead[i], False)
        if checking() & STUDYING:
            note_rule(node, dy, nanoseconds())
        return 0

    def close(self) -> None:
        """Give the sweep up, if it is not over."""
        if self.busy:
            raise moved_from_inside()
        if self.run is not None:
            self.give_up()
            self.run = None

    cdef void give_up(self) noexcept:
        self.over = True
        self.at = None
        close_all(self.run)

    cdef int enter(self) except -1:
        if self.busy:
            raise moved_from_inside()
        self.run.enter(recording_flag(), self.run.create_graph, None)
        self.busy = True
        return 0

    cdef void leave(self) noexcept:
        self.busy = False
        self.run.leave()
        if self.over:
            self.run = None

    # -- looking

    cdef Node standing(self):
        if self.at is None:
            raise RuntimeError("steps: the backward pass does not stand at a node")
        return self.at

    cdef Tensor shown(self, Tensor x):
        """x as others may see it: a copy, since rules may write to gradients that nobody else
        has."""
        if x is None:
            return None
        cdef Tensor copy = own(x, self.run.create_graph)
        (<object>copy._array).flags.writeable = False
        return copy

    cdef Tensor so_far_at(self, Slot slot):
        """What has arrived at a slot, or None."""
        cdef Sweep run = self.run
        cdef Slot place = None if slot is None else run.find(slot)
        cdef Tensor copy
        if place is None:
            return None
        pending = None if run.sums is None else run.sums.get(key_of(place))
        if pending is None:
            return self.shown(place.inflight)
        if run.create_graph:
            shape, parts = pending
            return self.shown(sum_of_rows(place.inflight, parts, shape))
        copy = wrap(copied(place.inflight._array))
        round_sums(copy._array, pending)
        return self.shown(copy)

    @property
    def node(self):
        """The node whose rule runs next, or None."""
        return None if self.at is None else original(self.at)

    @property
    def pending(self) -> tuple:
        """The nodes that have been given a gradient and wait for their turn, the next one first."""
        cdef Py_ssize_t i
        waiting = []
        if self.run is not None:
            for i in range(self.run.pending):
                waiting.append(original(<Node>self.run.heap[i]))
        return tuple(sorted(waiting, key=serial_of, reverse=True))

    @property
    def gradients(self) -> dict:
        """What has arrived at each leaf and is not committed yet: leaf -> Tensor."""
        cdef Tensor leaf
        found = {}
        if self.run is None:
            return found
        self.enter()
        try:
            for place in self.run.leaves:
                leaf = leaf_of(<Slot>place)
                found[leaf] = self.so_far_at(leaf)
        finally:
            self.leave()
        return found

    @property
    def dy(self):
        """The gradient of the node's output; of an op with several, a tuple with None for those
        that got none."""
        cdef Node node = self.standing()
        self.enter()
        try:
            if node.outputs is None:
                return self.shown(node.inflight)
            return tuple(self.all_shown(node.outputs))
        finally:
            self.leave()

    cdef list all_shown(self, list tensors):
        copies = []
        for x in tensors:
            copies.append(self.shown(<Tensor>x))
        return copies

    @dy.setter
    def dy(self, value):
        cdef Node node = self.standing()
        cdef Py_ssize_t i
        self.enter()
        try:
            if node.outputs is None:
                node.inflight = self.edited("dy", value, node.inflight)
                node.fresh = True
                self.instead = None
                return
            if not isinstance(value, tuple) or len(value) != len(node.outputs):
                raise ValueError(
                    f"steps: dy must be a tuple with one entry for each of the "
                    f"{len(node.outputs)} outputs of {node.name}")
            edited = []
            for i in range(len(node.outputs)):
                edited.append(self.edited(f"dy[{i}]", value[i], node.outputs[i]))
            node.outputs[:] = edited
            self.instead = None
        finally:
            self.leave()

    cdef Tensor edited(self, str what, object value, Tensor old):
        """The value that the user gives a gradient, checked against the one it replaces."""
        cdef Tensor new
        if old is None and value is None:
            return None
        if old is None:
            raise ValueError(f"steps: {what} must be None, since there is no gradient")
        if not isinstance(value, Tensor):
            raise TypeError(f"steps: {what} must be a Tensor, got {type(value).__name__}")
        new = <Tensor>value
        if new.shape != old.shape:
            raise ValueError(f"steps: {what} must have shape {old.shape}, got {new.shape}")
        if new._array.dtype != old._array.dtype:
            raise TypeError(
                f"steps: {what} must have dtype {old._array.dtype}, got {new._array.dtype}")
        return own(new, self.run.create_graph)

    @property
    def so_far(self) -> tuple:
        """What has arrived at each input of the node before its rule runs, or None."""
        cdef Node node = self.standing()
        found = []
        self.enter()
        try:
            for slot in node.slots:
                found.append(self.so_far_at(<Slot>slot))
        finally:
            self.leave()
        return tuple(found)

    @property
    def dx(self) -> tuple:
        """What each input gets, or None: what was assigned, or what the rule gives. That is run
        aside, from a second node that shares what was saved, into slots that nobody else has."""
        cdef Node node = self.standing(), twin
        cdef Sweep aside
        cdef Tensor dy
        self.enter()
        try:
            if self.instead is not None:
                return tuple(self.all_shown(list(self.instead)))
            if type(node) is Output:
                return (self.shown(node.inflight),)
            twin = stand_in(original(node))
            twin.slots = own_slots(node.slots)
            aside = Sweep.__new__(Sweep)
            aside.retain = True
            aside.create_graph = self.run.create_graph
            if node.outputs is not None:
                twin.outputs = self.all_shown(node.outputs)
            dy = None if node.inflight is None else own(node.inflight, aside.create_graph)
            twin.run = aside
            twin.fresh = True
            try:
                twin.rule(twin, dy)
                return self.given(aside, twin.slots)
            finally:
                twin.run = None
                close_all(aside)
        finally:
            self.leave()

    @dx.setter
    def dx(self, value):
        cdef Node node = self.standing()
        cdef tuple given = self.dx
        cdef Py_ssize_t i
        if not isinstance(value, tuple) or len(value) != len(given):
            raise ValueError(
                f"steps: dx must be a tuple with one entry for each of the {len(given)} inputs of "
                f"{node.name}")
        if type(node) is Output:
            self.dy = value[0]          # it only hands on
            return
        self.enter()
        try:
            edited = []
            for i in range(len(given)):
                edited.append(self.edited(f"dx[{i}]", value[i], <Tensor>given[i]))
            self.instead = tuple(edited)
        finally:
            self.leave()

    cdef tuple given(self, Sweep aside, tuple slots):
        """What a rule gave, from the slots that it was run into."""
        found = []
        for slot in slots:
            given = slot is not None and aside.find(<Slot>slot) is not None
            found.append(self.shown(whole(aside, <Slot>slot)) if given else None)
        return tuple(found)


cdef tuple own_slots(tuple slots):
    """A slot for each input that wants a gradient: two of them never share one."""
    found = []
    for slot in slots:
        found.append(None if slot is None else leaf_stand_in(None))
    return tuple(found)


cdef object moved_from_inside():
    return RuntimeError("steps: a hook or rule that runs inside of a backward pass cannot look at "
                        "that pass or move it")
