/* Which tables of kernels this build holds, and which of them this CPU can run. */
#include "kernels.h"
#include <string.h>

#if defined(__x86_64__)
#define MG_ISAS(X) X(avx512) X(avx2) X(scalar)
#elif defined(__aarch64__)
#define MG_ISAS(X) X(neon) X(scalar)
#else
#define MG_ISAS(X) X(scalar)
#endif

#define MG_DECLARE(isa) \
    MG_HIDDEN extern const mg_kernels mg_kernels_##isa##_f32, mg_kernels_##isa##_f64;
MG_ISAS(MG_DECLARE)

const char *const *mg_isas_built(void) {
#define MG_NAME(isa) #isa,
    static const char *const names[] = {MG_ISAS(MG_NAME) NULL};
    return names;
}

const mg_kernels *mg_table(const char *isa, size_t itemsize) {
#define MG_FIND(name) \
    if (!strcmp(isa, #name) && itemsize == 4) return &mg_kernels_##name##_f32; \
    if (!strcmp(isa, #name) && itemsize == 8) return &mg_kernels_##name##_f64;
    MG_ISAS(MG_FIND)
    return NULL;
}

int mg_isa_usable(const char *isa) {
#if defined(__x86_64__)
    /* __builtin_cpu_supports also asks whether the operating system saves the registers. */
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(isa, "avx2")) return avx2;
    if (!strcmp(isa, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
    return mg_table(isa, 4) != NULL;
}
