/* Compares every instruction set of this CPU with the scalar one, to the bit: all elementwise
 * functions, products, sums, steps of optimisers, for both float types. Then every kernel and every
 * strided loop with arrays without elements, which are NULL: that is for the sanitizers (make
 * sanitized).
 *
 *     make isa     on this machine
 *     make neon    the NEON kernels, under qemu (aarch64-linux-gnu-gcc, qemu-user)
 */
#include "kernels.h"
#include "optim.h"
#include "runtime/strided.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1003, M = 25, K = 9, COLUMNS = 37 };

static size_t itemsize;

static void fill(void *x, int n) {
    for (int i = 0; i < n; i++) {
        double v = (rand() / (double)RAND_MAX - 0.5) * (i % 3 ? 4 : 60);
        if (itemsize == 4) ((float *)x)[i] = (float)v;
        else ((double *)x)[i] = v;
    }
}

static int is_nan(const void *x, int i) {
    double v = itemsize == 4 ? ((const float *)x)[i] : ((const double *)x)[i];
    return v != v;
}

/* How many of n elements differ; NaNs are alike. */
static int differ(const char *what, const char *isa, int id, const void *x, const void *y, int n) {
    int bad = 0;
    for (int i = 0; i < n; i++) {
        size_t offset = (size_t)i * itemsize;
        int same = !memcmp((const char *)x + offset, (const char *)y + offset, itemsize);
        bad += !same && !(is_nan(x, i) && is_nan(y, i));
    }
    if (bad)
        printf("%s float%d %s %d: %d of %d elements differ from scalar\n", isa, (int)itemsize * 8,
               what, id, bad, n);
    return bad;
}

/* A step of each optimiser with all that it can have, from the same parameter, gradient and state:
 * the parameter and what is kept. */
static int differ_in_a_step(const char *isa, int id, const mg_kernels *kernels,
                            const mg_kernels *scalar) {
    static double p[2][N], g[N], m[2][N], v[2][N], extra[2][N];
    int bad = 0;
    for (int all = 0; all < 2; all++) {
        fill(g, N);
        fill(p[0], N);
        fill(m[0], N);
        kernels->map[mg_map_abs](N, g, 1, v[0]);
        kernels->map[mg_map_abs](N, p[0], 1, extra[0]);
        memcpy(p[1], p[0], sizeof p[0]);
        memcpy(m[1], m[0], sizeof m[0]);
        memcpy(v[1], v[0], sizeof v[0]);
        memcpy(extra[1], extra[0], sizeof extra[0]);
        for (int i = 0; i < 2; i++) {
            mg_update u = {
                .n = N,
                .p = p[i],
                .g = g,
                .v = v[i],
                .lr = 0.1,
                .shrink = 0.01 * all,
                .weight_decay = 0.03 * all,
                .momentum = 0.9,
                .dampening = 0.2 * all,
                .beta1 = 0.9,
                .beta2 = 0.999,
                .eps = 1e-8,
                .root = 3.3,
                .maximize = all,
                .nesterov = all,
            };
            const mg_named_step *named = &(i ? scalar : kernels)->steps[id];
            if (all || named->needs & MG_NEEDS_M) u.m = m[i];
            if (all) u.extra = extra[i];
            named->step(&u, 0, N - 1);
            named->step(&u, N - 1, 1);
        }
        bad += differ("step p", isa, id, p[0], p[1], N) + differ("step m", isa, id, m[0], m[1], N);
        bad += differ("step v", isa, id, v[0], v[1], N) +
               differ("step extra", isa, id, extra[0], extra[1], N);
    }
    return bad;
}

/* Rows that go to three rows of the result, most of them to the middle one. */
static int differ_in_scatter(const char *isa, int len, const mg_kernels *kernels,
                             const mg_kernels *scalar, const double *a, double *x, double *y) {
    static int64_t index[N], order[N];
    int n = N / len, placed = 0;
    for (int i = 0; i < n; i++) index[i] = i % 5 == 1 ? 0 : i % 7 == 1 ? 2 : 1;
    for (int row = 0; row < 3; row++)
        for (int i = 0; i < n; i++)
            if (index[i] == row) order[placed++] = i;
    kernels->scatter_add((size_t)n, index, order, (size_t)len, a, x);
    scalar->scatter_add((size_t)n, index, order, (size_t)len, a, y);
    return differ("scatter_add", isa, len, x, y, 3 * len);
}

/* The strided loops without dimensions: one element, and neither shape nor strides; and with a
 * dimension of length 0: no memory. Returns whether they left something else than zeros. */
