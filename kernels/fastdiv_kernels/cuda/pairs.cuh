// Two values of 16 bits in a word, compared at once.
#include "score.cuh"

#if DTYPE >= 2
__device__ __forceinline__ stored absent_stored() { return absent(); }
#else
__device__ __forceinline__ stored absent_stored() {
    return TAKES_EXP ? (DTYPE == 0 ? 0xFC00 : 0xFF80) : 0;
}
#endif

#if DTYPE < 2
__device__ __forceinline__ uint32 twice(stored x) { return x * 0x10001u; }

__device__ __forceinline__ stored next_above_stored(stored y) {
    if ((y & 0x7FFF) == 0) y = 0;  // not -0.0
    return stored(y & 0x8000 ? y - 1 : y + 1);
}

#if DTYPE == 0
#define TWO "f16x2"
#else
#define TWO "bf16x2"
#endif

#define BY_INSTRUCTION(name, instruction, plain)                                 \
    __device__ __forceinline__ uint32 name(uint32 a, uint32 b) {                 \
        uint32 result;                                                           \
        asm(instruction "." TWO " %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b)); \
        return result;                                                           \
    }
#define ONE_BY_ONE(name, instruction, plain)                       \
    __device__ __forceinline__ uint32 name(uint32 a, uint32 b) {   \
        uint32 result = 0;                                         \
        for (int i = 0; i < 32; i += 16) {                         \
            uint16 p = uint16(a >> i), q = uint16(b >> i);         \
            float x = value(p), y = value(q);                      \
            result |= uint32(uint16(plain)) << i;                  \
        }                                                          \
        return result;                                             \
    }
#if defined(__CUDA_ARCH__)
#define EXTREME BY_INSTRUCTION
#else
#define EXTREME ONE_BY_ONE
#endif
#if defined(__CUDA_ARCH__) && (DTYPE == 0 || __CUDA_ARCH__ >= 900)
#define COMPARISON BY_INSTRUCTION
#else
#define COMPARISON ONE_BY_ONE
#endif
EXTREME(larger, "max", x >= y || y != y ? p : q)
EXTREME(smaller, "min", x <= y || y != y ? p : q)
EXTREME(larger_or_nan, "max.NaN", x >= y || x != x ? p : q)
COMPARISON(equal, "set.eq.u32", x == y ? 0xFFFF : 0)
COMPARISON(no_less, "set.ge.u32", x >= y ? 0xFFFF : 0)
#endif
