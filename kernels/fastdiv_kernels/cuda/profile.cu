// Profiles of rows; see the contract. `score` has found where the largest number is.
//
// Up to VECTORS_UP_TO classes numbers are taken as they lie, eight by a thread. Beyond, up to 32
// lanes take a row, or the block where there are thousands of classes; which classes a lane adds
// hangs on their number alone, and so do the bits of a row.
#include "numbers.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int EIGHT = 8, TOGETHER = 2, TILE = THREADS * EIGHT * TOGETHER;  // numbers of a tile
constexpr int WIDTH = sizeof(value_t) == 2 ? 8 : 4;                        // classes of a chunk

extern "C" __global__ void __launch_bounds__(256) profile_vectors(
    const value_t* __restrict__ values, const int* __restrict__ predicted, int64 n, int classes,
    int wide, int wide_out, uint16* kept) {
    __shared__ real_t maxima[TILE / 3];
    // Tiles are rows whose numbers are whole vectors. A number's row in one is found by a product,
    // whose error is below TILE / 2**16 of a row, and so below a class.
    int rows = (TILE / classes) & ~(EIGHT - 1);
    int reciprocal = (65536 + classes - 1) / classes;
    int64 first_row = static_cast<int64>(blockIdx.x) * rows;
    int live = static_cast<int>(min(static_cast<int64>(rows), n - first_row));
    int size = live * classes;
    const value_t* from = values + first_row * classes;
    uint16* to = kept + first_row * classes;
    Chunk<EIGHT> chunks[TOGETHER];
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) {
        int at = (threadIdx.x + k * THREADS) * EIGHT;
        if (wide && at + EIGHT <= size) chunks[k].read_wide(from + at);
        else chunks[k].read_each(from + at, size - at);
    }
#pragma unroll 4
    for (int row = threadIdx.x; row < live; row += THREADS) {
        int first = predicted[first_row + row];
        real_t m = number(from[row * classes + max(first, 0)]);
        maxima[row] = first < 0 ? static_cast<real_t>(__int_as_float(0x7FC00000)) : m;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) {
        int at = (threadIdx.x + k * THREADS) * EIGHT;
        float x[EIGHT];
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            int row = min((at + i) * reciprocal >> 16, TILE / 3 - 1);
            x[i] = at + i < size ? x_of(chunks[k].at(i), maxima[row]) : 0.0f;
            if (!(x[i] <= 0.0f)) x[i] = 0.0f;  // of an invalid row
        }
        uint4 four = {two_halves(x[0], x[1]), two_halves(x[2], x[3]), two_halves(x[4], x[5]),
                      two_halves(x[6], x[7])};
        if (wide_out && at + EIGHT <= size) {
            *reinterpret_cast<uint4*>(to + at) = four;
        } else {
            uint32 words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int i = 0; i < EIGHT; i++)
                if (at + i < size) to[at + i] = static_cast<uint16>(words[i / 2] >> (i % 2 * 16));
        }
    }
}

// Adds what a lane has of a row's classes: chunks `lane`, `lane + lanes` and so on.
template <class Origin>
__device__ __forceinline__ void add_row(
    const value_t* __restrict__ row, int classes, int first, Origin origin, int lane, int lanes,
    int wide, Powers& powers) {
    int chunks = (classes + WIDTH - 1) / WIDTH, chunk_of_first = first / WIDTH;
    Chunk<WIDTH> next, now;
    auto read = [&](Chunk<WIDTH>& chunk, int at) {
        if (wide) chunk.read_wide(row + static_cast<int64>(at) * WIDTH);
        else chunk.read_each(row + static_cast<int64>(at) * WIDTH, classes - at * WIDTH);
    };
    if (lane < chunks) read(next, lane);
    for (int at = lane; at < chunks; at += lanes) {
        now = next;
        if (at + lanes < chunks) read(next, at + lanes);
        float t[WIDTH];
#pragma unroll
        for (int i = 0; i < WIDTH; i++) t[i] = t_of(now.at(i), origin);
        if (at == chunk_of_first) {  // it counts as nothing, for log1p
#pragma unroll
            for (int i = 0; i < WIDTH; i++)
                if (i == first % WIDTH) t[i] = LOWEST_T;
        }
#pragma unroll
        for (int i = 0; i < WIDTH; i++) powers.add(quick_exp2(t[i]), t[i]);
    }
}

// Sums are folded over lanes so that each lane is left with some: of two neighbours' numbers one
// keeps those of even places and gives those of odd ones. Slopes stand from place 16 on.
constexpr int PLACES = 32;

template <int STAGE>
__device__ __forceinline__ void fold(float (&sums)[PLACES]) {
    constexpr int HALF = (PLACES / 2) >> STAGE, LIVE = (POWERS + (1 << STAGE) - 1) >> STAGE;
    bool odd = threadIdx.x >> STAGE & 1;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        int place = 2 * i;
        if (HALF > 1 && place % HALF >= LIVE) continue;
        bool pair = HALF == 1 || place % HALF + 1 < LIVE;
        float even_one = sums[place], odd_one = pair ? sums[place + 1] : 0.0f;
        float other = __shfl_xor_sync(WHOLE_WARP, odd ? even_one : odd_one, 1 << STAGE);
        sums[i] = (odd ? odd_one : even_one) + other;
    }
}

