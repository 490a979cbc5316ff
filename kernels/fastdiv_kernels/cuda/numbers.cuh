// Predictions of a dtype (VALUE): eight or four of them as words, as numbers, and as t.
#include "powers.cuh"

#if VALUE == 0 || VALUE == 1
typedef uint16 value_t;
typedef float real_t;
#elif VALUE == 2
typedef float value_t;
typedef float real_t;
#else
typedef double value_t;
typedef double real_t;
#endif

constexpr bool PROBABILITIES = PROBS;
constexpr real_t LOWEST_FINITE =
    sizeof(real_t) == 8 ? -1.7976931348623157e308 : -3.4028234663852886e38f;
// What adds nothing to a sum: it is as good as probability 0.
constexpr real_t NOTHING = PROBABILITIES ? static_cast<real_t>(0) : LOWEST_FINITE;

__device__ __forceinline__ real_t number(value_t v) {
#if VALUE == 0
    return half_to_float(v);
#elif VALUE == 1
    return __uint_as_float(static_cast<uint32>(v) << 16);
#else
    return v;
#endif
}

// How numbers may be read, by what is a factor of all addresses: 16 bytes, 4, or a number's.
constexpr int ONE_BY_ONE = 0, BY_WORDS = 1, BY_VECTORS = 2;

// So many predictions in a row, a multiple of 16 bytes, as they are stored.
template <int N>
struct Chunk {
    static constexpr int WORDS = N * sizeof(value_t) / 4, PER_WORD = sizeof(value_t) == 2 ? 2 : 1;
    static_assert(WORDS % 4 == 0, "whole vectors");
#if VALUE == 0 || VALUE == 1
    uint32 stored[WORDS];
#else
    value_t stored[N];
#endif

    __device__ __forceinline__ void read_vectors(const value_t* from) {
#pragma unroll
        for (int i = 0; i < WORDS / 4; i++) {
            uint4 four = __ldg(reinterpret_cast<const uint4*>(from) + i);
#if VALUE == 0 || VALUE == 1
            stored[4 * i] = four.x, stored[4 * i + 1] = four.y;
            stored[4 * i + 2] = four.z, stored[4 * i + 3] = four.w;
#elif VALUE == 2
            stored[4 * i] = __uint_as_float(four.x), stored[4 * i + 1] = __uint_as_float(four.y);
            stored[4 * i + 2] = __uint_as_float(four.z);
            stored[4 * i + 3] = __uint_as_float(four.w);
#else
            stored[2 * i] = of_words(four.x, four.y), stored[2 * i + 1] = of_words(four.z, four.w);
#endif
        }
    }

    // Reads those of N that are there.
    template <int HOW>
    __device__ __forceinline__ void read(const value_t* from, int there) {
        if (HOW == BY_VECTORS && there >= N) {
            read_vectors(from);
            return;
        }
#pragma unroll
        for (int i = 0; i < N; i += PER_WORD) {
#if VALUE == 0 || VALUE == 1
            if (HOW == BY_WORDS) {
                const uint32* words = reinterpret_cast<const uint32*>(from);
                stored[i / 2] = i < there ? __ldg(words + i / 2) : NONE | NONE << 16;
                continue;
            }
            uint32 low = i < there ? __ldg(from + i) : NONE;
            uint32 high = i + 1 < there ? __ldg(from + i + 1) : NONE;
            stored[i / 2] = low | high << 16;
#else
            stored[i] = i < there ? __ldg(from + i) : NOTHING;
#endif
        }
    }

    __device__ __forceinline__ real_t at(int i) const {
#if VALUE == 0
        return half_to_float(i & 1 ? stored[i / 2] >> 16 : stored[i / 2] & 0xFFFF);
#elif VALUE == 1
        return __uint_as_float(i & 1 ? stored[i / 2] & 0xFFFF0000 : stored[i / 2] << 16);
#else
        return stored[i];
#endif
    }

