# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: c_api_binop_methods=True
"""Tensor, the tape, and the sweep that walks it backwards. The ops are in elementwise, matmul, reduce, shape and the modules above.

How a gradient is made, in three steps:

1. *Record.* Each op computes its value and, if an input requires a gradient and recording is on, adds a Node to the tape. The Node
   holds its rule, what the rule needs (saved tensors), and the *slots* of the inputs: the Node that made an input, or the leaf
   Tensor itself. It never holds its own output. The tape is a linked list in the order of creation; a Node that nobody needs
   leaves it when it dies.
2. *Sweep.* ``backward`` puts the seed into the slot of the root and walks the tape from there to earlier Nodes. A Node is later on
   the tape than everything it was made from, so when the walk reaches a Node, every contribution to its gradient has arrived: no
   recursion and no sorting (for `b = a + a; c = b + b`, b is visited once, with both contributions). The rule turns the gradient
   of the output, `dy`, into gradients of the inputs and gives them to their slots; then the Node lets go of what it saved.
3. *Commit.* Only when the whole sweep succeeded, the leaves' gradients are added to their ``grad``.
"""
cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from minigrad.kernels cimport K32, K64, accumulate_strided, array_like, array_of_shape, copy_strided, mg_kernels, new_array

import operator
import os
import sys
import threading
import traceback
import zlib

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    static _Thread_local int mg_recording = 1;
    static int mg_anomaly = 0;
    """
    int mg_recording
    int mg_anomaly

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    void PyType_Modified(PyTypeObject *type)

cdef extern from "numpy/arrayobject.h":
    object PyArray_EMPTY(int nd, cnp.npy_intp *dims, int typenum, int fortran)
    int PyArray_CHKFLAGS(cnp.ndarray, int flags) noexcept

cdef PyObject *tape_end = NULL          # the newest Node; the older ones hang on `earlier`
cdef unsigned long serials = 0
cdef enum:
    MAX_DEPTH = 20
cdef int depth = 0                      # of nodes dying inside of each other
cdef list graveyard = []                # what nodes held that died deeper than that
cdef unsigned long sweeps = 0
cdef object float32 = np.dtype(np.float32)
cdef object float64 = np.dtype(np.float64)
cdef object one_sweep = threading.RLock()       # a sweep at a time: threads may share leaves; a hook may start another in its thread
cdef object masked_array = np.ma.MaskedArray
cdef tuple number_types = (np.floating, np.integer)       # NumPy scalars beside Python's float and int


# ---------------------------------------------------------------- the tape

cdef class Version:
    """Counts the in-place changes of one block of memory; shared by all tensors that look at it."""


@cython.trashcan(True)
cdef class Slot:
    """A place where a sweep gathers the gradient of one value: a Node, or a leaf Tensor."""


@cython.trashcan(True)
cdef class Node(Slot):
    """One recorded op. `name` is the op's, `inputs` lead to the earlier nodes."""

    def __cinit__(self):
        global tape_end, serials
        serials += 1
        self.serial = serials
        self.earlier = tape_end
        if tape_end != NULL:
            (<Node>tape_end).later = <PyObject *>self
        tape_end = <PyObject *>self

    def __dealloc__(self):
        """Leave the tape, and let go of what the node holds: not deeper than MAX_DEPTH, since a chain of a million nodes would overrun the
        stack. (CPython's trashcan, from 3.12 on, allows thousands of levels: too many for a thread with a small stack.)"""
        global tape_end, depth
        if self.earlier != NULL:
            (<Node>self.earlier).later = self.later
        if self.later != NULL:
            (<Node>self.later).earlier = self.earlier
        else:
            tape_end = self.earlier
        if depth >= MAX_DEPTH:
            graveyard.append((self.slots, self.saved0, self.saved1, self.extra))
            return
        depth += 1
        self.slots = self.saved0 = self.saved1 = self.extra = None
        depth -= 1
        while depth == 0 and graveyard:
            depth = 1
            graveyard.pop()
            depth = 0

    @property
    def inputs(self):
        """The slots of the op's inputs: Node, leaf Tensor, or None where no gradient is wanted."""
        return self.slots

    def __repr__(self):
        return f"<Node {self.name}>"

    cdef bint wants(self, Py_ssize_t i) noexcept:
        """Does input i want a gradient from the running sweep?"""
        return self.run.takes(<Slot>self.slots[i])

    cdef Tensor get0(self):
        """The first saved tensor, checked to be what it was when the op ran."""
        return saved(self, self.saved0, self.version0, self.sum0, self.saved_output)

    cdef Tensor get1(self):
        return saved(self, self.saved1, self.version1, self.sum1, False)

    cdef int give(self, Py_ssize_t i, Tensor dx, bint fresh) except -1:
        """Add dx to the gradient of input i; `fresh` says that nobody else looks at dx's memory."""
        cdef Slot slot = <Slot>self.slots[i]
        if not self.run.takes(slot):
            return 0
        if slot.run is not self.run:
            self.run.open(slot)
            slot.inflight, slot.fresh = dx, fresh
        elif self.run.create_graph:
            slot.inflight = dx if slot.inflight is None else operators.add(slot.inflight, dx)
        elif slot.fresh:
            add_into(slot.inflight._array, dx._array)
        else:
            slot.inflight, slot.fresh = operators.add(slot.inflight, dx), True
        return 0

    cdef Tensor buffer(self, Py_ssize_t i, tuple shape, int typenum):
        """The gradient of input i as a buffer to accumulate into, made of zeros at the first call. Not for create_graph sweeps.

        Rules that add with one chain per element (products, bias sums) go on from what is in the buffer: the weight gradient of a
        recurrent loop is then one chain over all its steps, the same as that of a layer that runs the whole sequence. Sums over
        rows have a second half beside it: see `low_part`.
        """
        cdef Slot slot = <Slot>self.slots[i]
        if slot.run is not self.run:
            self.run.open(slot)
            slot.inflight, slot.fresh = wrap(array_of_shape(shape, typenum, True)), True
        elif not slot.fresh:
            slot.inflight, slot.fresh = wrap(copied(slot.inflight._array)), True
        return slot.inflight

    cdef int give_unbroadcast(self, Py_ssize_t i, Tensor dy, tuple shape, bint fresh) except -1:
        """Give dy, summed over the dimensions along which input i, of the given shape, was broadcast."""
        if not self.wants(i):
            return 0
        cdef cnp.ndarray array = dy._array
        cdef tuple from_shape = (<object>array).shape
        if from_shape == shape:
            return self.give(i, dy, fresh)
        if self.run.create_graph:
            return self.run.add_rows_later(<Slot>self.slots[i], dy, shape)
        array = rows_first(array, shape)
        rows_into(self.buffer(i, shape, cnp.PyArray_TYPE(array))._array, self.low_part(i, shape), array)
        return 0

    cdef cnp.ndarray low_part(self, Py_ssize_t i, tuple shape):
        """The other half of `buffer` for rules that add up rows, made of zeros at the first call: see add_rows in csrc/kernels.h."""
        cdef Sweep run = self.run
        slot = self.slots[i]
        if run.sums is None:
            run.sums = {}
        low = run.sums.get(slot)
        if low is None:
            low = run.sums[slot] = array_of_shape(shape, cnp.NPY_DOUBLE, True)
        return low


