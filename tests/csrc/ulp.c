/* Measures the elementwise functions. For ALL float32 values: the error in ulp; exp, expm1, tanh
 * and sigmoid monotone; bounds; tanh odd, itself where subnormal, and 1 from where it should be;
 * sigmoid(-x) = 1 - sigmoid(x); every vector instruction set of this CPU to the bit (the scalar one
 * for every 61st block of values). For many float64 values: the error; neighbours in order; all
 * instruction sets to the bit.
 *
 *     make ulp                        every function, on two threads; under a minute each
 *     build/ulp tanh exp              only these
 *     build/ulp --points 10000000     so many values of float64 (1000000)
 *
 * Exit status 1 if a bound is missed. The reference is the C library in the next larger type
 * (double; __float128 by libquadmath where there is one). ulp is |y - f(x)| over the spacing of
 * floats at f(x), at least the smallest subnormal.
 */
#include "kernels.h"
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

enum { THREADS = 2, BLOCK = 1 << 14, SCALAR_EVERY = 61 };

typedef struct {
    const char *name;
    int id;
    double (*f)(double);     /* in double, for float32 */
    wide (*g)(wide);         /* for float64 */
    double bound32, bound64; /* ulp */
    double low, high;        /* between which float64 is sampled */
    int monotone, odd;
    double least, most;  /* no value is beyond */
    double one32, one64; /* the first x with f(x) = 1, or 0 */
} function;

/* For float32, e^200 is infinite and e^-200 is 0; the C library would take its time. */
static double exp_d(double x) {
    if (x < -200) return 0;
    return x > 200 ? INFINITY : exp(x);
}
static double sigmoid_d(double x) {
    double z = exp_d(-fabs(x));
    return (x < 0 ? z : 1) / (1 + z);
}
static double softplus_d(double x) { return (x > 0 ? x : 0) + log1p(exp_d(-fabs(x))); }
static double tanh_d(double x) {
    if (fabs(x) < 0x1p-13) return x - x * x * x / 3;
    return fabs(x) > 20 ? copysign(1, x) : tanh(x);
}
static double expm1_d(double x) {
    if (x < -200) return -1;
    return x > 200 ? INFINITY : expm1(x);
}
static double normal_cdf_d(double x) {
    const double root_half = 0x1.6a09e667f3bcdp-1;
    if (fabs(x) > 40) return x > 0;
    return erfc(-x * root_half) / 2;
}
static wide exp_w(wide x) { return WIDE(exp)(x); }
static wide expm1_w(wide x) { return WIDE(expm1)(x); }
static wide log1p_w(wide x) { return WIDE(log1p)(x); }
static wide normal_cdf_w(wide x) { return WIDE(erfc)(-x / WIDE(sqrt)(2)) / 2; }
static wide log_w(wide x) { return WIDE(log)(x); }
static wide tanh_w(wide x) { return WIDE(tanh)(x); }
static wide sin_w(wide x) { return WIDE(sin)(x); }
static wide cos_w(wide x) { return WIDE(cos)(x); }
static wide sigmoid_w(wide x) {
    wide z = WIDE(exp)(-WIDE(fabs)(x));
    return (x < 0 ? z : 1) / (1 + z);
}
static wide softplus_w(wide x) { return (x > 0 ? x : 0) + WIDE(log1p)(WIDE(exp)(-WIDE(fabs)(x))); }

/* One line each. */
/* clang-format off */
static const function FUNCTIONS[] = {
    {"tanh", mg_map_tanh, tanh_d, tanh_w, 1.37, 2, -25, 25, 1, 1, -1, 1, 9.0109134, 19.061547},
    {"exp", mg_map_exp, exp_d, exp_w, 1, 1, -745, 709.7, 1, 0, 0, INFINITY, 0, 0},
    {"expm1", mg_map_expm1, expm1_d, expm1_w, 1, 1.1, -60, 709.7, 1, 0, -1, INFINITY, 0, 0},
    {"sigmoid", mg_map_sigmoid, sigmoid_d, sigmoid_w, 2, 2, -745, 40, 1, 0, 0, 1, 0, 0},
    {"log", mg_map_log, log, log_w, 1, 1, 0, 1e300, 0, 0, -INFINITY, INFINITY, 0, 0},
    {"log1p", mg_map_log1p, log1p, log1p_w, 1, 1, -1, 1e300, 0, 0, -INFINITY, INFINITY, 0, 0},
    {"softplus", mg_map_softplus, softplus_d, softplus_w, 2, 2, -745, 100, 0, 0, 0, INFINITY, 0, 0},
    {"sin", mg_map_sin, sin, sin_w, 2, 2, -1e300, 1e300, 0, 1, -1, 1, 0, 0},
    {"cos", mg_map_cos, cos, cos_w, 2, 2, -1e300, 1e300, 0, 0, -1, 1, 0, 0},
    {"normal_cdf", mg_map_normal_cdf, normal_cdf_d, normal_cdf_w, 2, 2, -40, 10, 0, 0, 0, 1, 0, 0},
};
/* clang-format on */

