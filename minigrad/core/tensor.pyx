# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False,
# cdivision=True
# cython: c_api_binop_methods=True
"""Tensor, the tape, and the sweep that walks it backwards. The ops are in elementwise, matmul,
reduce, shape and the modules above.

How a gradient is made, in three steps:

1. *Record.* Each op computes its value and, if an input requires a gradient and recording is on,
   makes a Node. The Node holds its rule, what the rule needs (saved tensors), and the *slots* of
   the inputs: the Node that made an input, or the leaf Tensor itself. It never holds its own
   output: a rule that needs the output keeps its memory, in a Tensor that has no Node. So there are
   no cycles, and a Node that nobody needs dies at once. Its serial is its rank in the order of
   creation.
2. *Sweep.* ``backward`` puts the seed into the slot of the root and then visits, again and again,
   the newest of the Nodes that have been given a gradient. A Node is newer than everything it was
   made from, so when its turn comes, every contribution to its gradient has arrived: no recursion
   and no sorting (for `b = a + a; c = b + b`, b is visited once, with both contributions). The rule
   turns the gradient of the output, `dy`, into gradients of the inputs and gives them to their
   slots; then the Node lets go of what it saved. Only what hangs on the root is ever looked at.
3. *Commit.* Only when the whole sweep succeeded, the leaves' gradients are added to their ``grad``,
   all of them in one go.

Threads and sweeps inside of sweeps (from a hook): recording, anomaly mode and the sweep belong to
their thread, and nothing waits for anything. A sweep gathers gradients in the slots themselves. If
another sweep is busy with a slot, it gathers in a *stand-in*: a Slot of its own with the same rule
and the same saved tensors. Three places must happen at once as seen from other threads, and do,
since they run no Python code and hold the interpreter's lock: `claim`, the end of `commit`, and
`next_serial` (atomic also without that lock). No lock is taken, so a fork finds none held.
"""
cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_REFCNT
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy
from minigrad.core.kernels cimport (
    K32,
    K64,
    accumulate_strided,
    array_like,
    array_of_shape,
    copy_strided,
    mg_kernels,
    new_array,
)

import linecache
import math
import operator
import os
import reprlib
import sys
import weakref
import zlib

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    static _Thread_local int mg_recording = 1;
    static _Thread_local int mg_anomaly = 0;
    /* The last change of one of the two: a Mode, owned. */
    static _Thread_local PyObject *mg_modes = NULL;

    #ifdef Py_GIL_DISABLED
    static _Atomic unsigned long long mg_serials = 0;
    #else
    static unsigned long long mg_serials = 0;
    #endif
    #define mg_next_serial() (++mg_serials)

    /* What nodes held that died too deep inside of each other: the outermost releases it. */
    static _Thread_local int mg_depth = 0;
    static _Thread_local struct { PyObject **items; size_t count, capacity; } mg_dead;

    static int mg_bury(PyObject *object) {
        if (mg_dead.count == mg_dead.capacity) {
            size_t capacity = mg_dead.capacity ? 2 * mg_dead.capacity : 256;
            PyObject **items = realloc(mg_dead.items, capacity * sizeof *items);
            if (items == NULL)
                return 0;
            mg_dead.items = items;
            mg_dead.capacity = capacity;
        }
        mg_dead.items[mg_dead.count++] = object;
        return 1;
    }

    static void mg_release_buried(void) {
        if (mg_dead.items == NULL)
            return;
        while (mg_dead.count) {
            PyObject *object = mg_dead.items[--mg_dead.count];
            Py_DECREF(object);
        }
        free(mg_dead.items);
        mg_dead.items = NULL;
        mg_dead.capacity = 0;
    }
    """
    int mg_recording
    int mg_anomaly
    PyObject *mg_modes
    unsigned long long next_serial "mg_next_serial"() noexcept
    int mg_depth
    bint mg_bury(PyObject *object) noexcept
    void mg_release_buried() noexcept

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    ctypedef struct PyFloatObject:
        double ob_fval
    void PyType_Modified(PyTypeObject *type)
    double PyFloat_AsDouble(object x) except? -1
    bint PySequence_Check(object x) noexcept
    bint PyObject_CheckBuffer(object x) noexcept

cdef extern from "numpy/arrayobject.h":
    int PyArray_CHKFLAGS(cnp.ndarray, int flags) noexcept

cdef enum:
    MAX_DEPTH = 20                      # of nodes dying inside of each other
    RETAIN = 0                          # the key of hooks under which a tensor retains its gradient
cdef unsigned long hook_numbers = 0
cdef object float32 = np.dtype(np.float32)
cdef object float64 = np.dtype(np.float64)
cdef object masked_array = np.ma.MaskedArray
cdef cnp.ndarray nothing = np.zeros(0, np.float32)        # the data of a Tensor before __init__
nothing.flags.writeable = False
cdef str package = os.path.dirname(os.path.realpath(__file__))
cdef tuple array_protocols = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")
cdef tuple number_types = (np.floating, np.integer)       # NumPy scalars beside Python's float and int


# ---------------------------------------------------------------- the tape

@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Owner:
    """Tells whether the tensor that owns some memory is still there."""


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Version:
    """What is known of one block of memory; shared by all tensors that look at it."""


@cython.auto_pickle(False)
@cython.trashcan(True)
cdef class Slot:
    """A place where a sweep gathers the gradient of one value: a Node, or a leaf Tensor."""


@cython.auto_pickle(False)
cdef class LeafStandIn(Slot):
    """Gathers the gradient of a leaf that another sweep is busy with."""
    cdef Tensor leaf


cdef void bury(object held) noexcept:
    """Let the outermost of the dying nodes release this."""
    if held is not None:
        Py_INCREF(held)
        if not mg_bury(<PyObject *>held):
            Py_DECREF(held)


@cython.auto_pickle(False)
@cython.trashcan(True)
cdef class Node(Slot):
    """One recorded op. `name` is the op's, `inputs` lead to the earlier nodes."""

    def __dealloc__(self):
        """Let go of what the node holds: not deeper than MAX_DEPTH, since a chain of a million
        nodes would overrun the stack. (CPython's trashcan, from 3.12 on, allows thousands of
        levels: too many for a thread with a small stack.)"""
        global mg_depth
        if mg_depth >= MAX_DEPTH:
            bury(self.slots)
            bury(self.saved0)
            bury(self.saved1)
            bury(self.extra)
            return
        mg_depth += 1
        self.slots = self.saved0 = self.saved1 = self.extra = None
        if mg_depth == 1:
            mg_release_buried()
        mg_depth -= 1

    @property
    def inputs(self):
        """The slots of the op's inputs: Node, leaf Tensor, or None where no gradient is wanted."""
        return self.slots

    def __repr__(self):
        return f"<Node {self.name}>"

    cdef bint wants(self, Py_ssize_t i) except -1:
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
            slot = self.run.place(slot)
        if slot.inflight is None:
            slot.inflight, slot.fresh = dx, fresh
        elif slot.fresh and not self.run.create_graph:
            add_into(slot.inflight._array, dx._array)
        else:
            slot.inflight, slot.fresh = operators.add(slot.inflight, dx), True
        return 0

    cdef Tensor buffer(self, Py_ssize_t i, tuple shape, int typenum):
        """The gradient of input i as a buffer to accumulate into, made of zeros at the first call.
        Not for create_graph sweeps.

        Rules that add with one chain per element (products, bias sums) go on from what is in the
        buffer: the weight gradient of a recurrent loop is then one chain over all its steps, the
        same as that of a layer that runs the whole sequence. Sums over rows have a second half
        beside it: see `low_part`.
        """
        cdef Slot slot = <Slot>self.slots[i]
        if slot.run is not self.run:
            slot = self.run.place(slot)
        if slot.inflight is None:
            slot.inflight, slot.fresh = wrap(array_of_shape(shape, typenum, True)), True
        elif not (slot.fresh
                  and PyArray_CHKFLAGS(slot.inflight._array, cnp.NPY_ARRAY_C_CONTIGUOUS)):
            slot.inflight, slot.fresh = wrap(copied(slot.inflight._array)), True
        return slot.inflight

    cdef int give_unbroadcast(self, Py_ssize_t i, Tensor dy, tuple shape, bint fresh) except -1:
        """Give dy, summed over the dimensions along which input i, of the given shape, was
        broadcast."""
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
        """The other half of `buffer` for rules that add up rows, made of zeros at the first call:
        see add_rows in csrc/kernels.h."""
        cdef Sweep run = self.run
        key = key_of(run.place(<Slot>self.slots[i]))
        if run.sums is None:
            run.sums = {}
        low = run.sums.get(key)
        if low is None:
            low = run.sums[key] = array_of_shape(shape, cnp.NPY_DOUBLE, True)
        return low


