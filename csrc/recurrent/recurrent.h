/* Recurrent layers over whole sequences: one call for one layer and one direction, forward or
 * backward through time.
 *
 * Nothing here knows Python. The caller has checked all shapes, types and lengths; arrays are
 * contiguous (h and dh may have their rows in wider ones), aligned to their elements, of the real
 * type of the table `k` that is passed in, and do not overlap. The two functions may be called
 * without the GIL; they split the work over mg_parallel, and results are the same to the bit for
 * any number of threads and every ISA.
 *
 * Sizes: T steps, B rows (sequences), I inputs, H hidden units, G gates (mg_cell_gates).
 * Time-major: x (T, B, I), h (T, B, H). Weights are stored (in, out): W_x (I, G H), W_h (H, G H).
 * Gate q of unit j is column q H + j. T = 0 and B = 0 are fine.
 *
 * Order of time. Forward processes t = 0, 1, ...; with `reverse` t = T-1, T-2, ..., and a row with
 * a length starts at its own end. "Before" and "previous" below mean the order of processing. Row b
 * takes part in step t only where t < lengths[b]; elsewhere its h, cells and gates are exactly 0,
 * its state stands still, and nothing of x is read (it may be NaN). The final state of a row of
 * length 0 is its initial state.
 *
 * Forward, with h, c the state after the previous step (zeros where reset[t, b]), hm = h * mask (hm
 * = h without a mask):
 *
 *   every cell   a = bias + x_t W_x + hm W_h         each element ONE chain of fused multiply-adds:
 *   from the bias (0 without
 *                                                    one), then the inputs ascending, then the
 *                                                    units ascending
 *   RNN          h' = tanh(a) or relu(a)
 *   LSTM         i, f, o = sigmoid, g = tanh         gates in the order i, f, g, o
 *                c' = (f * c) + (i * g)              each product and sum is rounded by itself: no
 *                FMA outside the chains h' = o * tanh(c')
 *     peephole   a_i = a_i + p_i * c and a_f = a_f + p_f * c before their sigmoid, a_o = a_o + p_o
 *     * c'
 *   GRU          r, z = sigmoid                      gates in the order r, z, n
 *                a_n = b_n + x_t W_xn + (r * hm) W_hn, one chain
 *                n = tanh(a_n)
 *                h' = ((1 - z) * n) + (z * h)        (z * h takes h without the mask)
 *   GRU_AFTER    u = b_u + hm W_hn                   a chain of its own; b_u is the fourth vector
 *   of the bias (0 without one)
 *                n = tanh((b_n + x_t W_xn) + r * u)
 *                h' = ((1 - z) * n) + (z * h)
 *
 * Backward, one line for each forward line, every product, sum and difference rounded by itself. S
 * and U are the gradients of the state after this step (h' and c') that the step after it has left,
 * or dh_T, dc_T at a row's end; dh_t and dc_t are the gradients of the outputs over time (0 where
 * NULL). tanh_grad(d, y) = d * (1 - y * y), sigmoid_grad(d, y) = d * (y * (1 - y)):
 *
 *   every cell   d = dh_t + S
 *   RNN          da = tanh_grad(d, h') or relu_grad(d, h')
 *                S = da W_h^T                        from 0, one chain, k over the columns of W_h
 *                ascending
 *   LSTM         e = (dc_t + U) + tanh_grad(d * o, tanh(c'))
 *                da_o = sigmoid_grad(d * tanh(c'), o)               peephole: e = e + da_o * p_o
 *                da_i = sigmoid_grad(e * g, i), da_f = sigmoid_grad(e * c, f), da_g = tanh_grad(e *
 *                i, g) U = e * f                                          peephole: U = (U + da_f *
 *                p_f) + da_i * p_i S = da W_h^T                        from 0, one chain over i, f,
 *                g, o
 *   GRU          da_n = tanh_grad(d * (1 - z), n)
 *                da_z = sigmoid_grad((d * h) - (d * n), z)
 *                v = da_n W_hn^T                     from 0
 *                da_r = sigmoid_grad(v * hm, r)
 *                S = (d * z) + (v * r), then the chain goes on: + [da_r, da_z] W_h[:, :2H]^T
 *   GRU_AFTER    da_n, da_z as GRU
 *                da_u = da_n * r, da_r = sigmoid_grad(da_n * u, r)
 *                S = d * z, then the chain goes on: + [da_r, da_z, da_u] W_h^T
 *   with a mask  the chains begin at 0 (in GRU at v * r), and S = chain * mask, in both GRUs S = (d
 *   * z) + (chain * mask) reset[t, b]  S = U = 0 for the previous step (and for the initial state)
 *   with clip    S = max(min(S, clip), -clip), U likewise: what the step hands to the one before it
 *   (slide: gradient clipping) dx_t         = da W_x^T                          from 0, one chain
 *   over the columns of W_x ascending dW_x, dW_h, db, dp   continue from their present values: the
 *   last processed step first, b ascending within a step, rows past
 *                their length left out; one FMA chain for each weight; db and dp are sums over rows
 *                as add_rows makes them (kernels.h), in twice the precision and not rounded; dp
 *                that of da * c (c' for p_o), rounded first.
 *
 * So S is a value by itself, and a sequence in chunks with the state carried on (h_T to h0, dh0 to
 * dh_T; for weight gradients the later chunk first) has the bits of the whole sequence. Recomputing
 * from saved states is such a run in chunks.
 */
#ifndef MG_RECURRENT_H
#define MG_RECURRENT_H

#include "kernels.h"

/* NumPy's headers bring this one along, before or after; it makes a macro of I, which is a size
 * here. */
#include <complex.h>
#undef I

