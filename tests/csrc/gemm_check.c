/* Matrix products against a naive chain of fma(), to the bit: every instruction set of this CPU,
 * both float types, packed or not, batched, 1, 2, 3 and 8 threads; sizes from 0, every order of
 * memory, strides negative and 0. Each operand ends, or begins, at a page that cannot be touched,
 * and what lies between the elements of C must stay as it was. Also the pool: forks, callers side
 * by side, nesting.
 *
 *     make gemm       on this machine     make gemm_neon       the NEON kernels, under qemu
 *     make gemm_tsan       races
 */
#define _GNU_SOURCE
#include "kernels.h"
#include "runtime/pool.h"
#include "runtime/product.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A matrix of rows x cols: element (i, j) is at[i*rs + j*cs], within an area of `length` elements
 * that begins at `low`. */
typedef struct matrix {
    char *low, *at;
    size_t rows, cols, length;
    ptrdiff_t rs, cs;
} matrix;

enum { ROOM = 1 << 24 }; /* bytes between the two pages that cannot be touched */
/* Orders of memory. C is in one of the first ORDERS_OF_C. */
enum {
    ROWS,
    COLUMNS,
    ROWS_APART,
    COLUMNS_APART,
    SPREAD,
    BACKWARDS,
    SAME_ROW,
    SAME_COLUMN,
    ORDERS,
    ORDERS_OF_C = SAME_ROW
};

static const int THREADS[] = {1, 2, 3, 8};

static size_t item; /* of the present float type */
static const mg_kernels *kernels;
static char *room[3]; /* for A, B and C */
static long wrong, products;

static double get(const char *p) { return item == 4 ? *(const float *)p : *(const double *)p; }
static void put(char *p, double x) {
    if (item == 4) *(float *)p = (float)x;
    else *(double *)p = x;
}
static char *element(const matrix *x, size_t i, size_t j) {
    return x->at + ((ptrdiff_t)i * x->rs + (ptrdiff_t)j * x->cs) * (ptrdiff_t)item;
}

static unsigned random_bits(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33);
}
static double random_value(void) {
    return ((int)(random_bits() % 20001) - 10000) / (random_bits() % 4 ? 9999.0 : 77.0);
}

static size_t size_max(size_t a, size_t b) { return a > b ? a : b; }

/* A matrix in one of the orders. at_end: its last byte is the last before a page that cannot be
 * touched; else its first byte is the first after one. */
static matrix make(char *where, size_t rows, size_t cols, int order, int at_end) {
    ptrdiff_t r = (ptrdiff_t)size_max(rows, 1), c = (ptrdiff_t)size_max(cols, 1);
    const ptrdiff_t strides[ORDERS][2] = {
        [ROWS] = {c, 1},           [COLUMNS] = {1, r},
        [ROWS_APART] = {c + 5, 1}, [COLUMNS_APART] = {1, r + 3},
        [SPREAD] = {3 * c + 1, 3}, [BACKWARDS] = {-2 * c, -2},
        [SAME_ROW] = {0, 1},       [SAME_COLUMN] = {1, 0},
    };
    ptrdiff_t rs = strides[order][0], cs = strides[order][1];
    matrix x = {.rows = rows, .cols = cols, .rs = rs, .cs = cs};
    ptrdiff_t last = (r - 1) * rs + (c - 1) * cs;
    x.length = rows && cols ? (size_t)(last < 0 ? -last : last) + 1 : 0;
    x.low = at_end ? where + ROOM - x.length * item : where;
    x.at = x.low + (last < 0 && x.length ? (size_t)-last * item : 0);
    for (size_t i = 0; i < x.length; i++) put(x.low + i * item, random_value());
    return x;
}

/* expected += A B, where `expected` is laid out as the area of C. */
#define CHAIN(real, fma) \
    for (size_t i = 0; i < c->rows; i++) \
        for (size_t j = 0; j < c->cols; j++) { \
            real *at = (real *)(expected + (element(c, i, j) - c->low)); \
            const real *x = (const real *)a->at + (ptrdiff_t)i * a->rs; \
            const real *y = (const real *)b->at + (ptrdiff_t)j * b->cs; \
            for (size_t p = 0; p < a->cols; p++, x += a->cs, y += b->rs) *at = fma(*x, *y, *at); \
        }
static void chain(const matrix *a, const matrix *b, const matrix *c, char *expected) {
    if (item == 4) {
        CHAIN(float, fmaf)
    } else {
        CHAIN(double, fma)
    }
}

static char *expected, *start, *packed_room;

static void compare(const char *what, const matrix *a, const matrix *b, const matrix *c) {
    products++;
    if (!memcmp(expected, c->low, c->length * item)) return;
    size_t at = 0;
    while (!memcmp(expected + at * item, c->low + at * item, item)) at++;
    double found = get(c->low + at * item), wanted = get(expected + at * item);
    if (found != found && wanted != wanted) {
        size_t i = at; /* NaNs are alike */
        for (; i < c->length; i++) {
            double x = get(expected + i * item), y = get(c->low + i * item);
            if (x != y && !(x != x && y != y)) break;
        }
        if (i == c->length) return;
    }
    if (wrong++ < 20)
        printf("%s float%d %s: %zu x %zu x %zu, A (%td, %td), B (%td, %td), C (%td, %td): "
               "element %zu is %.9g, not %.9g\n",
               kernels->isa, (int)item * 8, what, c->rows, c->cols, a->cols, a->rs, a->cs, b->rs,
               b->cs, c->rs, c->cs, at, found, wanted);
}

