# cython: language_level=3
"""The C kernels: which instruction set is in use, how many threads, what was built.

The tables of csrc/kernels.h are chosen once, at import, by what this CPU can run; ``MINIGRAD_ISA``
and ``MINIGRAD_NUM_THREADS`` say otherwise. What lives here is the choice and the way to the
kernels; what the kernels compute is in csrc/.
"""
cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memset, strncpy

import os
import platform

import numpy as np

from minigrad._version import __version__

cnp.import_array()

cdef extern from "runtime/strided.h" nogil:
    MapStrided mg_map_strided
    Map2Strided mg_map2_strided
    AccumulateStrided mg_accumulate_strided
    CopyStrided mg_copy_strided

cdef extern from "runtime/product.h" nogil:
    GemmBatched mg_gemm_batched

cdef extern from "optim.h" nogil:
    StepAll mg_step_all
    SumSquares mg_sum_squares
    ChangeInPlace mg_scale
    ChangeInPlace mg_clamp

cdef extern from "recurrent/recurrent.h" nogil:
    RecurrentForward mg_recurrent_forward
    RecurrentBackward mg_recurrent_backward
    RecurrentScan mg_recurrent_scan

cdef extern from "runtime/pool.h" nogil:
    int mg_get_num_threads()
    void mg_set_num_threads(int n)

cdef extern from "kernels.h" nogil:
    const char *const *mg_isas_built()
    int mg_isa_usable(const char *isa)
    const mg_kernels *mg_table(const char *isa, size_t itemsize)

cdef extern from *:
    """
    #if defined(__clang__)
    #define MG_COMPILER "clang " __clang_version__
    #else
    #define MG_COMPILER "gcc " __VERSION__
    #endif
    """
    const char *MG_COMPILER

cdef extern from "runtime/blocks.h":
    enum:
        MG_LARGE
    void *mg_block_get(size_t size) noexcept nogil
    void mg_block_put(void *block, size_t size) noexcept nogil

# ---------------------------------------------------------------- the memory of large arrays

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept nogil
        void *(*realloc)(void *ctx, void *memory, size_t size) noexcept nogil
        void (*free)(void *ctx, void *memory, size_t size) noexcept nogil
    ctypedef struct PyDataMem_Handler:
        char *name
        unsigned char version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object handler)

cdef void *block_malloc(void *ctx, size_t size) noexcept nogil:
    return mg_block_get(size)

cdef void *block_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef void *memory = mg_block_get(count * size)
    if memory != NULL:
        memset(memory, 0, count * size)
    return memory

cdef void *block_realloc(void *ctx, void *memory, size_t size) noexcept nogil:
    # Arrays of ours are never resized: a MemoryError, and the array stays as it is.
    return NULL

cdef void block_free(void *ctx, void *memory, size_t size) noexcept nogil:
    if memory != NULL:
        mg_block_put(memory, size)

cdef PyDataMem_Handler block_handler
strncpy(block_handler.name, b"minigrad_blocks", 126)
block_handler.version = 1
block_handler.allocator.malloc = block_malloc
block_handler.allocator.calloc = block_calloc
block_handler.allocator.realloc = block_realloc
block_handler.allocator.free = block_free
cdef object blocks = PyCapsule_New(&block_handler, "mem_handler", NULL)


cdef cnp.ndarray new_array(int nd, cnp.npy_intp *shape, int typenum, bint zero):
    cdef double bytes = 4 if typenum == cnp.NPY_FLOAT else 8
    cdef cnp.ndarray array
    cdef int d
    for d in range(nd):
        bytes *= shape[d]
    if bytes < MG_LARGE:
        array = <cnp.ndarray>cnp.PyArray_SimpleNew(nd, shape, typenum)
    else:
        before = PyDataMem_SetHandler(blocks)
        try:
            array = <cnp.ndarray>cnp.PyArray_SimpleNew(nd, shape, typenum)
        finally:
            PyDataMem_SetHandler(before)
    if zero:
        memset(cnp.PyArray_DATA(array), 0, cnp.PyArray_NBYTES(array))
    return array


