# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
# cython: c_api_binop_methods=True
"""Tensor, and the Node that an op leaves on the tape; where a sweep gathers gradients. tape.pyx
records, sweep.pyx walks back, operands.pyx has what ops make of their arguments, methods.pyx the
methods of Tensor that no operator needs; the ops are in minigrad/ops.

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
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy
from minigrad.core.array cimport (
    PyArray_CHKFLAGS,
    add_into,
    as_array,
    as_double,
    copied,
    ends_with,
    refuse_inside,
    repeats_elements,
    rows_first,
    rows_into,
    same_form,
)
from minigrad.core.burial cimport mg_bury, mg_depth, mg_release_buried
from minigrad.core.kernels cimport array_of_shape, new_array
from minigrad.core.modes cimport Mode

import operator

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    void PyType_Modified(PyTypeObject *type)

cdef enum:
    MAX_DEPTH = 20                      # of nodes dying inside of each other
cdef object float32 = np.dtype(np.float32)
cdef cnp.ndarray nothing = np.zeros(0, np.float32)        # the data of a Tensor before __init__
nothing.flags.writeable = False
cdef tuple comparisons = (
    operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)


# ---------------------------------------------------------------- nodes

@cython.final
@cython.no_gc
cdef class Owner:
    """Tells whether the tensor that owns some memory is still there."""


@cython.final
@cython.no_gc
cdef class Version:
    """What is known of one block of memory; shared by all tensors that look at it."""


@cython.trashcan(True)
cdef class Slot:
    """A place where a sweep gathers the gradient of one value: a Node, or a leaf Tensor."""


cdef class LeafStandIn(Slot):
    """Gathers the gradient of a leaf that another sweep is busy with."""


cdef void bury(object held) noexcept:
    """Let the outermost of the dying nodes release this."""
    if held is not None:
        Py_INCREF(held)
        if not mg_bury(<PyObject *>held):
            Py_DECREF(held)


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
            bury(self.saved_further)
            bury(self.extra)
            return
        mg_depth += 1
        self.slots = self.saved0 = self.saved1 = self.saved_further = self.extra = None
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

    cdef int give(self, Py_ssize_t i, Tensor dx, bint fresh) except -1:
        """Add dx to the gradient of input i, which wants it; `fresh` says that nobody else looks at
        dx's memory."""
        cdef Slot slot = <Slot>self.slots[i]
        if slot.run is not self.run:
            slot = self.run.place(slot)
        if self.run.create_graph and self.run.add_later(slot, dx):
            return 0
        if slot.inflight is None:
            slot.inflight = dx
            slot.fresh = fresh
        elif slot.fresh and not self.run.create_graph:
            add_into(slot.inflight._array, dx._array)
        else:
            slot.inflight = operators.add(slot.inflight, dx, 0)
            slot.fresh = True
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
            slot.inflight = wrap(array_of_shape(shape, typenum, True))
            slot.fresh = True
        elif not (slot.fresh
                  and PyArray_CHKFLAGS(slot.inflight._array, cnp.NPY_ARRAY_C_CONTIGUOUS)):
            slot.inflight = wrap(copied(slot.inflight._array))
            slot.fresh = True
        return slot.inflight

    cdef int give_unbroadcast(self, Py_ssize_t i, Tensor dy, tuple shape, bint fresh) except -1:
        """Give dy, summed over the dimensions along which input i, of the given shape, was
        broadcast."""
        cdef cnp.ndarray array = dy._array
        if cnp.PyArray_NDIM(array) == len(shape) and ends_with(array, shape):
            return self.give(i, dy, fresh)
        if self.run.create_graph:
            return self.run.add_rows_later(<Slot>self.slots[i], dy, shape)
        cdef cnp.ndarray sums = self.buffer(i, shape, cnp.PyArray_TYPE(array))._array
        return rows_into(sums, self.low_part(i, sums), rows_first(array, shape))

    cdef cnp.ndarray low_part(self, Py_ssize_t i, cnp.ndarray sums):
        """The other half of `sums`, the array of `buffer`, for rules that add up rows; made of
        zeros at the first call: see add_rows in csrc/kernels.h."""
        cdef Sweep run = self.run
        key = key_of(run.place(<Slot>self.slots[i]))
        if run.sums is None:
            run.sums = {}
        low = run.sums.get(key)
        if low is None:
            low = run.sums[key] = new_array(cnp.PyArray_NDIM(sums), cnp.PyArray_DIMS(sums),
                                            cnp.NPY_DOUBLE, True)
        return low


