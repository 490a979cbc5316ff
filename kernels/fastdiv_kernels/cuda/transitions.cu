// Transitions between two epochs; see the contract.
#include "exact.cuh"

constexpr int CELLS = 5, COUNTS = 10;
constexpr int INFINITE = 5, INVALID = 6, RELABELLED = 7, ONLY_FROM = 8, ONLY_TO = 9;
constexpr int WW_SAME = 3, WW_CHANGED = 4, NOWHERE = -1;
constexpr int LIMBS = Exact<loss_t>::LIMBS;
constexpr int SETTLED = 1 << 18;  // rows of a thread, whose sums are in fixed point so long

extern "C" __global__ void __launch_bounds__(256) transitions(
    const loss_t* __restrict__ loss_from, const int* __restrict__ predicted_from,
    const int* __restrict__ labels_from, const uint8* __restrict__ flags_from,
    const loss_t* __restrict__ loss_to, const int* __restrict__ predicted_to,
    const int* __restrict__ labels_to, const uint8* __restrict__ flags_to,
    int64 n, int64* counts, int64* sums) {
    __shared__ int64 limbs[CELLS * LIMBS], found[COUNTS];
    for (int i = threadIdx.x; i < CELLS * LIMBS; i += blockDim.x) limbs[i] = 0;
    for (int i = threadIdx.x; i < COUNTS; i += blockDim.x) found[i] = 0;
    __syncthreads();
    int64 step = static_cast<int64>(gridDim.x) * blockDim.x;
    int64 first = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    Window windows[CELLS];
    int count[COUNTS] = {};
    int since = 0;
    // All threads of a warp go round as often as one of them.
    for (int64 at = first - threadIdx.x % 32; at < n; at += step) {
        int64 i = at + threadIdx.x % 32;
        uint32 before = 0, after = 0;
        if (i < n) { before = flags_from[i]; after = flags_to[i]; }
        bool was = before & PRESENT, is = after & PRESENT;
        count[ONLY_FROM] += was && !is;
        count[ONLY_TO] += is && !was;
        if (was && is) {
            bool invalid = (before | after) & REASON;
            bool other = labels_from[i] != labels_to[i];
            count[INVALID] += invalid;
            count[RELABELLED] += !invalid && other;
            if (!invalid && !other) {
                bool right = before & CORRECT, right_after = after & CORRECT;
                int changed = predicted_from[i] == predicted_to[i] ? WW_SAME : WW_CHANGED;
                int cell = right ? (right_after ? 0 : 1) : right_after ? 2 : changed;
                loss_t x = loss_from[i], y = loss_to[i];
                bool finite = isfinite(x) && isfinite(y);
                count[INFINITE] += !finite;
#pragma unroll
                for (int k = 0; k < CELLS; k++) {
                    count[k] += cell == k;
                    if (cell == k && finite) {
                        windows[k].add(limbs + k * LIMBS, y, 1);
                        windows[k].add(limbs + k * LIMBS, x, -1);
                    }
                }
            }
        }
        if (++since == SETTLED) {
            since = 0;
            for (int k = 0; k < CELLS; k++) windows[k].settle<loss_t>(limbs + k * LIMBS);
        }
    }
    for (int k = 0; k < CELLS; k++) windows[k].settle<loss_t>(limbs + k * LIMBS);
    for (int k = 0; k < COUNTS; k++) add_counts(found + k, count[k]);
    __syncthreads();
    for (int i = threadIdx.x; i < CELLS * LIMBS; i += blockDim.x)
        if (limbs[i]) add_to(sums + i, limbs[i]);
    for (int i = threadIdx.x; i < COUNTS; i += blockDim.x)
        if (found[i]) add_to(counts + i, found[i]);
}
