// Exact sums on the device, by integers alone, so that no order changes a bit; see `exact.py`.
#include "common.cuh"

constexpr int LIMBS_32 = 12, LIMBS_64 = 70;
constexpr int ORIGIN_32 = -160, ORIGIN_64 = -1088;

template <class T> struct Exact;
template <> struct Exact<float> {
    static constexpr int LIMBS = LIMBS_32, ORIGIN = ORIGIN_32, MANTISSA = 23, HIGHEST = 0xFF;
    static __device__ __forceinline__ uint64 bits(float x) { return __float_as_uint(x); }
};
template <> struct Exact<double> {
    static constexpr int LIMBS = LIMBS_64, ORIGIN = ORIGIN_64, MANTISSA = 52, HIGHEST = 0x7FF;
    static __device__ __forceinline__ uint64 bits(double x) { return __double_as_longlong(x); }
};

__device__ __forceinline__ void add_to(int64* place, int64 x) {
    atomicAdd(reinterpret_cast<uint64*>(place), static_cast<uint64>(x));
}

// Adds sign * x, finite, to limbs that others add to as well.
template <class T>
__device__ __noinline__ void add_to_limbs(int64* limbs, T x, int sign) {
    using E = Exact<T>;
    constexpr int WIDTH = sizeof(T) * 8;
    uint64 bits = E::bits(x);
    if (bits >> (WIDTH - 1) & 1) sign = -sign;
    int exponent = static_cast<int>(bits >> E::MANTISSA) & E::HIGHEST;
    uint64 mantissa = bits & ((1ull << E::MANTISSA) - 1);
    if (exponent) mantissa |= 1ull << E::MANTISSA; else exponent = 1;
    // x is mantissa * 2**(exponent - bias - MANTISSA); the bias is half of HIGHEST, rounded down.
    int position = exponent - E::HIGHEST / 2 - E::MANTISSA - E::ORIGIN;
    int limb = position >> 5, shift = position & 31;
    uint64 low = (mantissa & 0xFFFFFFFF) << shift, high = (mantissa >> 32) << shift;
    add_to(limbs + limb, sign * static_cast<int64>(low & 0xFFFFFFFF));
    add_to(limbs + limb + 1, sign * static_cast<int64>((low >> 32) + (high & 0xFFFFFFFF)));
    if (high >> 32) add_to(limbs + limb + 2, sign * static_cast<int64>(high >> 32));
}

// Adds x * 2**-grid to limbs of sums of T.
template <class T>
__device__ __noinline__ void add_fixed(int64* limbs, int64 x, int grid) {
    if (!x) return;
    int position = -grid - Exact<T>::ORIGIN;
    int limb = position >> 5, shift = position & 31;
    int64 low = static_cast<int64>(static_cast<uint64>(x & 0xFFFFFFFF) << shift);
    int64 high = (x >> 32) * (1ll << shift);
    add_to(limbs + limb, low & 0xFFFFFFFF);
    add_to(limbs + limb + 1, (low >> 32) + (high & 0xFFFFFFFF));
    if (high >> 32) add_to(limbs + limb + 2, high >> 32);
}

// Sums over the warp, all of whose threads must be here.
__device__ __forceinline__ int64 over_warp(int x) {
    int low = __reduce_add_sync(WHOLE_WARP, x & 0xFFFF);
    return static_cast<int64>(__reduce_add_sync(WHOLE_WARP, x >> 16)) * 65536 + low;
}
__device__ __forceinline__ int64 over_warp(uint32 x) {
    uint32 low = __reduce_add_sync(WHOLE_WARP, x & 0xFFFF);
    return (static_cast<int64>(__reduce_add_sync(WHOLE_WARP, x >> 16)) << 16) + low;
}
__device__ __forceinline__ int64 over_warp(int64 x) {
    for (int by = 16; by; by /= 2) x += __shfl_xor_sync(WHOLE_WARP, x, by);
    return x;
}

// Sums a count over the warp and adds it to a place; all threads of the warp must be here.
__device__ __forceinline__ void add_counts(int64* place, int count) {
    int sum = __reduce_add_sync(WHOLE_WARP, count);
    if (threadIdx.x % 32 == 0 && sum) add_to(place, sum);
}