cdef cnp.ndarray array_like(cnp.ndarray x):
    return new_array(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), False)


cdef cnp.ndarray array_of_shape(tuple shape, int typenum, bint zero):
    cdef cnp.npy_intp dims[MAX_DIMS]
    cdef Py_ssize_t d
    for d in range(len(shape)):
        dims[d] = shape[d]
    return new_array(len(shape), dims, typenum, zero)


# ---------------------------------------------------------------- csrc for the other modules

csrc.map_strided = mg_map_strided
csrc.map2_strided = mg_map2_strided
csrc.accumulate_strided = mg_accumulate_strided
csrc.copy_strided = mg_copy_strided
csrc.gemm_batched = mg_gemm_batched
csrc.step_all = mg_step_all
csrc.sum_squares = mg_sum_squares
csrc.scale = mg_scale
csrc.clamp = mg_clamp
csrc.recurrent_forward = mg_recurrent_forward
csrc.recurrent_backward = mg_recurrent_backward
csrc.recurrent_scan = mg_recurrent_scan


def isas_built() -> list[str]:
    """The instruction sets that this build holds, best first."""
    names = []
    cdef const char *const *name = mg_isas_built()
    while name[0] != NULL:
        names.append(name[0].decode())
        name += 1
    return names


def _use_isa(name: str) -> None:
    """Switch all kernels to another instruction set: for the tests, which compare them bit for
    bit."""
    global K32, K64
    if name not in isas_built():
        raise ValueError(f"MINIGRAD_ISA: {name!r} is not one of {', '.join(isas_built())}")
    if not mg_isa_usable(name.encode()):
        raise ValueError(
            f"MINIGRAD_ISA: this CPU cannot run {name}; it can run {', '.join(_usable())}")
    K32 = mg_table(name.encode(), 4)
    K64 = mg_table(name.encode(), 8)


def _usable() -> list[str]:
    return [name for name in isas_built() if mg_isa_usable(name.encode())]


def isa_in_use() -> str:
    """The instruction set that the kernels run on."""
    return K32.isa.decode()


def get_num_threads() -> int:
    """The number of threads that large kernels may use.

    >>> import minigrad
    >>> minigrad.get_num_threads() >= 1
    True
    """
    return mg_get_num_threads()


def set_num_threads(n: int) -> None:
    """Let large kernels use up to `n` threads (1 to 1024). No result changes by a bit.

    Args:
        n: The largest number of threads, from 1 to 1024.

    Raises:
        TypeError, ValueError: `n` is not such a number.

    >>> import minigrad
    >>> minigrad.set_num_threads(2)
    >>> minigrad.get_num_threads()
    2
    """
    if type(n) is not int:
        raise TypeError(f"set_num_threads: n must be an int, got {type(n).__name__}")
    if not 1 <= n <= 1024:
        raise ValueError(f"set_num_threads: n must be from 1 to 1024, got {n}")
    mg_set_num_threads(n)


def measure_peak(dtype) -> float:
    """The GFLOP/s that one core reaches now with independent fused multiply-adds: the best of 20
    runs of about a millisecond."""
    import time
    cdef const mg_kernels *K = K32 if np.dtype(dtype).itemsize == 4 else K64
    cdef double y, best = 0
    cdef size_t flops
    for _ in range(20):
        y = 0
        start = time.perf_counter()
        with nogil:
            flops = K.fma_rounds(100_000, &y)
        best = max(best, flops / (time.perf_counter() - start) * 1e-9)
    return best