cdef cnp.ndarray rows_first(cnp.ndarray x, tuple shape):
    """x, contiguous, with the dimensions in front along which an array of `shape` was broadcast to
    x's shape."""
    cdef tuple from_shape = (<object>x).shape
    cdef int lead = len(from_shape) - len(shape)
    if from_shape[lead:] == shape:
        return np.ascontiguousarray(x)
    keep, summed = [], []
    for d in range(len(from_shape)):
        kept = d >= lead and (shape[d - lead] != 1 or from_shape[d] == 1)
        (keep if kept else summed).append(d)
    return np.ascontiguousarray(x.transpose(tuple(summed + keep)))


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
    """start (None for zeros) + the sums of the parts over the dimensions along which `shape` was
    broadcast to theirs: what the rules make of the same contributions, to the bit, and
    differentiable."""
    cdef Tensor part = parts[0]
    cdef int typenum = cnp.PyArray_TYPE(part._array)
    cdef cnp.ndarray y = array_of_shape(shape, typenum, True) if start is None else copied(start._array)
    cdef cnp.ndarray low = array_of_shape(shape, cnp.NPY_DOUBLE, True)
    for part in parts:
        rows_into(y, low, rows_first(part._array, shape))
    round_sums(y, low)
    shapes = []
    for part in parts:
        shapes.append(part.shape)
    if start is not None:
        parts, shapes = [start, *parts], [shape, *shapes]

    def backward(g):
        return tuple(map(g.broadcast_to, shapes))
    return record("sum", y, tuple(parts), backward)


cdef int add_into(cnp.ndarray y, cnp.ndarray x) except -1:
    """y += x in place, for a y of our own."""
    cdef const mg_kernels *K = kernels_of(y)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(y)
    cdef bint fits = cnp.PyArray_NDIM(x) == cnp.PyArray_NDIM(y)
    cdef int d
    if fits:
        for d in range(cnp.PyArray_NDIM(y)):
            fits &= cnp.PyArray_DIM(x, d) == cnp.PyArray_DIM(y, d)
    if not fits or cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(y):
        raise RuntimeError(f"backward: a gradient must have shape {(<object>y).shape} and dtype {(<object>y).dtype}, "
                           f"got {(<object>x).shape} and {(<object>x).dtype}")
    if PyArray_CHKFLAGS(y, cnp.NPY_ARRAY_C_CONTIGUOUS) and PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS):
        K.accumulate(n, cnp.PyArray_DATA(x), 1, cnp.PyArray_DATA(y))
        return 0
    cdef ptrdiff_t sx[64]
    cdef ptrdiff_t sy[64]
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
                           f" (by code that writes to its array?); recorded at {node.where}")
    cdef Tensor y
    if own_output and node.run.create_graph:
        y = wrap(x._array)
        y.node, y._requires_grad, y.version, y.seen = original(node), True, x.version, SAVED
        return y
    return x


cdef inline Node original(Node node):
    return node if node.original is None else node.original


def already_freed(node):
    return RuntimeError(f"backward: trying to go through the graph a second time, but {node.name} has freed what it saved. "
                        f"Specify retain_graph=True when calling backward the first time")


@cython.auto_pickle(False)
cdef class Output(Node):
    """One output of an op with several: hands its gradient on to the op's Node."""
    cdef Node main
    cdef Py_ssize_t index


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


# ---------------------------------------------------------------- recording

# In this file no list of objects is made by a comprehension: where memory runs out while it grows,
# code of Cython 3.3 gives up a reference twice.

cdef bint recording() noexcept:
    return mg_recording

