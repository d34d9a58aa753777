/* Splits a recurrent layer's work over threads and steps and owns its scratch memory; the
 * arithmetic is in steps.inc and the files of the cells.
 *
 * Forward: each thread takes some rows of the batch through all steps; the rows know nothing of
 * each other, so there is no barrier. Backward: a block of steps at a time. First each thread takes
 * its rows through the block, which leaves the gradients of all gates; then the threads share out
 * the columns of dW, dU and db and the rows of dx. A weight's chain runs over all rows of a
 * block, so that needs all threads to have arrived: two barriers for several hundred rows. Only
 * where there are fewer rows than threads, and each step is much work, does one thread lead all
 * rows and the threads share the columns of each product.
 */
#include "recurrent/recurrent.h"
#include "runtime/pool.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    CACHED_BYTES = 256 << 10, /* scratch that is soon read again: inside a second-level cache */
    BLOCK_ROWS = 512,         /* rows of a backward block: long chains load sums seldom, */
    BLOCK_BYTES = 1 << 20,    /* or more while their da stay in a second-level cache */
    SPARE_BYTES = 16 << 20,   /* scratch kept between calls, at most */
    SLICE_COLUMNS = 32,       /* columns of weight gradients in a slice; threads take slices */
};

/* Multiply-adds that repay a thread that still polls; a sleeping one costs 10 us. */
static const double WORTH_A_THREAD = 5e5;
/* Multiply-adds of a recurrent product that are worth a barrier in each step. */
static const double WORTH_A_SPLIT = 2.5e5;

/* Multiply-adds of some 20 ms on one core, after which `interrupted` is called. Without vectors
 * each costs a call of fma(). */
static double work_before_asking(const mg_kernels *k) {
    double bytes = strcmp(k->isa, "scalar") ? 8e9 : 8e7;
    return bytes / (double)k->itemsize;
}

/* ---- Scratch memory ----
 *
 * One allocation for a call. It is laid out twice: with base NULL to learn its size, then for
 * good. */

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
    const mg_cell_kind *kind; /* of r->cell */
    const mg_recurrent *r;
    const mg_recurrent_grads *g;
    mg_recurrent_packed packed;
    size_t threads;          /* that take part in this call */
    size_t parts;            /* threads' worth of rows */
    size_t column_parts;     /* see mg_recurrent_rows */
    mg_recurrent_rows *rows; /* (parts) */
    size_t *row;             /* (B): the rows of part 0, then of part 1, ... */
    size_t first, end;       /* the steps of the present call of mg_parallel */
    /* Backward. */
    mg_recurrent_block block;
    size_t capacity; /* entries that fit in a block */
    size_t *t, *b, *entry;
    const void **da; /* (capacity): the rows of block.da */
    void **dx;       /* (capacity) */
    void *dx_sums;   /* (capacity, padded I) */
} plan;

/* Multiply-adds of the recurrent product of a step, */
static double product_work(const plan *p) {
    const mg_recurrent *r = p->r;
    return (double)r->B * (double)p->kind->gates * (double)r->H * (double)r->H;
}

/* and those of a step with its input product. */
static double step_work(const plan *p) {
    const mg_recurrent *r = p->r;
    return (double)r->B * (double)p->kind->gates * (double)r->H * ((double)r->I + (double)r->H);
}

/* x as a whole number from 1 to `most`. */
static size_t at_least_one(double x, size_t most) {
    if (x < 1) return 1;
    return x < (double)most ? (size_t)x : most;
}

static void plan_threads(plan *p) {
    const mg_recurrent *r = p->r;
    double threads = step_work(p) * (double)r->T / WORTH_A_THREAD;
    p->threads = at_least_one(threads, (size_t)mg_get_num_threads());
    p->parts = r->B < p->threads ? r->B : p->threads;
    p->column_parts = 1;
    if (r->B < p->threads && product_work(p) > WORTH_A_SPLIT) {
        p->parts = 1;
        p->column_parts = p->threads;
    }
}

static size_t part_rows(const plan *p, size_t part) {
    return p->r->B / p->parts + (part < p->r->B % p->parts);
}

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

/* The longest row that is read from packed.zeros. */
static size_t longest_row(const mg_recurrent *r) { return MG_PADDED(r->H > r->I ? r->H : r->I); }

