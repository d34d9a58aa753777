/* See pool.h. One job at a time: the caller publishes it, sleeping workers are woken, indices are
 * handed out by an atomic counter. */
#define _GNU_SOURCE
#include "runtime/pool.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MAX_THREADS = 1024 };
/* Polls, with a yield each, before a thread sleeps: some 100 microseconds, what a wake-up costs. */
enum { SPINS = 2000 };

/* Guards what follows, and the sleeping. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
/* Held by the caller whose job it is. */
static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER;
static int threads_wanted;      /* 0: not asked for yet, then the number of CPUs we may use */
static int workers;             /* threads started */
static atomic_ulong generation; /* counts jobs: a worker waits for it to move */
static int openings;            /* workers that may still join the present job */
static atomic_int inside;       /* workers in it */
static _Thread_local int nested;

static struct {
    void (*task)(void *arg, size_t index);
    void *arg;
    size_t n;
    atomic_size_t next;
} job;

/* Linux may wake a worker on the caller's own CPU and leave it there for seconds, although another
 * one is idle: a thread that polls and yields looks as if it did not mind. So each thread of a job
 * claims a CPU, and who finds its own taken moves to a free one of those it may use, if there is
 * any. */
#ifdef __linux__
static cpu_set_t claimed; /* guarded by the lock */

/* Called with the lock held. Returns the CPU to move to, or -1 to stay. */
static int claim_cpu(void) {
    int cpu = sched_getcpu();
    if (cpu < 0 || cpu >= CPU_SETSIZE) return -1;
    cpu_set_t own;
    if (CPU_ISSET(cpu, &claimed) && !sched_getaffinity(0, sizeof own, &own))
        for (int other = 0; other < CPU_SETSIZE; other++)
            if (CPU_ISSET(other, &own) && !CPU_ISSET(other, &claimed)) {
                CPU_SET(other, &claimed);
                return other;
            }
    CPU_SET(cpu, &claimed);
    return -1;
}

static void first_claim(void) {
    CPU_ZERO(&claimed);
    claim_cpu();
}

static void move_to(int cpu) {
    cpu_set_t own, one;
    if (cpu < 0 || sched_getaffinity(0, sizeof own, &own)) return;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    /* There, and free to go again. */
    if (!sched_setaffinity(0, sizeof one, &one)) sched_setaffinity(0, sizeof own, &own);
}
#else
static int claim_cpu(void) { return -1; }
static void first_claim(void) {}
static void move_to(int cpu) { (void)cpu; }
#endif

static void take_part(void) {
    size_t i;
    while ((i = atomic_fetch_add_explicit(&job.next, 1, memory_order_relaxed)) < job.n)
        job.task(job.arg, i);
}

static void *work(void *seen_) {
    unsigned long seen = (unsigned long)(size_t)seen_;
    nested = 1;
    for (;;) {
        for (int i = 0; i < SPINS; i++) {
            if (atomic_load_explicit(&generation, memory_order_relaxed) != seen) break;
            sched_yield();
        }
        pthread_mutex_lock(&lock);
        while (atomic_load(&generation) == seen) pthread_cond_wait(&wake, &lock);
        seen = atomic_load(&generation);
        int joined = openings > 0, cpu = -1;
        if (joined) {
            openings--;
            inside++;
            cpu = claim_cpu();
        }
        pthread_mutex_unlock(&lock);
        if (!joined) continue;
        move_to(cpu);
        take_part();
        pthread_mutex_lock(&lock);
        if (--inside == 0) pthread_cond_signal(&done);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* In a forked child the workers are gone: start again when they are needed. */
static void before_fork(void) {
    pthread_mutex_lock(&owner);
    pthread_mutex_lock(&lock);
}

static void after_fork_parent(void) {
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&owner);
}

static void after_fork_child(void) {
    pthread_mutex_init(&lock, NULL);
    pthread_mutex_init(&owner, NULL);
    pthread_cond_init(&wake, NULL);
    pthread_cond_init(&done, NULL);
    workers = 0;
    openings = 0;
    inside = 0;
}

/* Start workers until there are `count`; fewer if the system refuses. Called with the lock held. */
static void start(int count) {
    static int registered;
    if (!registered) registered = !pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for Python's threads */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    while (workers < count && registered &&
           !pthread_create(&thread, &attributes, work, (void *)(size_t)atomic_load(&generation)))
        workers++;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void mg_parallel(size_t n, void (*task)(void *arg, size_t index), void *arg) {
    int helpers = n < 2 || nested ? 0 : mg_get_num_threads() - 1;
    if ((size_t)helpers >= n) helpers = (int)n - 1;
    if (helpers < 1 || pthread_mutex_trylock(&owner)) {
        for (size_t i = 0; i < n; i++) task(arg, i);
        return;
    }
    pthread_mutex_lock(&lock);
    if (workers < helpers) start(helpers);
    job.task = task;
    job.arg = arg;
    job.n = n;
    atomic_store(&job.next, 0);
    openings = helpers;
    first_claim();
    atomic_fetch_add(&generation, 1);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    nested = 1;
    take_part();
    nested = 0;
    pthread_mutex_lock(&lock);
    openings = 0; /* who has not come by now is too late */
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < SPINS && atomic_load(&inside); i++) sched_yield();
    pthread_mutex_lock(&lock);
    while (inside) pthread_cond_wait(&done, &lock);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&owner);
}

int mg_cpu_count(void) {
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

int mg_get_num_threads(void) {
    int wanted = __atomic_load_n(&threads_wanted, __ATOMIC_RELAXED);
    if (!wanted) mg_set_num_threads(wanted = mg_cpu_count());
    return wanted;
}

void mg_set_num_threads(int n) { __atomic_store_n(&threads_wanted, n, __ATOMIC_RELAXED); }
