/* Recurrent layers over whole sequences: one call for one layer and one direction, forward or
 * backward through time.
 *
 * Nothing here knows Python. The caller has checked all shapes, types and lengths; arrays are
 * contiguous (h and dh may have their rows in wider ones), aligned to their elements, of the real
 * type of the table `k` that is passed in, and do not overlap. The two functions may be called
 * without the GIL; they split the work over mg_parallel, and results are the same to the bit for
 * any number of threads and every ISA.
 *
 * Sizes: T steps, B rows (sequences), I inputs, H hidden units, G gates. Time-major: x (T, B, I),
 * h (T, B, H). Weights are stored (in, out): the input weights W (I, G H), the recurrent weights
 * U (H, G H), the bias b. Gate q of unit j is column q H + j. T = 0 and B = 0 are fine. Fields are
 * in lower case, since W is the width of a vector in the kernels.
 *
 * Order of time. Forward processes t = 0, 1, ...; with `reverse` t = T-1, T-2, ..., and a row with
 * a length starts at its own end. "Before" and "previous" below mean the order of processing. Row b
 * takes part in step t only where t < lengths[b]; elsewhere its h, cells and gates are exactly 0,
 * its state stands still, and nothing of x is read (it may be NaN). The final state of a row of
 * length 0 is its initial state.
 *
 * Forward. With h, c the state after the previous step (zeros where reset[t, b]) and hm = h * mask
 * (hm = h without a mask) each gate starts from
 *
 *   a = b + x_t W + hm U         each element ONE chain of fused multiply-adds: from b (0 without
 *                                one), then the inputs ascending, then the units ascending
 *
 * What a cell makes of a, and where it departs from this, is the formula at the head of rnn.inc,
 * lstm.inc and gru.inc. There every product, sum and difference is rounded by itself: no FMA
 * outside the chains. h' and c' are the state after the step.
 *
 * Backward, one line for each forward line. dh_next and dc_next are the gradients of the state
 * after this step (h' and c') that the step after it has left, or dh_T, dc_T at a row's end; dh_t
 * and dc_t are the gradients of the outputs over time (0 where NULL). Every cell begins with
 *
 *   d = dh_t + dh_next
 *
 * then come its own formulas for da, the gradient of a, and for the dh_next and dc_next of the
 * previous step, with tanh_grad(d, y) = d * (1 - y * y) and sigmoid_grad(d, y) = d * (y * (1 - y)).
 * After them, in this order:
 *
 *   with a mask    dh_next = chain * mask for the chain that ends the cell's formula, which then
 *                  begins at 0; the terms of h that do not come through hm are added after that
 *   reset[t, b]    dh_next = dc_next = 0 for the previous step (and for the initial state)
 *   with clip      dh_next = max(min(dh_next, clip), -clip), dc_next likewise: what the step hands
 *                  to the one before it (slide: gradient clipping)
 *   dx_t           = da W^T, from 0, one chain over the columns of W ascending
 *   dW, dU, db, dp continue from their present values: the last processed step first, b ascending
 *                  within a step, rows past their length left out; one FMA chain for each weight;
 *                  db and dp are sums over rows as add_rows makes them (kernels.h), in twice the
 *                  precision and not rounded; dp that of da * c (c' for p_o), rounded first
 *
 * So dh_next is a value by itself, and a sequence in chunks with the state carried on (h_T to h0,
 * dh0 to dh_T; for weight gradients the later chunk first) has the bits of the whole sequence.
 * Recomputing from saved states is such a run in chunks.
 */
#ifndef MG_RECURRENT_H
#define MG_RECURRENT_H

#include "kernels.h"

/* NumPy's headers bring this one along, before or after; it makes a macro of I, which is a size
 * here. */
#include <complex.h>
#undef I

/* Every cell, by the name that Python knows it by. An entry makes the number mg_cell_<name> here
 * and asks for the kind cell_<name> in recurrent.inc. */
#define MG_CELLS(X) X(rnn_tanh) X(rnn_relu) X(lstm) X(gru) X(gru_after)

