/* The kernels of float64 for AVX-512. */
#if defined(__x86_64__)
#define MG_REAL 64
#define MG_ISA_AVX512
#include "isa/kernels.inc"
#else
typedef int mg_not_built_here;
#endif
