# The C kernels as the other Cython modules see them. `kernels` is the one module that links csrc/;
# the others reach its functions through the tables K32, K64 and `csrc`.
from libc.stdint cimport int64_t, uint8_t
from libc.stddef cimport ptrdiff_t
cimport numpy as cnp

cdef enum:
    LONG = 16384                # elements from which a kernel runs without the GIL
    MAX_DIMS = 64               # of an array, as in NumPy and csrc/runtime/strided.h

cdef extern from "kernels.h" nogil:
    enum:
        mg_map_neg, mg_map_abs, mg_map_exp, mg_map_log, mg_map_sqrt, mg_map_sin, mg_map_cos
        mg_map_tanh, mg_map_sigmoid, mg_map_relu, mg_map_softplus
        mg_map2_add, mg_map2_sub, mg_map2_mul, mg_map2_div, mg_map2_pow
        mg_map2_maximum, mg_map2_minimum
        mg_map2_tanh_grad, mg_map2_sigmoid_grad, mg_map2_relu_grad, mg_map2_softplus_grad
        MG_NEEDS_M, MG_NEEDS_V
    ctypedef void mg_map(size_t n, const void *x, ptrdiff_t sx, void *y) noexcept nogil
    ctypedef void mg_map2(size_t n, const void *a, ptrdiff_t sa, const void *b, ptrdiff_t sb,
                          void *y) noexcept nogil
    ctypedef void mg_reduce(size_t outer, size_t n, size_t inner, const void *x,
                            void *y) noexcept nogil
    ctypedef void mg_step(const mg_update *u, size_t first, size_t n) noexcept nogil
    ctypedef struct mg_named_step:
        const char *name
        int needs
        mg_step *step
    ctypedef struct mg_kernels:
        const char *isa
        size_t itemsize
        mg_map **map
        mg_map2 **map2
        const mg_named_step *steps
        void (*accumulate)(size_t n, const void *x, ptrdiff_t sx, void *y) noexcept nogil
        void (*add_rows)(size_t rows, size_t cols, const void *x, ptrdiff_t row_stride, void *y,
                         double *low) noexcept nogil
        void (*round_sums)(size_t n, const double *low, void *y) noexcept nogil
        mg_reduce *sum
        mg_reduce *prod
        mg_reduce *max
        mg_reduce *min
        void (*argmax)(size_t outer, size_t n, size_t inner, const void *x,
                       int64_t *y) noexcept nogil
        void (*logsumexp)(size_t rows, size_t n, const void *x, void *y) noexcept nogil
        void (*softmax)(size_t rows, size_t n, const void *x, void *y) noexcept nogil
        void (*softmax_grad)(size_t rows, size_t n, const void *dy, const void *y,
                             void *dx) noexcept nogil
        void (*log_softmax)(size_t rows, size_t n, const void *x, void *y) noexcept nogil
        void (*log_softmax_grad)(size_t rows, size_t n, const void *dy, const void *y,
                                 void *dx) noexcept nogil
        void (*cross_entropy)(size_t rows, size_t n, const void *x, const int64_t *target,
                              void *loss, void *sums) noexcept nogil
        void (*cross_entropy_grad)(size_t rows, size_t n, const void *x, const int64_t *target,
                                   const void *sums, const void *scale, void *dx) noexcept nogil
        void (*gather)(size_t n, const int64_t *index, size_t len, const void *src,
                       void *dst) noexcept nogil
        void (*scatter_add)(size_t n, const int64_t *index, const int64_t *order, size_t len,
                            const void *src, void *dst) noexcept nogil
        size_t (*packed_size)(size_t k, size_t n) noexcept nogil
        void (*pack)(size_t k, size_t n, const void *b, ptrdiff_t rsb, ptrdiff_t csb,
                     void *packed) noexcept nogil
        void (*gemm_packed)(size_t m, size_t n, size_t k, const void *a, ptrdiff_t rsa,
                            ptrdiff_t csa, const void *packed, void *c, ptrdiff_t rsc,
                            ptrdiff_t csc) noexcept nogil
        size_t (*fma_rounds)(size_t n, void *y) noexcept nogil
        size_t (*nonfinite)(size_t n, const void *x) noexcept nogil

cdef extern from "optim.h" nogil:
    enum:
        MG_PIECE
    ctypedef struct mg_update:
        mg_step *step
        size_t n, itemsize
        void *p
        const void *g
        void *m
        void *v
        void *extra
        double lr, weight_decay, shrink, momentum, dampening, beta1, beta2, eps, root
        int maximize, nesterov, first

