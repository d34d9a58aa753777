# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The tape: recording ops, what their rules need, and what is known of memory that several tensors
look at; ops whose rule is written in Python; anomaly mode."""
cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.ref cimport Py_REFCNT
from minigrad.core.array cimport PyArray_CHKFLAGS, copied
from minigrad.core.modes cimport ANOMALY, STUDYING, checking, recording
from minigrad.core.recording cimport line_of, note_op, note_output, user_frame
from minigrad.core.tensor cimport (
    DETACHED,
    OWN,
    RETAIN,
    SAVED,
    UNRECORDED,
    Node,
    Output,
    Owner,
    Rule,
    Slot,
    Tensor,
    Version,
    array_of,
    operators,
    original,
    slot_of,
    stale,
    tracked,
    version_of,
    wrap,
)

import zlib

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    static _Atomic unsigned long long mg_serials = 0;
    #else
    static unsigned long long mg_serials = 0;
    #endif
    #define mg_next_serial() (++mg_serials)
    """
    unsigned long long next_serial "mg_next_serial"() noexcept


# ---------------------------------------------------------------- recording

cdef inline Slot slot_for(Tensor x, str name):
    """checked_slot; at once for most tensors."""
    return checked_slot(x, name) if x is None or x.seen != OWN else slot_of(x)


cdef Node record1(Tensor y, Rule rule, str name, Tensor x):
    """Put an op with one input on the tape; the caller then saves what its rule needs."""
    # Slots are found first: a view may be recorded anew, and what is read is earlier on the tape.
    cdef tuple slots = (slot_for(x, name),)
    cdef Node node = new_node(y, rule, name, slots)
    if checking():
        look(node, y, (x,))
    return node


cdef Node record2(Tensor y, Rule rule, str name, Tensor a, Tensor b):
    """The same with two inputs."""
    cdef tuple slots = (slot_for(a, name), slot_for(b, name))
    cdef Node node = new_node(y, rule, name, slots)
    if checking():
        look(node, y, (a, b))
    return node


cdef Node recordn(Tensor y, Rule rule, str name, tuple inputs):
    """The same with any number of inputs: Tensors, or None for one that has no gradient."""
    cdef Tensor x
    if len(inputs) == 2:
        return record2(y, rule, name, <Tensor>inputs[0], <Tensor>inputs[1])
    slots = []
    for x in inputs:
        slots.append(slot_for(x, name))
    cdef Node node = new_node(y, rule, name, tuple(slots))
    if checking():
        look(node, y, inputs)
    return node


cdef inline Node new_node(Tensor y, Rule rule, str name, tuple slots):
    """The Node that made y."""
    cdef Node node = Node.__new__(Node)
    node.serial = next_serial()
    node.rule = rule
    node.name = name
    node.slots = slots
    if y.node is not None:
        move_retained(y, node)
    y.node = node
    y._requires_grad = True
    return node


cdef int move_retained(Tensor y, Node node) except -1:
    """y was assigned to: if it retains its gradient, then from now on that of its new value."""
    cdef dict hooks = y.node.hooks
    if hooks is not None and RETAIN in hooks:
        node.hooks = {RETAIN: hooks[RETAIN]}
        del hooks[RETAIN]
    return 0


cdef Slot checked_slot(Tensor x, str name):
    """x's slot, for a new node. A view of memory that an op on the tape has changed since is
    recorded anew first."""
    if x is None:
        return None
    if stale(x):
        operators.renew(x, name)
    return slot_of(x)


# y = output i of an op with several         the op gets dy as its dy_i

cdef int output_rule(Node node, Tensor dy) except -1:
    cdef Output self = <Output>node
    cdef Node main = self.main
    if main.freed:
        raise already_freed(main)
    if main.run is not node.run:
        main = <Node>node.run.place(main)
    before = main.outputs[self.index]
    main.outputs[self.index] = dy if before is None else operators.add(before, dy, 0)
    return 0


cdef Tensor put_output(Tensor y, Node main, Py_ssize_t index):
    """Make y output `index` of an op with several outputs."""
    cdef Output output = Output.__new__(Output)
    output.serial = next_serial()
    output.rule = output_rule
    output.name = main.name
    output.slots = (main,)
    output.main = main
    output.index = index
    y.node = output
    y._requires_grad = True
    if checking() & STUDYING:
        note_output(output, y)
    return y


