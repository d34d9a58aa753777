/* See optim.h. A piece is the same elements whatever the number of threads, so no result depends on
 * that. */
#include "optim.h"
#include "runtime/pool.h"

static size_t pieces(size_t n) { return (n + MG_PIECE - 1) / MG_PIECE; }

static size_t piece_size(size_t n, size_t piece) {
    size_t rest = n - piece * MG_PIECE;
    return rest < MG_PIECE ? rest : MG_PIECE;
}

typedef struct {
    const mg_update *updates;
    size_t count;
} step_job;

static void step_piece(void *arg, size_t piece) {
    const step_job *job = arg;
    /* The last update that starts at this piece or before, by bisection. */
    size_t low = 0, high = job->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (job->updates[middle].pieces_before <= piece) low = middle;
        else high = middle;
    }
    const mg_update *u = &job->updates[low];
    piece -= u->pieces_before;
    u->step(u, piece * MG_PIECE, piece_size(u->n, piece));
}

void mg_step_all(size_t count, mg_update *updates) {
    size_t total = 0, elements = 0;
    for (size_t i = 0; i < count; i++) {
        updates[i].pieces_before = total;
        total += pieces(updates[i].n);
        elements += updates[i].n;
    }
    step_job job = {updates, count};
    if (elements > MG_PIECE) {
        mg_parallel(total, step_piece, &job);
        return;
    }
    for (size_t i = 0; i < count; i++) updates[i].step(&updates[i], 0, updates[i].n);
}

typedef struct {
    const mg_kernels *kernels;
    size_t n;
    double scale;
    const char *x;
    double *parts;
} sum_job;

static void square_piece(void *arg, size_t piece) {
    const sum_job *job = arg;
    const char *x = job->x + piece * MG_PIECE * job->kernels->itemsize;
    job->parts[piece] = job->kernels->sum_squares(piece_size(job->n, piece), job->scale, x);
}

void mg_sum_squares(const mg_kernels *kernels, size_t n, double scale, const void *x,
                    double *parts) {
    sum_job job = {kernels, n, scale, x, parts};
    mg_parallel(pieces(n), square_piece, &job);
}

typedef struct {
    void (*change)(size_t n, double number, void *x);
    size_t n, itemsize;
    double number;
    char *x;
} change_job;

static void change_piece(void *arg, size_t piece) {
    const change_job *job = arg;
    job->change(piece_size(job->n, piece), job->number, job->x + piece * MG_PIECE * job->itemsize);
}

void mg_scale(const mg_kernels *kernels, size_t n, double scale, void *x) {
    change_job job = {kernels->scale, n, kernels->itemsize, scale, x};
    mg_parallel(pieces(n), change_piece, &job);
}

void mg_clamp(const mg_kernels *kernels, size_t n, double bound, void *x) {
    change_job job = {kernels->clamp, n, kernels->itemsize, bound, x};
    mg_parallel(pieces(n), change_piece, &job);
}