/* The scratch of one part with n rows. */
static void lay_out_part(const plan *p, arena *a, mg_recurrent_rows *rows) {
    const mg_recurrent *r = p->r;
    size_t n = rows->n, size = p->k->itemsize, H = r->H;
    size_t padded = times(a, n, MG_PADDED(H));
    rows->h_before = take(a, n, sizeof(void *));
    rows->c_before = take(a, n, sizeof(void *));
    rows->in = take(a, n, sizeof(void *));
    rows->h = take(a, n, sizeof(void *));
    rows->c = take(a, n, sizeof(void *));
    rows->gates = take(a, n, sizeof(void *));
    if (r->mask) rows->masked = take(a, times(a, n, H), size);
    if (p->g) {
        rows->dh_next = take(a, padded, size);
        rows->dc_next = take(a, padded, size);
        rows->scratch = take(a, padded, size);
        rows->da = take(a, n, sizeof(void *));
    } else {
        size_t sums = times(a, p->kind->biases, MG_PADDED(H));
        size_t cached = CACHED_BYTES / size / (sums ? sums : 1);
        rows->capacity = n > cached ? n : cached;
        if (r->T < rows->capacity / (n ? n : 1)) rows->capacity = n * r->T;
        rows->a = take(a, times(a, rows->capacity, sums), size);
        rows->x = take(a, rows->capacity, sizeof(void *));
        if (p->kind->gated) rows->gated = take(a, times(a, n, H), size);
    }
}

/* What both directions need; the calls of take() are the same in both passes. */
static void lay_out_rows(plan *p, arena *a, sorted_row **sorted) {
    const mg_recurrent *r = p->r;
    size_t taken = 0;
    p->rows = take(a, p->parts, sizeof *p->rows);
    p->row = take(a, r->B, sizeof *p->row);
    *sorted = take(a, r->lengths ? r->B : 0, sizeof **sorted);
    p->packed.zeros = take(a, longest_row(r), p->k->itemsize);
    for (size_t part = 0; part < p->parts; part++) {
        mg_recurrent_rows rows = {
            .r = r,
            .g = p->g,
            .kind = p->kind,
            .packed = &p->packed,
            .n = part_rows(p, part),
            .column_parts = p->column_parts,
            .row = p->row ? p->row + taken : NULL,
        };
        taken += rows.n;
        lay_out_part(p, a, &rows);
        if (p->rows) p->rows[part] = rows;
    }
}

static void lay_out_forward(plan *p, arena *a, sorted_row **sorted) {
    const mg_recurrent *r = p->r;
    size_t size = p->k->itemsize, sums = times(a, p->kind->biases, MG_PADDED(r->H));
    lay_out_rows(p, a, sorted);
    p->packed.b = take(a, sums, size);
    p->packed.w = take(a, times(a, sums, r->I), size);
    p->packed.u = take(a, times(a, sums, r->H), size);
}

static void lay_out_backward(plan *p, arena *a, sorted_row **sorted) {
    const mg_recurrent *r = p->r;
    const mg_recurrent_grads *g = p->g;
    mg_recurrent_block *block = &p->block;
    size_t size = p->k->itemsize, H = r->H, capacity = p->capacity;
    size_t columns = times(a, p->kind->gates, H);
    lay_out_rows(p, a, sorted);
    if (g->dx) p->packed.wt = take(a, times(a, columns, MG_PADDED(r->I)), size);
    p->packed.ut = take(a, times(a, columns, MG_PADDED(H)), size);
    block->D = times(a, p->kind->biases, H);
    block->da = take(a, times(a, capacity, block->D), size);
    block->t = p->t = take(a, capacity, sizeof *p->t);
    block->b = p->b = take(a, capacity, sizeof *p->b);
    block->entry = p->entry = take(a, capacity, sizeof *p->entry);
    if (g->dw) block->x = take(a, times(a, capacity, r->I), size);
    if (g->du) block->hm = take(a, times(a, capacity, H), size);
    if (g->du && p->kind->gated) block->gated = take(a, times(a, capacity, H), size);
    if (g->dp) block->dp = take(a, times(a, capacity, times(a, 3, H)), size);
    if (g->dh_norm2) block->dh_norm2 = take(a, capacity, sizeof(double));
    if (g->dc_norm2) block->dc_norm2 = take(a, capacity, sizeof(double));
    if (g->dx) {
        p->da = take(a, capacity, sizeof *p->da);
        p->dx = take(a, capacity, sizeof *p->dx);
        p->dx_sums = take(a, times(a, capacity, MG_PADDED(r->I)), size);
    }
}

