/* The table of kernels: one for each ISA and float type, all with the same signatures.
 *
 * MG_KERNELS is the one list. It makes the fields of the struct here and the entries of each table
 * in kernels.inc, so the two cannot disagree: a kernel that is listed and not written does not
 * compile.
 *
 * Everywhere: `real` is float or double, passed as void * so that callers need one code path for
 * both. Sizes are size_t, strides are ptrdiff_t and count elements. Arrays never overlap unless the
 * contract says so. All sizes may be zero. "y = ..." overwrites and does not read y; "y += ..."
 * accumulates.
 */
#ifndef MG_KERNELS_H
#define MG_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* y[i] = f(x[i*sx]), i < n; y is contiguous; sx = 1 is the fast case; x == y with sx = 1 is
 * allowed. normal_cdf is the normal distribution function (1 + erf(x / sqrt 2)) / 2. */
/* clang-format off */
#define MG_MAPS(X) \
    X(neg) X(abs) X(exp) X(expm1) X(log) X(log1p) X(sqrt) X(sin) X(cos) \
    X(tanh) X(sigmoid) X(relu) X(softplus) X(normal_cdf)

/* y[i] = f(a[i*sa], b[i*sb]), i < n; y is contiguous; strides 0 and 1 are the fast cases; y may be
 * a or b where that stride is 1. tanh_grad(dy, y) = dy (1 - y^2), sigmoid_grad(dy, y) = dy y (1 -
 * y), relu_grad(dy, y) = 0 where y <= 0 else dy, softplus_grad(dy, x) = dy sigmoid(x). maximum and
 * minimum propagate NaN. */
#define MG_MAPS2(X) \
    X(add) X(sub) X(mul) X(div) X(pow) X(maximum) X(minimum) \
    X(tanh_grad) X(sigmoid_grad) X(relu_grad) X(softplus_grad)
/* clang-format on */

#define MG_KERNELS(X) \
    /* y[i] += x[i*sx] */ \
    X(void, accumulate, (size_t n, const void *x, ptrdiff_t sx, void *y)) \
    /* (y[j], low[j]) += x[0,j] + x[1,j] + ..., rows ascending: the gradient of a bias. The pair
     * stands for y + low, in twice the precision of x, so the rows may come in any number of calls;
     * row i of x starts at x + i*row_stride. A new sum starts from low = 0 and ends with
     * round_sums: y[j] = y[j] + low[j], rounded once. An infinite term gives an infinite sum,
     * infinities of both signs give NaN. */ \
    X(void, add_rows, \
      (size_t rows, size_t cols, const void *x, ptrdiff_t row_stride, void *y, double *low)) \
    X(void, round_sums, (size_t n, const double *low, void *y)) \
    /* Reductions of a contiguous (outer, n, inner) array to a contiguous (outer, inner) one. The
     * order depends on n alone (see reduce.inc). A sum is carried in twice the precision and
     * rounded once. max and min propagate NaN, and for n = 0 must not be called; argmax gives the
     * first NaN, else the first maximum. */ \
    X(void, sum, (size_t outer, size_t n, size_t inner, const void *x, void *y)) \
    X(void, prod, (size_t outer, size_t n, size_t inner, const void *x, void *y)) \
    X(void, max, (size_t outer, size_t n, size_t inner, const void *x, void *y)) \
    X(void, min, (size_t outer, size_t n, size_t inner, const void *x, void *y)) \
    X(void, argmax, (size_t outer, size_t n, size_t inner, const void *x, int64_t *y)) \
    /* Contiguous rows of length n. logsumexp: y is (rows,). The gradients take the forward's output
     * y. softmax_grad: dx = y (dy - sum(dy y)); log_softmax_grad: dx = dy - exp(y) sum(dy). */ \
    X(void, logsumexp, (size_t rows, size_t n, const void *x, void *y)) \
    X(void, softmax, (size_t rows, size_t n, const void *x, void *y)) \
    X(void, softmax_grad, (size_t rows, size_t n, const void *dy, const void *y, void *dx)) \
    X(void, log_softmax, (size_t rows, size_t n, const void *x, void *y)) \
    X(void, log_softmax_grad, (size_t rows, size_t n, const void *dy, const void *y, void *dx)) \
    /* loss[i] = logsumexp(x[i]) - x[i, target[i]]; target[i] < 0 means ignored: loss 0. sums[i] =
     * (m, ties, rest): the largest of the row, how many are that large, and the sum of exp(x - m)
     * over the others. Targets are checked by the caller to be < n. Gradient: dx[i] = scale[i]
     * (softmax(x[i]) - onehot(target[i])), 0 if ignored. */ \
    X(void, cross_entropy, \
      (size_t rows, size_t n, const void *x, const int64_t *target, void *loss, void *sums)) \
    X(void, cross_entropy_grad, \
      (size_t rows, size_t n, const void *x, const int64_t *target, const void *sums, \
       const void *scale, void *dx)) \
    /* gather: dst[i] = src[index[i]]; scatter_add: dst[index[i]] += src[i], the terms of one row
     * summed as in add_rows. Rows of `len` contiguous reals; indices are checked by the caller.
     * `order` are the numbers 0 to n - 1 by ascending index[i], then i. */ \
    X(void, gather, (size_t n, const int64_t *index, size_t len, const void *src, void *dst)) \
    X(void, scatter_add, \
      (size_t n, const int64_t *index, const int64_t *order, size_t len, const void *src, \
       void *dst)) \
    /* C += A B for C (m, n), A (m, k), B (k, n), each with a row and a column stride of any sign or
     * zero (C: not zero). Every element of C is ONE chain of fused multiply-adds with k ascending
     * that starts from its present value, whatever the sizes, strides and blocking: see
     * docs/design.md. C does not overlap A or B. */ \
    X(void, gemm, \
      (size_t m, size_t n, size_t k, const void *a, ptrdiff_t rsa, ptrdiff_t csa, const void *b, \
       ptrdiff_t rsb, ptrdiff_t csb, void *c, ptrdiff_t rsc, ptrdiff_t csc)) \
    /* B packed once for many products: packed_size(k, n) reals, 64-byte aligned. gemm_packed is
     * gemm with such a B. */ \
    X(size_t, packed_size, (size_t k, size_t n)) \
    X(void, pack, (size_t k, size_t n, const void *b, ptrdiff_t rsb, ptrdiff_t csb, void *packed)) \
    X(void, gemm_packed, \
      (size_t m, size_t n, size_t k, const void *a, ptrdiff_t rsa, ptrdiff_t csa, \
       const void *packed, void *c, ptrdiff_t rsc, ptrdiff_t csc)) \
    /* The index of the first value that is infinite or NaN, or n. */ \
    X(size_t, nonfinite, (size_t n, const void *x)) \
    /* The sum of (scale x[i])^2, in double; x[i] *= scale with the product in double; x[i] held
     * within [-bound, bound]. */ \
    X(double, sum_squares, (size_t n, double scale, const void *x)) \
    X(void, scale, (size_t n, double scale, void *x)) \
    X(void, clamp, (size_t n, double bound, void *x)) \
    /* The parts of a recurrent layer, for plan.c: see recurrent.h. Packs those of the weights
     * that have a place; takes a thread's rows through the steps [first, end) in the order of
     * processing; takes them back through a block; dx = da W^T for n rows of da and dx. */ \
    X(void, recurrent_pack, \
      (const struct mg_recurrent *r, const struct mg_recurrent_packed *packed)) \
    X(void, recurrent_forward, (const struct mg_recurrent_rows *rows, size_t first, size_t end)) \
    X(void, recurrent_backward, \
      (const struct mg_recurrent_rows *rows, const struct mg_recurrent_block *block)) \
    X(void, recurrent_dx, \
      (size_t n, size_t inputs, size_t columns, const void *packed, const void **da, \
       const void *zeros, void *sums, void **dx)) \
    /* n rounds of independent FMAs on the one real at y, for measuring the peak; returns the number
     * of flops. */ \
    X(size_t, fma_rounds, (size_t n, void *y))