static int wrong_when_strided(const mg_kernels *kernels) {
    static const ptrdiff_t none[3] = {2, 0, 3}, stride[3] = {3, 3, 1};
    double x[1] = {0}, copy[1] = {1};
    mg_map_strided(kernels, mg_map_neg, 0, NULL, x, NULL, copy);
    mg_map2_strided(kernels, mg_map2_add, 0, NULL, x, NULL, copy, NULL, x);
    mg_accumulate_strided(kernels, 0, NULL, x, NULL, copy, NULL);
    mg_copy_strided(itemsize, 0, NULL, x, NULL, copy, NULL);
    mg_map_strided(kernels, mg_map_neg, 3, none, NULL, stride, NULL);
    mg_map2_strided(kernels, mg_map2_add, 3, none, NULL, stride, NULL, stride, NULL);
    mg_accumulate_strided(kernels, 3, none, NULL, stride, NULL, stride);
    mg_copy_strided(itemsize, 3, none, NULL, stride, NULL, stride);
    static const double zero = 0; /* the first itemsize bytes count */
    return memcmp(x, &zero, itemsize) || memcmp(copy, &zero, itemsize);
}

/* All kernels with sizes of 0, one after the other; what has no elements is NULL. Returns how many
 * wrote where they should not. */
static int wrong_when_empty(const char *isa, const mg_kernels *kernels) {
    static const int64_t index[2] = {0, 0}, order[2] = {0, 1};
    double y[2] = {7, 7}, sums[2] = {0};
    float single[2] = {7, 7};
    void *kept = itemsize == 4 ? (void *)single : (void *)y;
    for (int id = 0; id < mg_map_count; id++)
        for (ptrdiff_t s = -1; s < 3; s++) kernels->map[id](0, NULL, s, NULL);
    for (int id = 0; id < mg_map2_count; id++)
        for (ptrdiff_t s = -1; s < 3; s++)
            for (ptrdiff_t t = -1; t < 3; t++) kernels->map2[id](0, NULL, s, NULL, t, NULL);
    for (int id = 0; kernels->steps[id].name; id++)
        for (int all = 0; all < 2; all++) {
            mg_update u = {
                .beta1 = 0.9,
                .beta2 = 0.999,
                .weight_decay = all,
                .maximize = all,
                .nesterov = all,
                .momentum = all,
            };
            kernels->steps[id].step(&u, 0, 0);
        }
    kernels->accumulate(0, NULL, 1, NULL);
    kernels->add_rows(0, 0, NULL, 0, NULL, NULL);
    kernels->add_rows(2, 0, NULL, 0, NULL, NULL);
    kernels->add_rows(0, 1, NULL, 1, kept, sums);
    kernels->round_sums(0, NULL, NULL);
    for (size_t outer = 0; outer < 2; outer++)
        for (size_t n = 0; n < 3; n++)
            for (size_t inner = 0; inner < 3; inner++) {
                if (outer && inner) continue;
                kernels->sum(outer, n, inner, NULL, NULL);
                kernels->prod(outer, n, inner, NULL, NULL);
                if (n == 0) continue;
                kernels->max(outer, n, inner, NULL, NULL);
                kernels->min(outer, n, inner, NULL, NULL);
                kernels->argmax(outer, n, inner, NULL, NULL);
            }
    for (size_t rows = 0; rows < 3; rows += 2)
        for (size_t n = 0; n < 3; n++) {
            if (rows && n) continue;
            kernels->softmax(rows, n, NULL, NULL);
            kernels->softmax_grad(rows, n, NULL, NULL, NULL);
            kernels->log_softmax(rows, n, NULL, NULL);
            kernels->log_softmax_grad(rows, n, NULL, NULL, NULL);
            if (rows == 0) {
                kernels->logsumexp(rows, n, NULL, NULL);
                kernels->cross_entropy(rows, n, NULL, NULL, NULL, NULL);
                kernels->cross_entropy_grad(rows, n, NULL, NULL, NULL, NULL, NULL);
            }
        }
    kernels->gather(0, NULL, 3, NULL, NULL);
    kernels->gather(2, index, 0, NULL, NULL);
    kernels->scatter_add(0, NULL, NULL, 3, NULL, NULL);
    kernels->scatter_add(1, index, order, 0, NULL, NULL);
    kernels->scatter_add(2, index, order, 0, NULL, NULL);
    for (size_t m = 0; m < 3; m++)
        for (size_t n = 0; n < 3; n++) {
            ptrdiff_t columns = (ptrdiff_t)n;
            if (m * n == 0) kernels->gemm(m, n, 3, NULL, 3, 1, NULL, columns, 1, NULL, columns, 1);
            if (m * n < 3) kernels->gemm(m, n, 0, NULL, 0, 1, NULL, columns, 1, kept, columns, 1);
        }
    kernels->nonfinite(0, NULL);
    kernels->sum_squares(0, 0.3, NULL);
    kernels->scale(0, 0.3, NULL);
    kernels->clamp(0, 0.3, NULL);
    int bad = 0;
    for (int i = 0; i < 2; i++) bad += single[i] != 7 || y[i] != 7;
    bad += wrong_when_strided(kernels);
    if (bad)
        printf("%s float%d: a kernel wrote something where there are no elements\n", isa,
               (int)itemsize * 8);
    return bad;
}