static void check(const matrix *a, const matrix *b, const matrix *c, int threads) {
    size_t m = c->rows, n = c->cols, k = a->cols, bytes = c->length * item;
    memcpy(start, c->low, bytes);
    memcpy(expected, c->low, bytes);
    chain(a, b, c, expected);
    if (threads) {
        mg_set_num_threads(threads);
        mg_gemm(kernels, m, n, k, a->at, a->rs, a->cs, b->at, b->rs, b->cs, c->at, c->rs, c->cs);
        compare("threads", a, b, c);
        return;
    }
    kernels->gemm(m, n, k, a->at, a->rs, a->cs, b->at, b->rs, b->cs, c->at, c->rs, c->cs);
    compare("gemm", a, b, c);
    memcpy(c->low, start, bytes);
    size_t size = kernels->packed_size(k, n) * item;
    char *packed = packed_room + (ROOM - size) / 64 * 64;
    kernels->pack(k, n, b->at, b->rs, b->cs, packed);
    kernels->gemm_packed(m, n, k, a->at, a->rs, a->cs, packed, c->at, c->rs, c->cs);
    compare("packed", a, b, c);
}

static void product(size_t m, size_t n, size_t k, int orders, int at_end, int threads) {
    int a_order = orders % ORDERS;
    int b_order = orders / ORDERS % ORDERS;
    int c_order = orders / ORDERS / ORDERS % ORDERS_OF_C;
    matrix a = make(room[0], m, k, a_order, at_end);
    matrix b = make(room[1], k, n, b_order, at_end);
    matrix c = make(room[2], m, n, c_order, at_end);
    check(&a, &b, &c, threads);
}

/* The same for the sizes {m, n, k}, in orders by chance. */
static void product_of(const size_t *sizes, int at_end, int threads) {
    product(sizes[0], sizes[1], sizes[2], (int)random_bits(), at_end, threads);
}

/* A row of NaN and infinity in A touches this row of C alone; so does a column of B. */
static void isolated(void) {
    for (int order = 0; order < ROWS_APART; order++) {
        matrix a = make(room[0], 29, 37, order, 1);
        matrix b = make(room[1], 37, 45, 1 - order, 1);
        matrix c = make(room[2], 29, 45, ROWS, 1);
        for (size_t p = 0; p < a.cols; p++) put(element(&a, 13, p), p % 2 ? NAN : INFINITY);
        for (size_t p = 0; p < b.rows; p++) put(element(&b, p, 7), NAN);
        kernels->gemm(29, 45, 37, a.at, a.rs, a.cs, b.at, b.rs, b.cs, c.at, c.rs, c.cs);
        for (size_t i = 0; i < c.rows; i++)
            for (size_t j = 0; j < c.cols; j++)
                wrong += isfinite(get(element(&c, i, j))) != (i != 13 && j != 7);
        products++;
    }
}

/* batch products, with a stride of 0 for C too: then they continue each other. */
static void batches(void) {
    static const size_t sizes[][4] = {{0, 3, 3, 3},      {1, 5, 6, 7},   {7, 3, 4, 5},
                                      {40, 32, 32, 32},  {9, 1, 64, 64}, {5, 40, 24, 9},
                                      {3, 120, 120, 120}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 4; kind++)
            for (size_t t = 0; t < sizeof THREADS / sizeof *THREADS; t++) {
                size_t count = sizes[s][0], m = sizes[s][1], n = sizes[s][2], k = sizes[s][3];
                matrix a = make(room[0], count * m, k, ROWS, 1);
                matrix b = make(room[1], count * k, n, ROWS, 1);
                matrix c = make(room[2], count * m, n, ROWS, 1);
                ptrdiff_t step_a = kind == 1 ? 0 : (ptrdiff_t)(m * k);
                ptrdiff_t step_b = kind == 2 ? 0 : (ptrdiff_t)(k * n);
                ptrdiff_t step_c = kind == 3 ? 0 : (ptrdiff_t)(m * n);
                memcpy(expected, c.low, c.length * item);
                for (size_t i = 0; i < count; i++) {
                    matrix x = a, y = b, z = c;
                    x.at += (ptrdiff_t)(i * item) * step_a;
                    y.at += (ptrdiff_t)(i * item) * step_b;
                    z.at += (ptrdiff_t)(i * item) * step_c;
                    x.rows = m;
                    y.rows = k;
                    z.rows = m;
                    chain(&x, &y, &z, expected);
                }
                mg_set_num_threads(THREADS[t]);
                mg_gemm_batched(kernels, count, m, n, k, a.at, step_a, a.rs, 1, b.at, step_b, b.rs,
                                1, c.at, step_c, c.rs, 1);
                compare("batch", &a, &b, &c);
            }
}

