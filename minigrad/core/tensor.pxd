# Tensor, Node and the data of a sweep, as the compiled modules see them. tensor.pyx tells how they
# work together.
cimport numpy as cnp
from cpython.object cimport PyObject
from minigrad.core.modes cimport Mode, recording

ctypedef int (*Rule)(Node node, Tensor dy) except -1
# Ops, as Cython compiles a cpdef function: its last argument in C, 0 here, is for methods that a
# subclass overrides.
ctypedef Tensor (*Unary)(object x, int skip_dispatch)
ctypedef Tensor (*Binary)(object a, object b, int skip_dispatch)

# Held by a tensor and by the version of its memory: by the version alone when the tensor is gone.
cdef class Owner:
    cdef PyObject *tensor       # not owned

cdef class Version:
    cdef long count             # of all changes
    cdef long recorded          # of those that are on the tape
    cdef Owner owner            # which tensor's history tells of all of it
    cdef bint foreign           # NumPy has this memory too and may change it unseen

cdef class Slot:
    cdef Tensor inflight        # the gradient gathered so far in the running sweep
    cdef bint fresh             # inflight is the sweep's own buffer: more may be added in place
    cdef bint is_leaf
    cdef Sweep run              # the sweep that this slot is open in
    cdef dict hooks             # number -> callable; RETAIN -> weakref of the Tensor

cdef class Node(Slot):
    cdef readonly unsigned long long serial     # rank in the order of creation
    cdef Rule rule
    cdef readonly str name
    cdef tuple slots            # of the inputs: Node, leaf Tensor, or None for a constant
    cdef Tensor saved0          # the first two tensors that the rule needs: see save() in tape.pyx
    cdef Tensor saved1
    cdef long version0          # how often their memory had been changed when they were saved
    cdef long version1
    cdef list saved_further     # pairs (tensor, changes) of all others
    cdef Py_ssize_t own_outputs     # so many of the saved tensors are the op's own outputs
    cdef dict checksums         # of the memory of the saved tensors, in anomaly mode
    cdef readonly bint freed
    cdef object extra           # anything else the rule needs
    cdef list outputs           # for an op with several outputs: the gradient of each, or None
    cdef str line               # the user's line, in anomaly mode
    cdef Node original          # of a stand-in: the node that another sweep is busy with; else None

    cdef bint wants(self, Py_ssize_t i) except -1
    cdef int give(self, Py_ssize_t i, Tensor dx, bint fresh) except -1
    cdef int give_unbroadcast(self, Py_ssize_t i, Tensor dy, tuple shape, bint fresh) except -1
    cdef Tensor buffer(self, Py_ssize_t i, tuple shape, int typenum)
    cdef cnp.ndarray low_part(self, Py_ssize_t i, cnp.ndarray sums)

cdef class Output(Node):        # one output of an op with several
    cdef Node main
    cdef Py_ssize_t index

cdef class LeafStandIn(Slot):
    cdef Tensor leaf

cdef class Sweep(Mode):
    cdef PyObject **heap        # pending nodes, owned, the newest first
    cdef Py_ssize_t pending
    cdef Py_ssize_t capacity
    cdef PyObject *small[8]     # the heap of most sweeps
    cdef list leaves            # where leaves' gradients are gathered: the leaf, or a LeafStandIn
    cdef list retained          # (Tensor, gradient), for tensors that retain their gradient
    cdef dict stand_ins         # for slots that another sweep was busy with
    cdef bint create_graph
    cdef bint retain
    cdef dict wanted            # for grad(): key of an input's slot -> None, then its gradient
    cdef set needed             # for grad(): keys of the slots between outputs and inputs
    cdef dict sums              # key of a slot -> what belongs to its gradient beside `inflight`
    cdef bint takes(self, Slot slot) except -1
    cdef Slot find(self, Slot slot)
    cdef Slot place(self, Slot slot)
    cdef int add_rows_later(self, Slot slot, Tensor dy, tuple shape) except -1
    cdef bint add_later(self, Slot slot, Tensor dx) except -1
    cdef int reserve(self) except -1
    cdef void push(self, Node node) noexcept
    cdef Node pop(self)

cdef enum:
    RETAIN = 0      # the key of hooks under which a tensor retains its gradient

# Tensor.seen of a tensor that is no view, or has no history. A view that was taken while nothing
# was recorded has UNRECORDED minus the changes.
cdef enum:
    OWN = -1                    # no view
    DETACHED = -2               # shares memory with a tensor whose history it does not have
    SAVED = -3                  # a node's alias of its own output
    UNRECORDED = -4

cdef class Tensor(Slot):
    cdef Owner owns             # comes first: it goes before anything that runs code when it goes
    cdef readonly cnp.ndarray _array
    cdef Node node              # the op that made this tensor; None for a leaf
    cdef Version version
    # A view: the recorded changes of the memory when it was taken; else one of the numbers above.
    cdef long seen
    cdef bint _requires_grad
    cdef Tensor _grad
    cdef object __weakref__

# What the core needs of the op modules, which fill it in.
cdef struct Operators:
    Binary add
    Binary sub
    Binary mul
    Binary div
    Binary pow
    Binary matmul
    Unary neg
    Unary abs
    Tensor (*getitem)(Tensor x, object index)
    int (*setitem)(Tensor x, object index, object value) except -1
    Tensor (*inplace)(Tensor x, object y, Binary op, str name)
    int (*renew)(Tensor x, str name) except -1

cdef Operators operators

cdef Node stand_in(Node node)
cdef LeafStandIn leaf_stand_in(Tensor leaf)

cdef Tensor wrap(cnp.ndarray array)
cdef Tensor empty(int nd, cnp.npy_intp *shape, int typenum)
cdef cnp.ndarray contiguous(Tensor x)
cdef cnp.ndarray array_of(object data, object dtype, bint copy, str op)
cdef int mark_foreign(Tensor t, object data) except -1
cdef Version version_of(Tensor x)
cdef bint outdated(Tensor x) noexcept
cdef int make_addable(Tensor grad, Tensor target) except -1

cdef inline Slot slot_of(Tensor x):
    """Where the gradient of x is gathered, or None."""
    if not x._requires_grad:
        return None
    return x if x.node is None else x.node

cdef inline Node original(Node node):
    return node if node.original is None else node.original

cdef inline object key_of(Slot slot):
    """A slot as a key of a dict or set: a user's subclass of Tensor may have its own idea of
    equality."""
    return <size_t><PyObject *>slot if slot.is_leaf else slot

cdef inline bint stale(Tensor x) noexcept:
    """Is x a view of memory that an op on the tape has changed since?"""
    return x.seen != OWN and x.seen != x.version.recorded and outdated(x)

cdef inline bint tracked(Tensor x) noexcept:
    return (x._requires_grad or stale(x)) and recording()

cdef inline bint tracked2(Tensor a, Tensor b) noexcept:
    return (a._requires_grad or b._requires_grad or stale(a) or stale(b)) and recording()
