# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""In-place changes of parameters and gradients, each one pass of a C kernel: the steps of the optimisers, and what clipping needs.

What the numbers mean is in optim.py, the formulas are in csrc/optim.inc. Here everything is checked before anything changes, and
the tape is told of each change, as it is of an assignment.
"""
cimport numpy as cnp
from libc.stdlib cimport free, malloc
from minigrad.kernels cimport (clamp_in_place, mg_kernels, mg_step_adagrad, mg_step_adam, mg_step_rmsprop, mg_step_sgd, mg_update,
                               MG_PIECE, scale_in_place, step_all, sum_of_squares)
from minigrad.tensor cimport Tensor, bump, contiguous, kernels_of

import numpy as np

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    int PyArray_CopyInto(cnp.ndarray target, cnp.ndarray source) except -1
    int PyArray_CHKFLAGS(cnp.ndarray, int flags) noexcept
    bint PyArray_ISCARRAY(cnp.ndarray) noexcept


cdef int check_changeable(Tensor x, str op) except -1:
    """May x's memory be written to?"""
    cdef int d
    if not PyArray_CHKFLAGS(x._array, cnp.NPY_ARRAY_WRITEABLE):
        raise ValueError(f"{op}: the memory of a tensor of shape {x.shape} is read-only")
    for d in range(cnp.PyArray_NDIM(x._array)):
        if cnp.PyArray_STRIDE(x._array, d) == 0 and cnp.PyArray_DIM(x._array, d) > 1 and cnp.PyArray_SIZE(x._array):
            raise RuntimeError(f"{op}: several elements of an expanded view share one memory location: copy it first")
    return 0


cdef int changed(Tensor x, cnp.ndarray array) except -1:
    """x has the values of `array` now, which is its own memory or a copy that was changed in its place."""
    if array is not x._array:
        PyArray_CopyInto(x._array, array)
    return bump(x)


cdef class Updates:
    """Updates(op, room): the steps of up to `room` parameters, gathered and then made at once, without the GIL where they are long.

    >>> import minigrad as mg, numpy as np
    >>> p = mg.ones(2, requires_grad=True)
    >>> p.grad = mg.ones(2)
    >>> updates = Updates("SGD", 1)
    >>> updates.sgd(p, None, lr=0.5)
    >>> updates.run()
    >>> p
    Tensor([0.5, 0.5], requires_grad=True)
    """
    cdef str op
    cdef mg_update *updates
    cdef Py_ssize_t count, room
    cdef list tensors           # the parameters
    cdef list arrays            # for each its array in C order; then everything else that the kernels point to

    def __cinit__(self, str op not None, Py_ssize_t room):
        self.op, self.room, self.tensors, self.arrays = op, room, [], []
        self.updates = <mg_update *>malloc(max(room, 1) * sizeof(mg_update))
        if self.updates == NULL:
            raise MemoryError(f"{op}: cannot allocate {room * sizeof(mg_update)} bytes for the steps of {room} parameters")

    def __dealloc__(self):
        free(self.updates)

    cdef mg_update *add(self, Tensor p, int step, double lr, double weight_decay, bint maximize) except NULL:
        """A new update of p by its gradient."""
        cdef mg_update *u = &self.updates[self.count]
        cdef const mg_kernels *K = kernels_of(p._array)
        cdef cnp.ndarray array, g
        if self.count >= self.room:
            raise IndexError(f"{self.op}: there is room for {self.room} parameters")
        if p._grad is None:
            raise RuntimeError(f"{self.op}: a parameter of shape {p.shape} has no gradient")
        check_changeable(p, self.op)
        array, g = contiguous(p), contiguous(p._grad)
        u.step, u.n, u.itemsize = K.step[step], cnp.PyArray_SIZE(array), K.itemsize
        u.p, u.g = cnp.PyArray_DATA(array), cnp.PyArray_DATA(g)
        u.m = u.v = u.extra = NULL
        u.lr, u.weight_decay, u.maximize, u.shrink = lr, weight_decay, maximize, 1
        self.tensors.append((p, array))
        self.arrays.append(g)
        return u

    cdef void *kept(self, object array, Tensor p, str name) except? NULL:
        """The memory of an array of p's state; NULL for None."""
        if array is None:
            return NULL
        if not (isinstance(array, np.ndarray) and cnp.PyArray_TYPE(array) == cnp.PyArray_TYPE(p._array)
                and array.shape == p.shape and PyArray_ISCARRAY(array)):
            raise ValueError(f"{self.op}: the state {name!r} of a parameter must be a writable array in C order of its shape "
                             f"{p.shape} and dtype {p.dtype}")
        self.arrays.append(array)
        return cnp.PyArray_DATA(array)

    def sgd(self, Tensor p not None, v, double lr, double weight_decay=0, double momentum=0, double dampening=0,
            bint nesterov=False, bint maximize=False, bint first=False) -> None:
        """A step of SGD; v is None without momentum."""
        cdef mg_update *u = self.add(p, mg_step_sgd, lr, weight_decay, maximize)
        u.v = self.kept(v, p, "v")
        u.momentum, u.dampening, u.nesterov, u.first = momentum, dampening, nesterov, first
        self.count += 1

    def rmsprop(self, Tensor p not None, v not None, m, b, double lr, double weight_decay, double alpha, double eps, double momentum,
                bint maximize) -> None:
        """A step of RMSprop; m is None if it is not centered, b without momentum."""
        cdef mg_update *u = self.add(p, mg_step_rmsprop, lr, weight_decay, maximize)
        u.v, u.m, u.extra = self.kept(v, p, "v"), self.kept(m, p, "m"), self.kept(b, p, "b")
        u.beta2, u.eps, u.momentum = alpha, eps, momentum
        self.count += 1

    def adam(self, Tensor p not None, m not None, v not None, v_max, double lr, double weight_decay, double shrink, double beta1,
             double beta2, double eps, double root, bint maximize) -> None:
        """A step of Adam or AdamW; v_max is None without amsgrad."""
        cdef mg_update *u = self.add(p, mg_step_adam, lr, weight_decay, maximize)
        u.m, u.v, u.extra = self.kept(m, p, "m"), self.kept(v, p, "v"), self.kept(v_max, p, "v_max")
        u.shrink, u.beta1, u.beta2, u.eps, u.root = shrink, beta1, beta2, eps, root
        self.count += 1

    def adagrad(self, Tensor p not None, s not None, double lr, double weight_decay, double eps, bint maximize) -> None:
        """A step of Adagrad."""
        cdef mg_update *u = self.add(p, mg_step_adagrad, lr, weight_decay, maximize)
        u.v, u.eps = self.kept(s, p, "s"), eps
        self.count += 1

    def run(self) -> None:
        """Make the steps."""
        cdef Py_ssize_t i, elements = 0
        for i in range(self.count):
            elements += self.updates[i].n
        if elements < MG_PIECE:
            step_all(self.count, self.updates)
        else:
            with nogil:
                step_all(self.count, self.updates)
        for p, array in self.tensors:
            changed(<Tensor>p, <cnp.ndarray>array)


