// Halves as float32, whose bits they are but for the width.
#include "common.cuh"

__device__ __forceinline__ float half_to_float(uint32 half) {
#if defined(__CUDA_ARCH__)
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(static_cast<uint16>(half)));
    return x;
#else
    uint32 sign = (half & 0x8000) << 16, rest = half & 0x7FFF;
    float x = __uint_as_float(rest << 13) * __uint_as_float(239u << 23);  // 2**112
    if (rest >= 0x7C00) x = __uint_as_float(rest << 13 | 0x7F800000);
    return __uint_as_float(__float_as_uint(x) | sign);
#endif
}
