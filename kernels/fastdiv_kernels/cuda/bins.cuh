// Bins of float32, and tables of words with a column for each lane: no two lanes meet in a bank.
#include "parts.cuh"

constexpr int BINS = 15, LANES = 32;
constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2**23: sums with it are integers

__device__ __forceinline__ int lane_of() { return threadIdx.x % LANES; }

// Returns clip(ceil(15 * p) - 1, 0, 14), NaN in the last. The product is rounded once, with the sum.
__device__ __forceinline__ int bin_of(float p) {
    float within = fmaxf(fminf(p, 1.0f), 9.5367431640625e-07f);  // a number in the first bin
    return __float_as_int(__fmaf_ru(BINS, within, ROUNDING)) - __float_as_int(ROUNDING) - 1;
}

// Takes a word of a table away and sums it over the lanes, of which all must be here.
template <class T>
__device__ __forceinline__ int64 taken(uint32* table, int word) {
    uint32* place = table + word * LANES + lane_of();
    uint32 found = *place;
    *place = 0;
    return over_warp(static_cast<T>(found));
}