cdef cnp.ndarray rows_first(cnp.ndarray x, tuple shape):
    """x, contiguous, with the dimensions in front along which an array of `shape` was broadcast to x's shape."""
    cdef tuple from_shape = (<object>x).shape
    cdef int lead = len(from_shape) - len(shape)
    if from_shape[lead:] == shape:
        return np.ascontiguousarray(x)
    keep = tuple([d for d in range(lead, len(from_shape)) if shape[d - lead] != 1 or from_shape[d] == 1])
    summed = tuple([d for d in range(len(from_shape)) if d not in keep])
    return np.ascontiguousarray(x.transpose(summed + keep))


cdef int rows_into(cnp.ndarray y, cnp.ndarray low, cnp.ndarray x) except -1:
    """(y, low) += the sum of x over its leading elements; all contiguous."""
    cdef Py_ssize_t cols = cnp.PyArray_SIZE(y), rows
    if cols == 0:
        return 0
    rows = cnp.PyArray_SIZE(x) // cols
    kernels_of(x).add_rows(rows, cols, cnp.PyArray_DATA(x), cols, cnp.PyArray_DATA(y), <double *>cnp.PyArray_DATA(low))
    return 0


cdef int round_sums(cnp.ndarray y, cnp.ndarray low) except -1:
    """y += low, rounded once."""
    kernels_of(y).round_sums(cnp.PyArray_SIZE(y), <const double *>cnp.PyArray_DATA(low), cnp.PyArray_DATA(y))
    return 0


cdef Tensor sum_of_rows(Tensor start, list parts, tuple shape):
    """start (None for zeros) + the sums of the parts over the dimensions along which `shape` was broadcast to theirs: what the rules
    make of the same contributions, to the bit, and differentiable."""
    cdef Tensor part = parts[0]
    cdef int typenum = cnp.PyArray_TYPE(part._array)
    cdef cnp.ndarray y = array_of_shape(shape, typenum, True) if start is None else copied(start._array)
    cdef cnp.ndarray low = array_of_shape(shape, cnp.NPY_DOUBLE, True)
    for part in parts:
        rows_into(y, low, rows_first(part._array, shape))
    round_sums(y, low)
    shapes = [part.shape for part in parts]

    if start is not None:
        parts, shapes = [start, *parts], [shape, *shapes]

    def backward(g):
        return tuple([g.broadcast_to(wide) for wide in shapes])
    return record("sum", y, tuple(parts), backward)


cdef int add_into(cnp.ndarray y, cnp.ndarray x) except -1:
    """y += x in place, for a y of our own."""
    cdef const mg_kernels *K = kernels_of(y)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(y)
    if PyArray_CHKFLAGS(y, cnp.NPY_ARRAY_C_CONTIGUOUS) and PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS):
        K.accumulate(n, cnp.PyArray_DATA(x), 1, cnp.PyArray_DATA(y))
        return 0
    cdef ptrdiff_t sx[64]
    cdef ptrdiff_t sy[64]
    cdef int d
    for d in range(cnp.PyArray_NDIM(y)):
        sx[d] = cnp.PyArray_STRIDE(x, d) // <ptrdiff_t>K.itemsize
        sy[d] = cnp.PyArray_STRIDE(y, d) // <ptrdiff_t>K.itemsize
    accumulate_strided(K, cnp.PyArray_NDIM(y), <const ptrdiff_t *>cnp.PyArray_DIMS(y),
                       cnp.PyArray_DATA(x), sx, cnp.PyArray_DATA(y), sy)
    return 0


cdef Tensor saved(Node node, Tensor x, long version, long checksum, bint own_output):
    if node.freed:
        raise already_freed(node)
    if x.version.count != version:
        raise RuntimeError(
            f"{node.name}: one of the tensors needed for gradient computation has been modified by an in-place operation: "
            f"a {x._array.dtype} tensor of shape {x.shape} is at version {x.version.count}; expected version {version} instead. "
            f"Hint: assign before the op reads the tensor, or give the op a copy"
        )
    if checksum != 0 and zlib.crc32(np.ascontiguousarray(x._array)) + 1 != checksum:
        raise RuntimeError(f"{node.name}: the memory of a saved tensor of shape {x.shape} was changed behind minigrad's back"
                           f" (a NumPy alias made by copy=False?); recorded at {node.where}")
    cdef Tensor y
    if own_output and node.run.create_graph:
        y = wrap(x._array)
        y.node, y._requires_grad, y.version = node, True, x.version
        return y
    return x


def already_freed(node):
    return RuntimeError(f"backward: trying to go through the graph a second time, but {node.name} has freed what it saved. "
                        f"Specify retain_graph=True when calling backward the first time")


cdef class Output(Node):
    """One output of an op with several: hands its gradient on to the op's Node."""
    cdef Node main
    cdef Py_ssize_t index


