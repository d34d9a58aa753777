/* Splits a recurrent layer's work over threads and steps and owns its scratch memory; the
 * arithmetic is in recurrent.inc.
 *
 * Forward: each thread takes some rows of the batch through all steps; the rows know nothing of
 * each other, so there is no barrier. Backward: a block of steps at a time. First each thread takes
 * its rows through the block, which leaves the gradients of all gates; then the threads share out
 * the columns of dW_x, dW_h and db and the rows of dx. A weight's chain runs over all rows of a
 * block, so that needs all threads to have arrived: two barriers for several hundred rows. Only
 * where there are fewer rows than threads, and each step is much work, does one thread lead all
 * rows and the threads share the columns of each product.
 */
#include "recurrent/recurrent.h"
#include "runtime/pool.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

size_t mg_cell_gates(mg_cell cell) { return cell == MG_LSTM ? 4 : cell == MG_GRU || cell == MG_GRU_AFTER ? 3 : 1; }
size_t mg_cell_biases(mg_cell cell) { return cell == MG_GRU_AFTER ? 4 : mg_cell_gates(cell); }

enum {
    CACHED_BYTES = 256 << 10,       /* scratch that is written and soon read again: well inside a second-level cache */
    BLOCK_ROWS = 512,               /* rows of a backward block: long chains, so that sums are seldom loaded and stored, */
    BLOCK_BYTES = 1 << 20,          /* or more while their gradients stay in a second-level cache */
    SPARE_BYTES = 16 << 20,         /* scratch kept between calls, at most */
    SLICE_COLUMNS = 32,             /* columns of weight gradients go to threads in slices of this many */
};
static const double WORTH_A_THREAD = 5e5;   /* multiply-adds that repay a thread that still polls; a sleeping one costs 10 us */
static const double WORTH_A_SPLIT = 2.5e5;  /* multiply-adds of a recurrent product that are worth a barrier in each step */

/* Multiply-adds of some 20 ms on one core, after which `interrupted` is called. Without vectors
 * each costs a call of fma(). */
static double work_before_asking(const mg_kernels *k) { return (strcmp(k->isa, "scalar") ? 8e9 : 8e7) / (double)k->itemsize; }

/* ---- Scratch memory: one allocation for a call. Laid out twice: with base NULL to learn its size,
 * then for good. ---- */

typedef struct arena {
    char *base;
    size_t used;
    int too_large;
} arena;

static size_t times(arena *a, size_t x, size_t y) {
    size_t product;
    if (!__builtin_mul_overflow(x, y, &product)) return product;
    a->too_large = 1;
    return 0;
}

static void *take(arena *a, size_t count, size_t size) {
    size_t bytes = times(a, count, size), end;
    void *here = a->base ? a->base + a->used : NULL;
    if (__builtin_add_overflow(a->used, bytes, &end) || end > SIZE_MAX - 63) a->too_large = 1;
    else a->used = (end + 63) / 64 * 64;
    return here;
}

/* The block of the last call is kept for the next one: new pages cost more than a small layer.
 * `size` is that of the block. */
typedef struct header {
    size_t size;
} header;
static _Atomic(header *) spare;

/* Space for what take() has counted; 0 if there is none. The first 64 bytes are the header. */
static int allocate(arena *a) {
    size_t size = a->used + 64;
    if (a->too_large || size < 64) return 0;
    header *block = atomic_exchange(&spare, NULL);
    if (!block || block->size < size) {
        free(block);
        block = aligned_alloc(64, size);
        if (!block) return 0;
        block->size = size;
    }
    a->base = (char *)block;
    a->used = 64;
    return 1;
}

static void release(arena *a) {
    header *block = (header *)a->base;
    free(block->size <= SPARE_BYTES ? atomic_exchange(&spare, block) : block);
}

/* ---- Plans ---- */

