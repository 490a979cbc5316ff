// Transitions between two epochs; see the contract.
#include "parts.cuh"
#include "rows.cuh"

constexpr int THREADS = 128, SPAN = SETTLED / FOUR;  // fours of rows
constexpr int CELLS = 5, COUNTS = 10, COUNTED = 5;
constexpr int INFINITE = 5, INVALID = 6, RELABELLED = 7, ONLY_FROM = 8, ONLY_TO = 9;
constexpr int RR = 0, RW = 1, WR = 2, WW_SAME = 3, WW_CHANGED = 4;
constexpr int LIMBS = Exact<loss_t>::LIMBS;
constexpr int CELL_BITS = 12;  // of a count of rows in a cell, of which 5 are in 64 bits

using Losses = Sum<loss_t, 1, sizeof(loss_t) == 4 ? 4 : 3>;
constexpr int OWN = Losses::NEAR + Losses::FAR;  // words of a thread for each cell

extern "C" __global__ void __launch_bounds__(128, 8) transitions(
    const loss_t* __restrict__ loss_from, const int* __restrict__ predicted_from,
    const int* __restrict__ labels_from, const uint8* __restrict__ flags_from,
    const loss_t* __restrict__ loss_to, const int* __restrict__ predicted_to,
    const int* __restrict__ labels_to, const uint8* __restrict__ flags_to,
    int64 n, int64* counts, int64* sums) {
    __shared__ int64 limbs[CELLS * LIMBS], found[COUNTS];
    __shared__ Losses::word words[CELLS * OWN * THREADS];
    int me = threadIdx.x;
    for (int i = me; i < CELLS * LIMBS; i += THREADS) limbs[i] = 0;
    for (int i = me; i < COUNTS; i += THREADS) found[i] = 0;
    Losses::word* own = words + me;
    for (int k = 0; k < CELLS * OWN; k++) own[k * THREADS] = 0;
    __syncthreads();

    uint32 counted[COUNTED] = {};  // by bytes, from INFINITE on
    uint64 in_cells = 0;
    auto settle = [&] {
#pragma unroll
        for (int k = 0; k < CELLS; k++) {
            Losses::settle_all(limbs + k * LIMBS, own + k * OWN * THREADS);
            int rows = in_cells >> k * CELL_BITS & ((1 << CELL_BITS) - 1);
            add_counts(found + k, rows);
        }
#pragma unroll
        for (int k = 0; k < COUNTED; k++) {
            add_counts(found + INFINITE + k, bytes_of(counted[k]));
            counted[k] = 0;
        }
        in_cells = 0;
    };

    int before = rows_before(labels_from);
    bool aligned = is_aligned(loss_from, before) && is_aligned(predicted_from, before) &&
                   is_aligned(labels_from, before) && is_aligned(flags_from, before) &&
                   is_aligned(loss_to, before) && is_aligned(predicted_to, before) &&
                   is_aligned(labels_to, before) && is_aligned(flags_to, before);
    int64 fours = (n + before + FOUR - 1) / FOUR, step = static_cast<int64>(gridDim.x) * THREADS;
    int since = 0;
    for (int64 first = static_cast<int64>(blockIdx.x) * THREADS; first < fours; first += step) {
        int64 row = first * FOUR - before;  // of the block
        uint32 mine = me * FOUR;
        uint32 was, is;
        Four<loss_t> x, y;
        Four<int> predicted, then, label, label_then;
        if (aligned && row >= 0 && row + THREADS * FOUR <= n) {
            read(was, flags_from + row + mine);
            read(is, flags_to + row + mine);
            read(label, labels_from + row + mine);
            read(label_then, labels_to + row + mine);
            read(predicted, predicted_from + row + mine);
            read(then, predicted_to + row + mine);
            read(x, loss_from + row + mine);
            read(y, loss_to + row + mine);
        } else {
            read_some(was, flags_from, row + mine, n);
            read_some(is, flags_to, row + mine, n);
            read_some(label, labels_from, row + mine, n);
            read_some(label_then, labels_to, row + mine, n);
            read_some(predicted, predicted_from, row + mine, n);
            read_some(then, predicted_to, row + mine, n);
            read_some(x, loss_from, row + mine, n);
            read_some(y, loss_to, row + mine, n);
        }
        uint32 there = present_of(was), here = present_of(is), invalid = invalid_of(was | is);
        uint32 valid = there & here & ~invalid;
        counted[ONLY_FROM - INFINITE] += there & ~here;
        counted[ONLY_TO - INFINITE] += here & ~there;
        counted[INVALID - INFINITE] += there & here & invalid;
        int cell[FOUR];
        uint32 other = 0;
        bool usual = true;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            bool same = label.at[i] == label_then.at[i];
            other |= same ? 0u : 1u << 8 * i;
            bool taken = same && has(valid, i), right = has(was >> 5, i);
            int changed = predicted.at[i] == then.at[i] ? WW_SAME : WW_CHANGED;
            cell[i] = has(is >> 5, i) ? (right ? RR : WR) : right ? RW : changed;
            in_cells += taken ? 1ull << cell[i] * CELL_BITS : 0ull;
            x.at[i] = taken ? x.at[i] : 0;
            y.at[i] = taken ? y.at[i] : 0;
            usual &= (fabs(x.at[i]) <= USUAL) & (fabs(y.at[i]) <= USUAL);
        }
        counted[RELABELLED - INFINITE] += valid & other;
        if (!usual) {
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                if (!isfinite(x.at[i]) || !isfinite(y.at[i])) {
                    counted[0] += 1u << 8 * i;
                    x.at[i] = y.at[i] = 0;
                    continue;
                }
                auto* large = own + (cell[i] * OWN + Losses::NEAR) * THREADS;
                int64* to = limbs + cell[i] * LIMBS;
                if (fabs(x.at[i]) > USUAL) x.at[i] = Losses::add_large(large, to, x.at[i], -1);
                if (fabs(y.at[i]) > USUAL) y.at[i] = Losses::add_large(large, to, y.at[i], 1);
            }
        }
        bool left = false;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            Losses::word minus[Losses::NEAR], plus[Losses::NEAR];
            Losses::split(x.at[i], minus);
            Losses::split(y.at[i], plus);
#pragma unroll
            for (int k = 0; k < Losses::NEAR; k++) plus[k] -= minus[k];
            Losses::add_near(own + cell[i] * OWN * THREADS, plus);
            left |= (x.at[i] != 0) | (y.at[i] != 0);
        }
        if (left) {
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                auto* small = own + (cell[i] * OWN + Losses::NEAR) * THREADS;
                int64* to = limbs + cell[i] * LIMBS;
                if (x.at[i] != 0) Losses::add_far(small, to, x.at[i], -1);
                if (y.at[i] != 0) Losses::add_far(small, to, y.at[i], 1);
            }
        }
        if (++since == SPAN || first + step >= fours) {
            since = 0;
            settle();
        }
    }
    __syncthreads();
    for (int i = me; i < CELLS * LIMBS; i += THREADS)
        if (limbs[i]) add_to(sums + i, limbs[i]);
    for (int i = me; i < COUNTS; i += THREADS)
        if (found[i]) add_to(counts + i, found[i]);
}