/* float32 values in ascending order: number 0 is -inf, MIDDLE is -0, MIDDLE + 1 is +0, LAST is
 * +inf. */
#define MIDDLE 0x7f800000u
#define LAST (2u * MIDDLE + 1)
static float value(uint32_t number) {
    uint32_t bits = number <= MIDDLE ? 0x80000000u + (MIDDLE - number) : number - MIDDLE - 1;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* 1 over the spacing of float32 at y. */
static double per_ulp32(double y) {
    uint64_t bits;
    memcpy(&bits, &y, 8);
    int e = (int)(bits >> 52 & 0x7ff) - 1023;
    e = e < -126 ? -126 : e > 127 ? 127 : e;
    bits = (uint64_t)(23 - e + 1023) << 52;
    memcpy(&y, &bits, 8);
    return y;
}

static double error32(float y, double exact) {
    if (isnan(exact)) return isnan(y) ? 0 : INFINITY;
    if (fabs(exact) >= 0x1.fffffep127)
        return fabsf(y) >= 0x1.fffffep127f && (y > 0) == (exact > 0) ? 0 : INFINITY;
    return fabs((double)y - exact) * per_ulp32(exact);
}

enum { NOT_MONOTONE, NOT_ODD, OUT_OF_BOUNDS, TINY_CHANGED, NOT_MIRRORED, ISAS_DIFFER, FAULTS };
static const char *const FAULT_NAMES[FAULTS] = {
    "NOT MONOTONE",
    "NOT ODD",
    "OUT OF BOUNDS",
    "SUBNORMALS CHANGED",
    "sigmoid(-x) IS NOT 1 - sigmoid(x)",
    "INSTRUCTION SETS DISAGREE",
};

typedef struct {
    const function *f;
    const mg_kernels *kernels;
    uint32_t first, last;
    double worst;
    float worst_x, fault_x[FAULTS];
    uint64_t faults[FAULTS], hash;
} walk;

static void fault(walk *w, int kind, float x) {
    w->faults[kind]++;
    w->fault_x[kind] = x;
}

/* Every other instruction set gives the bits y for x; NaNs are alike. */
static void compare_isas(walk *w, uint32_t n, const float *x, const float *y, int scalar_too) {
    static _Thread_local float other[BLOCK + 1];
    for (const char *const *isa = mg_isas_built(); *isa; isa++) {
        if (!mg_isa_usable(*isa) || mg_table(*isa, 4) == w->kernels) continue;
        if (!strcmp(*isa, "scalar") && !scalar_too) continue;
        mg_table(*isa, 4)->map[w->f->id](n, x, 1, other);
        for (uint32_t i = 0; i < n; i++)
            if (bits_of(y[i]) != bits_of(other[i]) && !(isnan(y[i]) && isnan(other[i])))
                fault(w, ISAS_DIFFER, x[i]);
    }
}

static void *walk_values(void *arg) {
    walk *w = arg;
    static _Thread_local float x[BLOCK + 1], y[BLOCK + 1], minus[BLOCK + 1], mirrored[BLOCK + 1];
    const function *f = w->f;
    const int is_tanh = f->id == mg_map_tanh, is_sigmoid = f->id == mg_map_sigmoid;
    int block = 0;
    for (uint64_t at = w->first; at <= w->last; at += BLOCK) {
        uint32_t n = (uint32_t)(w->last - at + 1 < BLOCK ? w->last - at + 1 : BLOCK);
        /* The value before the block, to see a fall across the seam. */
        uint32_t extra = at > 0;
        n += extra;
        for (uint32_t i = 0; i < n; i++) x[i] = value((uint32_t)at - extra + i);
        w->kernels->map[f->id](n, x, 1, y);
        compare_isas(w, n, x, y, block++ % SCALAR_EVERY == 0);
        if (f->odd || is_sigmoid) {
            for (uint32_t i = 0; i < n; i++) minus[i] = -x[i];
            w->kernels->map[f->id](n, minus, 1, mirrored);
        }
        for (uint32_t i = 0; i < n; i++) {
            w->hash = (w->hash ^ bits_of(y[i])) * 0x100000001b3u;
            if (f->monotone && i > 0 && !(y[i] >= y[i - 1])) fault(w, NOT_MONOTONE, x[i]);
            if (f->odd && y[i] == y[i] && bits_of(y[i]) != bits_of(-mirrored[i]))
                fault(w, NOT_ODD, x[i]);
            if (y[i] < f->least || y[i] > f->most) fault(w, OUT_OF_BOUNDS, x[i]);
            if (is_tanh && fabsf(x[i]) < 0x1p-126f && bits_of(y[i]) != bits_of(x[i]))
                fault(w, TINY_CHANGED, x[i]);
            if (is_sigmoid && fabsf(mirrored[i] - (1 - y[i])) > 0x1p-23f)
                fault(w, NOT_MIRRORED, x[i]);
            double error = error32(y[i], f->f((double)x[i]));
            if (!(error <= w->worst)) {
                w->worst = error;
                w->worst_x = x[i];
            }
        }
    }
    return NULL;
}

static const mg_kernels *best(size_t itemsize) {
    for (const char *const *isa = mg_isas_built(); *isa; isa++)
        if (mg_isa_usable(*isa) && mg_table(*isa, itemsize)) return mg_table(*isa, itemsize);
    abort();
}

static int check32(const function *f) {
    walk parts[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        parts[i] = (walk){
            .f = f,
            .kernels = best(4),
            .first = (uint32_t)((uint64_t)LAST * i / THREADS + (i > 0)),
            .last = (uint32_t)((uint64_t)LAST * (i + 1) / THREADS),
        };
        pthread_create(&threads[i], NULL, walk_values, &parts[i]);
    }
    walk all = {0};
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (!(parts[i].worst <= all.worst)) {
            all.worst = parts[i].worst;
            all.worst_x = parts[i].worst_x;
        }
        for (int k = 0; k < FAULTS; k++) {
            if (parts[i].faults[k]) all.fault_x[k] = parts[i].fault_x[k];
            all.faults[k] += parts[i].faults[k];
        }
        all.hash = all.hash * 0x100000001b3u ^ parts[i].hash;
    }
    int ok = all.worst <= f->bound32;
    printf("%-10s float32  all values      max error %.3f ulp at %a (bound %.2f)", f->name,
           all.worst, (double)all.worst_x, f->bound32);
    if (f->monotone && !all.faults[NOT_MONOTONE]) printf("  monotone");
    if (f->odd && !all.faults[NOT_ODD]) printf("  odd");
    printf("  hash %016llx\n", (unsigned long long)all.hash);
    for (int k = 0; k < FAULTS; k++)
        if (all.faults[k]) {
            ok = 0;
            printf("%-10s float32  %s: %llu times, e.g. at %a\n", f->name, FAULT_NAMES[k],
                   (unsigned long long)all.faults[k], (double)all.fault_x[k]);
        }
    return ok;
}