/* Once the threads are planned: the memory, the rows of each part, and the packed weights. 0 if
 * there is no memory. */
static int prepare(plan *p, arena *memory, void (*lay_out)(plan *, arena *, sorted_row **)) {
    sorted_row *sorted;
    lay_out(p, memory, &sorted);
    if (!allocate(memory)) return 0;
    lay_out(p, memory, &sorted);
    memset((void *)p->packed.zeros, 0, longest_row(p->r) * p->k->itemsize);
    deal_rows(p, sorted);
    p->k->recurrent_pack(p->r, &p->packed);
    return 1;
}

/* `row` of an array with rows of `bytes`. */
static char *at_row(void *array, size_t row, size_t bytes) { return (char *)array + row * bytes; }

/* The same of a state, or zeros. */
static void copy_row(void *to, const void *state, size_t row, size_t bytes) {
    if (state) memcpy(to, (const char *)state + row * bytes, bytes);
    else memset(to, 0, bytes);
}

/* ---- Forward ---- */

static void forward_task(void *arg, size_t part) {
    plan *p = arg;
    p->k->recurrent_forward(&p->rows[part], p->first, p->end);
}

/* h_T and c_T from the last step of each row, or from the initial state where it has none. */
static void write_final_states(const plan *p) {
    const mg_recurrent *r = p->r;
    size_t size = p->k->itemsize, bytes = r->H * size;
    for (size_t b = 0; b < r->B; b++) {
        size_t length = r->lengths ? (size_t)r->lengths[b] : r->T;
        char *h_T = at_row(r->h_T, b, bytes);
        void *c_T = p->kind->has_c && r->cells ? at_row(r->c_T, b, bytes) : NULL;
        if (length == 0) {
            copy_row(h_T, r->h0, b, bytes);
            if (c_T) copy_row(c_T, r->c0, b, bytes);
        } else {
            size_t last = (r->reverse ? 0 : length - 1) * r->B + b;
            memcpy(h_T, at_row(r->h, last, r->h_row * size), bytes);
            if (c_T) copy_row(c_T, r->cells, last, bytes);
        }
    }
}

int mg_recurrent_forward(const mg_kernels *k, const mg_recurrent *r) {
    plan p = {.k = k, .kind = k->cells[r->cell], .r = r};
    arena memory = {0};
    size_t bytes = r->H * k->itemsize;
    if (r->B == 0) return MG_OK;
    plan_threads(&p);
    if (!prepare(&p, &memory, lay_out_forward)) return MG_NO_MEMORY;
    if (p.kind->has_c && !r->cells) /* then c_T is the running state */
        for (size_t b = 0; b < r->B; b++) copy_row(at_row(r->c_T, b, bytes), r->c0, b, bytes);

    size_t steps = r->T + 1; /* before `interrupted` is asked */
    if (r->interrupted) steps = at_least_one(work_before_asking(k) / (step_work(&p) + 1), steps);
    int status = MG_OK;
    for (; p.first < r->T && status == MG_OK; p.first = p.end) {
        p.end = r->T - p.first < steps ? r->T : p.first + steps;
        mg_parallel(p.parts, forward_task, &p);
        if (r->interrupted && r->interrupted()) status = MG_INTERRUPTED;
    }
    if (status == MG_OK) write_final_states(&p);
    release(&memory);
    return status;
}

/* ---- Backward ---- */

static void backward_task(void *arg, size_t part) {
    plan *p = arg;
    p->k->recurrent_backward(&p->rows[part], &p->block);
}

/* dW[:, from..to) += operand^T da, for n rows of dW; column c of dW takes column c + shift of
 * da. */
