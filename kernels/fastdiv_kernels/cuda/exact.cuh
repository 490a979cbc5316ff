// Exact sums on the device, by integers alone, so that no order changes a bit; see `exact.py`.
//
// A thread keeps each sum in fixed point, which nearly all numbers fit into: multiples of 2**-32
// and, of what is left, of 2**-64. Numbers that do not fit go to the limbs at once, by atomics.
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

// A sum in fixed point, of a thread: fewer than 2**20 numbers.
struct Window {
    int64 coarse = 0, fine = 0;  // multiples of 2**-32 and of 2**-64

    // Adds sign * x, finite, or to the limbs what does not fit.
    template <class T>
    __device__ __forceinline__ void add(int64* limbs, T x, int sign) {
        T scaled = x * static_cast<T>(4294967296.0);
        bool fits = fabs(x) < static_cast<T>(1024);
        int64 whole = fits ? static_cast<int64>(scaled) : 0;
        T rest = (scaled - static_cast<T>(whole)) * static_cast<T>(4294967296.0);
        int64 part = fits ? static_cast<int64>(rest) : 0;
        if (fits && static_cast<T>(part) == rest) {
            coarse += sign < 0 ? -whole : whole;
            fine += sign < 0 ? -part : part;
        } else {
            add_to_limbs(limbs, x, sign);
        }
    }

    // Adds what all threads of a warp have to the limbs; all of them must be here.
    template <class T>
    __device__ __forceinline__ void settle(int64* limbs) {
        constexpr int AT = (-32 - Exact<T>::ORIGIN) / 32;  // of multiples of 2**-32
        for (int by = 16; by; by /= 2) {
            coarse += __shfl_xor_sync(WHOLE_WARP, coarse, by);
            fine += __shfl_xor_sync(WHOLE_WARP, fine, by);
        }
        if (threadIdx.x % 32 == 0) {
            if (fine) {
                add_to(limbs + AT - 1, fine & 0xFFFFFFFF);
                add_to(limbs + AT, fine >> 32);
            }
            if (coarse) {
                add_to(limbs + AT, coarse & 0xFFFFFFFF);
                add_to(limbs + AT + 1, coarse >> 32);
            }
        }
        coarse = fine = 0;
    }
};

// Sums a count over the warp and adds it to a place; all threads of the warp must be here.
__device__ __forceinline__ void add_counts(int64* place, int count) {
    int sum = __reduce_add_sync(WHOLE_WARP, count);
    if (threadIdx.x % 32 == 0 && sum) add_to(place, sum);
}
