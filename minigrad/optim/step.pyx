# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""In-place changes of parameters and gradients, each one pass of a C kernel: the steps of the
optimisers, and what clipping needs.

What the numbers mean is in optimizers.py, the formulas are in csrc/optim.inc. Here everything is
checked before anything changes, and the tape is told of each change, as it is of an assignment.
"""
cimport cython
cimport numpy as cnp
from cpython.dict cimport PyDict_SetItem
from libc.stddef cimport ptrdiff_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport strcmp
from minigrad.core.kernels cimport (
    csrc,
    mg_kernels,
    mg_named_step,
    mg_update,
    MG_NEEDS_M,
    MG_NEEDS_V,
    MG_PIECE,
)
from minigrad.core.array cimport PyArray_CHKFLAGS, kernels_of
from minigrad.core.tensor cimport Tensor, Version, contiguous

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    const char *PyUnicode_AsUTF8(object text) except NULL

cdef extern from "numpy/arrayobject.h":
    bint PyArray_ISCARRAY(cnp.ndarray) noexcept


cdef int check_changeable(Tensor x, str op) except -1:
    """May x's memory be written to?"""
    cdef int d
    if not PyArray_CHKFLAGS(x._array, cnp.NPY_ARRAY_WRITEABLE):
        raise ValueError(f"{op}: the memory of a tensor of shape {x.shape} is read-only")
    for d in range(cnp.PyArray_NDIM(x._array)):
        if (cnp.PyArray_STRIDE(x._array, d) == 0 and cnp.PyArray_DIM(x._array, d) > 1
                and cnp.PyArray_SIZE(x._array)):
            raise RuntimeError(f"{op}: several elements of an expanded view share one memory "
                               "location: copy it first")
    return 0


cdef int give_back(Tensor x, cnp.ndarray array) noexcept:
    """x gets the values of `array`, its own memory or a copy that was changed in its place. It
    allocates nothing: x has a version, `prepared` saw to that."""
    cdef ptrdiff_t own[64]
    cdef ptrdiff_t dense[64]
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(array)
    cdef int d
    if array is not x._array:
        for d in range(cnp.PyArray_NDIM(array)):
            own[d] = cnp.PyArray_STRIDE(x._array, d) // itemsize
            dense[d] = cnp.PyArray_STRIDE(array, d) // itemsize
        csrc.copy_strided(itemsize, cnp.PyArray_NDIM(array),
                          <const ptrdiff_t *>cnp.PyArray_DIMS(array),
                          cnp.PyArray_DATA(array), dense, cnp.PyArray_DATA(x._array), own)
    x.version.count += 1
    return 0


cdef cnp.ndarray prepared(Tensor x, str op):
    """x's memory in C order, or a copy, to be changed and then given back; all that can fail is
    behind us then."""
    check_changeable(x, op)
    if x.version is None:
        x.version = Version.__new__(Version)
    return contiguous(x)


# ---------------------------------------------------------------- memory that is used twice

cdef struct Span:
    char *low       # the bytes from low to high, of which some may be between the elements
    char *high
    bint written


cdef Span span(cnp.ndarray array, bint written) noexcept:
    cdef Span s
    cdef Py_ssize_t last
    cdef int d
    s.low = s.high = <char *>cnp.PyArray_DATA(array)
    s.written = written
    if cnp.PyArray_SIZE(array) == 0:
        return s
    for d in range(cnp.PyArray_NDIM(array)):
        last = cnp.PyArray_STRIDE(array, d) * (cnp.PyArray_DIM(array, d) - 1)
        if last < 0:
            s.low += last
        else:
            s.high += last
    s.high += cnp.PyArray_ITEMSIZE(array)
    return s


cdef int by_low(const void *a, const void *b) noexcept nogil:
    cdef const Span *x = <const Span *>a
    cdef const Span *y = <const Span *>b
    return (x.low > y.low) - (x.low < y.low)


cdef bint overlap(Span *spans, Py_ssize_t count) noexcept:
    """Does one that is written overlap another?"""
    cdef char *end = NULL
    cdef char *written_end = NULL
    cdef Py_ssize_t i
    qsort(spans, count, sizeof(Span), by_low)
    for i in range(count):
        if spans[i].low == spans[i].high:
            continue
        if spans[i].low < written_end or (spans[i].written and spans[i].low < end):
            return True
        end = max(end, spans[i].high)
        if spans[i].written:
            written_end = max(written_end, spans[i].high)
    return False