cdef inline Slot slot_of(Tensor x):
    if not x._requires_grad:
        return None
    return x if x.node is None else x.node

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
        found = []                      # no comprehension: see below
        for x in inputs:
            found.append(slot_for(x, name))
        slots = tuple(found)
    cdef Node node = Node.__new__(Node)
    node.serial, node.rule, node.name, node.slots = next_serial(), rule, name, slots
    if y.node is not None:
        move_retained(y, node)
    y.node, y._requires_grad = node, True
    if mg_anomaly:
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

cdef Version version_of(Tensor x):
    """What is known of x's memory."""
    cdef Version version = x.version
    if version is None:
        version = x.version = Version.__new__(Version)
    return version

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
    if mg_anomaly:
        node.sum0 = zlib.crc32(np.ascontiguousarray(x._array)) + 1
    return 0

cdef int save1(Node node, Tensor x) except -1:
    if x.version is None or x.version.foreign:
        x = savable(x)
    node.saved1, node.version1 = x, x.version.count
    if mg_anomaly:
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

cdef bint outdated(Tensor x) noexcept:
    """For a tensor whose number is not that of its memory."""
    if x.seen <= UNRECORDED:
        return UNRECORDED - x.seen != x.version.recorded
    return x.seen >= 0

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
        if mg_recording and stale(x):
            operators.renew(x, "view")
    if x.version is None:
        version_of(x)
    if x.seen == OWN and x.owns is None:
        take_ownership(x)
    y.version = x.version
    y.seen = x.version.recorded if x.seen == OWN else DETACHED if x.seen == SAVED else x.seen
    if y.seen >= 0 and not mg_recording:
        y.seen = UNRECORDED - y.seen
    return 0

cdef int bump(Tensor x) except -1:
    """x's memory was changed in place."""
    cdef Version version = version_of(x)
    version.count += 1
    return 0


cdef Tensor own(Tensor x, bint create_graph):
    """A copy of a gradient, in C order, in memory that nobody else sees."""
    return operators.mul(x, 1.0) if create_graph else wrap(copied(x._array))


cdef int python_rule(Node node, Tensor dy) except -1:
    cdef Tensor x, dx, y
    cdef bint several = node.outputs is not None, create_graph = node.run.create_graph
    backward, saves, shapes = node.extra
    arguments = []
    for x, version, checksum, output in saves:
        x = saved(node, x, version, checksum, output is not None and not several)
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
        y = wrap(as_array(value, None, False, name))
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

cdef int check_gradients(Node node) except -1:
    cdef Slot slot
    for i in range(len(node.slots)):
        slot = <Slot>node.slots[i]
        slot = None if slot is None else node.run.find(slot)
        if slot is not None and not finite_so_far(node.run, slot):
            raise RuntimeError(f"anomaly: the backward of {node.name} made the first non-finite gradient, for its input {i}; "
                               f"the op was recorded at {node.where}")
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


# ---------------------------------------------------------------- modes of a thread

@cython.auto_pickle(False)
cdef class Mode:
    """One change of a mode of this thread, recording or anomaly, for as long as it lasts.

    The changes of a thread are a linked list, the last one first. They end in any order: contexts
    that are open in generators do. The one that ends leaves the list; if a later change of the same
    mode is still in force, that one inherits what comes back in the end.
    """

    cdef int enter(self, int *flag, int value, object owner) except -1:
        global mg_modes
        self.flag, self.before, self.owner = flag, flag[0], owner
        self.outer = <Mode>mg_modes if mg_modes != NULL else None
        flag[0] = value
        Py_INCREF(self)
        mg_modes = <PyObject *>self
        return 0

    cdef void leave(self) noexcept:
        global mg_modes
        cdef Mode mode = <Mode>mg_modes, later = None, above = None
        while mode is not self:
            above = mode
            if mode.flag == self.flag:
                later = mode
            mode = mode.outer
        if later is None:
            self.flag[0] = self.before
        else:
            later.before = self.before
        if above is not None:
            above.outer = self.outer
            self.outer = None
            return
        if self.outer is None:
            mg_modes = NULL
        else:
            Py_INCREF(self.outer)
            mg_modes = <PyObject *>self.outer
        self.outer = None
        Py_DECREF(self)


class _Context:
    """Changes a mode of this thread for a `with` block, or for what is decorated: a function, a
    generator function, an async function. May be used again, inside of itself too, and by several
    threads."""

    def __new__(cls, function=None):
        context = super().__new__(cls)
        return context if function is None else context(function)

    def __enter__(self):
        cdef Mode mode = Mode.__new__(Mode)
        if self._anomaly:
            mode.enter(&mg_anomaly, 1, self)
        else:
            mode.enter(&mg_recording, self._recording, self)
        return self

    def __exit__(self, *exception):
        """End the last change that this context made in this thread. (None, if a generator that
        holds the context open is ended by another thread.)"""
        cdef Mode mode = <Mode>mg_modes if mg_modes != NULL else None
        while mode is not None and mode.owner is not self:
            mode = mode.outer
        if mode is not None:
            mode.leave()

    def __call__(self, function):
        from minigrad.ops.function import in_context
        return in_context(type(self), function)


class detect_anomaly(_Context):
    """A context, or decorator, in which each op that this thread records is checked, forward and
    backward; the first non-finite value is a RuntimeError that names the op and the user's line.
    Buffers that were saved are checksummed too. Slow: for finding a fault.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 0.0], requires_grad=True)
    >>> with mg.detect_anomaly():           # doctest: +ELLIPSIS
    ...     y = mg.log(x)
    Traceback (most recent call last):
    RuntimeError: anomaly: log made the first non-finite value, of shape (2,), at ...y = mg.log(x)
    """
    _anomaly = True