cdef int output_rule(Node node, Tensor dy) except -1:
    cdef Output self = <Output>node
    cdef Node main = self.main
    if main.freed:
        raise already_freed(main)
    if main.run is None:
        self.run.open(main)
        main.outputs = [None] * len(main.outputs)
    before = main.outputs[self.index]
    main.outputs[self.index] = dy if before is None else operators.add(before, dy)
    return 0


cdef Tensor put_output(Tensor y, Node main, Py_ssize_t index):
    """Make y output `index` of an op with several outputs."""
    cdef Output output = Output.__new__(Output)
    output.rule, output.name, output.slots, output.main, output.index = output_rule, main.name, (main,), main, index
    y.node, y._requires_grad = output, True
    return y


cdef int record_outputs(Node main, tuple ys) except -1:
    """Make the tensors ys the outputs of the op `main`, whose rule then finds their gradients, or None, in main.outputs."""
    main.outputs = [None] * len(ys)
    for index, y in enumerate(ys):
        put_output(<Tensor>y, main, index)
    return 0


# ---------------------------------------------------------------- recording

cdef bint recording() noexcept:
    return mg_recording

cdef inline Slot slot_of(Tensor x):
    if not x._requires_grad:
        return None
    return x if x.node is None else x.node

cdef Node record1(Tensor y, Rule rule, str name, Tensor x):
    return recordn(y, rule, name, (x,))

cdef Node record2(Tensor y, Rule rule, str name, Tensor a, Tensor b):
    return recordn(y, rule, name, (a, b))

cdef Node recordn(Tensor y, Rule rule, str name, tuple inputs):
    """Put an op on the tape: y was made from `inputs` (Tensor or None). The caller then saves what its rule needs."""
    cdef Node node = Node.__new__(Node)
    cdef Py_ssize_t n = len(inputs)
    cdef Tensor x
    node.rule, node.name = rule, name
    if n == 1:
        node.slots = (checked_slot(<Tensor>inputs[0], name),)
    elif n == 2:
        node.slots = (checked_slot(<Tensor>inputs[0], name), checked_slot(<Tensor>inputs[1], name))
    else:
        node.slots = tuple([checked_slot(x, name) if x is not None else None for x in inputs])
    y.node, y._requires_grad = node, True
    if mg_anomaly:
        note_anomaly(node, y, inputs)
    return node

cdef Slot checked_slot(Tensor x, str name):
    """x's slot, for a new node; a view of memory that an op on the tape has changed since is refused: it knows nothing of that op."""
    if x.seen >= 0 and x.seen != x.version.recorded:
        raise RuntimeError(f"{name}: an input of shape {x.shape} is a view that was taken before its memory was assigned to: "
                           f"take the view again, or copy it when it is taken")
    return slot_of(x)

cdef int save0(Node node, Tensor x) except -1:
    if x.version is None:
        x.version = Version.__new__(Version)
    node.saved0, node.version0 = x, x.version.count
    if mg_anomaly:
        node.sum0 = zlib.crc32(np.ascontiguousarray(x._array)) + 1
    return 0

cdef int save1(Node node, Tensor x) except -1:
    if x.version is None:
        x.version = Version.__new__(Version)
    node.saved1, node.version1 = x, x.version.count
    if mg_anomaly:
        node.sum1 = zlib.crc32(np.ascontiguousarray(x._array)) + 1
    return 0

cdef int save_output(Node node, Tensor y) except -1:
    """Save the op's own output: its memory, in a Tensor without the node, so that no cycle arises."""
    if y.version is None:
        y.version = Version.__new__(Version)
    cdef Tensor alias = wrap(y._array)
    alias.version = y.version
    node.saved_output = True
    return save0(node, alias)

cdef int mark_view(Tensor y, Tensor x) except -1:
    """y looks at x's memory."""
    if x.version is None:
        x.version = Version.__new__(Version)
    y.version, y.seen = x.version, x.seen if x.seen >= 0 else x.version.recorded
    return 0

cdef int bump(Tensor x) except -1:
    """x's memory was changed in place."""
    if x.version is None:
        x.version = Version.__new__(Version)
    x.version.count += 1
    return 0


cdef int python_rule(Node node, Tensor dy) except -1:
    cdef Tensor x, dx, y
    cdef bint several = node.outputs is not None
    backward, saves, shapes = node.extra
    arguments = []
    for x, version, checksum, output in saves:
        x = saved(node, x, version, checksum, output is not None and not several)
        if output is not None and several and node.run.create_graph:
            y = wrap(x._array)
            y.version = x.version
            x = put_output(y, node, output)
        arguments.append(x)
    gradients = backward(*(node.outputs if node.outputs is not None else (dy,)), *arguments)
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
        node.give(i, dx, False)
    return 0


def record(str name not None, values, tuple inputs not None, backward, tuple saved=(), bint save_value=False):
    """Wrap the value of an op written in Python and put the op on the tape.

    values: ndarray, or a tuple of them for an op with several outputs. inputs: the Tensors it was made from.
    backward: called as backward(dy, *saved), or backward(dy_0, dy_1, ..., *saved) for several outputs (None for those that got no
    gradient); returns the gradient of each input as a Tensor, or None. It must be made of ops, so that it can be differentiated again.
    saved: Tensors that backward needs; they are checked for in-place changes. save_value: the op's own values come last among them.
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
    made = tuple([wrap(np.asarray(value)) for value in (values if several else (values,))])
    for y in made:
        for x in inputs:
            if x is not None and np.may_share_memory(y._array, x._array):
                mark_view(y, x)
                break
    if mg_recording and any([x is not None and x._requires_grad for x in inputs]):
        y = <Tensor>made[0]
        node = recordn(y, python_rule, name, inputs)
        saves = []
        for x in saved:
            save0(node, x)
            saves.append((x, node.version0, node.sum0, None))
        if save_value:
            for index, y in enumerate(made):
                save_output(node, y)
                saves.append((node.saved0, node.version0, node.sum0, index))
        node.extra = (backward, saves, [(x.shape, x._array.dtype) if x is not None else None for x in inputs])
        node.saved0, node.saved_output = None, False
        if several:
            record_outputs(node, made)
    return made if several else made[0]


# ---------------------------------------------------------------- anomaly mode

def user_line() -> str:
    """The innermost line of the call stack outside minigrad: file, line number, source."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.replace("\\", "/").rpartition("/")[0].endswith("minigrad") and "tensor.pyx" not in frame.filename:
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "an unknown line"