    static constexpr uint32 NONE = PROBABILITIES ? 0 : VALUE == 0 ? 0xFC00 : 0xFF80;
    static __device__ __forceinline__ double of_words(uint32 low, uint32 high) {
        return __longlong_as_double(static_cast<int64>(static_cast<uint64>(high) << 32 | low));
    }
};

// The binary logarithm of a number that is not below 0, with an error of 2**-22 of it or of 1.
__device__ __forceinline__ float log2_of(float v) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(v));
    return y;
#else
    return log2(v);
#endif
}
__device__ __forceinline__ float log2_of(double v) {
    float y = log2_of(static_cast<float>(v));
    if (v < 1e-37 && v > 0.0) y = static_cast<float>(log2(v));
    return y;
}

// What is taken off numbers or off their logarithms: the largest.
__device__ __forceinline__ auto origin_of(real_t m) {
    if constexpr (PROBABILITIES) return log2_of(fmax(m, static_cast<real_t>(0)));
    else return m;
}

// t = x * LOG2E_16, not below LOWEST_T; x is of a class, or of its logarithm, less the largest.
template <class Origin>
__device__ __forceinline__ float t_of(real_t v, Origin origin) {
    if constexpr (PROBABILITIES)
        return fmaxf((log2_of(fmax(v, static_cast<real_t>(0))) - origin) * 0.0625f, LOWEST_T);
    else
        return fmaxf(static_cast<float>(v - origin) * LOG2E_16, LOWEST_T);
}

// The largest of a row, for a profile that is a vector, and x of a class; NaN where that is.
#if PROBS && VALUE != 3
// As it is divided by: a division leaves its fast way for zeros and what is near them. Ratios are
// taken 2**24 times, so that none is subnormal; `none` is 0, or NaN where the largest is.
struct alignas(16) Largest {
    float scaled, inverse, scale, none;
};
__device__ __forceinline__ Largest largest_of(float m) {
    float scale = m < 5.4210109e-20f ? 1.9342813e25f : 1.0f;  // 2**-64, 2**84
    return {m * scale, 1.0f / (m * scale), scale * 16777216.0f, m - m};
}
// Chebyshev's interpolant of ln over what powers of two bring to 2/3 up to 4/3.
__device__ __forceinline__ float x_of(float v, const Largest& m) {
    float w = fmaxf(v, 0.0f) * m.scale, ratio = w * m.inverse;
    ratio = __fmaf_rn(__fmaf_rn(-ratio, m.scaled, w), m.inverse, ratio);
    int bits = __float_as_int(ratio);
    int exponent = (bits - 0x3F2AAAAB) & static_cast<int>(0xFF800000);
    float f = __int_as_float(bits - exponent) - 1.0f, p = 0.137483091f;
    p = p * f - 0.153942718f;
    p = p * f + 0.140558127f;
    p = p * f - 0.164145204f;
    p = p * f + 0.20007234f;
    p = p * f - 0.250079317f;
    p = p * f + 0.333332726f;
    p = p * f - 0.499999334f;
    p = p * f + 1.0f;
    float of_exponent = static_cast<float>(exponent - (24 << 23)) * 8.262958294867817e-8f + m.none;
    float x = p * f + of_exponent;
    return ratio == 0.0f ? -__int_as_float(0x7F800000) : x;
}
#else
typedef real_t Largest;
__device__ __forceinline__ Largest largest_of(real_t m) { return m; }
__device__ __forceinline__ float x_of(real_t v, Largest m) {
    constexpr float LOWEST_KEPT = -65504.0f;
    if constexpr (PROBABILITIES) {
        real_t ratio = v / m;
        if (ratio < static_cast<real_t>(0)) ratio = 0;
        if (ratio < 1e-37) return static_cast<float>(log(ratio));
        return logf(static_cast<float>(ratio));
    } else {
        float x = static_cast<float>(v - m);
        float kept = x < LOWEST_KEPT ? LOWEST_KEPT : x;
        return v >= LOWEST_FINITE ? kept : x;
    }
}
#endif