class no_grad(_Context):
    """A context, or decorator, in which this thread records nothing.

    As a decorator it is written with or without brackets, ``@mg.no_grad()`` or ``@mg.no_grad``,
    before a function, a generator function or an async function; a class is a TypeError.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0], requires_grad=True)
    >>> with mg.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    _anomaly, _recording = False, 0


class enable_grad(_Context):
    """The opposite of no_grad: records again inside of it.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0], requires_grad=True)
    >>> with mg.no_grad():
    ...     with mg.enable_grad():
    ...         print((x * 2).requires_grad)
    True
    """
    _anomaly, _recording = False, 1


def is_grad_enabled() -> bool:
    """Is recording on in this thread?

    >>> import minigrad as mg
    >>> with mg.no_grad():
    ...     mg.is_grad_enabled()
    False
    """
    return bool(mg_recording)


# ---------------------------------------------------------------- the sweep

cdef inline object key_of(Slot slot):
    """A slot as a key of a dict or set: a user's subclass of Tensor may have its own idea of
    equality."""
    return <size_t><PyObject *>slot if slot.is_leaf else slot


cdef inline bint claim(Slot slot, Sweep run) noexcept:
    """Take a slot for a sweep, if no other one has it."""
    if slot.run is not None:
        return False
    slot.run = run
    return True


cdef Node stand_in(Node node):
    """A Node with the same rule and the same saved tensors, for a second sweep through `node`."""
    cdef Node twin
    if type(node) is Output:
        twin = Output.__new__(Output)
        (<Output>twin).main, (<Output>twin).index = (<Output>node).main, (<Output>node).index
    else:
        twin = Node.__new__(Node)
    twin.serial, twin.rule, twin.name = node.serial, node.rule, node.name
    twin.slots, twin.extra, twin.saved_output = node.slots, node.extra, node.saved_output
    twin.saved0, twin.version0, twin.sum0 = node.saved0, node.version0, node.sum0
    twin.saved1, twin.version1, twin.sum1 = node.saved1, node.version1, node.sum1
    twin.freed, twin.where, twin.original = node.freed, node.where, node
    if node.outputs is not None:
        twin.outputs = [None] * len(node.outputs)
    return twin


cdef LeafStandIn leaf_stand_in(Tensor leaf):
    cdef LeafStandIn place = LeafStandIn.__new__(LeafStandIn)
    place.is_leaf, place.leaf = True, leaf
    return place


cdef void release(Node node) noexcept:
    """Let go of what the node saved."""
    node.freed = True
    node.saved0 = node.saved1 = node.extra = None
    node.slots = ()
    if type(node) is Output:
        (<Output>node).main = None


@cython.auto_pickle(False)
@cython.final
cdef class Sweep(Mode):
    """One walk over the tape: what is pending, and where the gradients of leaves are gathered.
    While it lasts, recording is on in its thread if its gradients are to be differentiated, else
    off."""

    def __cinit__(self):
        self.heap, self.capacity, self.leaves = self.small, 8, []

    def __dealloc__(self):
        if self.heap != self.small:
            free(self.heap)

    cdef bint takes(self, Slot slot) except -1:
        """Does this sweep have a use for the gradient of a slot?"""
        return slot is not None and (self.wanted is None or key_of(slot) in self.needed)

    cdef Slot find(self, Slot slot):
        """Where this sweep has gathered a gradient of a slot, or None."""
        if slot.run is self:
            return slot
        return None if self.stand_ins is None else <Slot>self.stand_ins.get(key_of(slot))

    cdef Slot place(self, Slot slot):
        """Where this sweep gathers the gradient of a slot: there, or in a stand-in. The first time
        it is put among what is pending; a gradient must be gathered there then."""
        cdef Slot found = self.find(slot)
        if found is not None:
            return found
        self.reserve()
        if not claim(slot, self):
            key = key_of(slot)
            found = leaf_stand_in(<Tensor>slot) if slot.is_leaf else stand_in(<Node>slot)
            found.run = self
            if self.stand_ins is None:
                self.stand_ins = {}
            self.stand_ins[key] = found
            slot = found
        if not slot.is_leaf:
            self.push(<Node>slot)
            return slot
        try:
            self.leaves.append(slot)
        except MemoryError:
            slot.run = None
            raise
        return slot

    # -- the pending nodes: a binary heap, the parent of i is (i - 1) / 2

    cdef int reserve(self) except -1:
        """Make sure that one more node can be pushed."""
        cdef Py_ssize_t capacity = 2 * self.capacity
        cdef PyObject **heap
        if self.pending < self.capacity:
            return 0
        cdef size_t size = capacity * sizeof(PyObject *)
        heap = <PyObject **>realloc(NULL if self.heap == self.small else self.heap, size)
        if heap == NULL:
            raise MemoryError(f"backward: cannot allocate {size} bytes for the pending nodes")
        if self.heap == self.small:
            memcpy(heap, self.small, sizeof(self.small))
        self.heap, self.capacity = heap, capacity
        return 0

    # -- sums over rows, carried in twice the precision until the gradient is read

    cdef int add_rows_later(self, Slot slot, Tensor dy, tuple shape) except -1:
        """For create_graph sweeps: keep dy, to be summed over its rows to `shape` together with
        what else arrives at the slot."""
        slot = self.place(slot)
        if self.sums is None:
            self.sums = {}
        self.sums.setdefault(key_of(slot), (shape, []))[1].append(dy)
        return 0

    cdef Tensor whole(self, Slot slot):
        """The whole gradient gathered at a place: `inflight`, and the sums over rows."""
        pending = None if self.sums is None else self.sums.pop(key_of(slot), None)
        if pending is None:
            return slot.inflight
        if self.create_graph:
            shape, parts = pending
            slot.inflight, slot.fresh = sum_of_rows(slot.inflight, parts, shape), True
        else:
            round_sums(slot.inflight._array, pending)
        return slot.inflight

    cdef void push(self, Node node) noexcept:
        cdef Py_ssize_t i = self.pending, parent
        Py_INCREF(node)
        self.pending += 1
        while i > 0:
            parent = (i - 1) // 2
            if (<Node>self.heap[parent]).serial >= node.serial:
                break
            self.heap[i] = self.heap[parent]
            i = parent
        self.heap[i] = <PyObject *>node

    cdef Node pop(self):
        """The newest."""
        cdef Node newest = <Node>self.heap[0]
        cdef PyObject *last
        cdef Py_ssize_t i = 0, child = 1
        Py_DECREF(newest)               # the name holds it
        self.pending -= 1
        last = self.heap[self.pending]
        while child < self.pending:
            if (child + 1 < self.pending
                    and (<Node>self.heap[child + 1]).serial > (<Node>self.heap[child]).serial):
                child += 1
            if (<Node>last).serial >= (<Node>self.heap[child]).serial:
                break
            self.heap[i] = self.heap[child]
            i, child = child, 2 * child + 1
        self.heap[i] = last
        return newest

    # -- from the newest to the oldest

    cdef int walk(self) except -1:
        cdef Node node
        cdef bint ran
        while self.pending > 0:
            node = self.pop()
            ran = False
            try:
                self.visit(node, &ran)
            finally:
                self.close(node, ran)
        return 0

    cdef int visit(self, Node node, bint *ran) except -1:
        cdef Node real = original(node)
        cdef Tensor dy = self.whole(node)
        if real.freed:
            raise already_freed(node)
        if real.hooks and dy is not None:
            dy = run_hooks(self, real, dy)
            node.fresh = node.fresh or dy is not node.inflight
        node.inflight = None
        ran[0] = self.wanted is None or leads_on(node, self.needed)
        if self.wanted is not None and real in self.wanted:
            self.wanted[real] = own(dy, self.create_graph) if ran[0] or not node.fresh else dy
        if ran[0]:
            node.rule(node, dy)
        if mg_anomaly:
            check_gradients(node)
        return 0

    cdef void close(self, Node node, bint ran) noexcept:
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
            if (ran and not self.retain) or node.freed:
                release(node)
        elif ran and not self.retain:
            real.freed = True
            if real.run is None:
                release(real)

    cdef int finish_leaves(self) except -1:
        """Run the hooks of leaves; for grad(), note the gradients."""
        cdef Slot place
        cdef Tensor leaf, gradient
        cdef Py_ssize_t i
        for i in range(len(self.leaves)):
            place = <Slot>self.leaves[i]
            leaf = leaf_of(place)
            self.whole(place)
            if leaf.hooks:
                gradient = run_hooks(self, leaf, place.inflight)
                place.fresh = place.fresh or gradient is not place.inflight
                place.inflight = gradient
            if self.wanted is not None and key_of(leaf) in self.wanted:
                self.wanted[key_of(leaf)] = gathered(place, self.create_graph)
        return 0

    cdef int commit(self) except -1:
        """Add the gradients to ``grad``: all of them or, after an error, none."""
        cdef Tensor target, old, gradient
        cdef list targets = [], gradients = [], olds, sums
        cdef Py_ssize_t i
        cdef bint unchanged = False
        if self.wanted is None:
            for place in self.leaves:
                targets.append(leaf_of(<Slot>place))
                gradients.append(gathered(<Slot>place, self.create_graph))
        if self.retained is not None:
            for target, gradient in self.retained:
                targets.append(target)
                gradients.append(gradient)
        while not unchanged:
            # Whatever can fail: where a sum is new memory, it is made here.
            olds, sums = [], []
            for i in range(len(targets)):
                target, gradient = <Tensor>targets[i], <Tensor>gradients[i]
                old = target._grad
                if not same_form(gradient._array, target._array):
                    raise RuntimeError(
                        f"backward: a tensor got its data by __init__ after it had been used: "
                        f"its gradient has shape {gradient.shape}, it has shape {target.shape}")
                if old is not None and self.create_graph:
                    gradient = operators.add(old, gradient)
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
                    target, old, gradient = <Tensor>targets[i], <Tensor>olds[i], <Tensor>sums[i]
                    if old is None or self.create_graph:
                        target._grad = gradient
                    else:
                        add_into(old._array, gradient._array)
                        old.version.count += 1
        return 0

    cdef void close_all(self) noexcept:
        """No slot keeps anything of this sweep."""
        cdef Slot place
        cdef Py_ssize_t i
        cdef Node node
        while self.pending > 0:
            node = self.pop()
            if node.run is self:
                self.close(node, False)
        for i in range(len(self.leaves)):
            place = <Slot>self.leaves[i]
            place.inflight = None
            place.run = None


cdef inline Tensor leaf_of(Slot place):
    return (<LeafStandIn>place).leaf if type(place) is LeafStandIn else <Tensor>place


cdef Tensor gathered(Slot place, bint create_graph):
    """The gradient that was gathered, in memory of its own: later ones are added to it in place."""
    cdef Tensor gradient = place.inflight
    if place.fresh and (create_graph
                        or PyArray_CHKFLAGS(gradient._array, cnp.NPY_ARRAY_C_CONTIGUOUS)):
        return gradient
    return own(gradient, create_graph)


cdef bint same_form(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Have they one shape and dtype?"""
    cdef int d
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(b, d):
            return False
    return True