cdef int note_anomaly(Node node, Tensor y, tuple inputs) except -1:
    cdef Tensor x
    node.where = user_line()
    if not np.isfinite(y._array).all():
        given = [x for x in inputs if x is not None and not np.isfinite(x._array).all()]
        raise RuntimeError(f"anomaly: {node.name} {'got' if given else 'made'} the first non-finite value, of shape {y.shape}, "
                           f"at {node.where}")
    return 0

cdef int check_gradients(Node node) except -1:
    cdef Slot slot
    for i in range(len(node.slots)):
        slot = <Slot>node.slots[i]
        if slot is not None and slot.run is node.run and not finite_so_far(node.run, slot):
            raise RuntimeError(f"anomaly: the backward of {node.name} made the first non-finite gradient, for its input {i}; "
                               f"the op was recorded at {node.where}")
    return 0


cdef bint finite_so_far(Sweep run, Slot slot) except -1:
    """Is all that has arrived at a slot finite?"""
    pending = None if run.sums is None else run.sums.get(slot)
    if pending is None:
        arrays = []
    elif run.create_graph:
        arrays = [(<Tensor>part)._array for part in pending[1]]
    else:
        arrays = [pending]
    if slot.inflight is not None:
        arrays.append(slot.inflight._array)
    return all([np.isfinite(array).all() for array in arrays])


class detect_anomaly:
    """A context in which each recorded op is checked, forward and backward; the first non-finite value is a RuntimeError that
    names the op and the user's line. Buffers that were saved are checksummed too. Slow: for finding a fault.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 0.0], requires_grad=True)
    >>> with mg.detect_anomaly():           # doctest: +ELLIPSIS
    ...     y = mg.log(x)
    Traceback (most recent call last):
    RuntimeError: anomaly: log made the first non-finite value, of shape (2,), at ...y = mg.log(x)
    """

    def __enter__(self):
        global mg_anomaly
        self.before = mg_anomaly
        mg_anomaly = 1
        return self

    def __exit__(self, *exception):
        global mg_anomaly
        mg_anomaly = self.before


# ---------------------------------------------------------------- recording on and off

class _Recording:
    """Sets recording in this thread for a `with` block or a decorated function."""

    def __init__(self):
        self.before = []

    def __enter__(self):
        global mg_recording
        self.before.append(mg_recording)
        mg_recording = self.on
        return self

    def __exit__(self, *exception):
        global mg_recording
        mg_recording = self.before.pop()

    def __call__(self, function):
        import functools

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with type(self)():
                return function(*args, **kwargs)
        return wrapped


class no_grad(_Recording):
    """A context, or decorator, in which this thread records nothing.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0], requires_grad=True)
    >>> with mg.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    on = 0


class enable_grad(_Recording):
    """The opposite of no_grad: records again inside of it.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0], requires_grad=True)
    >>> with mg.no_grad():
    ...     with mg.enable_grad():
    ...         print((x * 2).requires_grad)
    True
    """
    on = 1


def is_grad_enabled() -> bool:
    """Is recording on in this thread?

    >>> import minigrad as mg
    >>> with mg.no_grad():
    ...     mg.is_grad_enabled()
    False
    """
    return bool(mg_recording)


# ---------------------------------------------------------------- the sweep

cdef class Sweep:
    """One walk over the tape: what is pending, which leaves got a gradient."""

    cdef bint takes(self, Slot slot) noexcept:
        """Does this sweep have a use for the gradient of a slot?"""
        return slot is not None and (self.wanted is None or slot in self.needed)

    cdef int open(self, Slot slot) except -1:
        """The first gradient arrives at a slot."""
        if slot.run is not None:
            raise RuntimeError("backward: another backward is running through the same tensors (a hook, or another thread)")
        slot.run = self
        if slot.is_leaf:
            self.leaves.append(slot)
        else:
            Py_INCREF(slot)         # the walk holds a pending node: the child that led to it may die first
            (<Node>slot).sweep = self.id
            self.pending += 1
        return 0

    cdef int add_rows_later(self, Slot slot, Tensor dy, tuple shape) except -1:
        """For create_graph sweeps: keep dy, to be summed over its rows to `shape` together with what else arrives at the slot."""
        if slot.run is not self:
            self.open(slot)
        if self.sums is None:
            self.sums = {}
        self.sums.setdefault(slot, (shape, []))[1].append(dy)
        return 0

    cdef Tensor gathered(self, Slot slot):
        """The whole gradient of a slot: `inflight`, and the sums over rows that were carried in twice the precision until now."""
        pending = None if self.sums is None else self.sums.pop(slot, None)
        if pending is None:
            return slot.inflight
        if self.create_graph:
            shape, parts = pending
            slot.inflight, slot.fresh = sum_of_rows(slot.inflight, parts, shape), True
        else:
            round_sums(slot.inflight._array, pending)
        return slot.inflight

    cdef int walk(self, Node newest) except -1:
        cdef PyObject *at = <PyObject *>newest
        cdef Node node
        while self.pending > 0:
            if (<Node>at).sweep != self.id:
                at = (<Node>at).earlier
                continue
            node = <Node>at
            try:
                self.visit(node)
            finally:
                self.close(node)
            at = node.earlier
            node = None
        return 0

    cdef int visit(self, Node node) except -1:
        cdef Tensor dy = self.gathered(node)
        if node.freed:
            raise already_freed(node)
        if node.hooks and dy is not None:
            dy = run_hooks(node, dy)
        if self.wanted is not None and node in self.wanted:
            self.wanted[node] = dy
        node.inflight = None
        if self.wanted is None or leads_on(node, self.needed):
            node.rule(node, dy)
        if mg_anomaly:
            check_gradients(node)
        return 0

    cdef int close(self, Node node) except -1:
        """The walk leaves a node, or gives it up after an error."""
        node.inflight, node.run, node.sweep = None, None, 0
        if node.outputs is not None:
            node.outputs = [None] * len(node.outputs)
        if not self.retain:
            node.freed = True
            node.saved0 = node.saved1 = node.extra = None
            node.slots = (None,) * len(node.slots)
            if type(node) is Output:
                (<Output>node).main = None
        self.pending -= 1
        Py_DECREF(node)
        return 0

    cdef int give_up(self, Node newest) except -1:
        """After an error: no slot keeps anything of this sweep."""
        cdef PyObject *at = <PyObject *>newest
        cdef Node node
        cdef Slot leaf
        while self.pending > 0 and at != NULL:
            if (<Node>at).sweep == self.id:
                node = <Node>at
                self.close(node)
                at = node.earlier
                node = None
            else:
                at = (<Node>at).earlier
        for leaf in self.leaves:
            leaf.inflight, leaf.run = None, None
        return 0


cdef bint leads_on(Node node, set needed) except -1:
    """Does one of the node's inputs lie on the way to what grad() wants?"""
    cdef Slot slot
    for slot in node.slots:
        if slot is not None and slot in needed:
            return True
    return False


