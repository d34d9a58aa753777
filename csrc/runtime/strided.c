/* Loops over the outer dimensions of strided arrays, handing the longest inner run to a kernel.
 *
 * `simplify` first drops dimensions of length 1 and merges neighbours that are one run in every
 * operand, so that most calls reach the kernel once. Large contiguous maps are cut over threads in
 * pieces that do not depend on the number of threads. */
#include "runtime/strided.h"
#include "runtime/pool.h"
#include <string.h>

enum { OPERANDS = 3, PIECE = 16384 /* elements of a parallel piece */ };

typedef struct {
    int nd;
    ptrdiff_t shape[MG_MAX_DIMS];
    ptrdiff_t stride[OPERANDS][MG_MAX_DIMS];
} walk;

/* Leaves out dimensions of length 1 and merges those that are one run in each operand. */
static void simplify(walk *w, int operands) {
    int nd = 0;
    for (int d = 0; d < w->nd; d++) {
        if (w->shape[d] == 1) continue;
        int merge = nd > 0;
        for (int o = 0; o < operands && merge; o++)
            merge = w->stride[o][nd - 1] == w->stride[o][d] * w->shape[d];
        if (merge) {
            w->shape[nd - 1] *= w->shape[d];
        } else {
            w->shape[nd++] = w->shape[d];
        }
        for (int o = 0; o < operands; o++) w->stride[o][nd - 1] = w->stride[o][d];
    }
    if (nd == 0) { /* one element: a run of length 1 */
        w->shape[nd] = 1;
        for (int o = 0; o < operands; o++) w->stride[o][nd] = 1;
        nd = 1;
    }
    w->nd = nd;
}

/* Steps the counter over the outer dimensions and moves the offsets; 0 when it has gone round. */
static int next(const walk *w, int outer, ptrdiff_t *counter, ptrdiff_t *offset, int operands) {
    for (int d = outer - 1; d >= 0; d--) {
        if (++counter[d] < w->shape[d]) {
            for (int o = 0; o < operands; o++) offset[o] += w->stride[o][d];
            return 1;
        }
        counter[d] = 0;
        for (int o = 0; o < operands; o++) offset[o] -= w->stride[o][d] * (w->shape[d] - 1);
    }
    return 0;
}

static int is_empty(int nd, const ptrdiff_t *shape) {
    for (int d = 0; d < nd; d++)
        if (shape[d] == 0) return 1;
    return 0;
}

/* Without dimensions shape and stride may be NULL, which memcpy may not be given. */
static void set_shape(walk *w, const ptrdiff_t *shape) {
    if (w->nd > 0) memcpy(w->shape, shape, (size_t)w->nd * sizeof *shape);
}

static void set_operand(walk *w, int o, const ptrdiff_t *stride) {
    if (w->nd > 0) memcpy(w->stride[o], stride, (size_t)w->nd * sizeof *stride);
}

typedef struct {
    const mg_kernels *kernels;
    int id;
    size_t n;
    const char *a, *b;
    ptrdiff_t sa, sb;
    char *y;
} run;

static void map_piece(void *arg, size_t index) {
    const run *r = arg;
    size_t start = index * PIECE;
    size_t n = r->n - start < PIECE ? r->n - start : PIECE;
    ptrdiff_t from = (ptrdiff_t)(start * r->kernels->itemsize);
    const char *a = r->a + from * r->sa;
    if (r->b) r->kernels->map2[r->id](n, a, r->sa, r->b + from * r->sb, r->sb, r->y + from);
    else r->kernels->map[r->id](n, a, r->sa, r->y + from);
}

/* One run of n elements: y is contiguous, b may be NULL. */
static void map_run(const mg_kernels *kernels, int id, size_t n, const char *a, ptrdiff_t sa,
                    const char *b, ptrdiff_t sb, char *y) {
    run r = {kernels, id, n, a, b, sa, sb, y};
    mg_parallel((n + PIECE - 1) / PIECE, map_piece, &r);
}

void mg_map_strided(const mg_kernels *kernels, int id, int nd, const ptrdiff_t *shape,
                    const void *x, const ptrdiff_t *sx, void *y) {
    if (is_empty(nd, shape)) return;
    walk w = {.nd = nd};
    set_shape(&w, shape);
    set_operand(&w, 0, sx);
    simplify(&w, 1);
    int outer = w.nd - 1;
    size_t n = (size_t)w.shape[outer];
    ptrdiff_t counter[MG_MAX_DIMS] = {0}, offset[1] = {0}, size = (ptrdiff_t)kernels->itemsize;
    char *to = y;
    do {
        map_run(kernels, id, n, (const char *)x + offset[0] * size, w.stride[0][outer], NULL, 0,
                to);
        to += n * kernels->itemsize;
    } while (next(&w, outer, counter, offset, 1));
}