int main(void) {
    static double a[N], b[N], x[N], y[N];
    int bad = 0;
    for (itemsize = 4; itemsize <= 8; itemsize += 4)
        for (const char *const *isa = mg_isas_built(); *isa; isa++) {
            if (!mg_isa_usable(*isa)) continue;
            const mg_kernels *kernels = mg_table(*isa, itemsize);
            const mg_kernels *scalar = mg_table("scalar", itemsize);
            fill(a, N);
            fill(b, N);
            for (int id = 0; id < mg_map_count; id++) {
                kernels->map[id](N, a, 1, x);
                scalar->map[id](N, a, 1, y);
                bad += differ("map", *isa, id, x, y, N);
            }
            for (int id = 0; id < mg_map2_count; id++) {
                kernels->map2[id](N, a, 1, b, 1, x);
                scalar->map2[id](N, a, 1, b, 1, y);
                bad += differ("map2", *isa, id, x, y, N);
            }
            fill(x, M * COLUMNS);
            memcpy(y, x, sizeof x);
            kernels->gemm(M, COLUMNS, K, a, K, 1, b, COLUMNS, 1, x, COLUMNS, 1);
            scalar->gemm(M, COLUMNS, K, a, K, 1, b, COLUMNS, 1, y, COLUMNS, 1);
            bad += differ("gemm", *isa, 0, x, y, M * COLUMNS);
            kernels->sum(1, N, 1, a, x);
            scalar->sum(1, N, 1, a, y);
            bad += differ("sum", *isa, 0, x, y, 1);
            kernels->sum(1, N / 3, 3, a, x);
            scalar->sum(1, N / 3, 3, a, y);
            bad += differ("sum", *isa, 3, x, y, 3);
            /* In two calls, as threads and steps divide the sum. */
            for (int cols = 1; cols < 80; cols++) {
                static double low[2][80];
                int rows = N / cols;
                memset(low, 0, sizeof low);
                memcpy(x, b, sizeof x);
                memcpy(y, b, sizeof y);
                kernels->add_rows((size_t)rows, (size_t)cols, a, cols, x, low[0]);
                scalar->add_rows(2, (size_t)cols, a, cols, y, low[1]);
                const char *rest = (const char *)a + 2 * (size_t)cols * itemsize;
                scalar->add_rows((size_t)rows - 2, (size_t)cols, rest, cols, y, low[1]);
                bad += differ("add_rows", *isa, cols, x, y, cols);
                if (memcmp(low[0], low[1], sizeof low[0])) {
                    printf("%s float%d add_rows %d: the low parts differ from scalar\n", *isa,
                           (int)itemsize * 8, cols);
                    bad++;
                }
                kernels->round_sums((size_t)cols, low[0], x);
                scalar->round_sums((size_t)cols, low[1], y);
                bad += differ("round_sums", *isa, cols, x, y, cols);
                bad += differ_in_scatter(*isa, cols, kernels, scalar, a, x, y);
            }
            kernels->softmax(17, N / 17, a, x);
            scalar->softmax(17, N / 17, a, y);
            bad += differ("softmax", *isa, 0, x, y, N);
            for (int id = 0; kernels->steps[id].name; id++)
                bad += differ_in_a_step(*isa, id, kernels, scalar);
            memcpy(x, a, sizeof x);
            memcpy(y, a, sizeof y);
            kernels->scale(N, 1 / 3.0, x);
            scalar->scale(N, 1 / 3.0, y);
            kernels->clamp(N, 1.1, x);
            scalar->clamp(N, 1.1, y);
            bad += differ("scale, clamp", *isa, 0, x, y, N);
            for (int n = 0; n < N; n += n < 70 ? 1 : 100)
                if (kernels->sum_squares((size_t)n, 0.3, a) !=
                    scalar->sum_squares((size_t)n, 0.3, a)) {
                    printf("%s float%d sum_squares of %d elements differs from scalar\n", *isa,
                           (int)itemsize * 8, n);
                    bad++;
                }
            bad += wrong_when_empty(*isa, kernels);
            printf("%s float%d compared\n", *isa, (int)itemsize * 8);
        }
    printf(bad ? "DIFFERENT BITS\n" : "the same bits\n");
    return bad != 0;
}