cdef set find_needed(list roots, dict wanted, unsigned long id):
    """The slots on the way from the roots to the wanted ones: both ends, and every node that leads to a wanted slot.

    First from the roots to all that they were made from, in any order; then along the tape from the earliest of these to the latest,
    so that each node is looked at after its inputs.
    """
    cdef Tensor root
    cdef Node node, first = None
    cdef Slot slot
    cdef Py_ssize_t reached = 0
    cdef PyObject *at
    needed = set(wanted)
    stack = [slot_of(root) for root in roots]
    while stack:
        slot = stack.pop()
        if slot is None or slot.is_leaf or (<Node>slot).reached == id:
            continue
        node = <Node>slot
        node.reached = id
        reached += 1
        stack.extend(node.slots)
        if first is None or node.serial < first.serial:
            first = node
    at = <PyObject *>first
    while reached > 0:
        if (<Node>at).reached == id:
            reached -= 1
            node = <Node>at
            if leads_on(node, needed):
                needed.add(node)
            node = None
        at = (<Node>at).later
    return needed


cdef Tensor run_hooks(Slot slot, Tensor gradient):
    cdef Tensor new
    for hook in list(slot.hooks.values()):
        result = hook(gradient)
        if result is None:
            continue
        if not isinstance(result, Tensor):
            raise TypeError(f"hook: must return a Tensor or None, got {type(result).__name__}")
        new = <Tensor>result
        if new.shape != gradient.shape or new._array.dtype != gradient._array.dtype:
            raise RuntimeError(f"hook: the gradient has shape {gradient.shape} and dtype {gradient._array.dtype}, the hook returned "
                               f"{new.shape} and {new._array.dtype}")
        gradient, slot.fresh = new, False
    return gradient


cdef Tensor check_seed(Tensor root, object gradient, str op):
    cdef Tensor seed
    if not root._requires_grad:
        raise RuntimeError(f"{op}: the tensor does not require grad and was not made from one that does")
    if gradient is None:
        if cnp.PyArray_SIZE(root._array) != 1:
            raise RuntimeError(f"{op}: a gradient can be created implicitly only for a scalar, the output has shape {root.shape}: "
                               f"give gradient=, of that shape")
        return wrap(np.ones(root.shape, root._array.dtype))
    if not isinstance(gradient, Tensor):
        gradient = Tensor(gradient, dtype=None if isinstance(gradient, np.ndarray) else root._array.dtype)
    seed = <Tensor>gradient
    if seed._array.dtype != root._array.dtype:
        raise TypeError(f"{op}: gradient must have dtype {root._array.dtype} like the output, got {seed._array.dtype}")
    if seed.shape != root.shape:
        raise ValueError(f"{op}: gradient must have shape {root.shape} like the output, got {seed.shape}")
    return seed


def _unlock_in_child():
    """fork() may come in the middle of another thread's sweep."""
    global one_sweep
    one_sweep = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


cdef int sweep(list roots, list seeds, bint retain, bint create_graph, dict wanted) except -1:
    """Walk back from the roots. wanted is None: commit the leaves' gradients; else fill it and commit nothing."""
    global sweeps, mg_recording
    cdef Sweep run = Sweep.__new__(Sweep)
    cdef Tensor root, seed, leaf, gradient
    cdef Node newest = None
    cdef Slot slot
    cdef int before = mg_recording
    one_sweep.acquire()
    try:
        sweeps += 1
        run.id, run.leaves, run.retain, run.create_graph, run.wanted = sweeps, [], retain, create_graph, wanted
        if wanted is not None:
            run.needed = find_needed(roots, wanted, run.id)
        mg_recording = create_graph
        for root, seed in zip(roots, seeds):
            slot = slot_of(root)
            if not run.takes(slot):
                continue
            if slot.run is not run:
                run.open(slot)
                slot.inflight, slot.fresh = seed, False
            else:
                slot.inflight, slot.fresh = operators.add(slot.inflight, seed), True
            if not slot.is_leaf and (newest is None or (<Node>slot).serial > newest.serial):
                newest = <Node>slot
        run.walk(newest)
        gradients = []
        for leaf in run.leaves:
            gradient = run.gathered(leaf)
            if leaf.hooks:
                gradient = run_hooks(leaf, gradient)
            if wanted is not None:
                if leaf in wanted:
                    wanted[leaf] = gradient
            elif not create_graph and (not leaf.fresh or not PyArray_CHKFLAGS(gradient._array, cnp.NPY_ARRAY_C_CONTIGUOUS)):
                gradient = wrap(copied(gradient._array))
            elif create_graph and leaf._grad is not None:
                gradient = operators.add(leaf._grad, gradient)
            elif create_graph and not leaf.fresh:
                gradient = operators.mul(gradient, 1.0)         # memory of its own: a later backward adds to it in place
            gradients.append(gradient)
        if wanted is None:
            for leaf, gradient in zip(run.leaves, gradients):       # nothing below can fail
                if leaf._grad is None or create_graph:
                    leaf._grad = gradient
                else:
                    add_into(leaf._grad._array, gradient._array)
                    bump(leaf._grad)
        for leaf in run.leaves:
            leaf.inflight, leaf.run = None, None
    except BaseException:
        run.give_up(newest)
        raise
    finally:
        mg_recording = before
        one_sweep.release()
    return 0