cdef int make_addable(Tensor grad, Tensor target) except -1:
    """Gradients are going to be added to `grad`, the ``grad`` of `target`, in place."""
    if not same_form(grad._array, target._array):
        raise ValueError(f"grad: must have shape {target.shape} and dtype {target.dtype}, "
                         f"got {grad.shape} and {grad.dtype}")
    if not PyArray_CHKFLAGS(grad._array, cnp.NPY_ARRAY_WRITEABLE):
        raise ValueError("grad: the memory is read-only, and gradients are added to it in place: "
                         "give a copy")
    if grad.version is None:
        grad.version = Version.__new__(Version)
    return 0


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
        walk.close_all()
    for node in reversed(reached):
        if leads_on(node, needed):
            needed.add(node)
    return needed


cdef int push_slot(Sweep walk, Slot slot) except -1:
    if slot is not None and not slot.is_leaf:
        walk.reserve()
        walk.push(<Node>slot)
    return 0


cdef Tensor run_hooks(Sweep run, Slot slot, Tensor gradient):
    """Run the hooks of a slot, each on the gradient that the one before has left; return what the
    last has left.

    A hook is given a copy: it may keep it, and what it does to it in place changes this gradient
    and no other.
    """
    cdef Tensor new
    cdef bint create_graph = run.create_graph
    hooks = dict(slot.hooks)
    retaining = hooks.pop(RETAIN, None)
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
            raise RuntimeError(f"hook: the gradient has shape {gradient.shape} and dtype {gradient._array.dtype}, the hook returned "
                               f"{new.shape} and {new._array.dtype}")
        gradient = own(new, create_graph)
    tensor = None if retaining is None else retaining()
    if tensor is not None:
        if run.retained is None:
            run.retained = []
        run.retained.append((tensor, own(gradient, create_graph)))
    return gradient


cdef Tensor check_seed(Tensor root, object gradient, str op):
    cdef Tensor seed
    checked_slot(root, op)
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