def squares(Tensor x not None, double scale) -> list[float]:
    """Sums of (scale x)^2 in float64, of pieces of x in order: the same whatever the threads.

    >>> import minigrad as mg
    >>> squares(mg.Tensor([3.0, 4.0]), 2.0)
    [100.0]
    """
    cdef cnp.ndarray array = contiguous(x)
    cdef const mg_kernels *K = kernels_of(array)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(array)
    cdef cnp.ndarray parts = np.empty((n + MG_PIECE - 1) // MG_PIECE)
    if n < MG_PIECE:
        sum_of_squares(K, n, scale, cnp.PyArray_DATA(array), <double *>cnp.PyArray_DATA(parts))
    else:
        with nogil:
            sum_of_squares(K, n, scale, cnp.PyArray_DATA(array), <double *>cnp.PyArray_DATA(parts))
    return parts.tolist()


ctypedef void (*Change)(const mg_kernels *K, size_t n, double number, void *x) noexcept nogil

cdef int change_all(list tensors, Change change, double number, str op) except -1:
    cdef Tensor x
    cdef cnp.ndarray array
    cdef const mg_kernels *K
    cdef Py_ssize_t n
    for x in tensors:
        check_changeable(x, op)
    for x in tensors:
        array = contiguous(x)
        K, n = kernels_of(array), cnp.PyArray_SIZE(array)
        if n < MG_PIECE:
            change(K, n, number, cnp.PyArray_DATA(array))
        else:
            with nogil:
                change(K, n, number, cnp.PyArray_DATA(array))
        changed(x, array)
    return 0


def scale_(list tensors not None, double scale, str op not None) -> None:
    """x *= scale for each tensor, with the product in float64.

    >>> import minigrad as mg
    >>> x = mg.Tensor([3.0, 4.0])
    >>> scale_([x], 0.5, "half")
    >>> x
    Tensor([1.5, 2. ])
    """
    change_all(tensors, scale_in_place, scale, op)


def clamp_(list tensors not None, double bound, str op not None) -> None:
    """Values above `bound` become bound, those below -bound become -bound, in each tensor; NaN stays.

    >>> import minigrad as mg
    >>> x = mg.Tensor([3.0, -4.0])
    >>> clamp_([x], 3.5, "clamp")
    >>> x
    Tensor([ 3. , -3.5])
    """
    change_all(tensors, clamp_in_place, bound, op)