/* Points of float64 between low and high: half of them evenly spaced, a quarter with evenly spread
 * exponents up to 2^34, a quarter with exponents from 2^-4 on. */
static double point(const function *f, int i) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    double u = (double)(state >> 11) * 0x1p-53;
    if (i % 2) return f->low + (f->high - f->low) * u;
    double top = fmax(fabs(f->low), f->high);
    double x = ldexp(1 + u, i % 4 ? (int)(state % 1075) - 1040 : (int)(state % 39) - 4);
    if (x > top) x = top * u;
    return f->low < 0 && state & 1024 && x <= -f->low ? -x : x <= f->high ? x : -x;
}

static int check64(const function *f, int points) {
    static double x[BLOCK], y[BLOCK], z[BLOCK];
    double worst = 0, worst_x = 0;
    int same = 1, monotone = 1, odd = 1, bounded = 1;
    for (int at = 0; at < points; at += BLOCK) {
        for (int i = 0; i < BLOCK; i++) x[i] = point(f, at + i);
        best(8)->map[f->id](BLOCK, x, 1, y);
        for (const char *const *isa = mg_isas_built(); *isa; isa++) {
            if (!mg_isa_usable(*isa) || mg_table(*isa, 8) == best(8)) continue;
            mg_table(*isa, 8)->map[f->id](BLOCK, x, 1, z);
            same &= !memcmp(y, z, sizeof z);
        }
        for (int i = 0; i < BLOCK; i++) {
            wide exact = f->g((wide)x[i]), off = (wide)y[i] - exact;
            int e;
            frexp((double)exact, &e);
            wide ulp = (wide)ldexp(1, (e < -1021 ? -1021 : e) - 53);
            double error = (double)((off < 0 ? -off : off) / ulp);
            if (!(error <= worst)) {
                worst = error;
                worst_x = x[i];
            }
            bounded &= y[i] >= f->least && y[i] <= f->most;
        }
        if (f->odd) {
            for (int i = 0; i < BLOCK; i++) z[i] = -x[i];
            best(8)->map[f->id](BLOCK, z, 1, z);
            for (int i = 0; i < BLOCK; i++)
                odd &= z[i] == -y[i] && !signbit(z[i]) == !!signbit(y[i]);
        }
        if (f->monotone) {
            for (int i = 0; i < BLOCK; i++) z[i] = nextafter(x[i], INFINITY);
            best(8)->map[f->id](BLOCK, z, 1, z);
            for (int i = 0; i < BLOCK; i++) monotone &= z[i] >= y[i];
        }
    }
    printf("%-10s float64  %d points  max error %.3f ulp at %a (bound %.2f)", f->name, points,
           worst, worst_x, f->bound64);
    printf("  instruction sets %s", same ? "agree" : "DISAGREE");
    if (f->monotone) printf("  %s", monotone ? "monotone" : "NOT MONOTONE");
    if (f->odd) printf("  %s", odd ? "odd" : "NOT ODD");
    printf("%s\n", bounded ? "" : "  OUT OF BOUNDS");
    return worst <= f->bound64 && same && monotone && odd && bounded;
}

