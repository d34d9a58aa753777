/* The kernels of float64 for NEON. */
#if defined(__aarch64__)
#define MG_REAL 64
#define MG_ISA_NEON
#include "isa/kernels.inc"
#else
typedef int mg_not_built_here;
#endif