typedef struct plan {
    const mg_kernels *k;
    const mg_recurrent *r;
    const mg_recurrent_grads *g;
    mg_recurrent_packed packed;
    size_t threads;                 /* that take part in this call */
    size_t parts;                   /* threads' worth of rows */
    size_t column_parts;            /* see mg_recurrent_rows */
    mg_recurrent_rows *rows;        /* (parts) */
    size_t *row;                    /* (B): the rows of part 0, then of part 1, ... */
    size_t first, end;              /* the steps of the present call of mg_parallel */
    /* Backward. */
    mg_recurrent_block block;
    size_t room;                    /* entries that fit in a block */
    size_t *t, *b, *entry;
    const void **da;                /* (room): the rows of block.da */
    void **dx;                      /* (room) */
    void *dx_sums;                  /* (room, padded I) */
} plan;

/* Multiply-adds of a step with its input product. */
static double step_work(const mg_recurrent *r) {
    return (double)r->B * (double)mg_cell_gates(r->cell) * (double)r->H * ((double)r->I + (double)r->H);
}

static size_t at_least_one(double x, size_t most) { return x < 1 ? 1 : x < (double)most ? (size_t)x : most; }

static void plan_threads(plan *p) {
    const mg_recurrent *r = p->r;
    double step = (double)r->B * (double)mg_cell_gates(r->cell) * (double)r->H * (double)r->H;
    p->threads = at_least_one(step_work(r) * (double)r->T / WORTH_A_THREAD, (size_t)mg_get_num_threads());
    int by_columns = r->B < p->threads && step > WORTH_A_SPLIT;
    p->parts = by_columns ? 1 : r->B < p->threads ? r->B : p->threads;
    p->column_parts = by_columns ? p->threads : 1;
}

static size_t part_rows(const plan *p, size_t part) { return p->r->B / p->parts + (part < p->r->B % p->parts); }

typedef struct sorted_row {
    int64_t length;
    size_t b;
} sorted_row;

static int longest_first(const void *a, const void *b) {
    const sorted_row *x = a, *y = b;
    if (x->length != y->length) return x->length > y->length ? -1 : 1;
    return x->b < y->b ? -1 : 1;
}

/* Rows with lengths are dealt like cards, longest first, so that all parts have about the same
 * work. */
static void deal_rows(plan *p, sorted_row *sorted) {
    const mg_recurrent *r = p->r;
    size_t taken = 0;
    if (r->lengths) {
        for (size_t b = 0; b < r->B; b++) sorted[b] = (sorted_row){r->lengths[b], b};
        qsort(sorted, r->B, sizeof *sorted, longest_first);
    }
    for (size_t part = 0; part < p->parts; part++)
        for (size_t i = 0; i < part_rows(p, part); i++, taken++)
            p->row[taken] = r->lengths ? sorted[i * p->parts + part].b : taken;
}

/* What both directions need; the calls of take() are the same in both passes. */
static void lay_out_rows(plan *p, arena *a, sorted_row **sorted) {
    const mg_recurrent *r = p->r;
    size_t size = p->k->itemsize, H = r->H, width = MG_PADDED(H > r->I ? H : r->I), taken = 0;
    p->rows = take(a, p->parts, sizeof *p->rows);
    p->row = take(a, r->B, sizeof *p->row);
    *sorted = take(a, r->lengths ? r->B : 0, sizeof **sorted);
    p->packed.zeros = take(a, width, size);
    for (size_t part = 0; part < p->parts; part++) {
        size_t n = part_rows(p, part);
        mg_recurrent_rows rows = {.r = r, .g = p->g, .packed = &p->packed, .n = n, .column_parts = p->column_parts,
                                  .row = p->row ? p->row + taken : NULL};
        taken += n;
        rows.h_before = take(a, n, sizeof(void *));
        rows.c_before = take(a, n, sizeof(void *));
        rows.in = take(a, n, sizeof(void *));
        rows.h = take(a, n, sizeof(void *));
        rows.c = take(a, n, sizeof(void *));
        rows.gates = take(a, n, sizeof(void *));
        if (r->mask) rows.masked = take(a, times(a, n, H), size);
        if (p->g) {
            rows.S = take(a, times(a, n, MG_PADDED(H)), size);
            rows.U = take(a, times(a, n, MG_PADDED(H)), size);
            rows.V = take(a, times(a, n, MG_PADDED(H)), size);
            rows.da = take(a, n, sizeof(void *));
        } else {
            size_t sums = times(a, mg_cell_biases(r->cell), MG_PADDED(H)), cached = CACHED_BYTES / size / (sums ? sums : 1);
            rows.room = n > cached ? n : cached;
            if (r->T < rows.room / (n ? n : 1)) rows.room = n * r->T;
            rows.a = take(a, times(a, rows.room, sums), size);
            rows.x = take(a, rows.room, sizeof(void *));
            if (r->cell == MG_GRU) rows.gated = take(a, times(a, n, H), size);
        }
        if (p->rows) p->rows[part] = rows;
    }
}

