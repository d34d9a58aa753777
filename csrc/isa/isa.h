/* The vector vocabulary of one ISA and one float type, the only place where instruction sets
 * differ.
 *
 * A file such as f32_avx512.c defines MG_REAL (32 or 64) and one of MG_ISA_SCALAR, MG_ISA_AVX2,
 * MG_ISA_AVX512, MG_ISA_NEON, and includes "kernels.inc", which includes this header first. From
 * here on the code speaks only of
 *
 *   real                 float or double
 *   W                    lanes in a vector (1 for scalar)
 *   vreal, vint          vectors of W reals, and of W integers of the same width
 *   vload(p), vstore(p, v)   unaligned load and store
 *   vset(x)              x in every lane
 *   vfma(a, b, c)        a*b + c with ONE rounding, on every ISA
 *   vmask, vless(a, b), vequal(a, b), vselect(m, a, b)   comparisons and choice, lane by lane
 *   vdouble              a vector of DOUBLES doubles; vload_double(p) and vstore_double(p, v)
 *                        convert from and to reals
 *
 * and the operators + - * / & | ^ ~ << >> of GCC and Clang vectors. Each of these rounds as IEEE
 * 754 says, so a formula written once gives the same bits on every ISA. Multi-lane sums never
 * appear: a lane never looks at its neighbour.
 */
#ifndef MG_ISA_H
#define MG_ISA_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* System headers come before the target region: they must be compiled for the baseline. */
#if defined(MG_ISA_AVX2) || defined(MG_ISA_AVX512)
#include <immintrin.h>
#elif defined(MG_ISA_NEON)
#include <arm_neon.h>
#endif

#if defined(MG_ISA_AVX512)
#define MG_ISA_NAME avx512
#define VBYTES 64
#define MG_TARGET "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"
#elif defined(MG_ISA_AVX2)
#define MG_ISA_NAME avx2
#define VBYTES 32
#define MG_TARGET "avx2,fma"
#elif defined(MG_ISA_NEON)
#define MG_ISA_NAME neon
#define VBYTES 16
#else
#define MG_ISA_NAME scalar
#define VBYTES (MG_REAL / 8)
#endif

#define MG_STRINGIFY(x) #x
#define MG_STRING(x) MG_STRINGIFY(x)
#define MG_PRAGMA(x) _Pragma(MG_STRINGIFY(x))
#if !defined(MG_TARGET)
#define MG_TARGET_BEGIN
#define MG_TARGET_END
#elif defined(__clang__)
#define MG_TARGET_BEGIN \
    MG_PRAGMA(clang attribute push(__attribute__((target(MG_TARGET))), apply_to = function))
#define MG_TARGET_END MG_PRAGMA(clang attribute pop)
#else
#define MG_TARGET_BEGIN MG_PRAGMA(GCC push_options) MG_PRAGMA(GCC target(MG_TARGET))
#define MG_TARGET_END MG_PRAGMA(GCC pop_options)
#endif

#if MG_REAL == 32
typedef float real;
typedef int32_t integer;
#else
typedef double real;
typedef int64_t integer;
#endif

