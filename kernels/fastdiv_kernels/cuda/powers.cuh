// Float32 as halves, and the powers of one exponential at the temperatures of the grid.
#include "halves.cuh"

constexpr int POWERS = 11, CURVE = 2 * POWERS;
// exp(x / 16) of the lowest x is just a normal number, and its square is none.
constexpr float LOG2E_16 = 0.0901684400555602f, LOWEST_T = -1380.0f * LOG2E_16;
constexpr float X_OF_T = 11.090354888959125f;  // x of t = x * LOG2E_16

__device__ __forceinline__ uint32 float_to_half(float x) {
#if defined(__CUDA_ARCH__)
    uint16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
#else
    uint32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
    if (rest > 0x7F800000) return 0x7FFF;
    if (rest >= 0x477FF000) return sign | 0x7C00;
    if (rest < 0x38800000)  // below the least normal half: adding 0.5 leaves multiples of 2**-24
        return sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3F000000);
    return sign | ((rest + 0xFFF + (rest >> 13 & 1) - (112u << 23)) >> 13);
#endif
}

// Two numbers as one word of halves, the first below.
__device__ __forceinline__ uint32 two_halves(float low, float high) {
#if defined(__CUDA_ARCH__)
    uint32 word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return float_to_half(low) | float_to_half(high) << 16;
#endif
}

// The inverse temperature of a place in the grid: powers of two and, between them, half as much
// again. Sixteen of it are a whole number.
__device__ __forceinline__ float beta_at(int k) {
    return __int_as_float((k / 2 + 124) << 23 | (k & 1) << 22);
}
__device__ __forceinline__ int64 sixteen_betas(int k) {
    return static_cast<int64>(2 + (k & 1)) << (k / 2);
}

// 2**t for -126 <= t <= 0, good to 2**-22: times 64 that is 1.5e-5 of the highest power.
__device__ __forceinline__ float quick_exp2(float t) {
#if defined(__CUDA_ARCH__)
    float u;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(u) : "f"(t));
    return u;
#else
    return exp2(t);
#endif
}

// 2**t for -126 <= t <= 0, good to the last bit or two; Chebyshev's interpolant.
__device__ __forceinline__ float precise_exp2(float t) {
    constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2**23
    float shifted = t + ROUNDING, r = t - (shifted - ROUNDING);
    float p = 1.546144469698307e-4f;
    p = __fmaf_rn(p, r, 1.3400428177439477e-3f);
    p = __fmaf_rn(p, r, 9.618056678525198e-3f);
    p = __fmaf_rn(p, r, 5.550327226670787e-2f);
    p = __fmaf_rn(p, r, 0.24022650922288832f);
    p = __fmaf_rn(p, r, 0.6931472067028323f);
    p = __fmaf_rn(p, r, 1.0f);
    return __uint_as_float(__float_as_uint(p) + (__float_as_uint(shifted) << 23));
}

// 1 / x for 1 <= x, to the last bit or two.
__device__ __forceinline__ float inverse_of(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1.0f / x;
#endif
}

// ln(1 + x) for finite x >= 0, good to the last bit or two: Chebyshev's interpolant of it over x
// for -1/4 <= x <= 1/2, where powers of two are taken to.
__device__ __forceinline__ float log1p_of(float x) {
    int exponent = (__float_as_int(1.0f + x) - 0x3F400000) & static_cast<int>(0xFF800000);
    float scale = __int_as_float(0x40800000 - exponent);  // times 4
    float f = __int_as_float(__float_as_int(x) - exponent) + (scale * 0.25f - 1.0f);
    float p = 0.0529510641f;
    p = p * f - 0.11956825f;
    p = p * f + 0.149728972f;
    p = p * f - 0.16835696f;
    p = p * f + 0.199790331f;
    p = p * f - 0.249929166f;
    p = p * f + 0.333335028f;
    p = p * f - 0.500000687f;
    p = p * f + 1.0f;
    return p * f + static_cast<float>(exponent) * 8.262958294867817e-8f;  // ln(2) / 2**23
}

// Sums over classes of exp(beta * x), the maximum left out, and of exp(beta * x) * t by the
// temperatures of the grid. What is fused is said, so that it is the same however numbers are read.
struct Powers {
    float sum[POWERS] = {}, slope[POWERS] = {};

    // Adds a class, given u = exp(x / 16): its square begins a chain of squares, its cube another.
    __device__ __forceinline__ void add(float u, float t) {
        float square = u * u, cube = square * u;
#pragma unroll
        for (int k = 0; k < POWERS; k++) {
            float power = k & 1 ? cube : square;
            sum[k] = __fadd_rn(sum[k], power);
            slope[k] = __fmaf_rn(power, t, slope[k]);
            if (k & 1) cube *= cube; else square *= square;
        }
    }
};
