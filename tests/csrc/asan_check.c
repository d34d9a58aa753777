/* Faults on purpose: `make asan` begins by making sure that its build and its process see them.
 * Loaded through ctypes. */
#include <limits.h>
#include <stdlib.h>

/* Reads one element behind the n at x, memory of NumPy's or of our own. */
float read_beyond(const float *x, size_t n) {
    volatile const float *y = x;
    return y[n];
}

float read_beyond_malloc(size_t n) {
    float *x = calloc(n, sizeof *x);
    float y = read_beyond(x, n);
    free(x);
    return y;
}

float read_after_free(size_t n) {
    float *volatile x = calloc(n, sizeof *x);
    free(x);
    return x[0];
}

int overflow(int a) { return a + INT_MAX; }
