// Losses of an epoch at the temperatures of the grid, in fixed point; see the contract.
//
// A thread adds integers alone: s(beta) and slopes as multiples of a unit, gaps as multiples of
// 2**-28, which are multiplied by beta once they are summed.
#include "exact.cuh"
#include "powers.cuh"

constexpr int THREADS = 256;
constexpr float FAR = 134217728.0f;      // 2**27 nats: rows that lack more are added one by one
constexpr double HIGHEST = 1073741824.0;  // HIGHEST_SUMMED
constexpr double UNIT = 4294967296.0;

// What a block adds to the caller's.
struct Totals {
    int64 limbs[CURVE][2], gap[2], rows;
};

__device__ __forceinline__ void clear(Totals& totals) {
    int64* words = reinterpret_cast<int64*>(&totals);
    constexpr int WORDS = sizeof(Totals) / sizeof(int64);
    for (int i = threadIdx.x; i < WORDS; i += blockDim.x) words[i] = 0;
    __syncthreads();
}

// A thread's rows and their gaps.
struct Gaps {
    int64 low = 0, high = 0;  // multiples of 2**-28 and of 2**4
    int rows = 0;

    // Tells whether a row is added, and counts it.
    __device__ __forceinline__ bool takes(loss_t loss, float margin, uint32 flags) {
        bool there = (flags & (PRESENT | REASON)) == PRESENT && isfinite(loss) &&
                     margin > -__int_as_float(0x7F800000);
        rows += there;
        return there;
    }
    __device__ __forceinline__ void add(float gap) {
        int64 fixed = __float2ll_rn(gap * 268435456.0f);
        low += fixed & 0xFFFFFFFF;
        high += fixed >> 32;
    }
    __device__ __forceinline__ void settle(Totals& totals) {
        for (int by = 16; by; by /= 2) {
            low += __shfl_xor_sync(WHOLE_WARP, low, by);
            high += __shfl_xor_sync(WHOLE_WARP, high, by);
        }
        if (threadIdx.x % 32 == 0) {
            add_to(totals.gap, low);
            add_to(totals.gap + 1, high);
        }
        add_counts(&totals.rows, rows);
    }
};

// Adds a row that lacks so much that it may be more than is added at most.
__device__ __forceinline__ void add_far(Totals& totals, int k, double value, float gap) {
    double x = fmin(value + static_cast<double>(beta_at(k % POWERS)) * gap, HIGHEST);
    int64 fixed = __double2ll_rn(x * UNIT);
    add_to(totals.limbs[k], fixed & 0xFFFFFFFF);
    add_to(totals.limbs[k] + 1, fixed >> 32);
}

// The same of a row of differences, of which there is one where classes are two.
__device__ __noinline__ void add_far_row(
    Totals& totals, const uint16* row, int classes, float margin) {
    for (int k = 0; k < POWERS; k++) {
        double beta = beta_at(k), sum = 0.0, slope = 0.0;
        for (int j = 0; j < classes; j++) {
            double x = classes == 2 ? (j ? -fabs(margin) : 0.0f) : half_to_float(row[j]);
            double t = beta * fmax(x, -65504.0), u = exp(t);
            sum += u;
            slope += u * t;
        }
        add_far(totals, k, log(sum), -margin);
        add_far(totals, POWERS + k, slope / sum, -margin);
    }
}

// The same of a row's curve.
__device__ __noinline__ void add_far_curve(Totals& totals, const uint16* row, float margin) {
    for (int k = 0; k < CURVE; k++) add_far(totals, k, half_to_float(row[k]), -margin);
}

// Adds what a block has to the caller's.
__device__ __forceinline__ void give(const Totals& totals, int64* counts, int64* sums) {
    __syncthreads();
    int64 low = totals.gap[0] & 0xFFFFFFFF, high = totals.gap[1] + (totals.gap[0] >> 32);
    for (int i = threadIdx.x; i < 2 * CURVE; i += blockDim.x) {
        int64 gap = sixteen_betas(i / 2 % POWERS) * (i & 1 ? high : low);
        int64 found = totals.limbs[i / 2][i & 1] + gap;
        if (found) add_to(sums + i, found);
    }
    if (threadIdx.x == 0 && totals.rows) add_to(counts, totals.rows);
}

