/* Compares every instruction set of this CPU with the scalar one, to the bit: all elementwise functions, products, sums, for both float types.
 *
 *     make isa        on this machine          make neon       the NEON kernels, under qemu (aarch64-linux-gnu-gcc, qemu-user)
 */
#include "../csrc/kernels.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1003, M = 25, K = 9, COLUMNS = 37 };

static size_t itemsize;

static void fill(void *x, int n) {
    for (int i = 0; i < n; i++) {
        double v = (rand() / (double)RAND_MAX - 0.5) * (i % 3 ? 4 : 60);
        if (itemsize == 4) ((float *)x)[i] = (float)v;
        else ((double *)x)[i] = v;
    }
}

static int is_nan(const void *x, int i) {
    return itemsize == 4 ? ((const float *)x)[i] != ((const float *)x)[i] : ((const double *)x)[i] != ((const double *)x)[i];
}

/* How many of n elements differ; NaNs are alike. */
static int differ(const char *what, const char *isa, int id, const void *x, const void *y, int n) {
    int bad = 0;
    for (int i = 0; i < n; i++)
        bad += memcmp((const char *)x + (size_t)i * itemsize, (const char *)y + (size_t)i * itemsize, itemsize) && !(is_nan(x, i) && is_nan(y, i));
    if (bad) printf("%s float%d %s %d: %d of %d elements differ from scalar\n", isa, (int)itemsize * 8, what, id, bad, n);
    return bad;
}

int main(void) {
    static double a[N], b[N], x[N], y[N];
    int bad = 0;
    for (itemsize = 4; itemsize <= 8; itemsize += 4)
        for (const char *const *isa = mg_isas_built(); *isa; isa++) {
            if (!mg_isa_usable(*isa)) continue;
            const mg_kernels *k = mg_table(*isa, itemsize), *scalar = mg_table("scalar", itemsize);
            fill(a, N);
            fill(b, N);
            for (int id = 0; id < mg_map_count; id++) {
                k->map[id](N, a, 1, x);
                scalar->map[id](N, a, 1, y);
                bad += differ("map", *isa, id, x, y, N);
            }
            for (int id = 0; id < mg_map2_count; id++) {
                k->map2[id](N, a, 1, b, 1, x);
                scalar->map2[id](N, a, 1, b, 1, y);
                bad += differ("map2", *isa, id, x, y, N);
            }
            fill(x, M * COLUMNS);
            memcpy(y, x, sizeof x);
            k->gemm(M, COLUMNS, K, a, K, 1, b, COLUMNS, 1, x, COLUMNS, 1);
            scalar->gemm(M, COLUMNS, K, a, K, 1, b, COLUMNS, 1, y, COLUMNS, 1);
            bad += differ("gemm", *isa, 0, x, y, M * COLUMNS);
            k->sum(1, N, 1, a, x);
            scalar->sum(1, N, 1, a, y);
            bad += differ("sum", *isa, 0, x, y, 1);
            k->sum(1, N / 3, 3, a, x);
            scalar->sum(1, N / 3, 3, a, y);
            bad += differ("sum", *isa, 3, x, y, 3);
            k->softmax(17, N / 17, a, x);
            scalar->softmax(17, N / 17, a, y);
            bad += differ("softmax", *isa, 0, x, y, N);
            printf("%s float%d compared\n", *isa, (int)itemsize * 8);
        }
    printf(bad ? "DIFFERENT BITS\n" : "the same bits\n");
    return bad != 0;
}