#define MG_CELL_NUMBER(name) mg_cell_##name,
typedef enum { MG_CELLS(MG_CELL_NUMBER) mg_cell_count } mg_cell;
#undef MG_CELL_NUMBER

enum { MG_MOST_GATES = 4 };

struct mg_forward_step;
struct mg_backward_step;

/* What differs from cell to cell. Each ISA and float type has a table of these, k->cells[mg_cell];
 * only the functions differ between the tables. */
typedef struct mg_cell_kind {
    const char *name; /* as in MG_CELLS */
    size_t gates;     /* G */
    size_t biases;    /* vectors of H in b and da: G, or more where a gate has two sums */
    const char *names[MG_MOST_GATES]; /* of these vectors, the G gates first */
    int has_c;                        /* the state is (h, c), not h alone */
    int saves_gates;                  /* backward reads mg_recurrent.gates, */
    int saves_cells;                  /* and mg_recurrent.cells */
    /* The columns of U for the first `split` gates are multiplied by hm, and their da is that of
     * their bias. The other gates have a second sum with a da of its own, the last one, where
     * biases > gates; or their operand is r * hm, in a product of its own, where `gated`. */
    size_t split;
    int gated;
    int passes_h; /* h' depends on h also past hm: dh_next is a term plus the chain */
    size_t order[MG_MOST_GATES]; /* the gate of each vector of sums, see cell.inc */
    /* One step of some rows, see cell.inc. */
    void (*forward)(const struct mg_forward_step *step);
    void (*backward)(const struct mg_backward_step *step);
} mg_cell_kind;

/* What a call to forward reads and writes, and what backward reads again. */
typedef struct mg_recurrent {
    mg_cell cell;
    int reverse;
    size_t T, B, I, H;
    const void *x;          /* (T, B, I) */
    const void *w, *u;      /* W (I, G H), U (H, G H) */
    const void *b;          /* (biases H) or NULL */
    const void *p;          /* (3, H): the peepholes p_i, p_f, p_o, or NULL; LSTM only */
    const void *h0, *c0;    /* (B, H), or NULL for zeros; c0 only where the cell has c */
    const void *mask;       /* (B, H): recurrent dropout, the same at every step, or NULL */
    const int64_t *lengths; /* (B), 0 <= length <= T, any order, or NULL for T everywhere */
    const uint8_t *reset;   /* (T, B), or NULL */
    void *h;                /* (T, B, H): always written */
    size_t h_row;           /* elements from a row of h to the next: H, or more in wider rows */
    void *h_T, *c_T;        /* (B, H): always written; c_T only where the cell has c */
    /* For backward, NULL otherwise (both or neither; where a cell saves none it may be NULL):
     * gates (T, B, G H): the values after their sigmoid or tanh.
     * cells (T, B, H): c', or in gru_after u. */
    void *gates, *cells;
    /* Called by the calling thread about every 20 ms of work, or NULL; where it returns non-zero
     * the call stops and returns MG_INTERRUPTED. It may take the GIL. */
    int (*interrupted)(void);
} mg_recurrent;

/* Where the first value that is not finite arose. Gates are numbered in the cell's order; G is the
 * cell state, G + 1 is h. */
typedef struct mg_nonfinite {
    size_t step, row, gate;
} mg_nonfinite;

typedef struct mg_recurrent_grads {
    const void *dh;          /* (T, B, H) or NULL for zeros; not read past a row's length */
    size_t dh_row;           /* as h_row */
    const void *dc;          /* (T, B, H) or NULL for zeros; only where the cell has c */
    const void *dh_T, *dc_T; /* (B, H) or NULL for zeros */
    void *dx;                /* (T, B, I), or NULL if not wanted; overwritten */
    void *dh0, *dc0;         /* (B, H), or NULL; overwritten */
    void *dw, *du, *db, *dp; /* as the weights, or NULL; added to */
    /* The low parts of db and dp, see add_rows in kernels.h, where those are not NULL. The caller
     * rounds the sums. */
    double *db_low, *dp_low;
    double clip; /* the largest element of dh_next and dc_next; 0: no clipping */
    /* Telemetry, or NULL; squares of the norms over rows and units of the total gradients of h'
     * and c' of each step. */
    double *dh_norm2, *dc_norm2; /* (T); dc_norm2 only where the cell has c */
    /* Or NULL: receives the first gate gradient in the order of the sweep that is not finite; step
     * is T if there is none. Gates are numbered as mg_cell_kind.names. */
    mg_nonfinite *nonfinite;
} mg_recurrent_grads;

