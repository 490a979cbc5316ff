// `score` of few classes: a thread a row, from shared memory, which rows are copied to as they lie.
#include "score.cuh"

constexpr int THREADS = 256;

// WIDTH values of a row that lies at a multiple of as many.
template <int WIDTH>
__device__ __forceinline__ void read(const stored* from, real* x) {
    constexpr int BYTES = WIDTH * sizeof(stored);
    if (BYTES < 4) {
        x[0] = value(from[0]);
        return;
    }
    uint32 words[BYTES < 4 ? 1 : BYTES / 4];
    if (BYTES == 16) {
        uint4 v = *reinterpret_cast<const uint4*>(from);
        words[0] = v.x, words[1 % (BYTES / 4)] = v.y;
        words[2 % (BYTES / 4)] = v.z, words[3 % (BYTES / 4)] = v.w;
    } else if (BYTES == 8) {
        uint2 v = *reinterpret_cast<const uint2*>(from);
        words[0] = v.x, words[BYTES == 8] = v.y;
    } else {
        words[0] = *reinterpret_cast<const uint32*>(from);
    }
    values_of<WIDTH>(words, x);
}

// What does not change while a row is summed, and its sums, each in four parts.
struct Sums {
    int label;
    real y, above, origin;
    real sums[4], squares[4];

    // Adds classes from `first` on, of which the first belongs to part FROM; the last one first, so
    // that the last one that is seen to have the maximum is the first that has it.
    template <int COUNT, int FROM>
    __device__ __forceinline__ void add(Part& part, const real* x, int first) {
#pragma unroll
        for (int i = COUNT - 1; i >= 0; i--) {
            count_from(part.ahead, x[i], first + i < label ? y : above);
            bool top = x[i] == part.highest;
            if (top) part.at = first + i;
            part.attained += top;
            real left = top ? absent() : x[i];
            part.second = fmax(part.second, left);
            real w = TAKES_EXP ? weight(left - origin) : left;
            sums[(FROM + i) % 4] += w;
            squares[(FROM + i) % 4] = fma(w, w, squares[(FROM + i) % 4]);
        }
    }
};

template <int WIDTH>
__device__ __forceinline__ Part part_of(const stored* row, int classes, int label, real y) {
    constexpr int BLOCK = WIDTH < 4 ? 4 : WIDTH;
    Part part;
    part.clear();
#pragma unroll 4
    for (int first = 0; first < classes; first += WIDTH) {
        real x[WIDTH];
        read<WIDTH>(row + first, x);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            part.highest = fmax(part.highest, x[i]);
            if (!TAKES_EXP) {
                part.lowest = fmin(part.lowest, x[i]);
                part.nan |= x[i] != x[i];
            }
        }
    }
    real origin = part.highest == -infinity() ? real(0) : part.highest;
    Sums sums{label, y, next_above(y), origin, {}, {}};
    int whole = classes / BLOCK * BLOCK;
    real x[BLOCK];
    if (WIDTH == 2 && whole < classes) {
        read<WIDTH>(row + whole, x);
        sums.add<WIDTH, 0>(part, x, whole);
    } else if (WIDTH == 1) {
        for (int i = 0; i < 3; i++)
            if (whole + i < classes) x[i] = value(row[whole + i]);
        if (whole + 2 < classes) sums.add<1, 2>(part, x + 2 % BLOCK, whole + 2);
        if (whole + 1 < classes) sums.add<1, 1>(part, x + 1, whole + 1);
        if (whole < classes) sums.add<1, 0>(part, x, whole);
    }
#pragma unroll 1
    for (int first = whole - BLOCK; first >= 0; first -= BLOCK) {
#pragma unroll
        for (int i = 0; i < BLOCK; i += WIDTH) read<WIDTH>(row + first + i, x + i);
        sums.add<BLOCK, 0>(part, x, first);
    }
    part.sum = (sums.sums[0] + sums.sums[1]) + (sums.sums[2] + sums.sums[3]);
    part.squares = (sums.squares[0] + sums.squares[1]) + (sums.squares[2] + sums.squares[3]);
    return part;
}

// Copies rows to shared memory, `pitch` values from one to the next; returns where the first is.
// Of fewer than 2**16 values the i-th is in row i * per_class / 2**32.
__device__ __forceinline__ const stored* copied(
    const stored* from, int count, int classes, int pitch, int width, uint32 per_class,
    uint8* room) {
    int values = count * classes;
    uint32 skew = uint32(reinterpret_cast<uint64>(from) % 16);
    stored* to = reinterpret_cast<stored*>(room);
    bool whole_rows = pitch != classes;
    if ((skew & (width * uint32(sizeof(stored)) - 1)) || (whole_rows && skew)) {
#pragma unroll 1
        for (int i = threadIdx.x; i < values; i += THREADS) {
            int row = __umulhi(i, per_class);
            to[row * pitch + i - row * classes] = from[i];
        }
        return to;
    }
    to += skew / sizeof(stored);
    int head = min(int(-skew % 16 / sizeof(stored)), values);
    int vectors = (values - head) / VECTOR, tail = head + vectors * VECTOR;
#pragma unroll 1
    for (int i = threadIdx.x; i < head; i += THREADS) to[i] = from[i];
#pragma unroll 1
    for (int i = tail + threadIdx.x; i < values; i += THREADS) to[i] = from[i];
    const uint4* given = reinterpret_cast<const uint4*>(from + head);
    constexpr int TOGETHER = 4;
    for (int first = threadIdx.x; first < vectors; first += TOGETHER * THREADS) {
        uint4 got[TOGETHER];
#pragma unroll
        for (int k = 0; k < TOGETHER; k++)
            if (first + k * THREADS < vectors) got[k] = __ldg(given + first + k * THREADS);
            else got[k] = {0, 0, 0, 0};
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            int at = head + (first + k * THREADS) * VECTOR;
            int row = whole_rows ? int(__umulhi(at, per_class)) : 0;
            stored* place = to + at + row * (pitch - classes);
            if (first + k * THREADS < vectors) *reinterpret_cast<uint4*>(place) = got[k];
        }
    }
    return to;
}

extern "C" __global__ void __launch_bounds__(256) score_few(
    const stored* __restrict__ predictions, const int* __restrict__ labels, int64 n, int classes,
    double tolerance, int rows, int pitch, int width, uint32 per_class,
    real* loss, uint8* correct, int* predicted, float* confidence, float* margin, float* brier,
    int* rank, uint8* status) {
    DYNAMIC_SHARED(uint8, room);
    Outputs to{loss, correct, predicted, confidence, margin, brier, rank, status};
    int64 first = static_cast<int64>(blockIdx.x) * rows;
    int count = int(min(static_cast<int64>(rows), n - first));
    const stored* there =
        copied(predictions + first * classes, count, classes, pitch, width, per_class, room);
    __syncthreads();
    for (int r = threadIdx.x; r < count; r += THREADS) {
        const stored* row = there + r * pitch;
        int label = labels[first + r];
        real y = value_of_label(row, label, classes);
        Part part;
        if (width == 1) part = part_of<1>(row, classes, label, y);
        else if (width == 2) part = part_of<2>(row, classes, label, y);
        else if (VECTOR < 8 || width == 4) part = part_of<VECTOR < 4 ? 2 : 4>(row, classes, label, y);
        else part = part_of<VECTOR>(row, classes, label, y);
        finish(part, y, label, classes, tolerance, to, first + r);
    }
}