def grad(outputs, inputs, grad_outputs=None, *, retain_graph=None, create_graph=False, allow_unused=False) -> tuple:
    """The gradients of `outputs` (a Tensor or several) with respect to `inputs` (a Tensor or several), as a tuple of Tensors.

    grad_outputs: the cotangent of each output; may be left out for scalars. No tensor's ``grad`` changes. With create_graph=True the
    result can be differentiated again. An input that the outputs do not depend on is a RuntimeError, or None with allow_unused=True.

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
        raise ValueError(f"grad: grad_outputs must have one entry for each of the {len(outputs)} outputs, got {len(grad_outputs)}")
    for name, tensors in (("outputs", outputs), ("inputs", inputs)):
        for given in tensors:
            if not isinstance(given, Tensor):
                raise TypeError(f"grad: {name} must be Tensors, got {type(given).__name__}")
            x = <Tensor>given
            if not x._requires_grad:
                raise RuntimeError(f"grad: one of the {name} does not require grad and was not made from a tensor that does")
    seeds = [check_seed(x, gradient, "grad") for x, gradient in zip(outputs, grad_outputs)]
    wanted = {slot_of(x): None for x in inputs}
    sweep(outputs, seeds, create_graph if retain_graph is None else retain_graph, create_graph, wanted)
    found = []
    for i, x in enumerate(inputs):
        gradient = wanted[slot_of(x)]
        if gradient is None and not allow_unused:
            raise RuntimeError(f"grad: input {i} was not used to compute the outputs; allow_unused=True gives None for it")
        found.append(gradient)
    return tuple(found)


class HookHandle:
    """What register_hook returns; `remove()` takes the hook off."""

    def __init__(self, hooks, number):
        self.hooks, self.number = hooks, number

    def remove(self) -> None:
        self.hooks.pop(self.number, None)


# ---------------------------------------------------------------- making tensors

cdef const mg_kernels *kernels_of(cnp.ndarray array) noexcept:
    return K32 if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT else K64

cdef Tensor wrap(cnp.ndarray array):
    """A Tensor around an array of ours: float32 or float64, aligned, native byte order."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t._array = array
    return t

cdef Tensor empty(int nd, cnp.npy_intp *shape, int typenum):
    return wrap(new_array(nd, shape, typenum, False))

cdef cnp.ndarray contiguous(Tensor x):
    """x's array in C order: itself, or a copy."""
    return x._array if PyArray_CHKFLAGS(x._array, cnp.NPY_ARRAY_C_CONTIGUOUS) else copied(x._array)

cdef cnp.ndarray copied(cnp.ndarray source):
    """A copy in C order."""
    cdef cnp.ndarray target = array_like(source)
    cdef const mg_kernels *K = kernels_of(source)
    cdef ptrdiff_t sx[64]
    cdef ptrdiff_t sy[64]
    cdef int d
    for d in range(cnp.PyArray_NDIM(source)):
        sx[d] = cnp.PyArray_STRIDE(source, d) // <ptrdiff_t>K.itemsize
        sy[d] = cnp.PyArray_STRIDE(target, d) // <ptrdiff_t>K.itemsize
    copy_strided(K.itemsize, cnp.PyArray_NDIM(source), <const ptrdiff_t *>cnp.PyArray_DIMS(source),
                 cnp.PyArray_DATA(source), sx, cnp.PyArray_DATA(target), sy)
    return target


def checked_dtype(dtype, str op) -> np.dtype:
    """`dtype` as one of the two that tensors have, else a TypeError that names them."""
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise TypeError(f"{op}: dtype must be float32 or float64, got {dtype!r}") from None
    if found != float32 and found != float64:
        raise TypeError(f"{op}: dtype must be float32 or float64, got {found}")
    return found


cdef bint holds_mask(object data) except -1:
    """Is there a masked array in (lists of) lists?"""
    if type(data) is list or type(data) is tuple:
        for part in data:
            if holds_mask(part):
                return True
        return False
    return isinstance(data, masked_array)


cdef cnp.ndarray as_array(object data, object dtype, bint copy, str op):
    """NumPy's view of `data` as an array that a Tensor may hold; see Tensor for the rules."""
    cdef cnp.ndarray array
    if isinstance(data, Tensor):
        data = (<Tensor>data)._array
    if isinstance(data, (str, bytes, bytearray)) or data is None:
        raise TypeError(f"{op}: data must be numbers, got {type(data).__name__}")
    typed = isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__array__") or hasattr(data, "__dlpack__")
    try:
        found = np.asanyarray(data)
    except ValueError as error:
        raise ValueError(f"{op}: data is ragged or not an array: {error}") from None
    if isinstance(found, np.ma.MaskedArray) or holds_mask(data):
        raise TypeError(f"{op}: data must not be a masked array, the mask would be lost: use data.filled(value)")
    array = np.asarray(found)
    if type(data) is list or type(data) is tuple:
        first = data
        while isinstance(first, (list, tuple)) and len(first):
            first = first[0]
        typed = isinstance(first, (np.ndarray, np.generic, Tensor)) and not isinstance(first, (list, tuple))
    kind = array.dtype.kind
    if dtype is not None:
        dtype = checked_dtype(dtype, op)
        if kind not in "fiub":
            raise TypeError(f"{op}: data of dtype {array.dtype} cannot become {dtype}: only real numbers can")
    elif typed:
        if kind != "f" or array.dtype.itemsize not in (4, 8):
            raise TypeError(f"{op}: data has dtype {array.dtype}, supported are float32 and float64: "
                            f"convert it, or give dtype=; integer arrays are for indexing")
        dtype = array.dtype.newbyteorder("=")
    else:
        if kind not in "fiub":
            raise TypeError(f"{op}: data must be numbers, got {type(data).__name__} of {array.dtype}")
        dtype = float32
    result = np.array(array, dtype=dtype, order="K", copy=True if copy else None, subok=False)
    if not result.flags.aligned or any([stride % result.itemsize for stride in result.strides]):
        result = result.copy()
    return result