cdef int record_outputs(Node main, tuple ys) except -1:
    """Make the tensors ys the outputs of the op `main`, whose rule then finds their gradients, or
    None, in main.outputs."""
    main.outputs = [None] * len(ys)
    for index, y in enumerate(ys):
        put_output(<Tensor>y, main, index)
    return 0


# ---------------------------------------------------------------- what a rule needs

cdef Tensor savable(Tensor x):
    """x as a node may save it: memory that NumPy may change unseen is copied."""
    cdef Tensor y, copy
    cdef Version version = version_of(x)
    if not version.foreign:
        return x
    copy = wrap(copied(x._array))
    version_of(copy)
    if x._requires_grad:
        y = operators.mul(x, 1.0, 0) if x.node is None else x   # a copy of a leaf leads to the leaf
        copy.node = y.node
        copy._requires_grad = True
    return copy


cdef int save(Node node, Py_ssize_t i, Tensor x) except -1:
    """Save x as number i of what the rule needs. 0 and 1 may be left out, where no input wants the
    gradient that needs them; the numbers from 2 on come in order."""
    if x.version is None or x.version.foreign:
        x = savable(x)
    if i == 0:
        node.saved0 = x
        node.version0 = x.version.count
    elif i == 1:
        node.saved1 = x
        node.version1 = x.version.count
    else:
        if node.saved_further is None:
            node.saved_further = []
        node.saved_further.append((x, x.version.count))
    if node.line is not None:
        if node.checksums is None:
            node.checksums = {}
        node.checksums[i] = checksum(x)
    return 0


cdef int save_output(Node node, Py_ssize_t i, Tensor y) except -1:
    """Save the op's own output number i as number i of what the rule needs: its memory, in a Tensor
    without the node, so that no cycle arises."""
    cdef Tensor alias = wrap(y._array)
    alias.version = version_of(y)
    alias.seen = SAVED
    node.own_outputs = i + 1
    return save(node, i, alias)


cdef Tensor saved(Node node, Py_ssize_t i):
    """What was saved as number i, for the rule: checked to be what it was when the op ran."""
    cdef Tensor x
    cdef long version
    if node.freed:
        raise already_freed(node)
    if i == 0:
        x = node.saved0
        version = node.version0
    elif i == 1:
        x = node.saved1
        version = node.version1
    else:
        x, version = node.saved_further[i - 2]
    if x.version.count != version:
        raise changed_since(node, x, version)
    if node.checksums is not None and node.checksums[i] != checksum(x):
        raise RuntimeError(f"{node.name}: the memory of a saved tensor of shape {x.shape} was "
                           f"changed behind minigrad's back (by code that writes to its array?); "
                           f"recorded at {node.line}")
    if i < node.own_outputs and node.run.create_graph:
        return output_again(node, i, x)
    return x


cdef Tensor output_again(Node node, Py_ssize_t i, Tensor alias):
    """The op's own output number i, made of the alias that was saved, to be differentiated."""
    cdef Tensor y = wrap(alias._array)
    y.version = alias.version
    y.seen = SAVED
    if node.outputs is not None:
        return put_output(y, original(node), i)
    y.node = original(node)
    y._requires_grad = True
    return y


cdef object checksum(Tensor x):
    return zlib.crc32(np.ascontiguousarray(x._array))


cdef object changed_since(Node node, Tensor x, long version):
    return RuntimeError(
        f"{node.name}: one of the tensors needed for gradient computation has been modified by an "
        f"in-place operation: a {x._array.dtype} tensor of shape {x.shape} is at version "
        f"{x.version.count}; expected version {version} instead. Hint: assign before the op reads "
        f"the tensor, or give the op a copy")


cdef object already_freed(Node node):
    return RuntimeError(
        f"backward: trying to go through the graph a second time, but {node.name} has freed what "
        f"it saved. Specify retain_graph=True when calling backward the first time")


# ---------------------------------------------------------------- memory that several tensors share
#
# A recorded change of memory is part of the history of the tensor that owns the memory, and
# `recorded` counts it. A view whose number is behind is recorded anew, as a view of what the owner
# is now, when it is used next. Where the owner is gone, that cannot be done.

cdef int bump(Tensor x) except -1:
    """x's memory was changed in place."""
    cdef Version version = version_of(x)
    version.count += 1
    return 0


