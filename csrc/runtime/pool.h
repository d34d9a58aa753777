/* A pool of POSIX threads of our own (docs/design.md): started at the first need, safe across fork,
 * quiet at exit. */
#ifndef MG_POOL_H
#define MG_POOL_H
#include <stddef.h>

/* Calls task(arg, index) once for each index < n, on up to mg_get_num_threads() threads, the
 * caller's among them, and returns when all are done. Which thread runs which index is not fixed:
 * results must not depend on it. A call from inside a task, or while another Python thread uses the
 * pool, runs on the caller's thread alone. If threads cannot be started the caller does all the
 * work. */
void mg_parallel(size_t n, void (*task)(void *arg, size_t index), void *arg);

/* The number of threads that mg_parallel may use; n is at least 1. The default is the number of
 * CPUs in this process's affinity mask. */
int mg_get_num_threads(void);
void mg_set_num_threads(int n);
int mg_cpu_count(void);

#endif