static void weight_slice(const plan *p, size_t n, const void *operand, void *dw, size_t from,
                         size_t to, size_t shift) {
    const mg_recurrent_block *block = &p->block;
    size_t size = p->k->itemsize, columns = p->kind->gates * p->r->H;
    const char *da = (const char *)block->da + (from + shift) * size;
    if (from < to)
        p->k->gemm(n, to - from, block->entries, operand, 1, (ptrdiff_t)n, da, (ptrdiff_t)block->D,
                   1, (char *)dw + from * size, (ptrdiff_t)columns, 1);
}

/* dU[:, from..to): past the cell's split the operand is r * hm, or da that of the last sum. */
static void recurrent_slice(const plan *p, size_t from, size_t to) {
    const mg_recurrent_block *block = &p->block;
    const mg_cell_kind *kind = p->kind;
    size_t H = p->r->H, split = kind->split * H, shift = (kind->biases - kind->gates) * H;
    const void *operand = kind->gated ? block->gated : block->hm;
    weight_slice(p, H, block->hm, p->g->du, from, to < split ? to : split, 0);
    weight_slice(p, H, operand, p->g->du, from < split ? split : from, to, shift);
}

/* The slice of `columns` columns that belongs to a part. */
static void slice(const plan *p, size_t part, size_t columns, size_t *from, size_t *to) {
    size_t slices = (columns + SLICE_COLUMNS - 1) / SLICE_COLUMNS;
    *from = slices * part / p->threads * SLICE_COLUMNS;
    *to = slices * (part + 1) / p->threads * SLICE_COLUMNS;
    if (*from > columns) *from = columns;
    if (*to > columns) *to = columns;
}

/* sum + low += the rows of `terms` (entries, columns), for the columns of a part. */
static void sum_slice(const plan *p, size_t part, size_t columns, const void *terms, void *sum,
                      double *low) {
    size_t size = p->k->itemsize, from, to;
    slice(p, part, columns, &from, &to);
    p->k->add_rows(p->block.entries, to - from, (const char *)terms + from * size,
                   (ptrdiff_t)columns, (char *)sum + from * size, low + from);
}

static void weights_task(void *arg, size_t part) {
    plan *p = arg;
    const mg_recurrent *r = p->r;
    const mg_recurrent_grads *g = p->g;
    const mg_recurrent_block *block = &p->block;
    size_t columns = p->kind->gates * r->H, from, to;
    if (g->dx) {
        size_t sums_row = MG_PADDED(r->I) * p->k->itemsize;
        from = block->entries * part / p->threads;
        to = block->entries * (part + 1) / p->threads;
        p->k->recurrent_dx(to - from, r->I, columns, p->packed.wt, p->da + from, p->packed.zeros,
                           at_row(p->dx_sums, from, sums_row), p->dx + from);
    }
    slice(p, part, columns, &from, &to);
    if (g->dw) weight_slice(p, r->I, block->x, g->dw, from, to, 0);
    if (g->du) recurrent_slice(p, from, to);
    if (g->db) sum_slice(p, part, block->D, block->da, g->db, g->db_low);
    if (g->dp) sum_slice(p, part, 3 * r->H, block->dp, g->dp, g->dp_low);
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
            if (p->g->dx) p->dx[n] = at_row(p->g->dx, t * B + b, r->I * p->k->itemsize);
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
    size_t D = p->block.D, n = p->block.entries * D;
    if (where->step != p->r->T) return;
    /* A gradient that is not finite makes the low part of its column's sum so. */
    if (p->g->db && all_finite(D, p->g->db_low)) return;
    size_t found = p->k->nonfinite(n, p->block.da), e = found / D;
    if (found < n) *where = (mg_nonfinite){p->t[e], p->b[e], found % D / p->r->H};
}

/* Steps in a block: some hundred rows, and about 20 ms of work where `interrupted` is asked. */
static size_t steps_of_block(const plan *p) {
    const mg_recurrent *r = p->r;
    double asking = (double)r->T;
    if (r->interrupted) asking = work_before_asking(p->k) / (2 * step_work(p) + 1);
    size_t steps = at_least_one(asking, r->T + 1);
    size_t most = BLOCK_BYTES / p->k->itemsize / p->kind->biases / r->H;
    most = (most > BLOCK_ROWS ? most : BLOCK_ROWS) / r->B;
    if (steps > most) steps = most ? most : 1;
    if (steps >= r->T) return r->T;
    return (r->T + r->T / steps) / (r->T / steps + 1); /* blocks of almost equal length */
}

