# The compiled core: Tensor, Node and the sweep, as the op modules see them. tensor.pyx tells how they work together.
cimport numpy as cnp
from cpython.object cimport PyObject
from minigrad.kernels cimport mg_kernels

ctypedef int (*Rule)(Node node, Tensor dy) except -1
ctypedef Tensor (*Unary)(object x)
ctypedef Tensor (*Binary)(object a, object b)

cdef class Version:
    cdef long count             # of all changes
    cdef long recorded          # of those that are on the tape

cdef class Slot:
    cdef Tensor inflight        # the gradient gathered so far in the running sweep
    cdef bint fresh             # inflight is the sweep's own buffer: further contributions may be added in place
    cdef bint is_leaf
    cdef Sweep run              # the sweep that this slot is open in
    cdef dict hooks             # number -> callable

cdef class Node(Slot):
    cdef PyObject *earlier      # neighbours on the tape, not owned
    cdef PyObject *later
    cdef unsigned long serial   # position on the tape
    cdef unsigned long sweep    # run.id while pending, else 0: read without touching reference counts
    cdef unsigned long reached  # id of the grad() call whose outputs were made from this node
    cdef Rule rule
    cdef readonly str name
    cdef tuple slots            # of the inputs: Node, leaf Tensor, or None where no gradient is wanted
    cdef Tensor saved0
    cdef Tensor saved1
    cdef long version0
    cdef long version1
    cdef long sum0              # checksums of the saved buffers, in anomaly mode
    cdef long sum1
    cdef bint saved_output      # saved0 is this node's own output
    cdef bint freed
    cdef object extra           # anything else the rule needs
    cdef list outputs           # for an op with several outputs: the gradient of each, or None
    cdef readonly str where     # the user's line, in anomaly mode

    cdef bint wants(self, Py_ssize_t i) noexcept
    cdef Tensor get0(self)
    cdef Tensor get1(self)
    cdef int give(self, Py_ssize_t i, Tensor dx, bint fresh) except -1
    cdef int give_unbroadcast(self, Py_ssize_t i, Tensor dy, tuple shape, bint fresh) except -1
    cdef Tensor buffer(self, Py_ssize_t i, tuple shape, int typenum)
    cdef cnp.ndarray low_part(self, Py_ssize_t i, tuple shape)

cdef class Sweep:
    cdef unsigned long id
    cdef Py_ssize_t pending
    cdef list leaves
    cdef bint create_graph
    cdef bint retain
    cdef dict wanted            # for grad(): slot of an input -> None, then its gradient
    cdef set needed             # for grad(): the slots between outputs and inputs
    cdef dict sums              # slot -> what belongs to its gradient beside `inflight`, see Sweep.gathered; None for none
    cdef bint takes(self, Slot slot) noexcept
    cdef int open(self, Slot slot) except -1
    cdef int add_rows_later(self, Slot slot, Tensor dy, tuple shape) except -1
    cdef Tensor gathered(self, Slot slot)
    cdef int walk(self, Node newest) except -1
    cdef int visit(self, Node node) except -1
    cdef int close(self, Node node) except -1
    cdef int give_up(self, Node newest) except -1

cdef class Tensor(Slot):
    cdef readonly cnp.ndarray _array
    cdef Node node              # the op that made this tensor; None for a leaf
    cdef Version version
    cdef long seen              # a view: the recorded changes of the memory when the view was taken; -1 for no view
    cdef bint _requires_grad
    cdef Tensor _grad
    cdef object __weakref__

cdef struct Operators:
    Binary add
    Binary sub
    Binary mul
    Binary div
    Binary pow
    Binary matmul
    Unary neg
    Unary abs
    Binary getitem
    int (*setitem)(Tensor x, object index, object value) except -1

cdef Operators operators

cdef bint recording() noexcept
cdef const mg_kernels *kernels_of(cnp.ndarray array) noexcept
cdef Tensor wrap(cnp.ndarray array)
cdef Tensor empty(int nd, cnp.npy_intp *shape, int typenum)
cdef Tensor as_operand(object x, Tensor like, str op)
cdef Tensor as_input(object x, str op)
cdef int same_dtype(Tensor a, Tensor b, str op) except -1
cdef Node record1(Tensor y, Rule rule, str name, Tensor x)
cdef Node record2(Tensor y, Rule rule, str name, Tensor a, Tensor b)
cdef Node recordn(Tensor y, Rule rule, str name, tuple inputs)
cdef int record_outputs(Node main, tuple ys) except -1
cdef Slot checked_slot(Tensor x, str name)
cdef int save0(Node node, Tensor x) except -1
cdef int save1(Node node, Tensor x) except -1
cdef int save_output(Node node, Tensor y) except -1
cdef int mark_view(Tensor y, Tensor x) except -1
cdef int bump(Tensor x) except -1
cdef int add_into(cnp.ndarray y, cnp.ndarray x) except -1
cdef cnp.ndarray contiguous(Tensor x)
cdef cnp.ndarray copied(cnp.ndarray source)

cdef inline bint tracked(Tensor x) noexcept:
    return x._requires_grad and recording()

cdef inline bint tracked2(Tensor a, Tensor b) noexcept:
    return (a._requires_grad or b._requires_grad) and recording()