cdef int sweep(list roots, list seeds, bint retain, bint create_graph, dict wanted) except -1:
    """Walk back from the roots. wanted is None: commit the leaves' gradients; else fill it and
    commit nothing."""
    cdef Sweep run = Sweep.__new__(Sweep)
    cdef Tensor root, seed
    cdef Slot slot
    run.retain, run.create_graph, run.wanted = retain, create_graph, wanted
    if wanted is not None:
        run.needed = find_needed(roots, wanted)
    run.enter(&mg_recording, create_graph, None)
    try:
        for root, seed in zip(roots, seeds):
            slot = slot_of(root)
            if not run.takes(slot):
                continue
            slot = run.place(slot)
            if slot.inflight is None:
                slot.inflight, slot.fresh = seed, False
            else:
                slot.inflight, slot.fresh = operators.add(slot.inflight, seed), True
        run.walk()
        run.finish_leaves()
        run.commit()
    finally:
        run.close_all()
        run.leave()
    return 0


def grad(outputs, inputs, grad_outputs=None, *, retain_graph=None, create_graph=False, allow_unused=False) -> tuple:
    """The gradients of `outputs` (a Tensor or several) with respect to `inputs` (a Tensor or
    several), as a tuple of Tensors.

    grad_outputs: the cotangent of each output; may be left out for scalars. No leaf's ``grad``
    changes. With create_graph=True the result can be differentiated again. An input that the
    outputs do not depend on is a RuntimeError, or None with allow_unused=True.

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
    seeds = []
    for x, gradient in zip(outputs, grad_outputs):
        seeds.append(check_seed(x, gradient, "grad"))
    wanted = {key_of(slot_of(x)): None for x in inputs}
    sweep(outputs, seeds, create_graph if retain_graph is None else retain_graph, create_graph, wanted)
    found = []
    for i, x in enumerate(inputs):
        gradient = wanted[key_of(slot_of(x))]
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
        raise TypeError(f"{op}: dtype must be float32 or float64, got {reprlib.repr(dtype)}") from None
    if found != float32 and found != float64:
        raise TypeError(f"{op}: dtype must be float32 or float64, got {found}")
    return found


def check_data(data, str op not None, str name not None) -> None:
    """Refuse data that would lose something as an array: Tensors within it their gradient, masked
    arrays their mask."""
    look_through(data, op, name, 0)


cdef bint has_protocol(object data) except -1:
    for way in array_protocols:
        if hasattr(data, way):
            return True
    return False


cdef int look_through(object data, str op, str name, int depth) except -1:
    if type(data) is float or type(data) is int or type(data) is range or isinstance(data, (np.generic, str, bytes)):
        return 0
    if isinstance(data, Tensor):
        if depth:
            raise TypeError(f"{op}: {name} must not be made of Tensors, they would lose their gradient: join them with mg.stack, "
                            f"or mg.concatenate")
        return 0
    if isinstance(data, np.ndarray):
        if isinstance(data, masked_array):
            raise TypeError(f"{op}: {name} must not be a masked array, the mask would be lost: use {name}.filled(value)")
        if (<cnp.ndarray>data).descr.kind != c"O":
            return 0
        parts = data.ravel().tolist()
    elif isinstance(data, (list, tuple, set, frozenset)):
        parts = data
    elif isinstance(data, dict):
        parts = data.values()
    elif PySequence_Check(data) and not PyObject_CheckBuffer(data) and not has_protocol(data):
        try:
            parts = []
            for i in range(len(data)):
                parts.append(data[i])
        except MemoryError:
            raise
        except Exception:               # no sequence after all: NumPy says what it is
            return 0
    elif depth and hasattr(data, "__array__"):
        parts = (converted(data, op, name),)
    else:
        return 0
    if depth >= 64:
        raise ValueError(f"{op}: {name} is nested deeper than 64 lists")
    for part in parts:
        look_through(part, op, name, depth + 1)
    return 0


def made_array(data, str op not None, str name not None) -> np.ndarray:
    """`data` as a NumPy array, which may be its own memory; nothing is lost, and exceptions name
    the op."""
    look_through(data, op, name, 0)
    found = converted(data, op, name)
    look_through(found, op, name, 0)
    return np.asarray(found)


cdef object converted(object data, str op, str name):
    try:
        return np.asanyarray(data)
    except ValueError as error:
        raise ValueError(f"{op}: {name} is ragged or not an array: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"{op}: {name} cannot be made an array: {type(error).__name__}: {error}") from error


cdef cnp.ndarray as_array(object data, object dtype, bint copy, str op):
    """NumPy's view of `data` as an array that a Tensor may hold; see Tensor for the rules."""
    cdef cnp.ndarray array
    if isinstance(data, Tensor):
        data = (<Tensor>data)._array
    if isinstance(data, (str, bytes, bytearray)) or data is None:
        raise TypeError(f"{op}: data must be numbers, got {type(data).__name__}")
    typed = isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__array__") or hasattr(data, "__dlpack__")
    array = made_array(data, op, "data")
    if type(data) is list or type(data) is tuple:
        first = data
        while isinstance(first, (list, tuple)) and len(first):
            first = first[0]
        typed = isinstance(first, (np.ndarray, np.generic)) and not isinstance(first, (list, tuple))
    if not typed and array.dtype.kind == "O" and all_ints(array.ravel().tolist()):
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise ValueError(f"{op}: data holds whole numbers beyond the range of floats") from None
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
    with np.errstate(all="ignore"):
        result = np.array(array, dtype=dtype, order="K", copy=True if copy else None, subok=False)
    cdef bint usable = result.flags.aligned
    for stride in result.strides:
        usable &= stride % result.itemsize == 0
    return result if usable else result.copy()


cdef bint all_ints(list numbers):
    for number in numbers:
        if not isinstance(number, int):
            return False
    return True


cdef Tensor as_constant(object data, object dtype, str op):
    """A Tensor of `data`, whose memory NumPy may have too."""
    cdef Tensor t = wrap(as_array(data, dtype, False, op))
    mark_foreign(t, data)
    return t

cdef int mark_foreign(Tensor t, object data) except -1:
    """Note that NumPy has t's memory too, if that may be so."""
    cdef Version version
    if t._array is data or (<object>t._array).base is not None or not isinstance(data, (list, tuple, np.ndarray, np.generic)):
        version = version_of(t)
        version.foreign = True
    return 0


