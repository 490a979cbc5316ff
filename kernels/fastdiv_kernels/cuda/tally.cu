// Totals of an epoch; see the contract.
#include "bins.cuh"
#include "rows.cuh"

constexpr int THREADS = 256, SPAN = SETTLED / FOUR;  // fours of rows
constexpr int REASONS = 8, INFINITE = 8, COUNTED = 5, RIGHT_ROWS = 3, FINITE_MARGIN = 13, COUNTS = 14;
constexpr int CONFIDENCE = 0, MARGIN = 1, BRIER = 2, BIN_CONFIDENCE = 3;
constexpr int RIGHT = 0, WRONG = 1;
constexpr int LIMBS = Exact<loss_t>::LIMBS;
// Words of a lane besides those of bins: rows by reason, losses and margins that are not finite.
constexpr int ODD_LOSS = REASONS, ODD_MARGIN = REASONS + 1, OTHERS = REASONS + 2;

using Losses = Sum<loss_t, 1, sizeof(loss_t) == 4 ? 4 : 3>;
using Margins = Sum<float, 1, 3>;
using Briers = Sum<float, 1, 5>;

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

extern "C" __global__ void __launch_bounds__(256, LOSS_BYTES == 8 ? 2 : 3) tally(
    const loss_t* __restrict__ loss, const float* __restrict__ confidence,
    const float* __restrict__ margin, const float* __restrict__ brier,
    const uint8* __restrict__ flags, int64 n, int64* counts, int64* bins, int64* loss_sums,
    int64* sums) {
    __shared__ uint32 table[BINS * BIN_WORDS * LANES], others[OTHERS * LANES];
    __shared__ Losses::word far_losses[2 * Losses::FAR * THREADS];
    __shared__ int far_margins[Margins::FAR * THREADS], far_briers[Briers::FAR * THREADS];
    __shared__ int64 limbs[2 * LIMBS + (BIN_CONFIDENCE + BINS) * LIMBS_32];
    __shared__ int64 found[COUNTS + 2 * BINS];
    int me = threadIdx.x, lane = lane_of();
    for (int i = me; i < BINS * BIN_WORDS * LANES; i += THREADS) table[i] = 0;
    for (int i = me; i < OTHERS * LANES; i += THREADS) others[i] = 0;
    for (int i = me; i < 2 * LIMBS + (BIN_CONFIDENCE + BINS) * LIMBS_32; i += THREADS) limbs[i] = 0;
    for (int i = me; i < COUNTS + 2 * BINS; i += THREADS) found[i] = 0;
    Losses::word *far_right = far_losses + me, *far_wrong = far_right + Losses::FAR * THREADS;
    int *far_margin = far_margins + me, *far_brier = far_briers + me;
    for (int k = 0; k < Losses::FAR; k++) far_right[k * THREADS] = far_wrong[k * THREADS] = 0;
    for (int k = 0; k < Margins::FAR; k++) far_margin[k * THREADS] = 0;
    for (int k = 0; k < Briers::FAR; k++) far_brier[k * THREADS] = 0;
    int64* limbs_32 = limbs + 2 * LIMBS;
    __syncthreads();

    Losses::raw all[Losses::NEAR] = {}, of_right[Losses::NEAR] = {};
    uint32 margins[Margins::NEAR] = {}, briers[Briers::NEAR] = {};
    uint32 counted[COUNTED] = {};  // by bytes: valid, unnormalized, tie, right, top 5
    int since = 0;
    auto settle = [&] {
        uint32 rows = since * FOUR, right = bytes_of(counted[RIGHT_ROWS]);
#pragma unroll
        for (int k = 0; k < Losses::NEAR; k++) all[k] -= of_right[k];
        Losses::settle_raw(limbs + RIGHT * LIMBS, of_right, right);
        Losses::settle_raw(limbs + WRONG * LIMBS, all, rows - right);
        Losses::settle_far(limbs + RIGHT * LIMBS, far_right);
        Losses::settle_far(limbs + WRONG * LIMBS, far_wrong);
        Margins::settle_raw(limbs_32 + MARGIN * LIMBS_32, margins, rows);
        Margins::settle_far(limbs_32 + MARGIN * LIMBS_32, far_margin);
        Briers::settle_raw(limbs_32 + BRIER * LIMBS_32, briers, rows);
        Briers::settle_far(limbs_32 + BRIER * LIMBS_32, far_brier);
#pragma unroll
        for (int k = 0; k < COUNTED; k++) {
            add_counts(found + (k ? INFINITE + k : 0), bytes_of(counted[k]));
            counted[k] = 0;
        }
        __syncthreads();
        for (int b = me / LANES; b < BINS; b += THREADS / LANES) {
            int64 rows = taken<uint32>(table, b * BIN_WORDS);
            int64 high = taken<uint32>(table, b * BIN_WORDS + 1);
            int64 low = taken<int>(table, b * BIN_WORDS + 2);
            if (lane == 0) {
                add_to(found + COUNTS + 2 * b, rows & 0xFFFF);
                add_to(found + COUNTS + 2 * b + 1, rows >> 16);
                for (int which : {CONFIDENCE, BIN_CONFIDENCE + b}) {
                    add_fixed<float>(limbs_32 + which * LIMBS_32, high, GRID_HIGH);
                    add_fixed<float>(limbs_32 + which * LIMBS_32, low, GRID_LOW);
                }
            }
        }
        __syncthreads();
    };

    int before = rows_before(confidence);
    bool aligned = is_aligned(loss, before) && is_aligned(confidence, before) &&
                   is_aligned(margin, before) && is_aligned(brier, before) &&
                   is_aligned(flags, before);
    int64 fours = (n + before + FOUR - 1) / FOUR, step = static_cast<int64>(gridDim.x) * THREADS;
    for (int64 first = static_cast<int64>(blockIdx.x) * THREADS; first < fours; first += step) {
        int64 row = first * FOUR - before;  // of the block
        uint32 mine = me * FOUR;
        uint32 own = 0;
        Four<loss_t> x;
        Four<float> p, m, s;
        if (aligned && row >= 0 && row + THREADS * FOUR <= n) {
            read(own, flags + row + mine);
            read(x, loss + row + mine);
            read(p, confidence + row + mine);
            read(m, margin + row + mine);
            read(s, brier + row + mine);
        } else {
            read_some(own, flags, row + mine, n);
            read_some(x, loss, row + mine, n);
            read_some(p, confidence, row + mine, n);
            read_some(m, margin, row + mine, n);
            read_some(s, brier, row + mine, n);
        }
        uint32 present = present_of(own), valid = present & ~invalid_of(own);
        if (present != valid) {
            for (int i = 0; i < FOUR; i++)
                if (has(present & ~valid, i))
                    atomicAdd(others + (own >> 8 * i & REASON) * LANES + lane, 1u);
        }
        counted[0] += valid;
#pragma unroll
        for (int k = 1; k < COUNTED; k++) counted[k] += own >> (k + 2) & valid;
        uint32 right = own >> 5 & valid;
        if (valid != EACH) {
#pragma unroll
            for (int i = 0; i < FOUR; i++)
                if (!has(valid, i)) x.at[i] = p.at[i] = m.at[i] = s.at[i] = 0;
        }
        int bin[FOUR];
        bool usual = true;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            bin[i] = bin_of(p.at[i]);
            usual &= (fabs(x.at[i]) <= USUAL) & (fabs(m.at[i]) <= USUAL);
            usual &= (fabs(s.at[i]) <= USUAL) & is_summed(p.at[i]);
        }
        if (!usual) {
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                loss_t& y = x.at[i];
                if (!isfinite(y)) {
                    atomicAdd(others + ODD_LOSS * LANES + lane, 1u);
                    y = 0;
                } else if (fabs(y) > USUAL) {
                    bool is = has(right, i);
                    y = Losses::add_large(
                        is ? far_right : far_wrong, limbs + (is ? RIGHT : WRONG) * LIMBS, y, 1);
                }
                if (!isfinite(m.at[i])) {
                    atomicAdd(others + ODD_MARGIN * LANES + lane, 1u);
                    m.at[i] = 0;
                } else if (fabs(m.at[i]) > USUAL) {
                    m.at[i] = Margins::add_large(
                        far_margin, limbs_32 + MARGIN * LIMBS_32, m.at[i], 1);
                }
                if (!(fabs(s.at[i]) <= USUAL))
                    s.at[i] = Briers::add_large(far_brier, limbs_32 + BRIER * LIMBS_32, s.at[i], 1);
                if (!is_summed(p.at[i])) {
                    add_to_limbs(limbs_32 + CONFIDENCE * LIMBS_32, p.at[i], 1);
                    add_to_limbs(limbs_32 + (BIN_CONFIDENCE + bin[i]) * LIMBS_32, p.at[i], 1);
                    p.at[i] = 0;
                }
            }
        }
        bool left = false;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            add_to_bin(table + lane, bin[i], pair_of(valid, right, i), p.at[i]);
            Losses::raw parts[Losses::NEAR];
            uint32 of_margin[Margins::NEAR], of_brier[Briers::NEAR];
            Losses::split_raw(x.at[i], parts);
            Margins::split_raw(m.at[i], of_margin);
            Briers::split_raw(s.at[i], of_brier);
            bool is_right = has(right, i);
