/* See product.h. A product is cut along the longer side of C, a batch product after product. */
#include "runtime/product.h"
#include "runtime/pool.h"

enum {
    /* Multiply-adds: below it, waking a thread costs more than it brings. */
    WORTH_A_THREAD = 1 << 19,
    /* A part is a multiple of this many rows or columns: near the kernels' tiles. */
    STEP = 32
};

typedef enum { BY_ROWS, BY_COLUMNS, BY_PRODUCTS } cut;

typedef struct {
    const mg_kernels *kernels;
    size_t m, n, k;
    const char *a, *b;
    char *c;
    ptrdiff_t bsa, rsa, csa, bsb, rsb, csb, bsc, rsc, csc;
    cut by;
    size_t all, size; /* rows, columns or products: in all, and in a part */
} job;

static void part(void *arg, size_t index) {
    const job *j = arg;
    size_t from = index * j->size, count = j->all - from < j->size ? j->all - from : j->size;
    ptrdiff_t item = (ptrdiff_t)j->kernels->itemsize, step = (ptrdiff_t)from * item;
    switch (j->by) {
    case BY_ROWS:
        j->kernels->gemm(count, j->n, j->k, j->a + step * j->rsa, j->rsa, j->csa, j->b, j->rsb,
                         j->csb, j->c + step * j->rsc, j->rsc, j->csc);
        break;
    case BY_COLUMNS:
        j->kernels->gemm(j->m, count, j->k, j->a, j->rsa, j->csa, j->b + step * j->csb, j->rsb,
                         j->csb, j->c + step * j->csc, j->rsc, j->csc);
        break;
    case BY_PRODUCTS:
        for (ptrdiff_t i = step; i < step + (ptrdiff_t)count * item; i += item)
            j->kernels->gemm(j->m, j->n, j->k, j->a + i * j->bsa, j->rsa, j->csa, j->b + i * j->bsb,
                             j->rsb, j->csb, j->c + i * j->bsc, j->rsc, j->csc);
        break;
    }
}

/* How many threads the work keeps busy, of those that there are. */
static size_t worthy_threads(double work) {
    size_t threads = (size_t)mg_get_num_threads();
    return (double)threads <= work / WORTH_A_THREAD ? threads : (size_t)(work / WORTH_A_THREAD);
}

void mg_gemm(const mg_kernels *kernels, size_t m, size_t n, size_t k, const void *a, ptrdiff_t rsa,
             ptrdiff_t csa, const void *b, ptrdiff_t rsb, ptrdiff_t csb, void *c, ptrdiff_t rsc,
             ptrdiff_t csc) {
    size_t threads = worthy_threads((double)m * (double)n * (double)k), longer = m > n ? m : n;
    if (threads > longer / STEP) threads = longer / STEP;
    if (threads < 2) {
        kernels->gemm(m, n, k, a, rsa, csa, b, rsb, csb, c, rsc, csc);
        return;
    }
    size_t size = (longer / threads + STEP - 1) / STEP * STEP;
    job j = {
        .kernels = kernels,
        .m = m,
        .n = n,
        .k = k,
        .a = a,
        .b = b,
        .c = c,
        .rsa = rsa,
        .csa = csa,
        .rsb = rsb,
        .csb = csb,
        .rsc = rsc,
        .csc = csc,
        .by = m > n ? BY_ROWS : BY_COLUMNS,
        .all = longer,
        .size = size,
    };
    mg_parallel((longer + size - 1) / size, part, &j);
}

void mg_gemm_batched(const mg_kernels *kernels, size_t count, size_t m, size_t n, size_t k,
                     const void *a, ptrdiff_t bsa, ptrdiff_t rsa, ptrdiff_t csa, const void *b,
                     ptrdiff_t bsb, ptrdiff_t rsb, ptrdiff_t csb, void *c, ptrdiff_t bsc,
                     ptrdiff_t rsc, ptrdiff_t csc) {
    ptrdiff_t item = (ptrdiff_t)kernels->itemsize;
    double work = (double)m * (double)n * (double)k;
    size_t threads = count < 2 ? 1 : worthy_threads(work * (double)count);
    /* One after the other: where they continue each other, and where a few of them have work for
     * more threads each. */
    if (count < 2 || bsc == 0 || (count < threads && worthy_threads(work) > count)) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)count; i++)
            mg_gemm(kernels, m, n, k, (const char *)a + i * bsa * item, rsa, csa,
                    (const char *)b + i * bsb * item, rsb, csb, (char *)c + i * bsc * item, rsc,
                    csc);
        return;
    }
    if (threads < 1) threads = 1;
    size_t size = (count + threads - 1) / threads;
    job j = {
        .kernels = kernels,
        .m = m,
        .n = n,
        .k = k,
        .a = a,
        .b = b,
        .c = c,
        .bsa = bsa,
        .rsa = rsa,
        .csa = csa,
        .bsb = bsb,
        .rsb = rsb,
        .csb = csb,
        .bsc = bsc,
        .rsc = rsc,
        .csc = csc,
        .by = BY_PRODUCTS,
        .all = count,
        .size = size,
    };
    mg_parallel((count + size - 1) / size, part, &j);
}