typedef enum { MG_RNN_TANH, MG_RNN_RELU, MG_LSTM, MG_GRU, MG_GRU_AFTER, mg_cell_count } mg_cell;

/* G: 1, 1, 4, 3, 3. */
size_t mg_cell_gates(mg_cell cell);
/* Vectors of H in the bias: G, but 4 for MG_GRU_AFTER: r, z, n and the one inside the reset. */
size_t mg_cell_biases(mg_cell cell);

/* What a call to forward reads and writes, and what backward reads again. */
typedef struct mg_recurrent {
    mg_cell cell;
    int reverse;
    size_t T, B, I, H;
    const void *x;             /* (T, B, I) */
    const void *wx, *wh;       /* (I, G H), (H, G H) */
    const void *bias;          /* (biases H) or NULL */
    const void *peephole;      /* (3, H): p_i, p_f, p_o, or NULL; LSTM only */
    const void *h0, *c0;       /* (B, H), or NULL for zeros; c0 for the LSTM only */
    const void *mask;          /* (B, H): recurrent dropout, the same at every step, or NULL */
    const int64_t *lengths;    /* (B), 0 <= length <= T, any order, or NULL for T everywhere */
    const uint8_t *reset;      /* (T, B), or NULL */
    void *h;                   /* (T, B, H): always written */
    size_t h_row;              /* elements from a row of h to the next: H, or more in a part of wider rows */
    void *h_T, *c_T;           /* (B, H): always written; c_T for the LSTM only */
    /* For backward, NULL otherwise (both or neither; where a cell needs none it may be NULL):
     * gates (T, B, G H): the values after their sigmoid or tanh; RNNs need none.
     * cells (T, B, H): LSTM: c'. GRU_AFTER: u. Not used by the others. */
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
    const void *dh;            /* (T, B, H) or NULL for zeros; values past a row's length are not read */
    size_t dh_row;             /* as h_row */
    const void *dc;            /* (T, B, H) or NULL for zeros; LSTM only */
    const void *dh_T, *dc_T;   /* (B, H) or NULL for zeros */
    void *dx;                  /* (T, B, I), or NULL if not wanted; overwritten */
    void *dh0, *dc0;           /* (B, H), or NULL; overwritten */
    void *dwx, *dwh, *dbias, *dpeephole;   /* as the weights, or NULL; added to */
    /* The low parts of dbias and dpeephole, see add_rows in kernels.h, where those are not NULL.
     * The caller rounds the sums. */
    double *dbias_low, *dpeephole_low;
    double clip;               /* the largest element of S and U that a step hands on; 0: as they are */
    /* Telemetry, or NULL; squares of the norms over rows and units of the total gradients d and e
     * of each step. */
    double *dh_norm2, *dc_norm2;           /* (T); dc_norm2 for the LSTM only */
    /* Or NULL: receives the first gate gradient in the order of the sweep that is not finite; step
     * is T if there is none. For GRU_AFTER gate 3 is u. */
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

/* ---- Between recurrent.c, which splits the work and owns the memory, and the kernels of
 * recurrent.inc ---- */

/* H rounded up to whole vectors of any ISA: the row length of all scratch arrays below. */
#define MG_PADDED(H) (((H) + 15) / 16 * 16)

/* The weights in the order in which the kernels read them; see recurrent.inc. */
typedef struct mg_recurrent_packed {
    void *x, *h, *bias;        /* forward: the vectors of all gates of one block of units side by side */
    void *xt, *ht;             /* backward: the transposes; xt is NULL where dx is not wanted */
    const void *zeros;         /* of the longest row */
} mg_recurrent_packed;

/* The part of one thread: some rows of the batch, on their way through the steps. Its arrays belong
 * to it alone; the arrays of pointers have room for n entries, entry i for row[i]. Rows are sorted
 * by length, longest first: those that take part in a step are the first ones. */
typedef struct mg_recurrent_rows {
    const mg_recurrent *r;
    const mg_recurrent_packed *packed;
    size_t n;
    const size_t *row;
    size_t column_parts;       /* threads among which each product is split by its columns: 1 where the rows are split */
    const void **h_before, **c_before, **in;   /* the state before the step; `in` is hm, the operand of the recurrent product */
    void **h, **c, **gates;
    void *masked;              /* (n, H): hm where there is a mask */
    void *gated;               /* (n, H): GRU: r * hm */
    /* Forward: x W_x + bias of several steps, room for as many rows of the padded gates, and
     * pointers to as many rows of x. */
    void *a;
    const void **x;
    size_t room;
    /* Backward. */
    const mg_recurrent_grads *g;
    void *S, *U, *V;           /* (n, padded H): S and U of recurrent.h; V: a chain apart from S */
    void **da;                 /* this step's rows of mg_recurrent_block.da */
} mg_recurrent_rows;

/* Some steps of the backward pass, with the rows of all threads in the order of the weights'
 * chains: entry p is row b[p] of step t[p]. D is the row length of da: G H, for GRU_AFTER 4 H (r,
 * z, n, u). */
typedef struct mg_recurrent_block {
    size_t first, end;         /* the steps: the first one is the last in the order of processing */
    size_t entries;
    const size_t *t, *b;
    const size_t *entry;       /* (end - first, B): p for a row and a step */
    size_t D;
    void *da;                  /* (entries, D) */
    void *x;                   /* (entries, I) or NULL if dwx is not wanted */
    void *hm, *gated;          /* (entries, H): operands of the recurrent products; NULL if dwh is not wanted; gated: GRU */
    void *dp;                  /* (entries, 3 H): da * c for each peephole, or NULL */
    double *dh_norm2, *dc_norm2;   /* (entries) or NULL */
} mg_recurrent_block;

#endif
