/* The kernels of float32 without vectors. */
#define MG_REAL 32
#define MG_ISA_SCALAR
#include "isa/kernels.inc"
