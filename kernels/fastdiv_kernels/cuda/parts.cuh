// Numbers as sums of parts, each a small multiple of a power of two, that threads sum as integers.
//
// Part k is a multiple of 2**-grid(k). Adding 1.5 * 2**(BITS - grid) rounds a number to such a
// multiple and leaves it in the lowest bits of the sum; what is left is exact, and at most half a
// multiple: as much as the next part takes. So a part costs three additions of floats and one of
// integers, whatever the number; all parts of a float32 below 2**34 leave nothing.
//
// The parts that numbers usually have are in registers ("near"). The others are in shared memory,
// in words that are the thread's own ("far"): no two threads meet there.
#include "exact.cuh"

constexpr int SETTLED = 128;  // rows whose parts a thread sums before they are added to limbs

template <class T> struct Parts;
template <> struct Parts<float> {
    typedef uint32 raw;
    typedef int word;  // sums of 256 parts, each up to 2**22
    static constexpr int BITS = 23, ALL = 8, BIAS = 127;
    static __device__ __forceinline__ int bits(float x) { return __float_as_int(x); }
    static __device__ __forceinline__ float rounding(int grid) {
        return __int_as_float((BIAS + BITS - grid) << BITS | 1 << (BITS - 1));
    }
};
template <> struct Parts<double> {
    typedef uint64 raw;
    typedef int64 word;
    static constexpr int BITS = 52, ALL = 6, BIAS = 1023;
    static __device__ __forceinline__ int64 bits(double x) { return __double_as_longlong(x); }
    static __device__ __forceinline__ double rounding(int grid) {
        return __longlong_as_double(
            static_cast<int64>(BIAS + BITS - grid) << BITS | 1ll << (BITS - 1));
    }
};

constexpr int FIRST_GRID = -12;
constexpr float USUAL = 2048;  // as much as part 1 takes, of float32 and of float64
constexpr float LARGE = 17179869184.0f;  // as much as part 0 takes of a float32

template <class T> __device__ __forceinline__ constexpr int grid_of(int k) {
    return FIRST_GRID + Parts<T>::BITS * k;
}

// Takes from a number its multiple of 2**-grid, and returns it with the bits of what rounded it.
template <class T>
__device__ __forceinline__ typename Parts<T>::raw take_raw(T& x, int grid) {
    using P = Parts<T>;
    T rounding = P::rounding(grid), sum = x + rounding;
    x -= sum - rounding;
    return P::bits(sum);
}

// Takes from a number its multiple of 2**-grid.
template <class T>
__device__ __forceinline__ typename Parts<T>::word take(T& x, int grid) {
    using P = Parts<T>;
    return take_raw(x, grid) - P::bits(P::rounding(grid));
}

// Parts FROM, ... TO - 1 are near. Far words are those from TO on, and then part 0.
template <class T, int FROM, int TO>
struct Sum {
    using P = Parts<T>;
    typedef typename P::word word;
    typedef typename P::raw raw;
    static constexpr int NEAR = TO - FROM, FAR = P::ALL - TO + 1;

    // Takes the near parts from a number up to USUAL.
    static __device__ __forceinline__ void split(T& x, word (&parts)[NEAR]) {
#pragma unroll
        for (int k = 0; k < NEAR; k++) parts[k] = take(x, grid_of<T>(FROM + k));
    }

    // Adds what near parts leave to the far words from `far` on, one a block of threads apart.
    static __device__ __forceinline__ void add_far(word* far, int64* limbs, T rest, int sign) {
#pragma unroll
        for (int k = TO; k < P::ALL; k++)
            far[(k - TO) * blockDim.x] += sign * take(rest, grid_of<T>(k));
        if (sizeof(T) == 8 && rest != 0) add_to_limbs(limbs, rest, sign);
    }

    // The same with bits of what rounded them, which `word_of` takes from the sum of many at once.
    static __device__ __forceinline__ void split_raw(T& x, raw (&parts)[NEAR]) {
#pragma unroll
        for (int k = 0; k < NEAR; k++) parts[k] = take_raw(x, grid_of<T>(FROM + k));
    }
    static __device__ __forceinline__ word word_of(raw sum, int k, uint32 numbers) {
        return sum - numbers * static_cast<raw>(P::bits(P::rounding(grid_of<T>(FROM + k))));
    }

    // Adds what part 1 does not take of a finite number, and returns the rest.
    static __device__ __forceinline__ T add_large(word* far, int64* limbs, T x, int sign) {
        if (fabs(x) <= static_cast<T>(LARGE)) {
            far[(FAR - 1) * blockDim.x] += sign * take(x, grid_of<T>(0));
            return x;
        }
        add_to_limbs(limbs, x, sign);
        return 0;
    }

    // Adds near parts to words of the thread's own, of which the far ones follow. That is an atomic
    // addition only because it is one instruction.
    static __device__ __forceinline__ void add_near(word* own, const word (&parts)[NEAR]) {
#pragma unroll
        for (int k = 0; k < NEAR; k++) {
            if constexpr (sizeof(word) == 4) atomicAdd(own + k * blockDim.x, parts[k]);
            else own[k * blockDim.x] += parts[k];
        }
    }

    static __device__ __forceinline__ void add_part(int64* limbs, word part, int k) {
        if (!__any_sync(WHOLE_WARP, part != 0)) return;
        int64 sum, above = 0;
        if constexpr (sizeof(T) == 8) {
            sum = over_warp(part & 0xFFFFFFFF);
            above = over_warp(part >> 32);
        } else {
            sum = over_warp(part);
        }
        if (threadIdx.x % 32 == 0) {
            add_fixed<T>(limbs, sum, grid_of<T>(k));
            if (sizeof(T) == 8) add_fixed<T>(limbs, above, grid_of<T>(k) - 32);
        }
    }

    // Adds what all threads of a warp have to limbs; all of them must be here.
    static __device__ __forceinline__ void settle(int64* limbs, word (&near)[NEAR]) {
#pragma unroll
        for (int k = 0; k < NEAR; k++) {
            add_part(limbs, near[k], FROM + k);
            near[k] = 0;
        }
    }
    static __device__ __forceinline__ void settle_raw(
        int64* limbs, raw (&near)[NEAR], uint32 numbers) {
#pragma unroll
        for (int k = 0; k < NEAR; k++) {
            add_part(limbs, word_of(near[k], k, numbers), FROM + k);
            near[k] = 0;
        }
    }
    static __device__ __forceinline__ void settle_far(int64* limbs, word* far) {
        settle_words(limbs, far, 0, FAR);
    }
    static __device__ __forceinline__ void settle_all(int64* limbs, word* own) {
        settle_words(limbs, own + NEAR * blockDim.x, -NEAR, FAR);
    }
    static __device__ __forceinline__ void settle_words(
        int64* limbs, word* far, int first, int last) {
        for (int k = first; k < last; k++) {
            word* own = far + k * static_cast<int>(blockDim.x);
            word part = *own;
            *own = 0;
            add_part(limbs, part, k == FAR - 1 ? 0 : TO + k);
        }
    }
};
