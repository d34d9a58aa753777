/* The kernels of float64 without vectors. */
#define MG_REAL 64
#define MG_ISA_SCALAR
#include "isa/kernels.inc"