// Adds multiples of 2**(bits - 32) that the threads of a warp have.
__device__ __forceinline__ void add_sum(int64* limbs, int64 sum, int bits) {
    for (int by = 16; by; by /= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, by);
    if (threadIdx.x % 32 == 0 && sum) {
        add_to(limbs, (sum << bits) & 0xFFFFFFFF);
        add_to(limbs + 1, sum >> (32 - bits));
    }
}

// Two classes, whose x is (0, -|margin|), or a profile that is a vector: a thread takes a row.
extern "C" __global__ void __launch_bounds__(256, 2) tally_rows(
    const loss_t* __restrict__ loss, const float* __restrict__ margin,
    const uint8* __restrict__ flags, const uint16* __restrict__ profile, int64 n, int classes,
    int by_words, int64* counts, int64* sums) {
    constexpr int SLOPE_BITS = 2;  // slopes are less than 2, and multiples of 2**-30
    __shared__ Totals totals;
    clear(totals);
    Gaps gaps;
    int64 s[POWERS] = {}, slopes[POWERS] = {};
    int64 step = static_cast<int64>(gridDim.x) * THREADS;
    for (int64 i = static_cast<int64>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += step) {
        float m = margin[i];
        if (!gaps.takes(loss[i], m, flags[i])) continue;
        const uint16* row = profile + i * classes;
        if (m <= -FAR) {
            add_far_row(totals, row, classes, m);
            continue;
        }
        gaps.add(fmaxf(0.0f, -m));
        Powers powers;
        auto add = [&](float x) {
            float t = fmaxf(x * LOG2E_16, LOWEST_T);
            powers.add(precise_exp2(t), t);
        };
        if (classes == 2) {
            add(-fabs(m));
        } else {
            bool found = false;  // the first 0, which is left out for log1p
            auto add_other = [&](uint32 half) {
                bool first = !found && !(half & 0x7FFF);
                found = found || first;
                add(first ? -__int_as_float(0x7F800000) : half_to_float(half));
            };
            if (by_words) {
                const uint32* words = reinterpret_cast<const uint32*>(row);
                for (int j = 0; j < classes / 2; j++) {
                    uint32 word = __ldg(words + j);
                    add_other(word & 0xFFFF);
                    add_other(word >> 16);
                }
            } else {
                for (int j = 0; j < classes; j++) add_other(__ldg(row + j));
            }
        }
#pragma unroll
        for (int k = 0; k < POWERS; k++) {
            float sum = powers.sum[k];
            s[k] += __float2ll_rn(log1p_of(sum) * static_cast<float>(UNIT));
            float mean = powers.slope[k] * inverse_of(1.0f + sum) * (X_OF_T * beta_at(k));
            slopes[k] += __float2int_rn(mean * static_cast<float>(UNIT / (1 << SLOPE_BITS)));
        }
    }
#pragma unroll
    for (int k = 0; k < POWERS; k++) {
        add_sum(totals.limbs[k], s[k], 0);
        add_sum(totals.limbs[POWERS + k], slopes[k], SLOPE_BITS);
    }
    gaps.settle(totals);
    give(totals, counts, sums);
}

// Profiles that are curves: each vector of eight numbers is a thread's, and its numbers of the same
// columns in all that it takes: 11 vectors are four rows.
constexpr int COLUMN_THREADS = 352, EIGHT = 8, TOGETHER = 4;
constexpr int AT_ONCE = COLUMN_THREADS * EIGHT / CURVE, TILE = AT_ONCE * TOGETHER;  // rows
constexpr int SAME = COLUMN_THREADS / POWERS, MEMBERS = POWERS * EIGHT;
constexpr float FARTHEST = 31.984375f;  // nats: of 7e13 classes just so
constexpr int STORED_BITS = 8;          // halves are multiples of 2**-24