cdef Tensor as_input(object x, str op):
    """The one Tensor input of an op; other things become constants."""
    if isinstance(x, Tensor):
        return <Tensor>x
    return as_constant(x, None, op)


def as_tensor(x, str op not None) -> Tensor:
    """The Tensor input of an op written in Python: x itself, or a constant made of it."""
    return as_input(x, op)


cdef double as_double(object x, str op) except? -1:
    """A number as a double."""
    if isinstance(x, np.timedelta64):
        raise TypeError(f"{op}: operands must be real numbers, got {type(x).__name__}")
    try:
        return PyFloat_AsDouble(x)
    except OverflowError:
        raise ValueError(f"{op}: the number is beyond the range of floats") from None
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"{op}: {type(x).__name__} is no number: {type(error).__name__}: {error}") from error


cdef Tensor as_operand(object x, Tensor like, str op):
    """An operand beside the Tensor `like`: a Tensor, or a number or array of bool that takes like's
    dtype, or an array of like's dtype."""
    cdef cnp.ndarray array
    cdef Tensor t
    cdef double number
    if isinstance(x, Tensor):
        t = <Tensor>x
        same_dtype(like, t, op)
        return t
    if isinstance(x, float) or isinstance(x, int) or isinstance(x, number_types):
        number = (<PyFloatObject *>x).ob_fval if type(x) is float else as_double(x, op)
        array = <cnp.ndarray>cnp.PyArray_SimpleNew(0, NULL, cnp.PyArray_TYPE(like._array))
        if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT:
            (<float *>cnp.PyArray_DATA(array))[0] = <float>number
        else:
            (<double *>cnp.PyArray_DATA(array))[0] = number
        return wrap(array)
    if isinstance(x, complex):
        raise TypeError(f"{op}: operands must be real, got {type(x).__name__}")
    own = not hasattr(x, "dtype") or (isinstance(x, (np.ndarray, np.bool_)) and x.dtype.kind == "b")
    t = as_constant(x, like._array.dtype if own else None, op)
    same_dtype(like, t, op)
    return t


cdef int same_dtype(Tensor a, Tensor b, str op) except -1:
    if cnp.PyArray_TYPE(a._array) != cnp.PyArray_TYPE(b._array):
        raise TypeError(f"{op}: both operands must have one dtype, got {a._array.dtype} and {b._array.dtype}: convert one with .astype")
    return 0


cdef tuple ints_of(object numbers):
    """An int, or several, as a tuple of Python's own; None for anything else."""
    try:
        return (operator.index(numbers),)
    except MemoryError:
        raise
    except Exception:                   # it may be several; and __index__ may raise what it likes
        pass
    try:
        return tuple(map(operator.index, numbers))
    except MemoryError:
        raise
    except Exception:
        return None


def checked_shape(shape, str op) -> tuple:
    """`shape` as a tuple of dimensions whose product can be addressed."""
    cdef tuple dims = ints_of(shape)
    if dims is None:
        raise TypeError(f"{op}: shape must be made of ints, got {reprlib.repr(shape)}")
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
    elif isinstance(b, int):
        as_double(b, "comparison")
    return operation(a, b)


