/* Matrix products on several threads: the kernel `gemm` of a table, its rows, its columns or a
 * batch split over mg_parallel. */
#ifndef MG_PRODUCT_H
#define MG_PRODUCT_H
#include "kernels.h"

/* C += A B, as the kernel gemm of kernels.h. Only rows or columns of C are split, so the result has
 * the same bits for any number of threads. */
void mg_gemm(const mg_kernels *kernels, size_t m, size_t n, size_t k, const void *a, ptrdiff_t rsa,
             ptrdiff_t csa, const void *b, ptrdiff_t rsb, ptrdiff_t csb, void *c, ptrdiff_t rsc,
             ptrdiff_t csc);

/* `count` products, the operands of one a batch stride (bsa, bsb, bsc elements) after those of the
 * one before. With bsc = 0 they continue each other's chains, the first one first; otherwise the
 * products of a batch do not overlap in C. */
void mg_gemm_batched(const mg_kernels *kernels, size_t count, size_t m, size_t n, size_t k,
                     const void *a, ptrdiff_t bsa, ptrdiff_t rsa, ptrdiff_t csa, const void *b,
                     ptrdiff_t bsb, ptrdiff_t rsb, ptrdiff_t csb, void *c, ptrdiff_t bsc,
                     ptrdiff_t rsc, ptrdiff_t csc);

#endif