static void lay_out_forward(plan *p, arena *a, sorted_row **sorted) {
    const mg_recurrent *r = p->r;
    size_t size = p->k->itemsize, sums = times(a, mg_cell_biases(r->cell), MG_PADDED(r->H));
    lay_out_rows(p, a, sorted);
    p->packed.bias = take(a, sums, size);
    p->packed.x = take(a, times(a, sums, r->I), size);
    p->packed.h = take(a, times(a, sums, r->H), size);
}

static void lay_out_backward(plan *p, arena *a, sorted_row **sorted) {
    const mg_recurrent *r = p->r;
    const mg_recurrent_grads *g = p->g;
    mg_recurrent_block *block = &p->block;
    size_t size = p->k->itemsize, H = r->H, columns = times(a, mg_cell_gates(r->cell), H), room = p->room;
    lay_out_rows(p, a, sorted);
    if (g->dx) p->packed.xt = take(a, times(a, columns, MG_PADDED(r->I)), size);
    p->packed.ht = take(a, times(a, columns, MG_PADDED(H)), size);
    block->D = times(a, mg_cell_biases(r->cell), H);
    block->da = take(a, times(a, room, block->D), size);
    block->t = p->t = take(a, room, sizeof *p->t);
    block->b = p->b = take(a, room, sizeof *p->b);
    block->entry = p->entry = take(a, room, sizeof *p->entry);
    if (g->dwx) block->x = take(a, times(a, room, r->I), size);
    if (g->dwh) block->hm = take(a, times(a, room, H), size);
    if (g->dwh && r->cell == MG_GRU) block->gated = take(a, times(a, room, H), size);
    if (g->dpeephole) block->dp = take(a, times(a, room, times(a, 3, H)), size);
    if (g->dh_norm2) block->dh_norm2 = take(a, room, sizeof(double));
    if (g->dc_norm2) block->dc_norm2 = take(a, room, sizeof(double));
    if (g->dx) {
        p->da = take(a, room, sizeof *p->da);
        p->dx = take(a, room, sizeof *p->dx);
        p->dx_sums = take(a, times(a, room, MG_PADDED(r->I)), size);
    }
}

static size_t last_time(const mg_recurrent *r, size_t b) {
    return r->reverse ? 0 : (r->lengths ? (size_t)r->lengths[b] : r->T) - 1;
}

/* A row of `state`, or zeros. */
static void copy_row(void *to, const void *state, size_t row, size_t bytes) {
    if (state) memcpy(to, (const char *)state + row * bytes, bytes);
    else memset(to, 0, bytes);
}

/* ---- Forward ---- */

static void forward_task(void *arg, size_t part) {
    plan *p = arg;
    p->k->recurrent_forward(&p->rows[part], p->first, p->end);
}