extern "C" __global__ void __launch_bounds__(352, 2) tally_curves(
    const loss_t* __restrict__ loss, const float* __restrict__ margin,
    const uint8* __restrict__ flags, const uint16* __restrict__ profile, int64 n, int wide,
    int64* counts, int64* sums) {
    __shared__ Totals totals;
    __shared__ int64 partial[EIGHT][COLUMN_THREADS];
    __shared__ uint8 taken[2][TILE + 1];
    clear(totals);
    Gaps gaps;
    int64 sum[EIGHT] = {};
    int row_of_first = threadIdx.x * EIGHT / CURVE, column = threadIdx.x * EIGHT % CURVE;
    int turn = 0;
    for (int64 start = static_cast<int64>(blockIdx.x) * TILE; start < n;
         start += static_cast<int64>(gridDim.x) * TILE, turn ^= 1) {
        int live = static_cast<int>(min(static_cast<int64>(TILE), n - start));
        int size = live * CURVE;
        const uint16* from = profile + start * CURVE;
        uint4 fours[TOGETHER];
#pragma unroll
        for (int part = 0; part < TOGETHER; part++) {
            int at = (part * COLUMN_THREADS + threadIdx.x) * EIGHT;
            if (wide && at + EIGHT <= size) {
                fours[part] = __ldg(reinterpret_cast<const uint4*>(from + at));
            } else {
                uint32 words[4];
#pragma unroll
                for (int i = 0; i < EIGHT; i += 2) {
                    uint32 low = at + i < size ? __ldg(from + at + i) : 0;
                    uint32 high = at + i + 1 < size ? __ldg(from + at + i + 1) : 0;
                    words[i / 2] = low | high << 16;
                }
                fours[part] = {words[0], words[1], words[2], words[3]};
            }
        }
        for (int row = threadIdx.x; row < TILE; row += COLUMN_THREADS) {
            int64 i = start + row;
            bool there = false;
            if (row < live) {
                float m = margin[i];
                there = gaps.takes(loss[i], m, flags[i]);
                if (there && m <= -FAR) {
                    there = false;
                    add_far_curve(totals, from + row * CURVE, m);
                } else if (there) {
                    gaps.add(fmaxf(0.0f, -m));
                }
            }
            taken[turn][row] = there;
        }
        __syncthreads();
#pragma unroll
        for (int part = 0; part < TOGETHER; part++) {
            uint32 words[4] = {fours[part].x, fours[part].y, fours[part].z, fours[part].w};
            const uint8* rows = taken[turn] + part * AT_ONCE + row_of_first;
            float scale = rows[0] ? 16777216.0f : 0.0f;
            float next_scale = rows[1] ? 16777216.0f : 0.0f;
#pragma unroll
            for (int i = 0; i < EIGHT; i++) {
                float x = half_to_float(i & 1 ? words[i / 2] >> 16 : words[i / 2] & 0xFFFF);
                x = fminf(fmaxf(x, -FARTHEST), FARTHEST);
                sum[i] += __float2int_rn(x * (column + i < CURVE ? scale : next_scale));
            }
        }
    }
    // Threads whose numbers differ by a multiple of 11 have the same columns.
#pragma unroll
    for (int i = 0; i < EIGHT; i++) partial[i][threadIdx.x] = sum[i];
    __syncthreads();
    constexpr int SHARES = COLUMN_THREADS / MEMBERS;
    int member = threadIdx.x % MEMBERS, first = threadIdx.x / MEMBERS;
    const int64* of_member = partial[member % EIGHT] + member / EIGHT;
    int64 all = 0;
    for (int k = first; k < SAME; k += SHARES) all += of_member[k * POWERS];
    int64* limbs = totals.limbs[member % CURVE];
    add_to(limbs, (all << STORED_BITS) & 0xFFFFFFFF);
    add_to(limbs + 1, all >> (32 - STORED_BITS));
    gaps.settle(totals);
    give(totals, counts, sums);
}
