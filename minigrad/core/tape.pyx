# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The tape: recording ops, what their rules need, and what is known of memory that several tensors
look at; ops whose rule is written in Python; anomaly mode."""
cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.ref cimport Py_REFCNT
from minigrad.core.array cimport PyArray_CHKFLAGS, copied
from minigrad.core.modes cimport checking, recording
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
    already_freed,
    array_of,
    operators,
    original,
    saved as checked,
    slot_of,
    stale,
    tracked,
    version_of,
    wrap,
)

import linecache
import os
import sys
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

cdef str package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


# ---------------------------------------------------------------- recording

cdef inline Slot slot_for(Tensor x, str name):
    """checked_slot; at once for most tensors."""
    return checked_slot(x, name) if x is None or x.seen != OWN else slot_of(x)


cdef Node record1(Tensor y, Rule rule, str name, Tensor x):
    return recordn(y, rule, name, (x,))


cdef Node record2(Tensor y, Rule rule, str name, Tensor a, Tensor b):
    return recordn(y, rule, name, (a, b))


cdef Node recordn(Tensor y, Rule rule, str name, tuple inputs):
    """Put an op on the tape: y was made from `inputs` (Tensor or None). The caller then saves what
    its rule needs."""
    cdef Py_ssize_t n = len(inputs)
    cdef Tensor x
    cdef tuple slots                    # found first: a view may be recorded anew, and what is read is earlier on the tape
    if n == 1:
        slots = (slot_for(<Tensor>inputs[0], name),)
    elif n == 2:
        slots = (slot_for(<Tensor>inputs[0], name), slot_for(<Tensor>inputs[1], name))
    else:
        found = []
        for x in inputs:
            found.append(slot_for(x, name))
        slots = tuple(found)
    cdef Node node = Node.__new__(Node)
    node.serial, node.rule, node.name, node.slots = next_serial(), rule, name, slots
    if y.node is not None:
        move_retained(y, node)
    y.node, y._requires_grad = node, True
    if checking():
        note_anomaly(node, y, inputs)
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


cdef int output_rule(Node node, Tensor dy) except -1:
    cdef Output self = <Output>node
    cdef Node main = self.main
    if main.freed:
        raise already_freed(main)
    if main.run is not node.run:
        main = <Node>node.run.place(main)
    before = main.outputs[self.index]
    main.outputs[self.index] = dy if before is None else operators.add(before, dy)
    return 0


cdef Tensor put_output(Tensor y, Node main, Py_ssize_t index):
    """Make y output `index` of an op with several outputs."""
    cdef Output output = Output.__new__(Output)
    output.serial = next_serial()
    output.rule, output.name, output.slots, output.main, output.index = output_rule, main.name, (main,), main, index
    y.node, y._requires_grad = output, True
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
        y = operators.mul(x, 1.0) if x.node is None else x      # a copy of a leaf leads to the leaf
        copy.node, copy._requires_grad = y.node, True
    return copy


cdef int save0(Node node, Tensor x) except -1:
    if x.version is None or x.version.foreign:
        x = savable(x)
    node.saved0, node.version0 = x, x.version.count
    if node.where is not None:
        node.sum0 = zlib.crc32(np.ascontiguousarray(x._array)) + 1
    return 0


cdef int save1(Node node, Tensor x) except -1:
    if x.version is None or x.version.foreign:
        x = savable(x)
    node.saved1, node.version1 = x, x.version.count
    if node.where is not None:
        node.sum1 = zlib.crc32(np.ascontiguousarray(x._array)) + 1
    return 0


cdef int save_output(Node node, Tensor y) except -1:
    """Save the op's own output: its memory, in a Tensor without the node, so that no cycle
    arises."""
    cdef Tensor alias = wrap(y._array)
    alias.version, alias.seen = version_of(y), SAVED
    node.saved_output = True
    return save0(node, alias)


# ---------------------------------------------------------------- memory that several tensors look at
#
# A recorded change of memory is part of the history of the tensor that owns the memory, and
# `recorded` counts it. A view whose number is behind is recorded anew, as a view of what the owner
# is now, when it is used next. Where the owner is gone, that cannot be done.

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
    if x.seen != OWN and x.seen != SAVED and (<PyObject *>x.version).ob_refcnt == 1 and not stale(x):
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
    y.seen = x.version.recorded if x.seen == OWN else DETACHED if x.seen == SAVED else x.seen
    if y.seen >= 0 and not recording():
        y.seen = UNRECORDED - y.seen
    return 0


# ---------------------------------------------------------------- rules written in Python

cdef Tensor own(Tensor x, bint create_graph):
    """A copy of a gradient, in C order, in memory that nobody else sees."""
    return operators.mul(x, 1.0) if create_graph else wrap(copied(x._array))


cdef int python_rule(Node node, Tensor dy) except -1:
    cdef Tensor x, dx, y
    cdef bint several = node.outputs is not None, create_graph = node.run.create_graph
    backward, saves, shapes = node.extra
    arguments = []
    for x, version, checksum, output in saves:
        x = checked(node, x, version, checksum, output is not None and not several)
        if output is not None and several and create_graph:
            y = wrap(x._array)
            y.version, y.seen = x.version, SAVED
            x = put_output(y, original(node), output)
        arguments.append(x)
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
    if len(gradients) != len(node.slots):
        raise RuntimeError(f"{node.name}: backward returned {len(gradients)} gradients for {len(node.slots)} inputs")
    for i, gradient in enumerate(gradients):
        if gradient is None or not node.wants(i):
            continue
        if not isinstance(gradient, Tensor):
            raise TypeError(f"{node.name}: backward must return Tensors or None, got {type(gradient).__name__} for input {i}")
        dx = <Tensor>gradient
        if (dx.shape, dx._array.dtype) != shapes[i]:
            raise RuntimeError(f"{node.name}: backward returned a gradient of shape {dx.shape} and dtype {dx._array.dtype} for input {i}, "
                               f"expected shape {shapes[i][0]} and dtype {shapes[i][1]}")
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


def record(str name not None, values, tuple inputs not None, backward, tuple saved=(), bint save_value=False):
    """Wrap the value of an op written in Python and put the op on the tape.

    values: ndarray, or a tuple of them for an op with several outputs; not copied, as with
    ``Tensor(copy=False)``. inputs: the Tensors it was made from, or None for one that has no
    gradient.
    backward: called as backward(dy, *saved), or backward(dy_0, dy_1, ..., *saved) for several
    outputs (None for those that got no gradient); returns the gradient of each input as a Tensor,
    or None. It must be made of ops, so that it can be differentiated again.
    saved: Tensors that backward needs; they are checked for in-place changes. save_value: the op's
    own values come last among them.
    Return the output Tensor, or a tuple of them.

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
    cdef Node node
    cdef bint several = isinstance(values, tuple)
    check_tensors(inputs, "inputs", True, name)
    if saved is None:
        raise TypeError(f"{name}: saved must be a tuple of Tensors, got None")
    check_tensors(saved, "saved", False, name)
    if not callable(backward):
        raise TypeError(f"{name}: backward must be callable, got {type(backward).__name__}")
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
    recorded = False
    for x in inputs:
        recorded |= x is not None and tracked(x)
    if recorded:
        y = <Tensor>made[0]
        node = recordn(y, python_rule, name, inputs)
        saves, shapes = [], []
        for x in inputs:
            shapes.append(None if x is None else (x.shape, x._array.dtype))
        for x in saved:
            save0(node, x)
            saves.append((node.saved0, node.version0, node.sum0, None))
        if save_value:
            for index, y in enumerate(made):
                save_output(node, y)
                saves.append((node.saved0, node.version0, node.sum0, index))
        node.extra = (backward, saves, shapes)
        node.saved0, node.saved_output = None, False
        if several:
            record_outputs(node, made)
    return made if several else made[0]


# ---------------------------------------------------------------- anomaly mode

def user_line() -> str:
    """The innermost line of the call stack outside minigrad: file, line number, source."""
    frame = sys._getframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith("<") or not os.path.realpath(path).startswith(package + os.sep):
            line = linecache.getline(path, frame.f_lineno, frame.f_globals).strip()
            return f"{path}:{frame.f_lineno}: {line}"
        frame = frame.f_back
    return "an unknown line"


cdef int note_anomaly(Node node, Tensor y, tuple inputs) except -1:
    cdef Tensor x
    node.where = user_line()
    if not np.isfinite(y._array).all():
        given = False
        for x in inputs:
            given = given or (x is not None and not np.isfinite(x._array).all())
        raise RuntimeError(f"anomaly: {node.name} {'got' if given else 'made'} the first non-finite value, of shape {y.shape}, "
                           f"at {node.where}")
    return 0