struct mg_update;
struct mg_cell_kind;
struct mg_recurrent;
struct mg_recurrent_packed;
struct mg_recurrent_rows;
struct mg_recurrent_block;

#define MG_ID(name) mg_map_##name,
enum { MG_MAPS(MG_ID) mg_map_count };
#undef MG_ID
#define MG_ID(name) mg_map2_##name,
enum { MG_MAPS2(MG_ID) mg_map2_count };
#undef MG_ID

typedef void mg_map(size_t n, const void *x, ptrdiff_t sx, void *y);
typedef void mg_map2(size_t n, const void *a, ptrdiff_t sa, const void *b, ptrdiff_t sb, void *y);

/* One pass of an optimiser's step over the elements [first, first + n) of a parameter: see optim.h.
 * `needs` says which arrays of the state it cannot do without. */
typedef void mg_step(const struct mg_update *u, size_t first, size_t n);
enum { MG_NEEDS_M = 1, MG_NEEDS_V = 2 };
typedef struct mg_named_step {
    const char *name;
    int needs;
    mg_step *step;
} mg_named_step;

typedef struct mg_kernels {
    const char *isa; /* "scalar", "avx2", "avx512", "neon" */
    size_t itemsize; /* of real */
    mg_map *map[mg_map_count];
    mg_map2 *map2[mg_map2_count];
    const mg_named_step *steps;              /* the last one has no name */
    const struct mg_cell_kind *const *cells; /* by mg_cell: see recurrent.h */
#define MG_FIELD(type, name, arguments) type(*name) arguments;
    MG_KERNELS(MG_FIELD)
#undef MG_FIELD
} mg_kernels;

#define MG_HIDDEN __attribute__((visibility("hidden")))

/* dispatch.c. The tables that this build holds, best first, NULL-terminated names. */
const char *const *mg_isas_built(void);
/* Can this CPU run the named ISA? */
int mg_isa_usable(const char *isa);
/* The table for an ISA and an item size (4 or 8), or NULL if it is not built. */
const mg_kernels *mg_table(const char *isa, size_t itemsize);

#endif
