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

// Confidences of a bin are summed in two words: multiples of 2**-21 and of 2**-42. Of the words'
// columns each takes 1024 of them: up to 1.5, so that the first stays in 32 bits.
constexpr int GRID_HIGH = 21, GRID_LOW = 42;
constexpr float HIGHEST_SUMMED = 1.5f, LOWEST_SUMMED = 1.9073486328125e-06f;  // 2**-19

// Returns whether two words hold a confidence.
__device__ __forceinline__ bool is_summed(float p) {
    return (p == 0) | ((p >= LOWEST_SUMMED) & (p <= HIGHEST_SUMMED));
}

// Words of a bin in a table (words, LANES): rows, and right ones 16 bits above; two of confidence.
constexpr int BIN_WORDS = 3;

__device__ __forceinline__ void add_to_bin(uint32* column, int bin, uint32 rows, float p) {
    uint32* place = column + bin * BIN_WORDS * LANES;
    atomicAdd(place, rows);
    atomicAdd(place + LANES, static_cast<uint32>(take(p, GRID_HIGH)));
    atomicAdd(place + 2 * LANES, static_cast<uint32>(take(p, GRID_LOW)));
}

// Takes a word of a table away and sums it over the lanes, of which all must be here.
template <class T>
__device__ __forceinline__ int64 taken(uint32* table, int word) {
    uint32* place = table + word * LANES + lane_of();
    uint32 found = *place;
    *place = 0;
    return over_warp(static_cast<T>(found));
}
