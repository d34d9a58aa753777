/* Elementwise kernels and copies over N-dimensional strided arrays: broadcasting is a stride of
 * zero. Not tied to an ISA. */
#ifndef MG_STRIDED_H
#define MG_STRIDED_H
#include "kernels.h"

#define MG_MAX_DIMS 64

/* y = f(x) for the `shape` of nd <= MG_MAX_DIMS dimensions; strides count elements; y is
 * C-contiguous. */
void mg_map_strided(const mg_kernels *kernels, int id, int nd, const ptrdiff_t *shape,
                    const void *x, const ptrdiff_t *sx, void *y);

/* y = f(a, b), the same. */
void mg_map2_strided(const mg_kernels *kernels, int id, int nd, const ptrdiff_t *shape,
                     const void *a, const ptrdiff_t *sa, const void *b, const ptrdiff_t *sb,
                     void *y);

/* y += x for y with strides sy that reach each element once (a gradient buffer, or a slice of
 * one). */
void mg_accumulate_strided(const mg_kernels *kernels, int nd, const ptrdiff_t *shape, const void *x,
                           const ptrdiff_t *sx, void *y, const ptrdiff_t *sy);

/* y = x between strides, y as above; blocked where one side is a transpose of the other. */
void mg_copy_strided(size_t itemsize, int nd, const ptrdiff_t *shape, const void *x,
                     const ptrdiff_t *sx, void *y, const ptrdiff_t *sy);

#endif