cdef extern from "recurrent/recurrent.h" nogil:
    ctypedef enum mg_cell:
        MG_RNN_TANH, MG_RNN_RELU, MG_LSTM, MG_GRU, MG_GRU_AFTER
    enum:
        MG_OK, MG_NO_MEMORY, MG_INTERRUPTED
    ctypedef struct mg_recurrent:
        mg_cell cell
        int reverse
        size_t T, B, I, H
        const void *x
        const void *wx
        const void *wh
        const void *bias
        const void *peephole
        const void *h0
        const void *c0
        const void *mask
        const int64_t *lengths
        const uint8_t *reset
        void *h
        size_t h_row
        void *h_T
        void *c_T
        void *gates
        void *cells
        int (*interrupted)() noexcept
    ctypedef struct mg_nonfinite:
        size_t step, row, gate
    ctypedef struct mg_recurrent_grads:
        const void *dh
        size_t dh_row
        const void *dc
        const void *dh_T
        const void *dc_T
        void *dx
        void *dh0
        void *dc0
        void *dwx
        void *dwh
        void *dbias
        void *dpeephole
        double *dbias_low
        double *dpeephole_low
        double clip
        double *dh_norm2
        double *dc_norm2
        mg_nonfinite *nonfinite

cdef const mg_kernels *K32      # float32
cdef const mg_kernels *K64      # float64

# What csrc/ has beside the tables of kernels, since one function serves all instruction sets. The
# headers that are named say what each does.
ctypedef void (*MapStrided)(
    const mg_kernels *K, int id, int nd, const ptrdiff_t *shape,
    const void *x, const ptrdiff_t *sx, void *y) noexcept nogil
ctypedef void (*Map2Strided)(
    const mg_kernels *K, int id, int nd, const ptrdiff_t *shape,
    const void *a, const ptrdiff_t *sa, const void *b, const ptrdiff_t *sb,
    void *y) noexcept nogil
ctypedef void (*AccumulateStrided)(
    const mg_kernels *K, int nd, const ptrdiff_t *shape,
    const void *x, const ptrdiff_t *sx, void *y, const ptrdiff_t *sy) noexcept nogil
ctypedef void (*CopyStrided)(
    size_t itemsize, int nd, const ptrdiff_t *shape,
    const void *x, const ptrdiff_t *sx, void *y, const ptrdiff_t *sy) noexcept nogil
ctypedef void (*GemmBatched)(
    const mg_kernels *K, size_t count, size_t m, size_t n, size_t k,
    const void *a, ptrdiff_t bsa, ptrdiff_t rsa, ptrdiff_t csa,
    const void *b, ptrdiff_t bsb, ptrdiff_t rsb, ptrdiff_t csb,
    void *c, ptrdiff_t bsc, ptrdiff_t rsc, ptrdiff_t csc) noexcept nogil
ctypedef void (*StepAll)(size_t count, mg_update *updates) noexcept nogil
ctypedef void (*SumSquares)(
    const mg_kernels *K, size_t n, double scale, const void *x, double *parts) noexcept nogil
ctypedef void (*ChangeInPlace)(
    const mg_kernels *K, size_t n, double by, void *x) noexcept nogil
ctypedef int (*RecurrentForward)(const mg_kernels *K, const mg_recurrent *r) noexcept nogil
ctypedef int (*RecurrentBackward)(
    const mg_kernels *K, const mg_recurrent *r, const mg_recurrent_grads *g) noexcept nogil
ctypedef int (*RecurrentScan)(
    const mg_kernels *K, const mg_recurrent *r, mg_nonfinite *where) noexcept nogil

cdef struct Functions:
    # runtime/strided.h
    MapStrided map_strided
    Map2Strided map2_strided
    AccumulateStrided accumulate_strided
    CopyStrided copy_strided
    # runtime/product.h
    GemmBatched gemm_batched
    # optim.h
    StepAll step_all
    SumSquares sum_squares
    ChangeInPlace scale
    ChangeInPlace clamp
    # recurrent/recurrent.h
    RecurrentForward recurrent_forward
    RecurrentBackward recurrent_backward
    RecurrentScan recurrent_scan

cdef Functions csrc

# A new array, of zeros if `zero`; where it is large its memory comes from csrc/runtime/blocks.h.
cdef cnp.ndarray new_array(int nd, cnp.npy_intp *shape, int typenum, bint zero)
cdef cnp.ndarray array_like(cnp.ndarray x)              # new, C order, not initialised
cdef cnp.ndarray array_of_shape(tuple shape, int typenum, bint zero)