@cython.trashcan(True)
@cython.binding(False)         # methods that check what they are called on: Tensor.detach(3) is a TypeError
@cython.embedsignature(True)
@cython.embedsignature.format("clinic")
cdef class Tensor(Slot):
    """Tensor(data, dtype=None, requires_grad=False, copy=True): an n-dimensional array of float32
    or float64 that remembers how it was made.

    data: anything NumPy makes an array of. Arrays and NumPy scalars keep their dtype, which must be
    float32 or float64; Python numbers and lists of them become float32; dtype= converts any real
    numbers. Big-endian and misaligned data is copied into native order. Masked arrays, objects,
    strings and complex numbers are a TypeError, ragged lists a ValueError. copy=False shares the
    memory of a fitting array, or of a Tensor, as detach() does. What backward needs of memory that
    NumPy shares is copied when it is recorded. Arrays of bool are operands beside a Tensor, and
    take its dtype; arrays of ints index, and nothing else. Data made of Tensors is a TypeError,
    since they would lose their gradient: join them with mg.stack.

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
        self.seen = OWN
        self._array = nothing

    def __init__(self, data, dtype=None, requires_grad=False, copy=True):
        cdef Tensor given
        if self._array is not nothing:
            raise RuntimeError("Tensor: __init__ has been called before; to give the tensor other "
                               "values, assign to it: x[...] = value")
        self._array = as_array(data, dtype, copy, "Tensor")
        self._requires_grad = bool(requires_grad)
        if copy:
            return
        if isinstance(data, Tensor):
            given = <Tensor>data
            if given._array is self._array or (<object>self._array).base is given._array:
                self.version, self.seen = version_of(given), DETACHED
        else:
            mark_foreign(self, data)

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
        return self._requires_grad or stale(self)

    @requires_grad.setter
    def requires_grad(self, value):
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad=True) -> Tensor:
        """Say whether a gradient is wanted for this leaf; return the tensor itself."""
        if self.node is not None and not requires_grad:
            raise RuntimeError("requires_grad_: only a leaf can stop requiring a gradient; use detach()")
        if requires_grad and not self._requires_grad and self.version is not None and self.seen == OWN:
            self.version.recorded += 1          # views that were taken before are recorded anew
        self._requires_grad = bool(requires_grad)
        return self

    @property
    def grad(self):
        """The gradient that backward has accumulated, a Tensor of the same shape, or None."""
        return self._grad

    @grad.setter
    def grad(self, Tensor value):
        cdef cnp.ndarray array
        cdef int d
        if value is not None:
            make_addable(value, self)
            array = value._array
            for d in range(cnp.PyArray_NDIM(array)):
                if (cnp.PyArray_STRIDE(array, d) == 0 and cnp.PyArray_DIM(array, d) > 1
                        and cnp.PyArray_SIZE(array)):
                    raise ValueError("grad: several elements of an expanded view share one memory "
                                     "location, and gradients are added in place: give a copy")
            if np.may_share_memory(array, self._array):
                raise ValueError("grad: the memory is that of the tensor itself, and gradients "
                                 "are added to it in place: give a copy")
        self._grad = value

    # -- autograd

    def backward(self, gradient=None, retain_graph=None, create_graph=False) -> None:
        """Add the gradient of this tensor to the ``grad`` of every leaf that it was made from.

        gradient: the cotangent, of this tensor's shape; may be left out for a scalar.
        retain_graph=True keeps the graph for another call. create_graph=True makes gradients that
        can be differentiated again. If anything fails, no ``grad`` changes.
        """
        sweep([self], [check_seed(self, gradient, "backward")],
              create_graph if retain_graph is None else retain_graph, create_graph, None)

    def detach(self) -> Tensor:
        """A tensor with the same memory that is not part of the graph."""
        cdef Tensor t = wrap(self._array)
        t.version, t.seen = version_of(self), DETACHED
        return t

    def register_hook(self, hook) -> HookHandle:
        """Call hook(gradient) when the sweep has this tensor's whole gradient; a Tensor that it
        returns replaces the gradient.

        The gradient is a copy for this hook. The hook may keep it, or change it in place: what goes
        on is then what it has become. Nothing is recorded while a hook runs, unless backward was
        called with create_graph=True. A hook may go backward itself, through the same tensors too.
        If it raises, no ``grad`` changes.
        """
        global hook_numbers
        if not self._requires_grad:
            raise RuntimeError("register_hook: the tensor does not require grad")
        if not callable(hook):
            raise TypeError(f"register_hook: hook must be callable, got {type(hook).__name__}")
        cdef Slot slot = slot_of(self)
        if slot.hooks is None:
            slot.hooks = {}
        hook_numbers += 1
        handle = HookHandle(slot.hooks, hook_numbers)
        slot.hooks[hook_numbers] = hook
        return handle

    def retain_grad(self) -> None:
        """Keep the gradient of this tensor, though it is not a leaf, in ``grad``: what its hooks
        have left of it, whenever they were registered, and if the tensor is assigned to, the
        gradient of its last value."""
        if not self._requires_grad:
            raise RuntimeError("retain_grad: the tensor does not require grad")
        if self.node is None:
            return
        if self.node.hooks is None:
            self.node.hooks = {}
        self.node.hooks[RETAIN] = weakref.ref(self)

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
        return math.trunc(self)

    def __trunc__(self):
        value = self.item()
        if not math.isfinite(value):
            raise ValueError(f"int: {value} cannot be converted to an int")
        return int(value)

    def __round__(self, digits=None):
        """The value of a tensor with one element, rounded as Python rounds it: to a float, or to an
        int without `digits`."""
        value = self.item()
        if digits is not None:
            return round(value, digits)
        if not math.isfinite(value):
            raise ValueError(f"int: {value} cannot be converted to an int")
        return round(value)

    def __format__(self, spec):
        """As str(), or the value of a tensor with one element with a format for numbers:
        f"{loss:.3f}"."""
        if not isinstance(spec, str):
            raise TypeError(f"format: the format must be a str, got {type(spec).__name__}")
        if not spec:
            return str(self)
        if cnp.PyArray_SIZE(self._array) != 1:
            raise TypeError(f"format: only a tensor of one element takes a format such as {spec!r}, this has shape {self.shape}")
        return format(self.item(), spec)

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
        rows = []
        for i in range(len(self)):
            rows.append(self[i])
        return iter(rows)

    def __contains__(self, value):
        found = self == value
        if not isinstance(found, (np.ndarray, np.bool_)):
            raise TypeError(f"in: a tensor holds numbers, got {type(value).__name__}")
        return bool(found.any())

    def __hash__(self):
        return <Py_ssize_t>(<PyObject *>self) >> 4

    def __richcmp__(self, other, int operation):
        """Comparisons are made element by element and give NumPy arrays of bool: masks for indexing
        and `where`."""
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

    # A copy has the values and requires_grad; one of a Parameter, or of another subclass, its
    # gradient and attributes too, so that the copy of a model is in the same state. Hooks stay with
    # the original.

    def __reduce__(self):
        if self.node is not None:
            raise RuntimeError(f"pickle, deepcopy: only leaf tensors can be copied, this was made by {self.node.name} and its graph "
                               f"cannot come along: copy tensor.detach()")
        gradient = None if self._grad is None or type(self) is Tensor else self._grad.detach()
        return _rebuild, (type(self), np.array(self._array), self._requires_grad, gradient, getattr(self, "__dict__", None) or None)

    def __copy__(self):
        return self.__deepcopy__({})

    def __deepcopy__(self, memo):
        import copy
        cdef Tensor made
        make, (kind, array, requires_grad, gradient, attributes) = self.__reduce__()
        memo[id(self)] = made = make(kind, array, requires_grad)
        if gradient is not None:
            if id(self._grad) not in memo:
                memo[id(self._grad)] = copy.deepcopy(gradient)
            made._grad = memo[id(self._grad)]
        if attributes:
            made.__dict__.update(copy.deepcopy(attributes, memo))
        return made

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

    def __iadd__(self, other):
        return operators.inplace(self, other, operators.add, "+=")

    def __isub__(self, other):
        return operators.inplace(self, other, operators.sub, "-=")

    def __imul__(self, other):
        return operators.inplace(self, other, operators.mul, "*=")

    def __itruediv__(self, other):
        return operators.inplace(self, other, operators.div, "/=")

    def __ipow__(self, other):
        return operators.inplace(self, other, operators.pow, "**=")

    def __imatmul__(self, other):
        return operators.inplace(self, other, operators.matmul, "@=")

    def __getitem__(self, index):
        return operators.getitem(self, index)

    def __setitem__(self, index, value):
        operators.setitem(self, index, value)


def _rebuild(kind, array, requires_grad, Tensor gradient=None, dict attributes=None):
    """Make a pickled or copied tensor again."""
    cdef Tensor t
    if not isinstance(kind, type) or not issubclass(kind, Tensor):
        raise TypeError(f"pickle: kind must be Tensor or a subclass, got {kind!r}")
    t = kind.__new__(kind)
    t._array, t._requires_grad = as_array(array, None, False, "pickle"), requires_grad
    t.grad = gradient
    if attributes:
        t.__dict__.update(attributes)
    return t


def install(str name not None, function) -> None:
    """Make an op a method of Tensor: the op modules call this beside the op."""
    (<dict>(<PyTypeObject *>Tensor).tp_dict)[name] = function
    PyType_Modified(<PyTypeObject *>Tensor)
