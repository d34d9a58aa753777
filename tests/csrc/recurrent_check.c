/* Checks the recurrent kernels without Python; test_recurrent_kernels.py compiles it together with
 * csrc/ and runs it.
 *
 * The specification is recurrent_reference.h, the formulas of csrc/recurrent/ one number at a
 * time. Its gradients are held to finite differences of its own forward run; then the kernels are
 * held to it bit by bit, for every cell, both float types, every ISA that this CPU runs, several
 * numbers of threads, lengths, resets, masks, peepholes and odd sizes. After that: a row alone, a
 * sequence in chunks, gradients that are not wanted, telemetry, interruption, sizes that do not
 * fit. Prints what failed, and the number of checks.
 */
#include "recurrent/recurrent.h"
#include "runtime/pool.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define real float
#define FMA fmaf
#define REFERENCE(name) reference32_##name
#include "recurrent_reference.h"
#undef real
#undef FMA
#undef REFERENCE
#define real double
#define FMA fma
#define REFERENCE(name) reference64_##name
#include "recurrent_reference.h"

static size_t checks, failures;
static char what[200];

static void check(int good, const char *detail) {
    checks++;
    if (!good && failures++ < 20) printf("FAILED %s: %s\n", what, detail);
}

/* Arrays in a fixed order, so that they can be walked: inputs, outputs, output gradients,
 * gradients. A line for each of these. */
/* clang-format off */
enum {
    X, W, U, BIAS, PEEPHOLE, H0, C0, MASK, INPUTS,
    H_ = INPUTS, H_T, C_T, GATES, CELLS, OUTPUTS,
    DH = OUTPUTS, DC, DH_T, DC_T, COTANGENTS,
    DX = COTANGENTS, DH0, DC0, DW, DU, DB, DP, DB_LOW, DP_LOW, ARRAYS
};
static const char *const names[] = {
    "x", "W", "U", "b", "p", "h0", "c0", "mask",
    "h", "h_T", "c_T", "gates", "cells",
    "dh", "dc", "dh_T", "dc_T",
    "dx", "dh0", "dc0", "dW", "dU", "db", "dp", "db_low", "dp_low",
};
/* clang-format on */

/* The gradient that belongs to an input. */
static const int gradient_of[INPUTS] = {DX, DW, DU, DB, DP, DH0, DC0, -1};

typedef struct problem {
    mg_recurrent r;
    mg_recurrent_grads g;
    size_t itemsize, count[ARRAYS];
    void *array[ARRAYS];
    int64_t *lengths;
    uint8_t *reset;
} problem;