/* ---- The pool ---- */

enum { TASKS = 1000 };
typedef struct counts {
    int done[TASKS];
    int nested;
} counts;

static void inner(void *arg, size_t i) {
    __atomic_fetch_add(&((counts *)arg)->done[i], 1, __ATOMIC_RELAXED);
}
static void outer(void *arg, size_t i) {
    counts *c = arg;
    if (c->nested) mg_parallel(TASKS, inner, c);
    else c->done[i]++;
}

/* n indices, each taken once; nested: each of n takes every index of an inner run once. */
static int each_once(size_t n, int nested) {
    counts c = {.nested = nested};
    mg_parallel(n, outer, &c);
    int bad = 0;
    for (size_t i = 0; i < TASKS; i++) bad += c.done[i] != (nested ? (int)n : i < n);
    return bad;
}

static void *caller(void *arg) {
    long *bad = arg;
    for (int i = 0; i < 300; i++) *bad += each_once((size_t)i % 40, i % 7 == 0);
    return NULL;
}

static void pool(void) {
    for (int threads = 1; threads <= 8; threads++)
        for (size_t n = 0; n < 50; n += 7) {
            mg_set_num_threads(threads);
            wrong += each_once(n, 0) + each_once(n, 1);
        }
    pthread_t callers[4];
    long bad[4] = {0};
    mg_set_num_threads(8);
    for (int i = 0; i < 4; i++)
        if (pthread_create(&callers[i], NULL, caller, &bad[i])) exit(2);
    for (int i = 0; i < 300; i++) {
        mg_set_num_threads(1 + i % 8);
        usleep(100);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(callers[i], NULL);
        wrong += bad[i];
    }
#ifndef GEMM_CHECK_WITHOUT_FORK
    mg_set_num_threads(3);
    for (int i = 0; i < 20; i++) {
        wrong += each_once(100, 0);
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            int told = each_once(100, 0) + each_once(50, 1);
            pid_t grandchild = fork();
            if (grandchild == 0) _exit(each_once(100, 0) != 0);
            int status;
            waitpid(grandchild, &status, 0);
            _exit(told || status);
        }
        int status;
        waitpid(child, &status, 0);
        wrong += status != 0;
    }
#endif
    printf("pool: indices, callers side by side, nested, forks\n");
}

static char *guarded(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p = mmap(NULL, ROOM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + page, ROOM, PROT_READ | PROT_WRITE)) {
        perror("mmap");
        exit(2);
    }
    return p + page;
}

int main(int argc, char **argv) {
    int thin = argc > 1 ? atoi(argv[1]) : 1; /* 5: one product of 5, for slow machines */
    static const size_t small[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 25, 31, 32, 33};
    static const size_t large[][3] = {
        {1, 1, 700},    {1, 700, 300}, {700, 1, 300},  {3, 530, 300},   {2, 65, 257},
        {600, 3, 33},   {600, 600, 2}, {64, 257, 128}, {100, 100, 100}, {37, 520, 260},
        {130, 70, 515}, {5, 1100, 65}, {257, 129, 64}, {13, 33, 1025},  {30, 1100, 300}};
    enum { SMALL = sizeof small / sizeof *small, LARGE = sizeof large / sizeof *large };
    for (int i = 0; i < 3; i++) room[i] = guarded();
    packed_room = guarded();
    expected = guarded();
    start = guarded();
    pool();
    for (item = 4; item <= 8; item += 4)
        for (const char *const *isa = mg_isas_built(); *isa; isa++) {
            if (!mg_isa_usable(*isa)) continue;
            kernels = mg_table(*isa, item);
            int turn = 0, orders = 0;
            for (size_t i = 0; i < SMALL * SMALL * SMALL; i++)
                for (int at_end = 0; at_end < 2; at_end++)
                    if (turn++ % thin == 0) {
                        size_t m = small[i % SMALL], n = small[i / SMALL % SMALL];
                        product(m, n, small[i / SMALL / SMALL], orders++, at_end, 0);
                    }
            for (orders = 0; orders < ORDERS * ORDERS * ORDERS_OF_C; orders++)
                if (turn++ % thin == 0) {
                    product(13, 50, 20, orders, orders % 2, 0);
                    product(1, 140, 37, orders, orders % 2, 0);
                    product(45, 1, 37, orders, orders % 2, 0);
                    product(70, 3, 70, orders, orders % 2, 0);
                }
            for (size_t i = 0; i < LARGE; i++)
                for (int j = 0; j < 4; j++)
                    if (turn++ % thin == 0) product_of(large[i], j % 2, 0);
            for (size_t i = 0; i < LARGE; i++)
                for (size_t t = 0; t < sizeof THREADS / sizeof *THREADS; t++)
                    if (turn++ % thin == 0) product_of(large[i], 1, THREADS[t]);
            isolated();
            batches();
            printf("%s float%d compared\n", *isa, (int)item * 8);
            fflush(stdout);
        }
    printf(wrong ? "%ld products: %ld ARE WRONG\n"
                 : "%ld products: the same bits as a chain of fma\n",
           products, wrong);
    return wrong != 0;
}
