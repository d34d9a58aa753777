/* Measures the elementwise functions: the error in ulp over ALL float32 values and over many float64 values, and, for float32, that they are monotone, odd
 * and saturate where they should; that all instruction sets of this CPU give the same bits.
 *
 *     make ulp                 every function, on two threads; under a minute each
 *     build/ulp tanh exp       only these
 *
 * Exit status 1 if a bar is missed. The reference is the C library in the next larger type (double; __float128 by libquadmath where there is one).
 * ulp is |y - f(x)| over the spacing of floats at f(x), at least the smallest subnormal.
 */
#include "../csrc/kernels.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef MG_QUADMATH
#include <quadmath.h>
typedef __float128 wide;
#define WIDE(f) f##q
#else
typedef long double wide;
#define WIDE(f) f##l
#endif

enum { THREADS = 2, BLOCK = 1 << 16, F64_POINTS = 1000000 };

typedef struct {
    const char *name;
    int id;
    double (*f)(double);        /* in double, for float32 */
    wide (*g)(wide);            /* for float64 */
    double bar32, bar64, low, high;     /* ulp; float64 is sampled between low and high */
    int monotone, odd;
} function;

static double sigmoid_d(double x) { double z = exp(-fabs(x)); return (x < 0 ? z : 1) / (1 + z); }
static double softplus_d(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }
static double tanh_d(double x) { return fabs(x) < 0x1p-13 ? x - x * x * x / 3 : fabs(x) > 20 ? copysign(1, x) : tanh(x); }
static wide exp_w(wide x) { return WIDE(exp)(x); }
static wide log_w(wide x) { return WIDE(log)(x); }
static wide tanh_w(wide x) { return WIDE(tanh)(x); }
static wide sin_w(wide x) { return WIDE(sin)(x); }
static wide cos_w(wide x) { return WIDE(cos)(x); }
static wide sigmoid_w(wide x) { wide z = WIDE(exp)(-WIDE(fabs)(x)); return (x < 0 ? z : 1) / (1 + z); }
static wide softplus_w(wide x) { return (x > 0 ? x : 0) + WIDE(log1p)(WIDE(exp)(-WIDE(fabs)(x))); }

static const function FUNCTIONS[] = {
    {"tanh", mg_map_tanh, tanh_d, tanh_w, 1.37, 2, -25, 25, 1, 1},
    {"exp", mg_map_exp, exp, exp_w, 1, 1, -745, 709.7, 1, 0},
    {"sigmoid", mg_map_sigmoid, sigmoid_d, sigmoid_w, 2, 2, -745, 40, 1, 0},
    {"log", mg_map_log, log, log_w, 1.5, 1, 0, 1e300, 0, 0},
    {"softplus", mg_map_softplus, softplus_d, softplus_w, 2, 2, -745, 100, 0, 0},
    {"sin", mg_map_sin, sin, sin_w, 2, 2, -1e6, 1e6, 0, 1},
    {"cos", mg_map_cos, cos, cos_w, 2, 2, -1e6, 1e6, 0, 0},
};

/* float32 values in ascending order: number 0 is -inf, MIDDLE is -0, MIDDLE + 1 is +0, LAST is +inf. */
#define MIDDLE 0x7f800000u
#define LAST (2u * MIDDLE + 1)
static float value(uint32_t number) {
    uint32_t bits = number <= MIDDLE ? 0x80000000u + (MIDDLE - number) : number - MIDDLE - 1;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static double spacing32(double y) {
    int e;
    frexp(y, &e);
    return ldexp(1, (e < -125 ? -125 : e > 128 ? 128 : e) - 24);
}

typedef struct {
    const function *f;
    const mg_kernels *K;
    uint32_t first, last;
    double worst;
    float worst_x, not_monotone, not_odd;
    int falls, odd_failures;
    uint64_t hash;
} walk;

static void *walk_values(void *arg) {
    walk *w = arg;
    static _Thread_local float x[BLOCK + 1], y[BLOCK + 1], minus[BLOCK + 1], mirrored[BLOCK + 1];
    for (uint64_t at = w->first; at <= w->last; at += BLOCK) {
        uint32_t n = (uint32_t)(w->last - at + 1 < BLOCK ? w->last - at + 1 : BLOCK);
        uint32_t extra = at > 0;        /* the value before the block, to see a fall across the seam */
        for (uint32_t i = 0; i < n + extra; i++) x[i] = value((uint32_t)at - extra + i);
        w->K->map[w->f->id](n + extra, x, 1, y);
        for (uint32_t i = 0; w->f->odd && i < n + extra; i++) minus[i] = -x[i];
        if (w->f->odd) w->K->map[w->f->id](n + extra, minus, 1, mirrored);
        for (uint32_t i = 0; i < n + extra; i++) {
            uint32_t bits;
            memcpy(&bits, &y[i], 4);
            w->hash = (w->hash ^ bits) * 0x100000001b3u;
            if (w->f->monotone && i > 0 && !(y[i] >= y[i - 1])) {
                w->falls++;
                w->not_monotone = x[i];
            }
            if (w->f->odd && y[i] == y[i] && memcmp(&y[i], &(float){-mirrored[i]}, 4)) {
                w->odd_failures++;
                w->not_odd = x[i];
            }
            double exact = w->f->f((double)x[i]);
            double error;
            if (isnan(exact)) error = isnan(y[i]) ? 0 : INFINITY;
            else if (fabs(exact) >= 0x1.ffffffp127) error = (double)y[i] == exact || (isinf(y[i]) && y[i] > 0) || fabs(y[i]) >= 0x1.fffffep127f ? 0 : INFINITY;
            else error = fabs((double)y[i] - exact) / spacing32(exact);
            if (!(error <= w->worst)) {
                w->worst = error;
                w->worst_x = x[i];
            }
        }
    }
    return NULL;
}

static int check32(const function *f) {
    walk parts[THREADS];
    pthread_t threads[THREADS];
    const mg_kernels *best = NULL;
    for (const char *const *isa = mg_isas_built(); *isa && !best; isa++)
        if (mg_isa_usable(*isa)) best = mg_table(*isa, 4);
    for (int i = 0; i < THREADS; i++) {
        parts[i] = (walk){.f = f, .K = best, .first = (uint32_t)((uint64_t)LAST * i / THREADS + (i > 0)),
                          .last = (uint32_t)((uint64_t)LAST * (i + 1) / THREADS)};
        pthread_create(&threads[i], NULL, walk_values, &parts[i]);
    }
    walk all = {0};
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (!(parts[i].worst <= all.worst)) {
            all.worst = parts[i].worst;
            all.worst_x = parts[i].worst_x;
        }
        if (parts[i].falls) all.not_monotone = parts[i].not_monotone;
        if (parts[i].odd_failures) all.not_odd = parts[i].not_odd;
        all.falls += parts[i].falls;
        all.odd_failures += parts[i].odd_failures;
        all.hash ^= parts[i].hash << i;
    }
    int ok = all.worst <= f->bar32 && !all.falls && !all.odd_failures;
    printf("%-9s float32  all values      max error %.3f ulp at %a (bar %.2f)", f->name, all.worst, (double)all.worst_x, f->bar32);
    if (f->monotone) all.falls ? printf("  NOT monotone: %d falls, e.g. at %a", all.falls, (double)all.not_monotone) : printf("  monotone");
    if (f->odd) all.odd_failures ? printf("  NOT odd, e.g. at %a", (double)all.not_odd) : printf("  odd");
    printf("  hash %016llx\n", (unsigned long long)all.hash);
    return ok;
}