void mg_map2_strided(const mg_kernels *kernels, int id, int nd, const ptrdiff_t *shape,
                     const void *a, const ptrdiff_t *sa, const void *b, const ptrdiff_t *sb,
                     void *y) {
    if (is_empty(nd, shape)) return;
    walk w = {.nd = nd};
    set_shape(&w, shape);
    set_operand(&w, 0, sa);
    set_operand(&w, 1, sb);
    simplify(&w, 2);
    int outer = w.nd - 1;
    size_t n = (size_t)w.shape[outer];
    ptrdiff_t counter[MG_MAX_DIMS] = {0}, offset[2] = {0, 0}, size = (ptrdiff_t)kernels->itemsize;
    char *to = y;
    do {
        map_run(kernels, id, n, (const char *)a + offset[0] * size, w.stride[0][outer],
                (const char *)b + offset[1] * size, w.stride[1][outer], to);
        to += n * kernels->itemsize;
    } while (next(&w, outer, counter, offset, 2));
}

#define ADD(real) \
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) \
        ((real *)to)[i * sy] += ((const real *)from)[i * sx];

void mg_accumulate_strided(const mg_kernels *kernels, int nd, const ptrdiff_t *shape, const void *x,
                           const ptrdiff_t *sx_, void *y, const ptrdiff_t *sy_) {
    if (is_empty(nd, shape)) return;
    walk w = {.nd = nd};
    set_shape(&w, shape);
    set_operand(&w, 0, sx_);
    set_operand(&w, 1, sy_);
    simplify(&w, 2);
    int outer = w.nd - 1;
    size_t n = (size_t)w.shape[outer];
    ptrdiff_t counter[MG_MAX_DIMS] = {0}, offset[2] = {0, 0}, size = (ptrdiff_t)kernels->itemsize;
    ptrdiff_t sx = w.stride[0][outer], sy = w.stride[1][outer];
    do {
        const char *from = (const char *)x + offset[0] * size;
        char *to = (char *)y + offset[1] * size;
        if (sy == 1) {
            kernels->accumulate(n, from, sx, to);
        } else if (size == 4) {
            ADD(float)
        } else {
            ADD(double)
        }
    } while (next(&w, outer, counter, offset, 2));
}

/* A 2-D transpose in blocks that stay in L1: reading along one side, writing along the other. */
enum { BLOCK = 16 };
#define TRANSPOSE(real) \
    for (ptrdiff_t i0 = 0; i0 < rows; i0 += BLOCK) \
        for (ptrdiff_t j0 = 0; j0 < cols; j0 += BLOCK) \
            for (ptrdiff_t i = i0; i < rows && i < i0 + BLOCK; i++) \
                for (ptrdiff_t j = j0; j < cols && j < j0 + BLOCK; j++) \
                    ((real *)to)[i * ry + j * cy] = ((const real *)from)[i * rx + j * cx];

void mg_copy_strided(size_t itemsize, int nd, const ptrdiff_t *shape, const void *x,
                     const ptrdiff_t *sx_, void *y, const ptrdiff_t *sy_) {
    if (is_empty(nd, shape)) return;
    walk w = {.nd = nd};
    set_shape(&w, shape);
    set_operand(&w, 0, sx_);
    set_operand(&w, 1, sy_);
    simplify(&w, 2);
    int transpose = w.nd >= 2 && w.stride[0][w.nd - 1] != 1 && w.stride[0][w.nd - 2] == 1;
    int outer = w.nd - 1 - transpose;
    ptrdiff_t counter[MG_MAX_DIMS] = {0}, offset[2] = {0, 0}, size = (ptrdiff_t)itemsize;
    ptrdiff_t cols = w.shape[w.nd - 1], cx = w.stride[0][w.nd - 1], cy = w.stride[1][w.nd - 1];
    ptrdiff_t rows = transpose ? w.shape[outer] : 1, rx = transpose ? w.stride[0][outer] : 0;
    ptrdiff_t ry = transpose ? w.stride[1][outer] : 0;
    do {
        const char *from = (const char *)x + offset[0] * size;
        char *to = (char *)y + offset[1] * size;
        if (!transpose && cx == 1 && cy == 1) {
            memcpy(to, from, (size_t)cols * itemsize);
        } else if (itemsize == 4) {
            TRANSPOSE(float)
        } else {
            TRANSPOSE(double)
        }
    } while (next(&w, outer, counter, offset, 2));
}