int mg_recurrent_forward(const mg_kernels *k, const mg_recurrent *r) {
    plan p = {.k = k, .r = r};
    arena memory = {0};
    sorted_row *sorted;
    size_t bytes = r->H * k->itemsize;
    if (r->B == 0) return MG_OK;
    plan_threads(&p);
    lay_out_forward(&p, &memory, &sorted);
    if (!allocate(&memory)) return MG_NO_MEMORY;
    lay_out_forward(&p, &memory, &sorted);
    memset((void *)p.packed.zeros, 0, MG_PADDED(r->H > r->I ? r->H : r->I) * k->itemsize);
    deal_rows(&p, sorted);
    k->recurrent_pack(r, &p.packed);
    if (r->cell == MG_LSTM && !r->cells)
        for (size_t b = 0; b < r->B; b++) copy_row((char *)r->c_T + b * bytes, r->c0, b, bytes);

    size_t at_once = r->interrupted ? at_least_one(work_before_asking(k) / (step_work(r) + 1), r->T + 1) : r->T + 1;
    int status = MG_OK;
    for (; p.first < r->T; p.first = p.end) {
        p.end = r->T - p.first < at_once ? r->T : p.first + at_once;
        mg_parallel(p.parts, forward_task, &p);
        if (r->interrupted && r->interrupted()) {
            status = MG_INTERRUPTED;
            break;
        }
    }
    release(&memory);
    for (size_t b = 0; b < r->B && status == MG_OK; b++) {
        int empty = r->T == 0 || (r->lengths && r->lengths[b] == 0);
        size_t last = empty ? 0 : last_time(r, b) * r->B + b;
        if (empty) copy_row((char *)r->h_T + b * bytes, r->h0, b, bytes);
        else memcpy((char *)r->h_T + b * bytes, (const char *)r->h + last * r->h_row * k->itemsize, bytes);
        if (r->cell == MG_LSTM && r->cells)
            copy_row((char *)r->c_T + b * bytes, empty ? r->c0 : r->cells, empty ? b : last, bytes);
    }
    return status;
}

/* ---- Backward ---- */

static void backward_task(void *arg, size_t part) {
    plan *p = arg;
    p->k->recurrent_backward(&p->rows[part], &p->block);
}

/* dW[:, from..to) += operand^T da, for `n` rows of W and columns of da that start at da_column
 * where those of W start at 0. */
static void weight_slice(const plan *p, size_t n, const void *operand, void *dw, size_t from, size_t to, ptrdiff_t da_shift) {
    size_t size = p->k->itemsize, columns = mg_cell_gates(p->r->cell) * p->r->H;
    if (from < to)
        p->k->gemm(n, to - from, p->block.entries, operand, 1, (ptrdiff_t)n,
                   (char *)p->block.da + ((ptrdiff_t)from + da_shift) * (ptrdiff_t)size, (ptrdiff_t)p->block.D, 1,
                   (char *)dw + from * size, (ptrdiff_t)columns, 1);
}

/* The slice of `columns` columns that belongs to a part. */
static void slice(const plan *p, size_t part, size_t columns, size_t *from, size_t *to) {
    size_t slices = (columns + SLICE_COLUMNS - 1) / SLICE_COLUMNS;
    *from = slices * part / p->threads * SLICE_COLUMNS;
    *to = slices * (part + 1) / p->threads * SLICE_COLUMNS;
    if (*from > columns) *from = columns;
    if (*to > columns) *to = columns;
}