cdef int refuse_shared(list arrays, str op, str what) except -1:
    """An error if two of the arrays have an element in common."""
    cdef Py_ssize_t i, k
    for i in range(len(arrays)):
        for k in range(i):
            if np.shares_memory(arrays[i], arrays[k]):
                raise ValueError(f"{op}: {what} must not share memory, got arrays of shapes "
                                 f"{arrays[k].shape} and {arrays[i].shape} that do")
    return 0


# ---------------------------------------------------------------- steps

# Without binding the methods check what they are called on: Updates.run(3) is a TypeError.
@cython.binding(False)
@cython.embedsignature(True)
@cython.embedsignature.format("clinic")
cdef class Updates:
    """Updates(op, most): the steps of up to `most` parameters, gathered and then made at once,
    without the GIL where they are long. Whatever can fail does so before the first of them: after
    an exception nothing has changed.

    >>> import minigrad as mg, numpy as np
    >>> p = mg.ones(2, requires_grad=True)
    >>> p.grad = mg.ones(2)
    >>> updates = Updates("SGD", 1)
    >>> updates.add(p, "sgd", [], lr=0.5)
    >>> updates.run()
    >>> p
    Tensor([0.5, 0.5], requires_grad=True)
    """
    cdef str op
    cdef mg_update *updates
    cdef Py_ssize_t count, most
    cdef list tensors           # (parameter, its array in C order)
    cdef list gradients         # for each parameter its gradient in C order
    cdef list states            # the arrays that are kept
    cdef list notes             # (dict, key, value) to be set when the steps are made
    cdef bint running           # without the GIL: nothing may be added

    def __cinit__(self, str op not None, Py_ssize_t most):
        if not 0 <= most <= PY_SSIZE_T_MAX // <Py_ssize_t>(6 * sizeof(mg_update)):
            raise ValueError(f"{op}: the number of parameters must be at least 0 and fit into "
                             f"memory, got {most}")
        self.op, self.most = op, most
        self.tensors, self.gradients, self.states, self.notes = [], [], [], []
        self.updates = <mg_update *>malloc(max(most, 1) * sizeof(mg_update))
        if self.updates == NULL:
            raise MemoryError(f"{op}: cannot allocate {most * sizeof(mg_update)} bytes for the "
                              f"steps of {most} parameters")

    def __dealloc__(self):
        free(self.updates)

    cdef int refuse_running(self) except -1:
        if self.running:
            raise RuntimeError(f"{self.op}: another thread makes these steps now")
        return 0

    cdef mg_update *new(self, Tensor p) except NULL:
        """A new update of p by its gradient; `add` makes it count."""
        cdef const mg_kernels *K
        cdef mg_update *u
        cdef cnp.ndarray array, g
        self.refuse_running()
        if self.count >= self.most:
            raise IndexError(f"{self.op}: steps of at most {self.most} parameters can be gathered")
        if p._array is None:
            raise ValueError(f"{self.op}: a parameter has no array: Tensor.__init__ was not called")
        if p._grad is None:
            raise RuntimeError(f"{self.op}: a parameter of shape {p.shape} has no gradient")
        if (p._grad._array is None or cnp.PyArray_TYPE(p._grad._array) != cnp.PyArray_TYPE(p._array)
                or not cnp.PyArray_SAMESHAPE(p._grad._array, p._array)):
            raise ValueError(f"{self.op}: the gradient of a parameter must have its shape "
                             f"{p.shape} and dtype {p.dtype}, got {p._grad.shape} and "
                             f"{p._grad.dtype}")
        K = kernels_of(p._array)
        array, g = prepared(p, self.op), contiguous(p._grad)
        u = &self.updates[self.count]
        u.n, u.itemsize = cnp.PyArray_SIZE(array), K.itemsize
        u.p, u.g = cnp.PyArray_DATA(array), cnp.PyArray_DATA(g)
        u.m = u.v = u.extra = NULL
        # What an update that failed half-way left, or the last run.
        del self.tensors[self.count:], self.gradients[self.count:]
        self.tensors.append((p, array))
        self.gradients.append(g)
        return u

    cdef void *kept(self, object array, Tensor p, object name) except? NULL:
        """The memory of an array of p's state."""
        if not (isinstance(array, np.ndarray)
                and cnp.PyArray_TYPE(array) == cnp.PyArray_TYPE(p._array)
                and array.shape == p.shape and PyArray_ISCARRAY(array)):
            raise ValueError(f"{self.op}: the state {name!r} of a parameter must be a writable "
                             f"array in C order of its shape {p.shape} and dtype {p.dtype}")
        self.states.append(array)
        return cnp.PyArray_DATA(array)

    def add(self, Tensor p not None, str kernel not None, list arrays not None, double lr,
            double weight_decay=0, double shrink=0, double momentum=0, double dampening=0,
            double beta1=0, double beta2=0, double eps=0, double root=0, bint maximize=False,
            bint nesterov=False, bint first=False) -> None:
        """Add a step of the parameter p.

        kernel: the name of the step in csrc/optim.inc. arrays: what is kept of p between its steps,
        a list of (name, field, array), field being the member of mg_update that has it: "m", "v" or
        "extra". The numbers are those of mg_update; each kernel reads those that it names.
        """
        cdef mg_update *u = self.new(p)
        cdef const mg_named_step *named = kernels_of(p._array).steps
        cdef const char *wanted = PyUnicode_AsUTF8(kernel)
        cdef void *memory
        while named.name != NULL and strcmp(named.name, wanted) != 0:
            named += 1
        if named.name == NULL:
            raise ValueError(f"{self.op}: there is no step named {kernel!r}")
        for name, field, array in arrays:
            memory = self.kept(array, p, name)
            if field == "m":
                u.m = memory
            elif field == "v":
                u.v = memory
            elif field == "extra":
                u.extra = memory
            else:
                raise ValueError(f"{self.op}: a field must be 'm', 'v' or 'extra', got {field!r}")
        if u.n and ((named.needs & MG_NEEDS_M and u.m == NULL)
                    or (named.needs & MG_NEEDS_V and u.v == NULL)):
            raise ValueError(f"{self.op}: the step {kernel!r} needs an array that was not given")
        u.step = named.step
        u.lr, u.weight_decay, u.shrink = lr, weight_decay, shrink
        u.momentum, u.dampening = momentum, dampening
        u.beta1, u.beta2, u.eps, u.root = beta1, beta2, eps, root
        u.maximize, u.nesterov, u.first = maximize, nesterov, first
        self.count += 1

    def note(self, dict state not None, key, value) -> None:
        """Set state[key], a key that is there, when the steps are made."""
        self.refuse_running()
        if key not in state:
            raise KeyError(key)
        self.notes.append((state, key, value))

    cdef int check_memory(self) except -1:
        """No two parameters or arrays of states may share memory; a gradient that shares some with
        them is copied."""
        cdef Py_ssize_t i, count = 0
        cdef Py_ssize_t most = 2 * len(self.tensors) + len(self.states)
        cdef Span *spans = <Span *>malloc(max(most, 1) * sizeof(Span))
        cdef cnp.ndarray array
        cdef bint twice
        if spans == NULL:
            raise MemoryError(f"{self.op}: cannot allocate {most * sizeof(Span)} bytes")
        for i in range(self.count):
            spans[count] = span((<Tensor>(<tuple>self.tensors[i])[0])._array, True)
            spans[count + 1] = span(<cnp.ndarray>self.gradients[i], False)
            count += 2
        for array in self.states:
            spans[count] = span(array, True)
            count += 1
        twice = overlap(spans, count)
        free(spans)
        if twice:
            arrays = list(self.states)
            for i in range(self.count):
                arrays.append((<Tensor>(<tuple>self.tensors[i])[0])._array)
            refuse_shared(arrays, self.op, "parameters and the arrays of their states")
            for i in range(self.count):
                self.gradients[i] = array = (<cnp.ndarray>self.gradients[i]).copy()
                self.updates[i].g = cnp.PyArray_DATA(array)
        return 0

    def run(self) -> None:
        """Make the steps, all of them: no signal is handled in between, and nothing is
        allocated."""
        cdef Py_ssize_t i, elements = 0, count = self.count
        cdef tuple pair, note
        self.refuse_running()
        self.check_memory()
        for i in range(count):
            elements += self.updates[i].n
        if elements < MG_PIECE:
            csrc.step_all(count, self.updates)
        else:
            self.running = True
            with nogil:
                csrc.step_all(count, self.updates)
            self.running = False
        for i in range(count):
            pair = <tuple>self.tensors[i]
            give_back(<Tensor>pair[0], <cnp.ndarray>pair[1])
        for i in range(len(self.notes)):
            note = <tuple>self.notes[i]
            PyDict_SetItem(note[0], note[1], note[2])
        self.count = 0                          # a second run makes no step
        self.notes.clear()


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
    cdef double *sums = <double *>cnp.PyArray_DATA(parts)
    if n < MG_PIECE:
        csrc.sum_squares(K, n, scale, cnp.PyArray_DATA(array), sums)
    else:
        with nogil:
            csrc.sum_squares(K, n, scale, cnp.PyArray_DATA(array), sums)
    return parts.tolist()