/* The first x > 0 with f(x) = 1, by halving the range of a monotone f; `expected` is known to 8
 * digits. */
static int check_saturation(const function *f, size_t itemsize, double expected) {
    double low = 0, high = 100;
    for (int i = 0; i < 200; i++) {
        double middle = low + (high - low) / 2, y64;
        float x32 = (float)middle, y32;
        if (itemsize == 4) best(4)->map[f->id](1, &x32, 1, &y32);
        else best(8)->map[f->id](1, &middle, 1, &y64);
        if ((itemsize == 4 ? (double)y32 : y64) < 1) low = middle;
        else high = middle;
    }
    if (itemsize == 4) high = (float)high;
    int ok = fabs(high - expected) < 1e-6;
    printf("%-10s float%d  is 1 from %.9g on (%.8g)%s\n", f->name, (int)itemsize * 8, high,
           expected, ok ? "" : "  WRONG");
    return ok;
}

int main(int argc, char **argv) {
    int ok = 1, points = 1000000, first = 1;
    if (argc > 2 && !strcmp(argv[1], "--points")) {
        points = atoi(argv[2]);
        first = 3;
    }
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        const function *f = &FUNCTIONS[i];
        int wanted = argc == first;
        for (int a = first; a < argc; a++) wanted |= !strcmp(argv[a], f->name);
        if (!wanted) continue;
        time_t start = time(NULL);
        if (f->one32 > 0) ok &= check_saturation(f, 4, f->one32) & check_saturation(f, 8, f->one64);
        ok &= check64(f, points);
        ok &= check32(f);
        printf("%-10s %.0f s\n", f->name, difftime(time(NULL), start));
        fflush(stdout);
    }
    printf(ok ? "all bounds met\n" : "A BOUND IS MISSED\n");
    return !ok;
}