static void weights_task(void *arg, size_t part) {
    plan *p = arg;
    const mg_recurrent *r = p->r;
    const mg_recurrent_grads *g = p->g;
    const mg_recurrent_block *block = &p->block;
    size_t size = p->k->itemsize, H = r->H, columns = mg_cell_gates(r->cell) * H, from, to;
    if (g->dx) {
        from = block->entries * part / p->threads;
        to = block->entries * (part + 1) / p->threads;
        p->k->recurrent_dx(to - from, r->I, columns, p->packed.xt, p->da + from, p->packed.zeros,
                           (char *)p->dx_sums + from * MG_PADDED(r->I) * size, p->dx + from);
    }
    slice(p, part, columns, &from, &to);
    if (g->dwx) weight_slice(p, r->I, block->x, g->dwx, from, to, 0);
    if (g->dwh && (r->cell == MG_GRU || r->cell == MG_GRU_AFTER)) {
        /* The product for n has an operand of its own (r * hm), or a gradient of its own (that of
         * u). */
        size_t n_from = from < 2 * H ? 2 * H : from, rz_to = to < 2 * H ? to : 2 * H;
        weight_slice(p, H, block->hm, g->dwh, from, rz_to, 0);
        if (r->cell == MG_GRU) weight_slice(p, H, block->gated, g->dwh, n_from, to, 0);
        else weight_slice(p, H, block->hm, g->dwh, n_from, to, (ptrdiff_t)H);
    } else if (g->dwh) {
        weight_slice(p, H, block->hm, g->dwh, from, to, 0);
    }
    if (g->dbias) {
        slice(p, part, block->D, &from, &to);
        p->k->add_rows(block->entries, to - from, (char *)block->da + from * size, (ptrdiff_t)block->D,
                       (char *)g->dbias + from * size, g->dbias_low + from);
    }
    if (g->dpeephole) {
        slice(p, part, 3 * H, &from, &to);
        p->k->add_rows(block->entries, to - from, (char *)block->dp + from * size, (ptrdiff_t)(3 * H),
                       (char *)g->dpeephole + from * size, g->dpeephole_low + from);
    }
}

/* Which rows are in the block of the steps [first, end), in the order of the weights' chains. */
static void list_entries(plan *p, size_t first, size_t end) {
    const mg_recurrent *r = p->r;
    size_t B = r->B, n = 0;
    for (size_t step = end; step-- > first;) {
        size_t t = r->reverse ? r->T - 1 - step : step;
        for (size_t b = 0; b < B; b++) {
            if (r->lengths && (size_t)r->lengths[b] <= t) continue;
            p->entry[(end - 1 - step) * B + b] = n;
            p->t[n] = t;
            p->b[n] = b;
            if (p->g->dx) p->dx[n] = (char *)p->g->dx + (t * B + b) * r->I * p->k->itemsize;
            n++;
        }
    }
    p->block.first = first;
    p->block.end = end;
    p->block.entries = n;
}

/* norm2[t] = the sum of the entries of step t, b ascending. */
static void add_norms(const plan *p, const double *of_entry, double *norm2) {
    for (size_t e = 0; e < p->block.entries; e++) norm2[p->t[e]] += of_entry[e];
}

static int all_finite(size_t n, const double *x) {
    double zero = 0;
    for (size_t i = 0; i < n; i++) zero += x[i] - x[i];
    return zero == 0;
}

static void look_for_nonfinite(const plan *p) {
    mg_nonfinite *where = p->g->nonfinite;
    size_t D = p->block.D, n = p->block.entries * D, at;
    if (where->step != p->r->T) return;
    /* A gradient that is not finite makes the low part of its column's sum so. */
    if (p->g->dbias && all_finite(D, p->g->dbias_low)) return;
    at = p->k->nonfinite(n, p->block.da);
    if (at < n) *where = (mg_nonfinite){p->t[at / D], p->b[at / D], at % D / p->r->H};
}

