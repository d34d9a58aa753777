/* See product.h. */
#include "runtime/product.h"
#include "runtime/pool.h"

enum {
    WORTH_A_THREAD = 1 << 19, /* multiply-adds: below it, waking a thread costs more than it brings */
    STEP = 32                 /* a part is a multiple of this many rows or columns: near the kernels' tiles */
};

typedef enum { BY_ROWS, BY_COLUMNS, BY_PRODUCTS } cut;

typedef struct {
    const mg_kernels *K;
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
    ptrdiff_t item = (ptrdiff_t)j->K->itemsize, step = (ptrdiff_t)from * item;
    switch (j->by) {
    case BY_ROWS:
        j->K->gemm(count, j->n, j->k, j->a + step * j->rsa, j->rsa, j->csa, j->b, j->rsb, j->csb,
                   j->c + step * j->rsc, j->rsc, j->csc);
        break;
    case BY_COLUMNS:
        j->K->gemm(j->m, count, j->k, j->a, j->rsa, j->csa, j->b + step * j->csb, j->rsb, j->csb,
                   j->c + step * j->csc, j->rsc, j->csc);
        break;
    case BY_PRODUCTS:
        for (ptrdiff_t i = step; i < step + (ptrdiff_t)count * item; i += item)
            j->K->gemm(j->m, j->n, j->k, j->a + i * j->bsa, j->rsa, j->csa, j->b + i * j->bsb, j->rsb, j->csb,
                       j->c + i * j->bsc, j->rsc, j->csc);
        break;
    }
}

/* How many threads the work keeps busy, of those that there are. */
static size_t worthy_threads(double work) {
    size_t threads = (size_t)mg_get_num_threads();
    return (double)threads <= work / WORTH_A_THREAD ? threads : (size_t)(work / WORTH_A_THREAD);
}

void mg_gemm(const mg_kernels *K, size_t m, size_t n, size_t k, const void *a, ptrdiff_t rsa, ptrdiff_t csa,
             const void *b, ptrdiff_t rsb, ptrdiff_t csb, void *c, ptrdiff_t rsc, ptrdiff_t csc) {
    size_t threads = worthy_threads((double)m * (double)n * (double)k), longer = m > n ? m : n;
    if (threads > longer / STEP) threads = longer / STEP;
    if (threads < 2) {
        K->gemm(m, n, k, a, rsa, csa, b, rsb, csb, c, rsc, csc);
        return;
    }
    job j = {K, m, n, k, a, b, c, 0, rsa, csa, 0, rsb, csb, 0, rsc, csc, m > n ? BY_ROWS : BY_COLUMNS, longer, 0};
    j.size = (longer / threads + STEP - 1) / STEP * STEP;
    mg_parallel((longer + j.size - 1) / j.size, part, &j);
}

void mg_gemm_batched(const mg_kernels *K, size_t count, size_t m, size_t n, size_t k,
                     const void *a, ptrdiff_t bsa, ptrdiff_t rsa, ptrdiff_t csa,
                     const void *b, ptrdiff_t bsb, ptrdiff_t rsb, ptrdiff_t csb,
                     void *c, ptrdiff_t bsc, ptrdiff_t rsc, ptrdiff_t csc) {
    ptrdiff_t item = (ptrdiff_t)K->itemsize;
    double work = (double)m * (double)n * (double)k;
    size_t threads = count < 2 ? 1 : worthy_threads(work * (double)count);
    /* One after the other: where they continue each other, and where a few of them have work for
     * more threads each. */
    if (count < 2 || bsc == 0 || (count < threads && worthy_threads(work) > count)) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)count; i++)
            mg_gemm(K, m, n, k, (const char *)a + i * bsa * item, rsa, csa, (const char *)b + i * bsb * item, rsb, csb,
                    (char *)c + i * bsc * item, rsc, csc);
        return;
    }
    if (threads < 1) threads = 1;
    job j = {K, m, n, k, a, b, c, bsa, rsa, csa, bsb, rsb, csb, bsc, rsc, csc, BY_PRODUCTS, count, 0};
    j.size = (count + threads - 1) / threads;
    mg_parallel((count + j.size - 1) / j.size, part, &j);
}