cdef Tensor as_input(object x, str op):
    """The one Tensor input of an op; other things become constants."""
    if isinstance(x, Tensor):
        return <Tensor>x
    return wrap(as_array(x, None, False, op))


def as_tensor(x, str op not None) -> Tensor:
    """The Tensor input of an op written in Python: x itself, or a constant made of it."""
    return as_input(x, op)


cdef Tensor as_operand(object x, Tensor like, str op):
    """An operand beside the Tensor `like`: a Tensor, or a number that takes like's dtype, or an array of like's dtype."""
    cdef cnp.ndarray array
    cdef Tensor t
    if isinstance(x, Tensor):
        t = <Tensor>x
        same_dtype(like, t, op)
        return t
    if isinstance(x, float) or isinstance(x, int) or isinstance(x, number_types):
        array = <cnp.ndarray>PyArray_EMPTY(0, NULL, cnp.PyArray_TYPE(like._array), 0)
        if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT:
            (<float *>cnp.PyArray_DATA(array))[0] = x
        else:
            (<double *>cnp.PyArray_DATA(array))[0] = x
        return wrap(array)
    if isinstance(x, complex):
        raise TypeError(f"{op}: operands must be real, got {type(x).__name__}")
    t = wrap(as_array(x, None if hasattr(x, "dtype") else like._array.dtype, False, op))
    same_dtype(like, t, op)
    return t


cdef int same_dtype(Tensor a, Tensor b, str op) except -1:
    if cnp.PyArray_TYPE(a._array) != cnp.PyArray_TYPE(b._array):
        raise TypeError(f"{op}: both operands must have one dtype, got {a._array.dtype} and {b._array.dtype}: convert one with .astype")
    return 0


def checked_shape(shape, str op) -> tuple:
    """`shape` as a tuple of dimensions whose product can be addressed."""
    try:
        dims = (operator.index(shape),)
    except TypeError:
        try:
            dims = tuple([operator.index(d) for d in shape])
        except TypeError:
            raise TypeError(f"{op}: shape must be made of ints, got {shape!r}") from None
    size = 1
    for d in dims:
        if d < 0:
            raise ValueError(f"{op}: shape must not have negative dimensions, got {dims}")
        size *= max(d, 1)
    if size * 8 >= 2**63:
        raise ValueError(f"{op}: shape {dims} has too many elements to be addressed")
    if len(dims) > 64:
        raise ValueError(f"{op}: shape must have at most 64 dimensions, got {len(dims)}")
    return dims


cdef Tensor filled(object make, object shape, object dtype, bint requires_grad, str op):
    dims, kind = checked_shape(shape, op), checked_dtype(dtype, op)
    try:
        t = wrap(make(dims, kind))
    except MemoryError:
        count = 1
        for d in dims:
            count *= d
        raise MemoryError(f"{op}: cannot allocate {count * kind.itemsize} bytes for shape {dims} and dtype {kind}") from None
    t._requires_grad = requires_grad
    return t