#define W (VBYTES / (MG_REAL / 8))
typedef real vreal __attribute__((vector_size(VBYTES)));
typedef integer vint __attribute__((vector_size(VBYTES)));
typedef real vreal_unaligned __attribute__((vector_size(VBYTES), aligned(MG_REAL / 8), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL16 _Pragma("GCC unroll 16")

MG_TARGET_BEGIN

INLINE vreal vload(const real *p) { return *(const vreal_unaligned *)p; }
INLINE void vstore(real *p, vreal v) { *(vreal_unaligned *)p = v; }
INLINE vreal vset(real x) { return x - (vreal){0}; }
/* Comparisons give a vmask, one truth value a lane; vselect takes lanes of a where it is true, else
 * of b. vmin(x, high) is x where x is NaN. */
#if defined(MG_ISA_AVX512) && MG_REAL == 32
typedef __mmask16 vmask;
INLINE vmask vless(vreal a, vreal b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE vmask vequal(vreal a, vreal b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE vmask vtrue(vint m) { return _mm512_movepi32_mask((__m512i)m); }
INLINE vreal vselect(vmask m, vreal a, vreal b) { return _mm512_mask_blend_ps(m, b, a); }
INLINE vreal vmin(vreal x, vreal high) { return _mm512_min_ps(high, x); }
INLINE vreal vmax(vreal x, vreal low) { return _mm512_max_ps(low, x); }
INLINE int vany(vmask m) { return m != 0; }
#elif defined(MG_ISA_AVX512)
typedef __mmask8 vmask;
INLINE vmask vless(vreal a, vreal b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
INLINE vmask vequal(vreal a, vreal b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
INLINE vmask vtrue(vint m) { return _mm512_movepi64_mask((__m512i)m); }
INLINE vreal vselect(vmask m, vreal a, vreal b) { return _mm512_mask_blend_pd(m, b, a); }
INLINE vreal vmin(vreal x, vreal high) { return _mm512_min_pd(high, x); }
INLINE vreal vmax(vreal x, vreal low) { return _mm512_max_pd(low, x); }
INLINE int vany(vmask m) { return m != 0; }
#else
typedef vint vmask;
INLINE vmask vless(vreal a, vreal b) { return a < b; }
INLINE vmask vequal(vreal a, vreal b) { return a == b; }
INLINE vmask vtrue(vint m) { return m; }
#if defined(MG_ISA_AVX2) && MG_REAL == 32
INLINE vreal vselect(vmask m, vreal a, vreal b) { return _mm256_blendv_ps(b, a, (vreal)m); }
#elif defined(MG_ISA_AVX2)
INLINE vreal vselect(vmask m, vreal a, vreal b) { return _mm256_blendv_pd(b, a, (vreal)m); }
#else
INLINE vreal vselect(vmask m, vreal a, vreal b) { return (vreal)((m & (vint)a) | (~m & (vint)b)); }
#endif
INLINE vreal vmin(vreal x, vreal high) { return vselect(vless(high, x), high, x); }
INLINE vreal vmax(vreal x, vreal low) { return vselect(vless(x, low), low, x); }
INLINE int vany(vmask m) {
    integer any = 0;
    for (int i = 0; i < (int)W; i++) any |= m[i];
    return any != 0;
}
#endif

/* The first n lanes, 1 <= n <= W; the others load as zero and are not stored. Nothing outside
 * p[0..n) is touched. */
#if defined(MG_ISA_AVX512) && MG_REAL == 32
INLINE vreal vload_part(const real *p, size_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
INLINE void vstore_part(real *p, vreal v, size_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}
#elif defined(MG_ISA_AVX512)
INLINE vreal vload_part(const real *p, size_t n) {
    return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}
INLINE void vstore_part(real *p, vreal v, size_t n) {
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v);
}
#else
INLINE vreal vload_part(const real *p, size_t n) {
    vreal v = {0};
    memcpy(&v, p, n * sizeof(real));
    return v;
}
INLINE void vstore_part(real *p, vreal v, size_t n) { memcpy(p, &v, n * sizeof(real)); }
#endif

/* The first n lanes, which may be all of them. */
INLINE vreal vload_some(const real *p, size_t n) { return n == W ? vload(p) : vload_part(p, n); }
INLINE void vstore_some(real *p, vreal v, size_t n) {
    if (n == W) vstore(p, v);
    else vstore_part(p, v, n);
}

INLINE vreal vfma(vreal a, vreal b, vreal c) {
#if defined(MG_ISA_AVX512) && MG_REAL == 32
    return _mm512_fmadd_ps(a, b, c);
#elif defined(MG_ISA_AVX512)
    return _mm512_fmadd_pd(a, b, c);
#elif defined(MG_ISA_AVX2) && MG_REAL == 32
    return _mm256_fmadd_ps(a, b, c);
#elif defined(MG_ISA_AVX2)
    return _mm256_fmadd_pd(a, b, c);
#elif defined(MG_ISA_NEON) && MG_REAL == 32
    return (vreal)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif defined(MG_ISA_NEON)
    return (vreal)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#elif MG_REAL == 32
    return (vreal){fmaf(a[0], b[0], c[0])};
#else
    return (vreal){fma(a[0], b[0], c[0])};
#endif
}

/* DOUBLES doubles, read from as many reals and written to them, whatever real is. GCC 12 converts
 * half vectors in two parts. */
#define DOUBLES (VBYTES > 8 ? VBYTES / 8 : 1)
typedef double vdouble __attribute__((vector_size(DOUBLES * 8)));
typedef real vdouble_reals
    __attribute__((vector_size(DOUBLES * MG_REAL / 8), aligned(MG_REAL / 8), may_alias));
#if defined(MG_ISA_AVX512) && MG_REAL == 32
INLINE vdouble vload_double(const real *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
INLINE void vstore_double(real *p, vdouble v) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(v)); }
#elif defined(MG_ISA_AVX2) && MG_REAL == 32
INLINE vdouble vload_double(const real *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
INLINE void vstore_double(real *p, vdouble v) { _mm_storeu_ps(p, _mm256_cvtpd_ps(v)); }
#else
INLINE vdouble vload_double(const real *p) {
    return __builtin_convertvector(*(const vdouble_reals *)p, vdouble);
}
INLINE void vstore_double(real *p, vdouble v) {
    *(vdouble_reals *)p = __builtin_convertvector(v, vdouble_reals);
}
#endif

/* The first n <= DOUBLES reals as doubles; the other lanes are zero. Nothing outside p[0..n) is
 * read. */
INLINE vdouble vload_double_part(const real *p, size_t n) {
#if defined(MG_ISA_AVX512) && MG_REAL == 32
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps((__mmask8)((1u << n) - 1), p));
#elif defined(MG_ISA_AVX2) && MG_REAL == 32
    const __m128i place = _mm_setr_epi32(0, 1, 2, 3);
    return _mm256_cvtps_pd(_mm_maskload_ps(p, _mm_cmpgt_epi32(_mm_set1_epi32((int)n), place)));
#else
    vdouble v = {0};
    for (size_t i = 0; i < n; i++) v[i] = (double)p[i];
    return v;
#endif
}

/* The square of W vectors x[0..W) is transposed: in stage d the lanes of a with bit d and those of
 * b without it change places. */
#if defined(__clang__)
#define VSHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define VSHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vint){__VA_ARGS__})
#endif
#define VLANE_LOW(d, l) ((l) & (d) ? W + (l) - (d) : (l))
#define VLANE_HIGH(d, l) ((l) & (d) ? W + (l) : (l) + (d))
#define VLANES2(f, d, l) f(d, l), f(d, l + 1)
#define VLANES4(f, d, l) VLANES2(f, d, l), VLANES2(f, d, l + 2)
#define VLANES8(f, d, l) VLANES4(f, d, l), VLANES4(f, d, l + 4)
#define VLANES16(f, d, l) VLANES8(f, d, l), VLANES8(f, d, l + 8)
#define VTRANSPOSE_STAGE(d, lanes) \
    UNROLL16 \
    for (int i = 0; i < (int)W; i++) { \
        if (i & (d)) continue; \
        vreal a = x[i], b = x[i + (d)]; \
        x[i] = VSHUFFLE(a, b, lanes(VLANE_LOW, d, 0)); \
        x[i + (d)] = VSHUFFLE(a, b, lanes(VLANE_HIGH, d, 0)); \
    }
INLINE void vtranspose(vreal *x) {
#if VBYTES * 8 == MG_REAL * 16
    VTRANSPOSE_STAGE(1, VLANES16)
    VTRANSPOSE_STAGE(2, VLANES16)
    VTRANSPOSE_STAGE(4, VLANES16)
    VTRANSPOSE_STAGE(8, VLANES16)
#elif VBYTES * 8 == MG_REAL * 8
    VTRANSPOSE_STAGE(1, VLANES8)
    VTRANSPOSE_STAGE(2, VLANES8)
    VTRANSPOSE_STAGE(4, VLANES8)
#elif VBYTES * 8 == MG_REAL * 4
    VTRANSPOSE_STAGE(1, VLANES4)
    VTRANSPOSE_STAGE(2, VLANES4)
#elif VBYTES * 8 == MG_REAL * 2
    VTRANSPOSE_STAGE(1, VLANES2)
#else
    (void)x;
#endif
}

MG_TARGET_END
#endif