int mg_recurrent_backward(const mg_kernels *k, const mg_recurrent *r, const mg_recurrent_grads *g) {
    plan p = {.k = k, .r = r, .g = g};
    arena memory = {0};
    sorted_row *sorted;
    size_t B = r->B, bytes = r->H * k->itemsize, padded = MG_PADDED(r->H) * k->itemsize;
    if (g->nonfinite) *g->nonfinite = (mg_nonfinite){.step = r->T};
    for (size_t t = 0; g->dh_norm2 && t < r->T; t++) g->dh_norm2[t] = 0;
    for (size_t t = 0; g->dc_norm2 && t < r->T; t++) g->dc_norm2[t] = 0;
    if (B == 0) return MG_OK;

    double asking = r->interrupted ? work_before_asking(k) / (2 * step_work(r) + 1) : (double)r->T;
    size_t steps = at_least_one(asking, r->T + 1);
    size_t most = BLOCK_BYTES / k->itemsize / mg_cell_biases(r->cell) / r->H;
    most = (most > BLOCK_ROWS ? most : BLOCK_ROWS) / B;
    if (steps > most) steps = most ? most : 1;
    if (steps < r->T) steps = (r->T + r->T / steps) / (r->T / steps + 1);   /* blocks of almost equal length */
    else steps = r->T;
    plan_threads(&p);
    p.room = steps * B;
    lay_out_backward(&p, &memory, &sorted);
    if (!allocate(&memory)) return MG_NO_MEMORY;
    lay_out_backward(&p, &memory, &sorted);
    memset((void *)p.packed.zeros, 0, MG_PADDED(r->H > r->I ? r->H : r->I) * k->itemsize);
    deal_rows(&p, sorted);
    k->recurrent_pack(r, &p.packed);
    for (size_t e = 0; g->dx && e < p.room; e++) p.da[e] = (char *)p.block.da + e * p.block.D * k->itemsize;
    for (size_t part = 0; part < p.parts; part++)
        for (size_t i = 0; i < p.rows[part].n; i++) {
            char *S = (char *)p.rows[part].S + i * padded, *U = (char *)p.rows[part].U + i * padded;
            memset(S, 0, padded);
            memset(U, 0, padded);
            copy_row(S, g->dh_T, p.rows[part].row[i], bytes);
            copy_row(U, g->dc_T, p.rows[part].row[i], bytes);
        }

    int status = MG_OK;
    for (size_t end = r->T; end > 0 && status == MG_OK; end = p.block.first) {
        list_entries(&p, end > steps ? end - steps : 0, end);
        mg_parallel(p.parts, backward_task, &p);
        mg_parallel(p.threads, weights_task, &p);
        if (g->dh_norm2) add_norms(&p, p.block.dh_norm2, g->dh_norm2);
        if (g->dc_norm2) add_norms(&p, p.block.dc_norm2, g->dc_norm2);
        if (g->nonfinite) look_for_nonfinite(&p);
        if (r->interrupted && r->interrupted()) status = MG_INTERRUPTED;
    }
    for (size_t part = 0; part < p.parts && status == MG_OK; part++)
        for (size_t i = 0; i < p.rows[part].n; i++) {
            size_t b = p.rows[part].row[i];
            if (g->dh0) memcpy((char *)g->dh0 + b * bytes, (char *)p.rows[part].S + i * padded, bytes);
            if (g->dc0) memcpy((char *)g->dc0 + b * bytes, (char *)p.rows[part].U + i * padded, bytes);
        }
    release(&memory);
    return status;
}

/* ---- Diagnosis ---- */

int mg_recurrent_scan(const mg_kernels *k, const mg_recurrent *r, mg_nonfinite *where) {
    size_t H = r->H, G = mg_cell_gates(r->cell), size = k->itemsize;
    for (size_t step = 0; step < r->T; step++) {
        size_t t = r->reverse ? r->T - 1 - step : step;
        for (size_t b = 0; b < r->B; b++) {
            size_t now = t * r->B + b, at;
            if (r->gates && (at = k->nonfinite(G * H, (const char *)r->gates + now * G * H * size)) < G * H) {
                *where = (mg_nonfinite){t, b, at / H};
                return 1;
            }
            if (r->cells && k->nonfinite(H, (const char *)r->cells + now * H * size) < H) {
                *where = (mg_nonfinite){t, b, G};
                return 1;
            }
            if (k->nonfinite(H, (const char *)r->h + now * r->h_row * size) < H) {
                *where = (mg_nonfinite){t, b, G + 1};
                return 1;
            }
        }
    }
    return 0;
}