static uint64_t state = 1;
static double uniform(void) { /* -1..1; splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

/* The low parts of sums are doubles for both types. */
static size_t item_of(const problem *p, int array) { return array >= DB_LOW ? 8 : p->itemsize; }

static double get(const problem *p, int array, size_t i) {
    return item_of(p, array) == 4 ? ((float *)p->array[array])[i] : ((double *)p->array[array])[i];
}
static void set(problem *p, int array, size_t i, double value) {
    if (item_of(p, array) == 4) ((float *)p->array[array])[i] = (float)value;
    else ((double *)p->array[array])[i] = value;
}

/* Points the structs at the arrays; an array that was not made stays NULL. */
static void connect(problem *p) {
    void **a = p->array;
    mg_recurrent *r = &p->r;
    r->x = a[X];
    r->w = a[W];
    r->u = a[U];
    r->b = a[BIAS];
    r->p = a[PEEPHOLE];
    r->h0 = a[H0];
    r->c0 = a[C0];
    r->mask = a[MASK];
    r->h = a[H_];
    r->h_row = r->H;
    r->h_T = a[H_T];
    r->c_T = a[C_T];
    r->gates = a[GATES];
    r->cells = a[CELLS];
    r->lengths = p->lengths;
    r->reset = p->reset;
    p->g = (mg_recurrent_grads){
        .dh = a[DH],
        .dh_row = r->H,
        .dc = a[DC],
        .dh_T = a[DH_T],
        .dc_T = a[DC_T],
        .dx = a[DX],
        .dh0 = a[DH0],
        .dc0 = a[DC0],
        .dw = a[DW],
        .du = a[DU],
        .db = a[DB],
        .dp = a[DP],
        .db_low = a[DB_LOW],
        .dp_low = a[DP_LOW],
    };
}

typedef struct sizes {
    size_t T, B, I, H;
} sizes;
enum {
    LENGTHS = 1,
    RESET = 2,
    MASKED = 4,
    PEEPHOLES = 8,
    NO_BIAS = 16,
    NO_STATE = 32,
    NAN_PADDING = 64
};

/* The facts of a cell are the same in every table. */
static const mg_cell_kind *kind_of(mg_cell cell) { return mg_table("scalar", 8)->cells[cell]; }

/* Does a problem with these options have this array? */
static int is_there(int array, const mg_cell_kind *kind, int options) {
    switch (array) {
    case BIAS:
    case DB:
    case DB_LOW: return !(options & NO_BIAS);
    case PEEPHOLE:
    case DP:
    case DP_LOW: return options & PEEPHOLES;
    case MASK: return options & MASKED;
    case H0: return !(options & NO_STATE);
    case C0: return kind->has_c && !(options & NO_STATE);
    case DC: return kind->has_c;
    case GATES: return kind->saves_gates;
    case CELLS: return kind->saves_cells;
    default: return 1;
    }
}

static void make(problem *p, size_t itemsize, mg_cell cell, int reverse, sizes s, int options,
                 uint64_t seed) {
    const mg_cell_kind *kind = kind_of(cell);
    size_t TB = s.T * s.B, BH = s.B * s.H, columns = kind->gates * s.H, biases = kind->biases * s.H;
    memset(p, 0, sizeof *p);
    p->itemsize = itemsize;
    p->r = (mg_recurrent){.cell = cell, .reverse = reverse, .T = s.T, .B = s.B, .I = s.I, .H = s.H};
    /* clang-format off */
    const size_t count[ARRAYS] = {
        [X] = TB * s.I, [W] = s.I * columns, [U] = s.H * columns, [BIAS] = biases,
        [PEEPHOLE] = 3 * s.H, [H0] = BH, [C0] = BH, [MASK] = BH,
        [H_] = TB * s.H, [H_T] = BH, [C_T] = BH, [GATES] = TB * columns, [CELLS] = TB * s.H,
        [DH] = TB * s.H, [DC] = TB * s.H, [DH_T] = BH, [DC_T] = BH,
        [DX] = TB * s.I, [DH0] = BH, [DC0] = BH, [DW] = s.I * columns, [DU] = s.H * columns,
        [DB] = biases, [DP] = 3 * s.H, [DB_LOW] = biases, [DP_LOW] = 3 * s.H,
    };
    /* clang-format on */
    state = seed;
    for (int a = 0; a < ARRAYS; a++) {
        if (!is_there(a, kind, options)) continue;
        p->count[a] = count[a];
        p->array[a] = malloc(count[a] * item_of(p, a) + 1);
        double scale = a == U ? 1.2 / sqrt((double)s.H) : 0.6;
        for (size_t i = 0; i < count[a]; i++)
            set(p, a, i, a == MASK ? (uniform() > -0.4) / 0.7 : uniform() * scale);
    }
    if (options & LENGTHS) {
        p->lengths = malloc(s.B * sizeof(int64_t) + 1);
        for (size_t b = 0; b < s.B; b++)
            p->lengths[b] = (int64_t)((uniform() + 1) / 2 * (double)(s.T + 1));
    }
    if (options & RESET) {
        p->reset = malloc(TB + 1);
        for (size_t i = 0; i < TB; i++) p->reset[i] = uniform() > 0.6;
    }
    if (options & NAN_PADDING)
        for (size_t t = 0; t < s.T; t++)
            for (size_t b = 0; b < s.B; b++)
                if (t >= (size_t)p->lengths[b]) {
                    for (size_t i = 0; i < s.I; i++) set(p, X, (t * s.B + b) * s.I + i, NAN);
                    for (size_t j = 0; j < s.H; j++) set(p, DH, (t * s.B + b) * s.H + j, NAN);
                }
    connect(p);
}

static void copy(problem *to, const problem *from) {
    *to = *from;
    for (int a = 0; a < ARRAYS; a++)
        if (from->array[a]) {
            size_t bytes = from->count[a] * item_of(from, a);
            to->array[a] = memcpy(malloc(bytes + 1), from->array[a], bytes);
        }
    connect(to);
}

static void drop(problem *p) {
    for (int a = 0; a < ARRAYS; a++) free(p->array[a]);
}

static void drop_all(problem *p) {
    drop(p);
    free(p->lengths);
    free(p->reset);
}

static void run_reference(const mg_kernels *k, problem *p) {
    if (p->itemsize == 4) reference32_forward(k, &p->r), reference32_backward(k, &p->r, &p->g);
    else reference64_forward(k, &p->r), reference64_backward(k, &p->r, &p->g);
}

static void run(const mg_kernels *k, problem *p) {
    check(mg_recurrent_forward(k, &p->r) == MG_OK &&
              mg_recurrent_backward(k, &p->r, &p->g) == MG_OK,
          "status");
}

static void compare(const problem *a, const problem *b, int from, int to) {
    for (int i = from; i < to; i++)
        if (a->array[i] && !((i == C_T || i == DC0) && a->r.cell != mg_cell_lstm)) {
            int same = !memcmp(a->array[i], b->array[i], a->count[i] * item_of(a, i));
            check(same, names[i]);
        }
}

/* ---- The reference against finite differences, in double ---- */

static double objective(const mg_kernels *k, problem *p) {
    static const int pairs[][2] = {{H_, DH}, {CELLS, DC}, {H_T, DH_T}, {C_T, DC_T}};
    double sum = 0;
    reference64_forward(k, &p->r);
    for (int q = 0; q < 4; q++) {
        if (p->r.cell != mg_cell_lstm && (q == 1 || q == 3)) continue;
        for (size_t i = 0; i < p->count[pairs[q][0]]; i++)
            sum += get(p, pairs[q][0], i) * get(p, pairs[q][1], i);
    }
    return sum;
}

static void check_differences(const mg_kernels *k) {
    for (int cell = 0; cell < mg_cell_count; cell++)
        for (int reverse = 0; reverse < 2; reverse++)
            for (int options = 0; options < 16; options++) {
                problem p;
                /* relu is made of straight pieces: a short step is exact, and crosses no bend. */
                const double e = cell == mg_cell_rnn_relu ? 1e-5 : 1e-3;
                if (options & PEEPHOLES && cell != mg_cell_lstm) continue;
                make(&p, 8, (mg_cell)cell, reverse, (sizes){4, 3, 2, 3}, options,
                     7 + (uint64_t)options);
                snprintf(what, sizeof what, "finite differences, cell %d reverse %d options %d",
                         cell, reverse, options);
                for (int a = DW; a < ARRAYS; a++)
                    if (p.array[a]) memset(p.array[a], 0, p.count[a] * 8);
                run_reference(k, &p);
                for (int a = 0; a < INPUTS; a++)
                    for (size_t i = 0; i < p.count[a] && gradient_of[a] >= 0; i++) {
                        double x = get(&p, a, i), at[4];
                        const double shift[4] = {-2 * e, -e, e, 2 * e};
                        for (int q = 0; q < 4; q++) {
                            set(&p, a, i, x + shift[q]);
                            at[q] = objective(k, &p);
                        }
                        set(&p, a, i, x);
                        double slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * e);
                        double gradient = get(&p, gradient_of[a], i);
                        if (a == BIAS || a == PEEPHOLE)
                            gradient += get(&p, a == BIAS ? DB_LOW : DP_LOW, i);
                        check(fabs(slope - gradient) < 1e-8, names[a]);
                    }
                drop_all(&p);
            }
}