ctypedef void (*Change)(const mg_kernels *K, size_t n, double number, void *x) noexcept nogil

cdef int change_all(list tensors, Change change, double number, str op) except -1:
    """Change each memory once, also where several of the tensors have it; all or, after an
    exception, none."""
    cdef Tensor x
    cdef cnp.ndarray array
    cdef const mg_kernels *K
    cdef Py_ssize_t n, i, count
    cdef dict distinct = {}
    cdef Span *spans
    cdef bint twice
    for x in tensors:
        if x is None or x._array is None:
            raise TypeError(f"{op}: the gradients must be Tensors")
        memory = (<Py_ssize_t>cnp.PyArray_DATA(x._array), x.shape, (<object>x._array).strides)
        distinct.setdefault(memory, x)
    tensors = list(distinct.values())
    # No comprehension in this file: the code that Cython makes of one frees an item twice when
    # memory is short.
    cdef list arrays = []
    for x in tensors:
        arrays.append(prepared(x, op))
    count = len(tensors)
    spans = <Span *>malloc(max(count, 1) * sizeof(Span))
    if spans == NULL:
        raise MemoryError(f"{op}: cannot allocate {count * sizeof(Span)} bytes")
    for i in range(count):
        spans[i] = span((<Tensor>tensors[i])._array, True)
    twice = overlap(spans, count)
    free(spans)
    if twice:
        originals = []
        for x in tensors:
            originals.append(x._array)
        refuse_shared(originals, op, "gradients")
    for i in range(count):
        array = <cnp.ndarray>arrays[i]
        K, n = kernels_of(array), cnp.PyArray_SIZE(array)
        if n < MG_PIECE:
            change(K, n, number, cnp.PyArray_DATA(array))
        else:
            with nogil:
                change(K, n, number, cnp.PyArray_DATA(array))
    for i in range(count):
        give_back(<Tensor>tensors[i], <cnp.ndarray>arrays[i])
    return 0