cdef int take_ownership(Tensor x) except -1:
    """x's history tells of all of its memory from here on."""
    x.owns = Owner.__new__(Owner)
    x.owns.tensor = <PyObject *>x
    x.version.owner = x.owns
    return 0


cdef Tensor owner_of(Tensor x):
    """The tensor whose history tells of x's memory, if it is another one that is still there."""
    if x.seen == OWN or x.version.owner is None:
        return None
    cdef PyObject *owner = <PyObject *>x.version.owner
    if owner.ob_refcnt < 2 or (<Owner>owner).tensor.ob_refcnt == 0:
        return None
    return <Tensor>(<Owner>owner).tensor


cdef int settle(Tensor x) except -1:
    """A view that is the only tensor left of its memory owns it."""
    cdef bint is_view = x.seen != OWN and x.seen != SAVED
    if is_view and (<PyObject *>x.version).ob_refcnt == 1 and not stale(x):
        x.seen = OWN
        take_ownership(x)
    return 0


cdef int mark_view(Tensor y, Tensor x) except -1:
    """y looks at x's memory."""
    if x.seen != OWN:
        settle(x)
        if recording() and stale(x):
            operators.renew(x, "view")
    if x.version is None:
        version_of(x)
    if x.seen == OWN and x.owns is None:
        take_ownership(x)
    y.version = x.version
    if x.seen == OWN:
        y.seen = x.version.recorded
    elif x.seen == SAVED:
        y.seen = DETACHED
    else:
        y.seen = x.seen
    if y.seen >= 0 and not recording():
        y.seen = UNRECORDED - y.seen
    return 0


# ---------------------------------------------------------------- rules written in Python

cdef Tensor own(Tensor x, bint create_graph):
    """A copy of a gradient, in C order, in memory that nobody else sees."""
    return operators.mul(x, 1.0, 0) if create_graph else wrap(copied(x._array))


cdef int python_rule(Node node, Tensor dy) except -1:
    """Call the function `backward` of an op that was recorded from Python, and give on what it
    returns."""
    cdef bint several = node.outputs is not None, create_graph = node.run.create_graph
    cdef Py_ssize_t i, count, own_outputs = node.own_outputs
    cdef Tensor y
    backward, count, shapes, _ = node.extra
    arguments = []
    for i in range(own_outputs, count):
        arguments.append(saved(node, i))
    for i in range(own_outputs):
        arguments.append(saved(node, i))
    # The rule may keep what it is given, or write to it: others must not see that.
    dys = []
    for y in node.outputs if several else (dy,):
        exposed = y is not None and (several or not node.fresh)
        dys.append(own(y, create_graph) if exposed else y)
    y = dy = None
    gradients = backward(*dys, *arguments)
    del dys
    if not isinstance(gradients, tuple):
        gradients = (gradients,)
    return give_all(node, <tuple>gradients, <list>shapes)


cdef int give_all(Node node, tuple gradients, list shapes) except -1:
    """Give what a function `backward` has returned, one gradient or None for each input."""
    cdef Tensor dx
    cdef bint create_graph = node.run.create_graph
    if len(gradients) != len(node.slots):
        raise RuntimeError(f"{node.name}: backward returned {len(gradients)} gradients "
                           f"for {len(node.slots)} inputs")
    for i, gradient in enumerate(gradients):
        if gradient is None or not node.wants(i):
            continue
        if not isinstance(gradient, Tensor):
            raise TypeError(f"{node.name}: backward must return Tensors or None, "
                            f"got {type(gradient).__name__} for input {i}")
        dx = <Tensor>gradient
        shape, dtype = shapes[i]
        if dx.shape != shape or dx._array.dtype != dtype:
            raise RuntimeError(
                f"{node.name}: backward returned a gradient of shape {dx.shape} and dtype "
                f"{dx._array.dtype} for input {i}, expected shape {shape} and dtype {dtype}")
        if create_graph:
            node.give(i, dx, False)
        elif (Py_REFCNT(dx) == 3 and Py_REFCNT(dx._array) == 1
              and PyArray_CHKFLAGS(dx._array, cnp.NPY_ARRAY_OWNDATA)):
            node.give(i, dx, True)          # only `gradients` and two names here know it
        else:
            node.give(i, own(dx, False), True)
    return 0