def zeros(shape, dtype=np.float32, requires_grad=False) -> Tensor:
    """A Tensor of zeros.

    >>> import minigrad as mg
    >>> mg.zeros((2, 3))
    Tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return filled(np.zeros, shape, dtype, requires_grad, "zeros")


def ones(shape, dtype=np.float32, requires_grad=False) -> Tensor:
    """A Tensor of ones.

    >>> import minigrad as mg
    >>> mg.ones(2)
    Tensor([1., 1.])
    """
    return filled(np.ones, shape, dtype, requires_grad, "ones")


# ---------------------------------------------------------------- Tensor

cdef object compare(object a, object b, object operation):
    if isinstance(a, Tensor):
        a = (<Tensor>a)._array
    if isinstance(b, Tensor):
        b = (<Tensor>b)._array
    return operation(a, b)


@cython.trashcan(True)
cdef class Tensor(Slot):
    """Tensor(data, dtype=None, requires_grad=False, copy=True): an n-dimensional array of float32 or float64 that remembers how it was made.

    data: anything NumPy makes an array of. Arrays and NumPy scalars keep their dtype, which must be float32 or float64; Python numbers
    and lists of them become float32; dtype= converts any real numbers. Big-endian and misaligned data is copied into native order.
    Masked arrays, objects, strings and complex numbers are a TypeError, ragged lists a ValueError.
    copy=False shares the memory of a fitting array: changes made through NumPy are then not noticed by the tape.

    >>> import minigrad as mg
    >>> w = mg.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.grad
    Tensor([[2., 4.],
            [6., 8.]])
    """
    __array_priority__ = 1000
    __array_ufunc__ = None          # NumPy leaves `array * tensor` to Tensor

    def __cinit__(self):
        self.is_leaf = True
        self.seen = -1

    def __init__(self, data, dtype=None, requires_grad=False, copy=True):
        self._array = as_array(data, dtype, copy, "Tensor")
        self._requires_grad = bool(requires_grad)

    # -- what it is

    @property
    def shape(self) -> tuple:
        """The sizes of the dimensions."""
        return (<object>self._array).shape

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return cnp.PyArray_NDIM(self._array)

    @property
    def size(self) -> int:
        """The number of elements."""
        return cnp.PyArray_SIZE(self._array)

    @property
    def dtype(self):
        """float32 or float64, as a NumPy dtype."""
        return (<object>self._array).dtype

    @property
    def is_leaf(self) -> bool:
        """Was this made by the user and not by a recorded op?"""
        return self.node is None

    @property
    def grad_fn(self):
        """The Node of the op that made this tensor; None for a leaf."""
        return self.node

    @property
    def requires_grad(self) -> bool:
        """Is a gradient wanted for this tensor?"""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value):
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad=True) -> Tensor:
        """Say whether a gradient is wanted for this leaf; return the tensor itself."""
        if self.node is not None and not requires_grad:
            raise RuntimeError("requires_grad_: only a leaf can stop requiring a gradient; use detach()")
        self._requires_grad = bool(requires_grad)
        return self

    @property
    def grad(self):
        """The gradient that backward has accumulated, a Tensor of the same shape, or None."""
        return self._grad

    @grad.setter
    def grad(self, Tensor value):
        if value is not None and (value.shape != self.shape or value._array.dtype != self._array.dtype):
            raise ValueError(f"grad: must have shape {self.shape} and dtype {self.dtype}, got {value.shape} and {value.dtype}")
        self._grad = value

    # -- autograd

    def backward(self, gradient=None, retain_graph=None, create_graph=False) -> None:
        """Add the gradient of this tensor to the ``grad`` of every leaf that it was made from.

        gradient: the cotangent, of this tensor's shape; may be left out for a scalar. retain_graph=True keeps the graph for another
        call. create_graph=True makes gradients that can be differentiated again. If anything fails, no ``grad`` changes.
        """
        sweep([self], [check_seed(self, gradient, "backward")],
              create_graph if retain_graph is None else retain_graph, create_graph, None)

    def detach(self) -> Tensor:
        """A tensor with the same memory that is not part of the graph."""
        cdef Tensor t = wrap(self._array)
        if self.version is None:
            self.version = Version.__new__(Version)
        t.version = self.version
        return t

    def register_hook(self, hook) -> HookHandle:
        """Call hook(gradient) when the sweep has this tensor's whole gradient; a Tensor that it returns replaces the gradient."""
        if not self._requires_grad:
            raise RuntimeError("register_hook: the tensor does not require grad")
        if not callable(hook):
            raise TypeError(f"register_hook: hook must be callable, got {type(hook).__name__}")
        cdef Slot slot = slot_of(self)
        if slot.hooks is None:
            slot.hooks = {}
        number = max(slot.hooks, default=-1) + 1
        slot.hooks[number] = hook
        return HookHandle(slot.hooks, number)

    def retain_grad(self) -> None:
        """Keep the gradient of this tensor, though it is not a leaf, in ``grad``."""
        if self.node is None:
            return
        import weakref
        reference = weakref.ref(self)

        def keep(gradient):
            tensor = reference()
            if tensor is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
        self.register_hook(keep)

    # -- out to NumPy and Python

    def numpy(self) -> np.ndarray:
        """A read-only view of the data. To change a tensor, assign to it: ``x[...] = value``."""
        view = self._array.view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype=None, copy=None):
        if copy:
            return np.array(self._array, dtype=dtype)
        return self.numpy() if dtype is None or np.dtype(dtype) == self.dtype else self._array.astype(dtype)

    def item(self) -> float:
        """The value of a tensor with one element, as a Python float."""
        if cnp.PyArray_SIZE(self._array) != 1:
            raise ValueError(f"item: only a tensor of one element can be converted to a number, this has shape {self.shape}")
        return self._array.item()

    def tolist(self):
        """The data as nested lists."""
        return self._array.tolist()

    def __float__(self):
        return self.item()

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        if cnp.PyArray_SIZE(self._array) != 1:
            raise ValueError(f"bool: the truth value of a tensor of shape {self.shape} is ambiguous: compare it and use .any() or .all()")
        return bool(self._array.item())

    def __len__(self):
        if cnp.PyArray_NDIM(self._array) == 0:
            raise TypeError("len() of unsized object: the tensor is 0-d")
        return cnp.PyArray_DIM(self._array, 0)

    def __iter__(self):
        if cnp.PyArray_NDIM(self._array) == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter([self[i] for i in range(len(self))])

    def __contains__(self, value):
        return bool((self == value).any())

    def __hash__(self):
        return <Py_ssize_t>(<PyObject *>self) >> 4

    def __richcmp__(self, other, int operation):
        """Comparisons are made element by element and give NumPy arrays of bool: masks for indexing and `where`."""
        if not isinstance(other, (Tensor, np.ndarray, np.generic, float, int, list, tuple)):
            return NotImplemented
        return compare(self, other, (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)[operation])

    def __repr__(self):
        text = np.array2string(self._array, separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype == float32 else ", dtype=float64"
        if not self.size:
            dtype = f", shape={self.shape}" + dtype
        tail = f", grad_fn=<{self.node.name}>" if self.node is not None else ", requires_grad=True" if self._requires_grad else ""
        return f"Tensor({text}{dtype}{tail})"

    def __reduce__(self):
        if self.node is not None:
            raise RuntimeError("pickle, deepcopy: only leaf tensors can be copied this way; use detach()")
        return _rebuild, (type(self), np.array(self._array), self._requires_grad)

    def __copy__(self):
        return self.__deepcopy__({})

    def __deepcopy__(self, memo):
        make, arguments = self.__reduce__()
        memo[id(self)] = copy = make(*arguments)
        return copy

    # -- arithmetic: see elementwise.pyx and matmul.pyx

    def __add__(a, b):
        return operators.add(a, b)

    def __sub__(a, b):
        return operators.sub(a, b)

    def __mul__(a, b):
        return operators.mul(a, b)

    def __truediv__(a, b):
        return operators.div(a, b)

    def __pow__(a, b, modulus):
        if modulus is not None:
            return NotImplemented
        return operators.pow(a, b)

    def __matmul__(a, b):
        return operators.matmul(a, b)

    def __neg__(self):
        return operators.neg(self)

    def __pos__(self):
        return self

    def __abs__(self):
        return operators.abs(self)

    def __getitem__(self, index):
        return operators.getitem(self, index)

    def __setitem__(self, index, value):
        operators.setitem(self, index, value)


def _rebuild(kind, array, requires_grad):
    """Make a pickled or copied tensor again."""
    cdef Tensor t = kind.__new__(kind)
    t._array, t._requires_grad = array, requires_grad
    return t


def install(str name not None, function) -> None:
    """Make an op a method of Tensor: the op modules call this beside the op."""
    (<dict>(<PyTypeObject *>Tensor).tp_dict)[name] = function
    PyType_Modified(<PyTypeObject *>Tensor)