/* ---- The kernels against the reference ---- */

static void check_bits(const mg_kernels *k) {
    static const sizes shapes[] = {{5, 4, 3, 7},
                                   {1, 1, 1, 1},
                                   {6, 13, 5, 33},
                                   {9, 1, 17, 16},
                                   {0, 3, 2, 4},
                                   {3, 0, 2, 4},
                                   {4, 21, 9, 64},
                                   {260, 3, 2, 5},
                                   /* enough work for several threads: rows split, columns split */
                                   {12, 17, 20, 64},
                                   {9, 1, 3, 264}};
    static const int options[] = {0,
                                  LENGTHS | NAN_PADDING | NO_STATE,
                                  RESET | NO_BIAS,
                                  LENGTHS | NAN_PADDING | RESET | MASKED,
                                  PEEPHOLES | MASKED,
                                  PEEPHOLES | LENGTHS | RESET};
    for (int cell = 0; cell < mg_cell_count; cell++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t o = 0; o < sizeof options / sizeof *options; o++)
                for (int reverse = 0; reverse < 2; reverse++) {
                    problem p, expected, got;
                    if ((options[o] & PEEPHOLES && cell != mg_cell_lstm) ||
                        (s >= 8 && o != 0 && o != 3))
                        continue;
                    make(&p, k->itemsize, (mg_cell)cell, reverse, shapes[s], options[o], 1 + o);
                    copy(&expected, &p);
                    run_reference(k, &expected);
                    for (int threads = 1; threads < 9; threads += threads == 3 ? 5 : 1) {
                        mg_set_num_threads(threads);
                        snprintf(what, sizeof what,
                                 "%s f%d, cell %d reverse %d options %d, T %zu B %zu I %zu H %zu, "
                                 "%d threads",
                                 k->isa, (int)k->itemsize * 8, cell, reverse, options[o],
                                 shapes[s].T, shapes[s].B, shapes[s].I, shapes[s].H, threads);
                        copy(&got, &p);
                        run(k, &got);
                        compare(&expected, &got, INPUTS, OUTPUTS);
                        compare(&expected, &got, COTANGENTS, ARRAYS);
                        drop(&got);
                    }
                    copy(&got, &p); /* inference: the same outputs without saved gates */
                    got.r.gates = got.r.cells = NULL;
                    check(mg_recurrent_forward(k, &got.r) == MG_OK, "status");
                    compare(&expected, &got, H_, GATES);
                    drop(&got);
                    drop(&expected);
                    drop_all(&p);
                }
}