cdef int check_tensors(tuple tensors, str what, bint none_too, str name) except -1:
    for i, x in enumerate(tensors):
        if not isinstance(x, Tensor) and not (none_too and x is None):
            raise TypeError(f"{name}: {what} must be Tensors, "
                            f"got {type(x).__name__} at position {i}")
    return 0


def record(str name not None, values, tuple inputs not None, backward, tuple saved=(),
           bint save_value=False, details=None):
    """Wrap the value of an op written in Python and put the op on the tape.

    Args:
        name: The name of the op, for messages and drawings.
        values: An array, or a tuple of them for an op with several outputs. They are not copied, as
            with ``Tensor(copy=False)``.
        inputs: The Tensors that it was made from, or None for one that has no gradient.
        backward: Called as backward(dy, *saved), or backward(dy_0, dy_1, ..., *saved) for several
            outputs (None for those that got no gradient). It returns the gradient of each input as
            a Tensor, or None. It must be made of ops, so that it can be differentiated again.
        saved: The Tensors that backward needs. They are checked for in-place changes. Default: ().
        save_value: Whether the op's own values come last among them. Default: False.
        details: What `Node.details` tells: the op's parameters by name. Default: None, nothing.

    Returns:
        The output Tensor, or a tuple of them.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> def twice(x):
    ...     return mg.record("twice", 2 * x.numpy(), (x,), lambda dy: dy * 2)
    >>> x = mg.Tensor([3.0], requires_grad=True)
    >>> y = twice(x)
    >>> y
    Tensor([6.], grad_fn=<twice>)
    >>> y.backward()
    >>> x.grad
    Tensor([2.])
    """
    cdef Tensor y, x
    cdef bint several = isinstance(values, tuple), recorded = False
    check_tensors(inputs, "inputs", True, name)
    if saved is None:
        raise TypeError(f"{name}: saved must be a tuple of Tensors, got None")
    check_tensors(saved, "saved", False, name)
    if not callable(backward):
        raise TypeError(f"{name}: backward must be callable, got {type(backward).__name__}")
    if details is not None and not isinstance(details, dict):
        raise TypeError(f"{name}: details must be a dict, got {type(details).__name__}")
    if several and not values:
        raise ValueError(f"{name}: values must hold at least one array, got ()")
    outputs = []
    for value in values if several else (values,):
        y = wrap(array_of(value, None, False, name))
        for x in (*inputs, *outputs):
            if x is not None and np.may_share_memory(y._array, x._array):
                mark_view(y, x)
                break
        outputs.append(y)
    made = tuple(outputs)
    for x in inputs:
        recorded |= x is not None and tracked(x)
    if recorded:
        record_python(name, made, several, inputs, backward, saved, save_value, details)
    return made if several else made[0]


cdef int record_python(str name, tuple made, bint several, tuple inputs, object backward,
                       tuple saved, bint save_value, dict details) except -1:
    """Put the op of `record` on the tape: `made` are its outputs."""
    cdef Tensor x
    cdef Node node = recordn(<Tensor>made[0], python_rule, name, inputs)
    cdef Py_ssize_t count = 0
    if save_value:
        for x in made:
            save_output(node, count, x)
            count += 1
    for x in saved:
        save(node, count, x)
        count += 1
    shapes = []
    for x in inputs:
        shapes.append(None if x is None else (x.shape, x._array.dtype))
    node.extra = (backward, count, shapes, details)
    if several:
        record_outputs(node, made)
    return 0


# ---------------------------------------------------------------- ops that are looked at

cdef int look(Node node, Tensor y, tuple inputs) except -1:
    """An op was recorded while anomaly mode is on, or a recording is open."""
    cdef int looks = checking()
    if looks & STUDYING:
        note_op(node, y, inputs)
    if looks & ANOMALY:
        note_anomaly(node, y, inputs)
    return 0


cdef int note_anomaly(Node node, Tensor y, tuple inputs) except -1:
    cdef Tensor x
    node.line = line_of(user_frame())
    if not np.isfinite(y._array).all():
        given = False
        for x in inputs:
            given = given or (x is not None and not np.isfinite(x._array).all())
        raise RuntimeError(f"anomaly: {node.name} {'got' if given else 'made'} the first "
                           f"non-finite value, of shape {y.shape}, at {node.line}")
    return 0
