/* The step of an optimiser over many parameters at once, and what clipping needs: sums of squares,
 * scaling, bounds. All are cut into pieces of a fixed size, which the threads share; the formulas
 * are in optim.inc. */
#ifndef MG_OPTIM_H
#define MG_OPTIM_H
#include "kernels.h"

enum { MG_PIECE = 16384 /* elements */ };

/* One step of one parameter: its arrays, contiguous, and the numbers of the formula. Each kernel
 * reads those that it names. */
typedef struct mg_update {
    mg_step *step; /* that of an entry of mg_kernels.steps */
    size_t n, itemsize;
    void *p;
    const void *g;
    void *m, *v, *extra; /* what is kept between the steps; NULL: not kept */
    double lr;           /* of this step, with all that it is divided by */
    double weight_decay; /* g += weight_decay p */
    double shrink;       /* p -= shrink p, first of all (0: not) */
    double momentum, dampening;
    double beta1, beta2; /* m and v go on as beta m + (1 - beta) ... */
    double eps, root;
    int maximize, nesterov, first;
    size_t pieces_before; /* set by mg_step_all: of the parameters before this one */
} mg_update;

void mg_step_all(size_t count, mg_update *updates);

/* parts[i] = the sum of (scale x)^2 over piece i, in double. n elements are (n + MG_PIECE - 1) /
 * MG_PIECE pieces. */
void mg_sum_squares(const mg_kernels *kernels, size_t n, double scale, const void *x,
                    double *parts);

/* x *= scale, in double; and x held within [-bound, bound], NaN stays. */
void mg_scale(const mg_kernels *kernels, size_t n, double scale, void *x);
void mg_clamp(const mg_kernels *kernels, size_t n, double bound, void *x);

#endif