/* ---- Rows and chunks ---- */

/* Columns b of the arrays over time and rows b of the states, steps [t0, t1). */
static void part_of(problem *to, const problem *p, size_t t0, size_t t1, size_t b0, size_t b1) {
    const mg_recurrent *r = &p->r;
    size_t B = b1 - b0, T = t1 - t0, n = p->itemsize;
    copy(to, p);
    to->r.T = T;
    to->r.B = B;
    for (int a = 0; a < ARRAYS; a++) {
        int over_time =
            a == X || a == H_ || a == GATES || a == CELLS || a == DH || a == DC || a == DX;
        int of_rows = a == H0 || a == C0 || a == MASK || a == H_T || a == C_T || a == DH_T ||
                      a == DC_T || a == DH0 || a == DC0;
        if (!p->array[a] || !(over_time || of_rows)) continue;
        size_t width = p->count[a] / r->B / (over_time ? r->T : 1) * n, steps = over_time ? T : 1;
        for (size_t t = 0; t < steps; t++)
            memcpy((char *)to->array[a] + t * B * width,
                   (char *)p->array[a] + (((over_time ? t0 : 0) + t) * r->B + b0) * width,
                   B * width);
        to->count[a] = steps * B * width / n;
    }
    if (p->lengths) {
        to->lengths = malloc(B * sizeof(int64_t));
        for (size_t b = 0; b < B; b++) {
            int64_t length = p->lengths[b0 + b] - (int64_t)t0;
            to->lengths[b] = length<0 ? 0 : length>(int64_t) T ? (int64_t)T : length;
        }
    }
    if (p->reset) {
        to->reset = malloc(T * B);
        for (size_t t = 0; t < T; t++)
            memcpy(to->reset + t * B, p->reset + (t0 + t) * r->B + b0, B);
    }
    connect(to);
}

static void check_parts(const mg_kernels *k) {
    for (int cell = 0; cell < mg_cell_count; cell++)
        for (int options = 0; options < 8; options++)
            for (int reverse = 0; reverse < 2; reverse++) {
                problem p, whole, row, expected, chunk[2];
                make(&p, k->itemsize, (mg_cell)cell, reverse, (sizes){7, 5, 3, 18}, options, 3);
                copy(&whole, &p);
                run(k, &whole);
                snprintf(what, sizeof what, "%s f%d, a row alone, cell %d options %d", k->isa,
                         (int)k->itemsize * 8, cell, options);
                for (size_t b = 0; b < 5; b++) {
                    part_of(&row, &p, 0, 7, b, b + 1);
                    part_of(&expected, &whole, 0, 7, b, b + 1);
                    run(k, &row);
                    compare(&expected, &row, INPUTS, OUTPUTS);
                    compare(&expected, &row, COTANGENTS, DW);
                    drop_all(&row);
                    drop_all(&expected);
                }
                snprintf(what, sizeof what, "%s f%d, in chunks, cell %d options %d", k->isa,
                         (int)k->itemsize * 8, cell, options);
                for (int c = 0; c < 2; c++) part_of(&chunk[c], &p, c ? 3 : 0, c ? 7 : 3, 0, 5);
                problem *first = &chunk[reverse], *second = &chunk[!reverse];
                int lstm = cell == mg_cell_lstm;
                check(mg_recurrent_forward(k, &first->r) == MG_OK, "status");
                memcpy(second->array[H0], first->array[H_T], first->count[H_T] * p.itemsize);
                if (lstm)
                    memcpy(second->array[C0], first->array[C_T], first->count[C_T] * p.itemsize);
                run(k, second);
                memcpy(first->array[DH_T], second->array[DH0], first->count[H_T] * p.itemsize);
                memcpy(first->array[DC_T], second->array[DC0], first->count[H_T] * p.itemsize);
                for (int a = DW; a < ARRAYS; a++)
                    if (first->array[a])
                        memcpy(first->array[a], second->array[a], first->count[a] * item_of(&p, a));
                check(mg_recurrent_backward(k, &first->r, &first->g) == MG_OK, "status");
                compare(&whole, first, DH0, ARRAYS);
                compare(&whole, second, H_T, GATES);
                for (int c = 0; c < 2; c++) {
                    part_of(&expected, &whole, c ? 3 : 0, c ? 7 : 3, 0, 5);
                    compare(&expected, &chunk[c], H_, H_T);
                    compare(&expected, &chunk[c], DX, DH0);
                    drop_all(&expected);
                    drop_all(&chunk[c]);
                }
                drop(&whole);
                drop_all(&p);
            }
}