#pragma unroll
            for (int k = 0; k < Losses::NEAR; k++) {
                all[k] += parts[k];
                of_right[k] += is_right ? parts[k] : 0;
            }
#pragma unroll
            for (int k = 0; k < Margins::NEAR; k++) margins[k] += of_margin[k];
#pragma unroll
            for (int k = 0; k < Briers::NEAR; k++) briers[k] += of_brier[k];
            left |= (x.at[i] != 0) | (m.at[i] != 0) | (s.at[i] != 0);
        }
        if (left) {
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                bool is = has(right, i);
                if (x.at[i] != 0) {
                    Losses::add_far(
                        is ? far_right : far_wrong, limbs + (is ? RIGHT : WRONG) * LIMBS,
                        x.at[i], 1);
                }
                if (m.at[i] != 0)
                    Margins::add_far(far_margin, limbs_32 + MARGIN * LIMBS_32, m.at[i], 1);
                if (s.at[i] != 0)
                    Briers::add_far(far_brier, limbs_32 + BRIER * LIMBS_32, s.at[i], 1);
            }
        }
        if (++since == SPAN || first + step >= fours) {
            settle();
            since = 0;
        }
    }
    for (int k = me / LANES; k < OTHERS; k += THREADS / LANES) {
        int64 rows = taken<uint32>(others, k);
        if (lane == 0) {
            if (k < REASONS) add_to(found + k, rows);
            if (k == ODD_LOSS) add_to(found + INFINITE, rows);
            if (k == ODD_MARGIN) add_to(found + FINITE_MARGIN, -rows);
        }
    }
    __syncthreads();
    if (me == 0) found[FINITE_MARGIN] += found[0];
    __syncthreads();
    auto pass_on = [&](int64* to, const int64* from, int words) {
        for (int i = me; i < words; i += THREADS)
            if (from[i]) add_to(to + i, from[i]);
    };
    pass_on(counts, found, COUNTS);
    pass_on(bins, found + COUNTS, 2 * BINS);
    pass_on(loss_sums, limbs, 2 * LIMBS);
    pass_on(sums, limbs_32, (BIN_CONFIDENCE + BINS) * LIMBS_32);
}