/* dh_next and dc_next of every row at its end. */
static void start_from_final_states(const plan *p) {
    size_t bytes = p->r->H * p->k->itemsize, padded = MG_PADDED(p->r->H) * p->k->itemsize;
    for (size_t part = 0; part < p->parts; part++) {
        const mg_recurrent_rows *rows = &p->rows[part];
        memset(rows->dh_next, 0, rows->n * padded);
        memset(rows->dc_next, 0, rows->n * padded);
        for (size_t i = 0; i < rows->n; i++) {
            copy_row(at_row(rows->dh_next, i, padded), p->g->dh_T, rows->row[i], bytes);
            copy_row(at_row(rows->dc_next, i, padded), p->g->dc_T, rows->row[i], bytes);
        }
    }
}

/* What is left of them before the first step. */
static void write_initial_gradients(const plan *p) {
    const mg_recurrent_grads *g = p->g;
    size_t bytes = p->r->H * p->k->itemsize, padded = MG_PADDED(p->r->H) * p->k->itemsize;
    for (size_t part = 0; part < p->parts; part++) {
        const mg_recurrent_rows *rows = &p->rows[part];
        for (size_t i = 0; i < rows->n; i++) {
            size_t b = rows->row[i];
            const char *dh_next = at_row(rows->dh_next, i, padded);
            const char *dc_next = at_row(rows->dc_next, i, padded);
            if (g->dh0) memcpy(at_row(g->dh0, b, bytes), dh_next, bytes);
            if (g->dc0) memcpy(at_row(g->dc0, b, bytes), dc_next, bytes);
        }
    }
}

int mg_recurrent_backward(const mg_kernels *k, const mg_recurrent *r, const mg_recurrent_grads *g) {
    plan p = {.k = k, .kind = k->cells[r->cell], .r = r, .g = g};
    arena memory = {0};
    if (g->nonfinite) *g->nonfinite = (mg_nonfinite){.step = r->T};
    for (size_t t = 0; g->dh_norm2 && t < r->T; t++) g->dh_norm2[t] = 0;
    for (size_t t = 0; g->dc_norm2 && t < r->T; t++) g->dc_norm2[t] = 0;
    if (r->B == 0) return MG_OK;
    size_t steps = steps_of_block(&p);
    plan_threads(&p);
    p.capacity = steps * r->B;
    if (!prepare(&p, &memory, lay_out_backward)) return MG_NO_MEMORY;
    for (size_t e = 0; g->dx && e < p.capacity; e++)
        p.da[e] = at_row(p.block.da, e, p.block.D * k->itemsize);
    start_from_final_states(&p);

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
    if (status == MG_OK) write_initial_gradients(&p);
    release(&memory);
    return status;
}

/* ---- Diagnosis ---- */

/* The first gate that is not finite in a row of a step, as mg_nonfinite counts them, or G + 2. */
static size_t nonfinite_gate(const mg_kernels *k, const mg_recurrent *r, size_t row) {
    size_t H = r->H, G = k->cells[r->cell]->gates, bytes = H * k->itemsize;
    if (r->gates) {
        size_t first = k->nonfinite(G * H, at_row(r->gates, row, G * bytes));
        if (first < G * H) return first / H;
    }
    if (r->cells && k->nonfinite(H, at_row(r->cells, row, bytes)) < H) return G;
    if (k->nonfinite(H, at_row(r->h, row, r->h_row * k->itemsize)) < H) return G + 1;
    return G + 2;
}

int mg_recurrent_scan(const mg_kernels *k, const mg_recurrent *r, mg_nonfinite *where) {
    size_t G = k->cells[r->cell]->gates;
    for (size_t step = 0; step < r->T; step++) {
        size_t t = r->reverse ? r->T - 1 - step : step;
        for (size_t b = 0; b < r->B; b++) {
            size_t gate = nonfinite_gate(k, r, t * r->B + b);
            if (gate < G + 2) {
                *where = (mg_nonfinite){t, b, gate};
                return 1;
            }
        }
    }
    return 0;
}