cdef class Output(Node):
    """One output of an op with several: hands its gradient on to the op's Node."""


# ---------------------------------------------------------------- where a sweep gathers

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
        (<Output>twin).main = (<Output>node).main
        (<Output>twin).index = (<Output>node).index
    else:
        twin = Node.__new__(Node)
    twin.original = node
    twin.serial = node.serial
    twin.rule = node.rule
    twin.name = node.name
    twin.slots = node.slots
    twin.saved0 = node.saved0
    twin.saved1 = node.saved1
    twin.version0 = node.version0
    twin.version1 = node.version1
    twin.saved_further = node.saved_further
    twin.own_outputs = node.own_outputs
    twin.checksums = node.checksums
    twin.extra = node.extra
    twin.freed = node.freed
    twin.line = node.line
    if node.outputs is not None:
        twin.outputs = [None] * len(node.outputs)
    return twin


cdef LeafStandIn leaf_stand_in(Tensor leaf):
    cdef LeafStandIn place = LeafStandIn.__new__(LeafStandIn)
    place.is_leaf = True
    place.leaf = leaf
    return place


@cython.final
cdef class Sweep(Mode):
    """One walk over the tape: what is pending, and where the gradients of leaves are gathered.
    While it lasts, recording is on in its thread if its gradients are to be differentiated, else
    off."""

    def __cinit__(self):
        self.heap = self.small
        self.capacity = 8
        self.leaves = []

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

    cdef int add_rows_later(self, Slot slot, Tensor dy, tuple shape) except -1:
        """For create_graph sweeps: keep dy, to be summed over its rows to `shape` together with
        what arrives at the slot from now on."""
        slot = self.place(slot)
        if self.sums is None:
            self.sums = {}
        self.sums.setdefault(key_of(slot), (shape, []))[1].append(dy)
        return 0

    cdef bint add_later(self, Slot slot, Tensor dx) except -1:
        """For create_graph sweeps: if rows are kept for the slot, keep dx behind them, since other
        sweeps add up what arrives in this order; return whether it was kept."""
        kept = None if self.sums is None else self.sums.get(key_of(slot))
        if kept is None:
            return False
        kept[1].append(dx)
        return True

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
        self.heap = heap
        self.capacity = capacity
        return 0

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
            i = child
            child = 2 * child + 1
        self.heap[i] = last
        return newest


# ---------------------------------------------------------------- making tensors

cdef Tensor wrap(cnp.ndarray array):
    """A Tensor around an array of ours: float32 or float64, aligned, native byte order."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t._array = array
    return t


cdef Tensor empty(int nd, cnp.npy_intp *shape, int typenum):
    """A Tensor in C order whose values are not set."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t._array = new_array(nd, shape, typenum, False)
    return t


cdef cnp.ndarray contiguous(Tensor x):
    """x's array in C order: itself, or a copy."""
    return x._array if PyArray_CHKFLAGS(x._array, cnp.NPY_ARRAY_C_CONTIGUOUS) else copied(x._array)


cdef cnp.ndarray array_of(object data, object dtype, bint copy, str op):
    """as_array, for a Tensor too."""
    if isinstance(data, Tensor):
        data = (<Tensor>data)._array
    return as_array(data, dtype, copy, op)


cdef int mark_foreign(Tensor t, object data) except -1:
    """Note that NumPy has t's memory too, if that may be so."""
    cdef Version version
    if (t._array is data or (<object>t._array).base is not None
            or not isinstance(data, (list, tuple, np.ndarray, np.generic))):
        version = version_of(t)
        version.foreign = True
    return 0


# ---------------------------------------------------------------- memory that several tensors share
#
# What recording needs of it is in tape.pyx.

cdef Version version_of(Tensor x):
    """What is known of x's memory."""
    cdef Version version = x.version
    if version is None:
        version = x.version = Version.__new__(Version)
    return version