__device__ __forceinline__ void keep(uint16* kept, int k, float sum, float slope) {
    kept[k] = float_to_half(log1pf(sum));
    kept[POWERS + k] = float_to_half(slope / (1.0f + sum) * (X_OF_T * beta_at(k)));
}

// Writes a row's curve, given what is left to a lane of `LANES`.
template <int LANES>
__device__ __forceinline__ void keep_curve(const float (&sums)[PLACES], bool valid, uint16* kept) {
    int lane = threadIdx.x % LANES;
    if constexpr (LANES == 32) {
        float slope = __shfl_xor_sync(WHOLE_WARP, sums[0], 16);
        if (lane < POWERS) keep(kept, lane, valid ? sums[0] : 0.0f, valid ? slope : 0.0f);
    } else {
        constexpr int EACH = 16 / LANES;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int k = i * LANES + lane;
            if (i * LANES < POWERS && k < POWERS)
                keep(kept, k, valid ? sums[i] : 0.0f, valid ? sums[EACH + i] : 0.0f);
        }
    }
}

__device__ __forceinline__ void place_sums(const Powers& powers, float (&sums)[PLACES]) {
#pragma unroll
    for (int k = 0; k < POWERS; k++) sums[k] = powers.sum[k], sums[PLACES / 2 + k] = powers.slope[k];
}

// Rows of a warp are taken by `lanes` each, a power of two; what they keep is contiguous.
extern "C" __global__ void __launch_bounds__(256, 3) profile_curves(
    const value_t* __restrict__ values, const int* __restrict__ predicted, int64 n, int classes,
    int lanes, int wide, int wide_out, uint16* kept) {
    alignas(4) __shared__ uint16 curves[WARPS][32 * CURVE];
    int rows = 32 / lanes, warp = threadIdx.x / 32, lane = threadIdx.x % lanes;
    int of_warp = threadIdx.x % 32 / lanes;
    int64 step = static_cast<int64>(gridDim.x) * WARPS * rows;
    int64 start = (static_cast<int64>(blockIdx.x) * WARPS + warp) * rows;
    // Of the rows to come, what is the largest of the next and where it is in the one after.
    auto first_of = [&](int64 row) { return row < n ? predicted[row] : -1; };
    auto largest = [&](int64 row, int first) {
        return first < 0 ? static_cast<real_t>(1) : number(__ldg(values + row * classes + first));
    };
    int first = first_of(start + of_warp), next_first = first_of(start + step + of_warp);
    real_t m = largest(start + of_warp, first);
    for (; start < n; start += step) {
        int64 row = start + of_warp;
        int after_next = first_of(row + 2 * step);
        real_t next_m = largest(row + step, next_first);
        Powers powers;
        if (first >= 0)
            add_row(values + row * classes, classes, first, origin_of(m), lane, lanes, wide, powers);
        float sums[PLACES];
        place_sums(powers, sums);
        bool valid = first >= 0;
        uint16* curve = curves[warp] + of_warp * CURVE;
        __syncwarp();
        if (lanes == 1) keep_curve<1>(sums, valid, curve);
        if (lanes >= 2) fold<0>(sums);
        if (lanes == 2) keep_curve<2>(sums, valid, curve);
        if (lanes >= 4) fold<1>(sums);
        if (lanes == 4) keep_curve<4>(sums, valid, curve);
        if (lanes >= 8) fold<2>(sums);
        if (lanes == 8) keep_curve<8>(sums, valid, curve);
        if (lanes >= 16) fold<3>(sums);
        if (lanes == 16) keep_curve<16>(sums, valid, curve);
        if (lanes == 32) fold<4>(sums), keep_curve<32>(sums, valid, curve);
        __syncwarp();
        int halves = static_cast<int>(min(static_cast<int64>(rows), n - start)) * CURVE;
        uint16* to = kept + start * CURVE;
        if (wide_out) {
            for (int i = threadIdx.x % 32; i < halves / 2; i += 32)
                reinterpret_cast<uint32*>(to)[i] = reinterpret_cast<uint32*>(curves[warp])[i];
        } else {
            for (int i = threadIdx.x % 32; i < halves; i += 32) to[i] = curves[warp][i];
        }
        first = next_first, m = next_m, next_first = after_next;
    }
}

// A row is taken by a block.
extern "C" __global__ void __launch_bounds__(256, 3) profile_long(
    const value_t* __restrict__ values, const int* __restrict__ predicted, int64 n, int classes,
    int wide, uint16* kept) {
    __shared__ float of_warps[WARPS][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int64 row = blockIdx.x; row < n; row += gridDim.x) {
        int first = predicted[row];
        bool valid = first >= 0;
        const value_t* from = values + row * classes;
        Powers powers;
        if (valid) {
            auto origin = origin_of(number(from[first]));
            add_row(from, classes, first, origin, threadIdx.x, THREADS, wide, powers);
        }
        float sums[PLACES];
        place_sums(powers, sums);
        fold<0>(sums), fold<1>(sums), fold<2>(sums), fold<3>(sums), fold<4>(sums);
        of_warps[warp][lane] = sums[0];
        __syncthreads();
        if (warp == 0) {
            sums[0] = 0.0f;
            for (int i = 0; i < WARPS; i++) sums[0] += of_warps[i][lane];
            keep_curve<32>(sums, valid, kept + row * CURVE);
        }
        __syncthreads();
    }
}