enum { MG_OK = 0, MG_NO_MEMORY, MG_INTERRUPTED };

/* Both return MG_OK, or MG_NO_MEMORY (also where a size does not fit in size_t), or MG_INTERRUPTED;
 * after either failure what was written is of no use, the accumulated gradients included. */
int mg_recurrent_forward(const mg_kernels *k, const mg_recurrent *r);
int mg_recurrent_backward(const mg_kernels *k, const mg_recurrent *r, const mg_recurrent_grads *g);

/* After a forward run with saved gates: the first value in the order of processing that is not
 * finite, rows and gates ascending within a step. Returns 1 and fills `where`, or returns 0. */
int mg_recurrent_scan(const mg_kernels *k, const mg_recurrent *r, mg_nonfinite *where);

/* ---- Between plan.c, which splits the work and owns the memory, and the kernels ---- */

/* H rounded up to whole vectors of any ISA: the row length of all scratch arrays below. */
#define MG_PADDED(H) (((H) + 15) / 16 * 16)

/* The weights in the order in which the kernels read them; see k_recurrent_pack in steps.inc. */
typedef struct mg_recurrent_packed {
    void *w, *u, *b;   /* forward: for each block of units the vectors of all its gates */
    void *wt, *ut;     /* backward: the transposes; wt is NULL where dx is not wanted */
    const void *zeros; /* of the longest row */
} mg_recurrent_packed;

/* The part of one thread: some rows of the batch, on their way through the steps. Its arrays belong
 * to it alone; the arrays of pointers hold n entries, entry i for row[i]. Rows are sorted by
 * length, longest first: those that take part in a step are the first ones. */
typedef struct mg_recurrent_rows {
    const mg_recurrent *r;
    const mg_cell_kind *kind; /* of r->cell */
    const mg_recurrent_packed *packed;
    size_t n;
    const size_t *row;
    size_t column_parts; /* threads that share each product's columns; 1: rows are split */
    const void **h_before, **c_before; /* the state before the step */
    const void **in;        /* the operand of the recurrent product: hm, later r * hm if gated */
    void **h, **c, **gates; /* where the values of the step are kept */
    void *masked;           /* (n, H): hm where there is a mask */
    void *gated;            /* (n, H): r * hm where the cell is gated */
    /* Forward: b + x W of several steps, the sums of `capacity` rows, and pointers to as many rows
     * of x. */
    void *a;
    const void **x;
    size_t capacity;
    /* Backward. */
    const mg_recurrent_grads *g;
    void *dh_next, *dc_next; /* (n, padded H): left by one step for the step before it */
    void *scratch;           /* (n, padded H): a chain that is not yet part of dh_next */
    void **da;               /* this step's rows of mg_recurrent_block.da */
} mg_recurrent_rows;

/* Some steps of the backward pass, with the rows of all threads in the order of the weights'
 * chains: entry e is row b[e] of step t[e]. D is the row length of da: biases H. */
typedef struct mg_recurrent_block {
    size_t first, end; /* the steps: the first one is the last in the order of processing */
    size_t entries;
    const size_t *t, *b;
    const size_t *entry; /* (end - first, B): e for a row and a step */
    size_t D;
    void *da;                    /* (entries, D) */
    void *x;                     /* (entries, I) or NULL if dW is not wanted */
    void *hm, *gated;            /* (entries, H): operands of dU; NULL if that is not wanted */
    void *dp;                    /* (entries, 3 H): da * c for each peephole, or NULL */
    double *dh_norm2, *dc_norm2; /* (entries) or NULL */
} mg_recurrent_block;

#endif