cdef bint outdated(Tensor x) noexcept:
    """For a tensor whose number is not that of its memory."""
    if x.seen <= UNRECORDED:
        return UNRECORDED - x.seen != x.version.recorded
    return x.seen >= 0


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


# ---------------------------------------------------------------- Tensor

@cython.trashcan(True)
@cython.embedsignature(True)
@cython.embedsignature.format("clinic")
cdef class Tensor(Slot):
    """An n-dimensional array of float32 or float64 that remembers how it was made.

    Arrays of bool are operands beside a Tensor, and take its dtype; arrays of ints index, and
    nothing else.

    Args:
        data: Anything NumPy makes an array of. Arrays and NumPy scalars keep their dtype; Python
            numbers and lists of them become float32. Big-endian and misaligned data is copied into
            native order.
        dtype: float32 or float64, to which any real numbers are converted. Default: None, as `data`
            says.
        requires_grad: Whether gradients are computed for it. Default: False.
        copy: False shares the memory of a fitting array, or of a Tensor, as detach() does. What
            backward needs of memory that NumPy shares is copied when it is recorded. Default: True.

    Raises:
        TypeError: The dtype is another one, or `data` is a masked array, holds objects, strings or
            complex numbers, or is made of Tensors, which would lose their gradient: join them with
            mg.stack.
        ValueError: `data` is made of lists of different lengths.

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
        self._array = array_of(data, dtype, copy, "Tensor")
        self._requires_grad = bool(requires_grad)
        if copy:
            return
        if isinstance(data, Tensor):
            given = <Tensor>data
            if given._array is self._array or (<object>self._array).base is given._array:
                self.version = version_of(given)
                self.seen = DETACHED
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

    @property
    def grad(self):
        """The gradient that backward has accumulated, a Tensor of the same shape, or None."""
        return self._grad

    @grad.setter
    def grad(self, Tensor value):
        cdef cnp.ndarray array
        if value is not None:
            make_addable(value, self)
            array = value._array
            if repeats_elements(array):
                raise ValueError("grad: several elements of an expanded view share one memory "
                                 "location, and gradients are added in place: give a copy")
            if np.may_share_memory(array, self._array):
                raise ValueError("grad: the memory is that of the tensor itself, and gradients "
                                 "are added to it in place: give a copy")
        self._grad = value

    # -- a number, or a sequence

    def __float__(self):
        return self.item()

    def __int__(self):
        return self.__trunc__()

    def __bool__(self):
        if cnp.PyArray_SIZE(self._array) != 1:
            raise ValueError(f"bool: the truth value of a tensor of shape {self.shape} is "
                             f"ambiguous: compare it and use .any() or .all()")
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
        if isinstance(other, Tensor):
            other = (<Tensor>other)._array
        elif isinstance(other, int):
            as_double(other, "comparison")
        return comparisons[operation](self._array, other)

    def __repr__(self):
        text = np.array2string(self._array, separator=", ", prefix="Tensor(")
        if not self.size:
            text += f", shape={self.shape}"
        if self.dtype != float32:
            text += ", dtype=float64"
        if self.node is not None:
            text += f", grad_fn=<{self.node.name}>"
        elif self._requires_grad:
            text += ", requires_grad=True"
        return f"Tensor({text})"

    # -- arithmetic: see elementwise.pyx and matmul.pyx

    def __add__(a, b):
        return operators.add(a, b, 0)

    def __sub__(a, b):
        return operators.sub(a, b, 0)

    def __mul__(a, b):
        return operators.mul(a, b, 0)

    def __truediv__(a, b):
        return operators.div(a, b, 0)

    def __pow__(a, b, modulus):
        if modulus is not None:
            return NotImplemented
        return operators.pow(a, b, 0)

    def __matmul__(a, b):
        return operators.matmul(a, b, 0)

    def __neg__(self):
        return operators.neg(self, 0)

    def __pos__(self):
        return self

    def __abs__(self):
        return operators.abs(self, 0)

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


refuse_inside(Tensor)


def install(str name not None, function, type owner not None=Tensor) -> None:
    """Make an op a method of Tensor: the op modules call this beside the op. Or give Node what
    other modules know of it."""
    (<dict>(<PyTypeObject *>owner).tp_dict)[name] = function
    PyType_Modified(<PyTypeObject *>owner)