def commit(list changes not None) -> None:
    """Update dicts, [(dict, what to set in it), ...], without handling a signal in between; all or
    none.

    >>> options = {"lr": 0.1}
    >>> commit([(options, {"lr": 0.2})])
    >>> options
    {'lr': 0.2}
    """
    cdef dict target, new
    cdef list before = []
    for target, _ in changes:
        before.append((target, dict(target)))
    try:
        for target, new in changes:
            target.update(new)
    except BaseException:
        for target, new in before:
            target.update(new)
            for key in list(target):
                if key not in new:
                    del target[key]
        raise


def clear_gradients(list tensors not None) -> None:
    """Set the gradient of each tensor to None, without handling a signal in between.

    >>> import minigrad as mg
    >>> p = mg.ones(2, requires_grad=True)
    >>> p.grad = mg.ones(2)
    >>> clear_gradients([p])
    >>> p.grad
    """
    cdef Tensor x
    cdef list gradients = []    # freed at the end: what hangs on them may run Python code
    for x in tensors:
        if x is None:
            raise TypeError("clear_gradients: tensors must be Tensors, got None")
        gradients.append(x._grad)
    for x in tensors:
        x._grad = None


def scale_(list tensors not None, double scale, str op not None) -> None:
    """x *= scale for each tensor, with the product in float64.

    >>> import minigrad as mg
    >>> x = mg.Tensor([3.0, 4.0])
    >>> scale_([x], 0.5, "half")
    >>> x
    Tensor([1.5, 2. ])
    """
    change_all(tensors, csrc.scale, scale, op)


def clamp_(list tensors not None, double bound, str op not None) -> None:
    """Values above `bound` become bound, those below -bound become -bound, in each tensor; NaN
    stays.

    >>> import minigrad as mg
    >>> x = mg.Tensor([3.0, -4.0])
    >>> clamp_([x], 3.5, "clamp")
    >>> x
    Tensor([ 3. , -3.5])
    """
    change_all(tensors, csrc.clamp, bound, op)