cdef class PackedProduct:
    """x @ b with b packed once, on one thread: for the benchmarks and tests of the kernel; the
    layers in C pack by themselves.

    >>> import numpy as np
    >>> product = PackedProduct(np.eye(3))
    >>> product(np.ones((2, 3)))
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """
    cdef cnp.ndarray _packed
    cdef size_t _k, _n          # rows and columns of b
    cdef size_t _isa            # the address of the table of kernels that b was packed for

    def __cinit__(self, b):
        cdef const mg_kernels *K
        cdef cnp.ndarray source = self._matrix("b", b), packed
        cdef size_t k = cnp.PyArray_DIM(source, 0), n = cnp.PyArray_DIM(source, 1)
        K = K32 if source.itemsize == 4 else K64
        size = K.packed_size(k, n)
        # Packed operands are aligned to 64 bytes.
        space = np.empty(size + 64 // source.itemsize, source.dtype)
        skip = -space.ctypes.data % 64 // source.itemsize
        packed = space[skip:skip + size]
        K.pack(k, n, cnp.PyArray_DATA(source), n, 1, cnp.PyArray_DATA(packed))
        self._packed, self._k, self._n, self._isa = packed, k, n, <size_t>K

    @staticmethod
    def _matrix(name, value):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"PackedProduct: {name} must not be a masked array")
        array = np.asarray(value)
        if array.dtype != np.float32 and array.dtype != np.float64:
            raise TypeError(
                f"PackedProduct: {name} must have dtype float32 or float64, got {array.dtype}")
        if array.ndim != 2:
            raise ValueError(
                f"PackedProduct: {name} must have 2 dimensions, got shape {array.shape}")
        return np.require(array, array.dtype.newbyteorder("="), "CA")

    def __call__(self, a):
        cdef cnp.ndarray x = PackedProduct._matrix("a", a), packed = self._packed, c
        cdef size_t m = cnp.PyArray_DIM(x, 0), k = self._k, n = self._n
        cdef const mg_kernels *K = K32 if cnp.PyArray_ITEMSIZE(packed) == 4 else K64
        if cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(packed):
            raise TypeError(
                f"PackedProduct: a must have dtype {packed.dtype} like b, got {x.dtype}")
        if <size_t>cnp.PyArray_DIM(x, 1) != k:
            raise ValueError(
                f"PackedProduct: a must have {k} columns, got {cnp.PyArray_DIM(x, 1)}")
        if <size_t>K != self._isa:
            raise RuntimeError("PackedProduct: b was packed for another instruction set")
        c = np.zeros((m, n), x.dtype)
        with nogil:
            K.gemm_packed(m, n, k, cnp.PyArray_DATA(x), k, 1, cnp.PyArray_DATA(packed),
                          cnp.PyArray_DATA(c), n, 1)
        return c


def show_config() -> None:
    """Print the version, the compiler, the instruction sets built, the one in use, and the number
    of threads.

    >>> import minigrad
    >>> minigrad.show_config()              # doctest: +ELLIPSIS
    minigrad ...
    compiler: ...
    instruction sets: ... (in use: ...)
    threads: ...
    """
    print(f"minigrad {__version__}, Python {platform.python_version()} on {platform.machine()}\n"
          f"compiler: {(<bytes>MG_COMPILER).decode()}\n"
          f"instruction sets: {', '.join(isas_built())} (in use: {isa_in_use()})\n"
          f"threads: {get_num_threads()}")


def _choose() -> None:
    """Read the two environment variables; an unusable value is an ImportError that lists the usable
    ones."""
    try:
        _use_isa(os.environ.get("MINIGRAD_ISA") or _usable()[0])
    except ValueError as error:
        raise ImportError(str(error)) from None
    threads = os.environ.get("MINIGRAD_NUM_THREADS")
    if threads:
        is_number = threads.isascii() and threads.isdigit() and len(threads) <= 4
        if not is_number or not 1 <= int(threads) <= 1024:
            raise ImportError(
                f"MINIGRAD_NUM_THREADS: must be a whole number from 1 to 1024, got {threads!r}")
        mg_set_num_threads(int(threads))

_choose()