/* Points of float64 with exponents spread evenly, and evenly spaced ones, between low and high. */
static double point(const function *f, int i) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    double u = (double)(state >> 11) * 0x1p-53;
    if (i % 2) return f->low + (f->high - f->low) * u;
    double top = fmax(fabs(f->low), f->high), x = ldexp(1 + u, (int)(state % 1075) - 1040);
    if (x > top) x = top * u;
    return f->low < 0 && state & 1024 && x <= -f->low ? -x : x <= f->high ? x : -x;
}

static int check64(const function *f) {
    static double x[BLOCK], y[BLOCK], z[BLOCK];
    double worst = 0, worst_x = 0;
    int same = 1;
    for (int at = 0; at < F64_POINTS; at += BLOCK) {
        for (int i = 0; i < BLOCK; i++) x[i] = point(f, at + i);
        const double *first = NULL;
        for (const char *const *isa = mg_isas_built(); *isa; isa++) {
            if (!mg_isa_usable(*isa)) continue;
            double *to = first ? z : y;
            mg_table(*isa, 8)->map[f->id](BLOCK, x, 1, to);
            if (first) same &= !memcmp(first, z, sizeof z);
            first = y;
        }
        for (int i = 0; i < BLOCK; i++) {
            wide exact = f->g((wide)x[i]);
            int e;
            frexp((double)exact, &e);
            double error = (double)(((wide)y[i] - exact < 0 ? exact - (wide)y[i] : (wide)y[i] - exact) / (wide)ldexp(1, (e < -1021 ? -1021 : e) - 53));
            if (!(error <= worst)) {
                worst = error;
                worst_x = x[i];
            }
        }
    }
    printf("%-9s float64  %d points  max error %.3f ulp at %a (bar %.2f)  instruction sets %s\n", f->name, F64_POINTS, worst, worst_x, f->bar64,
           same ? "agree" : "DISAGREE");
    return worst <= f->bar64 && same;
}

/* Every 997th float32 on every instruction set. */
static int same_bits32(const function *f) {
    static float x[BLOCK], y[BLOCK], z[BLOCK];
    int same = 1;
    for (uint64_t at = 0; at <= LAST; at += 997u * BLOCK) {
        int n = 0;
        for (; n < BLOCK && at + 997u * (uint64_t)n <= LAST; n++) x[n] = value((uint32_t)(at + 997u * (uint64_t)n));
        int first = 1;
        for (const char *const *isa = mg_isas_built(); *isa; isa++) {
            if (!mg_isa_usable(*isa)) continue;
            mg_table(*isa, 4)->map[f->id]((size_t)n, x, 1, first ? y : z);
            for (int i = 0; i < n && !first; i++) same &= !memcmp(&y[i], &z[i], 4) || (isnan(y[i]) && isnan(z[i]));
            first = 0;
        }
    }
    if (!same) printf("%-9s float32  instruction sets DISAGREE\n", f->name);
    return same;
}

int main(int argc, char **argv) {
    int ok = 1;
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        int wanted = argc == 1;
        for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], FUNCTIONS[i].name);
        if (!wanted) continue;
        time_t start = time(NULL);
        ok &= same_bits32(&FUNCTIONS[i]);
        ok &= check64(&FUNCTIONS[i]);
        ok &= check32(&FUNCTIONS[i]);
        printf("%-9s %.0f s\n", FUNCTIONS[i].name, difftime(time(NULL), start));
        fflush(stdout);
    }
    printf(ok ? "all bars met\n" : "A BAR IS MISSED\n");
    return !ok;
}