/* ---- What is not wanted, telemetry, interruption, memory ---- */

static int stop(void) { return 1; }

static void check_rest(const mg_kernels *k) {
    problem p, all, got;
    double norm[2][6], expected[6] = {0};
    mg_nonfinite where;
    for (int cell = 0; cell < mg_cell_count; cell++) {
        snprintf(what, sizeof what, "%s f%d, some gradients, cell %d", k->isa, (int)k->itemsize * 8,
                 cell);
        make(&p, k->itemsize, (mg_cell)cell, 0, (sizes){6, 5, 3, 18},
             cell == mg_cell_lstm ? PEEPHOLES : 0, 5);
        copy(&all, &p);
        all.g.dh_norm2 = norm[0];
        if (cell == mg_cell_lstm) all.g.dc_norm2 = norm[1];
        all.g.nonfinite = &where;
        run(k, &all);
        check(where.step == 6, "no value is infinite");
        for (int left_out = DX; left_out <= DP; left_out++) {
            copy(&got, &p);
            void **fields[] = {&got.g.dx, &got.g.dh0, &got.g.dc0, &got.g.dw,
                               &got.g.du, &got.g.db,  &got.g.dp};
            *fields[left_out - DX] = NULL;
            run(k, &got);
            for (int a = DX; a < ARRAYS; a++)
                if (a != left_out && a != left_out + DB_LOW - DB) compare(&all, &got, a, a + 1);
            drop(&got);
        }
        /* At the last step dL/dh is dh + dh_T. */
        for (size_t i = 0; i < 5 * 18; i++) {
            double d = get(&p, DH, 5 * 5 * 18 + i) + get(&p, DH_T, i);
            if (k->itemsize == 4) d = (float)d;
            expected[5] += d * d;
        }
        check(fabs(norm[0][5] - expected[5]) < 1e-12, "norm of dh");
        check(norm[0][0] > 0 && (cell != mg_cell_lstm || norm[1][0] > 0), "norms of all steps");
        expected[5] = 0;
        copy(&got, &p);
        set(&got, DH, (3 * 5 + 2) * 18 + 7, INFINITY);
        got.g.nonfinite = &where;
        run(k, &got);
        check(where.step == 3 && where.row == 2, "the backward pass");
        set(&got, X, (4 * 5 + 1) * 3, NAN);
        run(k, &got);
        check(mg_recurrent_scan(k, &got.r, &where) && where.step == 4 && where.row == 1,
              "the forward pass");
        drop(&got);
        copy(&got, &p);
        got.r.interrupted = stop;
        check(mg_recurrent_forward(k, &got.r) == MG_INTERRUPTED, "interrupted forward");
        check(mg_recurrent_backward(k, &got.r, &got.g) == MG_INTERRUPTED, "interrupted backward");
        got.r.B = SIZE_MAX / 4;
        check(mg_recurrent_forward(k, &got.r) == MG_NO_MEMORY, "sizes that do not fit");
        check(mg_recurrent_backward(k, &got.r, &got.g) == MG_NO_MEMORY, "sizes that do not fit");
        drop(&got);
        drop(&all);
        drop_all(&p);
    }
}

int main(void) {
    check_differences(mg_table("scalar", 8));
    for (const char *const *isa = mg_isas_built(); *isa; isa++) {
        if (!mg_isa_usable(*isa)) continue;
        for (size_t itemsize = 4; itemsize <= 8; itemsize += 4) {
            const mg_kernels *k = mg_table(*isa, itemsize);
            check_bits(k);
            mg_set_num_threads(2);
            check_parts(k);
            check_rest(k);
        }
        printf("%s: %zu checks so far, %zu failures\n", *isa, checks, failures);
    }
    return failures != 0;
}
