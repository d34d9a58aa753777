/* See product.h. */
#include "product.h"
#include "pool.h"

enum {
    WORTH_A_THREAD = 1 << 19, /* multiply-adds: below it, waking a thread costs more than it brings */
    STEP = 32                 /* a part is a multiple of this many rows or columns: near the kernels' tiles */
};

typedef struct {
    const mg_kernels *K;
    size_t m, n, k, size; /* size: rows or columns of a part */
    const char *a, *b;
    char *c;
    ptrdiff_t rsa, csa, rsb, csb, rsc, csc;
    int by_rows;
} job;

static void part(void *arg, size_t index) {
    const job *j = arg;
    size_t from = index * j->size, all = j->by_rows ? j->m : j->n, count = all - from < j->size ? all - from : j->size;
    ptrdiff_t step = (ptrdiff_t)(from * j->K->itemsize);
    if (j->by_rows)
        j->K->gemm(count, j->n, j->k, j->a + step * j->rsa, j->rsa, j->csa, j->b, j->rsb, j->csb, j->c + step * j->rsc, j->rsc, j->csc);
    else
        j->K->gemm(j->m, count, j->k, j->a, j->rsa, j->csa, j->b + step * j->csb, j->rsb, j->csb, j->c + step * j->csc, j->rsc, j->csc);
}

void mg_gemm(const mg_kernels *K, size_t m, size_t n, size_t k, const void *a, ptrdiff_t rsa, ptrdiff_t csa,
             const void *b, ptrdiff_t rsb, ptrdiff_t csb, void *c, ptrdiff_t rsc, ptrdiff_t csc) {
    size_t threads = (size_t)mg_get_num_threads(), longer = m > n ? m : n;
    double work = (double)m * (double)n * (double)k;
    if (threads > work / WORTH_A_THREAD) threads = (size_t)(work / WORTH_A_THREAD);
    if (threads > longer / STEP) threads = longer / STEP;
    if (threads < 2) {
        K->gemm(m, n, k, a, rsa, csa, b, rsb, csb, c, rsc, csc);
        return;
    }
    job j = {K, m, n, k, 0, a, b, c, rsa, csa, rsb, csb, rsc, csc, m > n};
    j.size = (longer / threads + STEP - 1) / STEP * STEP;
    mg_parallel((longer + j.size - 1) / j.size, part, &j);
}
