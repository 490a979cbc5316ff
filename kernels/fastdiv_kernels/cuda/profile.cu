// Profiles of rows; see the contract. `score` has found where the largest number is.
//
// Up to VECTORS_UP_TO classes numbers are taken as they lie, eight by a thread. Beyond, up to 32
// lanes take a row, or the block where there are thousands of classes; which classes a lane adds
// hangs on their number alone, and so do the bits of a row.
#include "numbers.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int EIGHT = 8, TOGETHER = 2, TILE = THREADS * EIGHT * TOGETHER;  // numbers of a tile
constexpr int WIDTH = 16 / sizeof(value_t);                                // classes of a chunk
constexpr int GROUP = WIDTH < 4 ? WIDTH : 4;  // that are added at once

extern "C" __global__ void __launch_bounds__(256) profile_vectors(
    const value_t* __restrict__ values, const int* __restrict__ predicted, int64 n, int classes,
    int how, int wide_out, uint16* kept) {
    __shared__ Largest maxima[TILE / 3 + 1];  // the last number of a tile may be of no row
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
        if (how == BY_VECTORS) chunks[k].read<BY_VECTORS>(from + at, size - at);
        else chunks[k].read<ONE_BY_ONE>(from + at, size - at);
    }
#pragma unroll 4
    for (int row = threadIdx.x; row < live; row += THREADS) {
        int first = predicted[first_row + row];
        real_t m = number(from[row * classes + max(first, 0)]);
        maxima[row] = largest_of(first < 0 ? static_cast<real_t>(__int_as_float(0x7FC00000)) : m);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) {
        int at = (threadIdx.x + k * THREADS) * EIGHT;
        float x[EIGHT];
#pragma unroll
        for (int i = 0; i < EIGHT; i++)  // of an invalid row NaN, and so 0
            x[i] = fminf(x_of(chunks[k].at(i), maxima[(at + i) * reciprocal >> 16]), 0.0f);
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

// Adds what a lane has of a row's classes: chunks `lane`, `lane + lanes` and so on. The one of the
// largest number counts as nothing, for log1p.
template <int HOW, class Origin>
__device__ __forceinline__ void add_chunks(
    const value_t* __restrict__ row, int classes, int first, Origin origin, int lane, int lanes,
    Powers& powers) {
    int step = lanes * WIDTH, at = lane * WIDTH;
    const value_t* from = row + at;
    auto read = [&](Chunk<WIDTH>& chunk, int ahead) {
        int there = classes - at - ahead;
        if (HOW != BY_VECTORS) chunk.template read<HOW>(from + ahead, there);
        else chunk.read_vectors(there > 0 ? from + ahead : from);  // classes are whole chunks
    };
    auto add = [&](const Chunk<WIDTH>& chunk) {
#pragma unroll
        for (int i = 0; i < WIDTH; i += GROUP) {
            float t[GROUP];
#pragma unroll
            for (int j = 0; j < GROUP; j++) t[j] = t_of(chunk.at(i + j), origin);
            if (static_cast<uint32>(first - at - i) < GROUP) {
#pragma unroll
                for (int j = 0; j < GROUP; j++)
                    if (first - at == i + j) t[j] = LOWEST_T;
            }
#pragma unroll
            for (int j = 0; j < GROUP; j++) powers.add(quick_exp2(t[j]), t[j]);
        }
        at += step;
        from += step;
    };
    Chunk<WIDTH> even, odd;  // the one is on its way while the other is added
    read(even, 0);
    while (at < classes) {
        read(odd, step);
        add(even);
        if (at >= classes) break;
        read(even, step);
        add(odd);
    }
}

__device__ __forceinline__ void add_row(
    const value_t* __restrict__ row, int classes, int first, int lane, int lanes, int how,
    Powers& powers) {
    auto origin = origin_of(number(__ldg(row + first)));
    if (how == BY_VECTORS)
        add_chunks<BY_VECTORS>(row, classes, first, origin, lane, lanes, powers);
    else if (how == BY_WORDS && sizeof(value_t) == 2)
        add_chunks<BY_WORDS>(row, classes, first, origin, lane, lanes, powers);
    else
        add_chunks<ONE_BY_ONE>(row, classes, first, origin, lane, lanes, powers);
}

// Leaves a lane's sums where others can read them: SPACED apart, so that no two use one bank.
constexpr int SPACED = CURVE + 1;

__device__ __forceinline__ void leave(const Powers& powers, float* of_lane) {
#pragma unroll
    for (int k = 0; k < POWERS; k++) {
        of_lane[k] = powers.sum[k];
        of_lane[POWERS + k] = powers.slope[k];
    }
}

// Writes what a row keeps of a temperature, given its sums.
__device__ __forceinline__ void keep(const float* sums, int k, bool valid, uint16* kept) {
    float sum = sums[k], mean = sums[POWERS + k] * inverse_of(1.0f + sum) * (X_OF_T * beta_at(k));
    kept[k] = valid ? float_to_half(log1p_of(sum)) : 0;
    kept[POWERS + k] = valid ? float_to_half(mean) : 0;
}

// Rows of a warp are taken by `lanes` each, 2 to 32; what they keep is contiguous.
extern "C" __global__ void __launch_bounds__(256, 3) profile_curves(
    const value_t* __restrict__ values, const int* __restrict__ predicted, int64 n, int classes,
    int lanes, int how, int wide_out, uint16* kept) {
    constexpr int MOST_ROWS = 16;
    __shared__ float of_lanes[WARPS][32 * SPACED], of_rows[WARPS][MOST_ROWS * CURVE];
    int rows = 32 / lanes, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64 step = static_cast<int64>(gridDim.x) * WARPS * rows;
    int of_warp = lane / lanes;
    int64 row = (static_cast<int64>(blockIdx.x) * WARPS + warp) * rows + of_warp;
    for (; row - of_warp < n; row += step) {
        int first = row < n ? predicted[row] : -1;
        Powers powers;
        if (first >= 0) {
            const value_t* from = values + row * classes;
            add_row(from, classes, first, lane & (lanes - 1), lanes, how, powers);
        }
        uint32 valid = __ballot_sync(WHOLE_WARP, first >= 0);
        leave(powers, of_lanes[warp] + lane * SPACED);
        __syncwarp();
        for (int i = lane; i < rows * CURVE; i += 32) {
            const float* from = of_lanes[warp] + i / CURVE * lanes * SPACED + i % CURVE;
            float sum = 0.0f;
#pragma unroll 2
            for (int k = 0; k < lanes; k++) sum += from[k * SPACED];
            of_rows[warp][i] = sum;
        }
        __syncwarp();
        uint16* curves = reinterpret_cast<uint16*>(of_lanes[warp]);
        for (int i = lane; i < rows * POWERS; i += 32) {
            int of = i / POWERS, at = of * CURVE;
            keep(of_rows[warp] + at, i % POWERS, valid >> of * lanes & 1, curves + at);
        }
        __syncwarp();
        int64 start = row - of_warp;
        int halves = static_cast<int>(min(static_cast<int64>(rows), n - start)) * CURVE;
        uint16* to = kept + start * CURVE;
        if (wide_out) {
#pragma unroll 1
            for (int i = lane; i < halves / 2; i += 32)
                reinterpret_cast<uint32*>(to)[i] = reinterpret_cast<uint32*>(curves)[i];
        } else {
#pragma unroll 1
            for (int i = lane; i < halves; i += 32) to[i] = curves[i];
        }
        __syncwarp();
    }
}

// A row is taken by a block.
extern "C" __global__ void __launch_bounds__(256, 3) profile_long(
    const value_t* __restrict__ values, const int* __restrict__ predicted, int64 n, int classes,
    int how, uint16* kept) {
    constexpr int PARTS = THREADS / CURVE;
    __shared__ float of_lanes[THREADS * SPACED], of_parts[PARTS * CURVE], of_row[CURVE];
    for (int64 row = blockIdx.x; row < n; row += gridDim.x) {
        int first = predicted[row], i = threadIdx.x;
        Powers powers;
        if (first >= 0)
            add_row(values + row * classes, classes, first, i, THREADS, how, powers);
        leave(powers, of_lanes + i * SPACED);
        __syncthreads();
        float sum = 0.0f;
        if (i < PARTS * CURVE) {
            for (int k = i / CURVE; k < THREADS; k += PARTS)
                sum += of_lanes[k * SPACED + i % CURVE];
            of_parts[i] = sum;
        }
        __syncthreads();
        if (i < CURVE) {
            sum = 0.0f;
            for (int k = 0; k < PARTS; k++) sum += of_parts[k * CURVE + i];
            of_row[i] = sum;
        }
        __syncthreads();
        if (i < POWERS) keep(of_row, i, first >= 0, kept + row * CURVE);
    }
}
