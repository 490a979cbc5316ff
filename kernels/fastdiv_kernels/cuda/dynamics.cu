// Histories of samples, carried on by an epoch; see the contract.
//
// A record is 64 bytes, four pieces of 16. A warp reads 32 of them in order, exchanges pieces by
// shared memory, so that each thread has a record of its own, and writes them in order. All is
// computed in float64 with the operations of the reference: none is fused.
#include "common.cuh"

constexpr int THREADS = 256, LANES = 32, PIECES = 4;

struct Record {
    double mean_p, m2_p, margin_sum, last_loss;
    int64 first_right;
    int n_epochs, n_right, n_margin, forgetting, last_predicted, label;
};

// Where a piece of a warp's record is: pieces at one place of eight records are in all banks.
__device__ __forceinline__ int place_of(int record, int piece) {
    return record * PIECES + (piece ^ (record >> 1 & 3));
}
__device__ __forceinline__ int64 of_pair(int low, int high) {
    return static_cast<int64>(static_cast<uint64>(static_cast<uint32>(high)) << 32 |
                              static_cast<uint32>(low));
}

extern "C" __global__ void __launch_bounds__(256) dynamics(
    int64 epoch, const loss_t* __restrict__ loss, const float* __restrict__ margin,
    const int* __restrict__ predicted, const int* __restrict__ labels,
    const uint8* __restrict__ flags, int64 n, int64* records) {
    __shared__ longlong2 pieces[THREADS * PIECES];
    int lane = threadIdx.x % LANES;
    longlong2* own = pieces + threadIdx.x / LANES * LANES * PIECES;
    bool aligned = reinterpret_cast<uint64>(records) % 16 == 0;
    int64 step = static_cast<int64>(gridDim.x) * THREADS;
    int64 first = static_cast<int64>(blockIdx.x) * THREADS + threadIdx.x / LANES * LANES;
    for (; first < n; first += step) {
        int64 row = first + lane;
        uint32 flag = 0;
        loss_t its_loss = 0;
        float its_margin = 0;
        int said = 0, label = 0;
        if (row < n) {
            flag = flags[row];
            its_loss = loss[row];
            its_margin = margin[row];
            said = predicted[row];
            label = labels[row];
        }
        bool valid = (flag & (PRESENT | REASON)) == PRESENT;
        if (!__any_sync(WHOLE_WARP, valid)) continue;
        int64* words = records + first * PIECES * 2;
        int there = static_cast<int>(n - first < LANES ? n - first : LANES) * PIECES;
#pragma unroll
        for (int k = lane; k < LANES * PIECES; k += LANES) {
            if (k >= there) continue;
            longlong2 piece;
            if (aligned) {
                piece = reinterpret_cast<const longlong2*>(words)[k];
            } else {
                piece = {words[2 * k], words[2 * k + 1]};
            }
            own[place_of(k / PIECES, k % PIECES)] = piece;
        }
        __syncwarp();
        if (valid) {
            longlong2 a = own[place_of(lane, 0)], b = own[place_of(lane, 1)];
            longlong2 c = own[place_of(lane, 2)], d = own[place_of(lane, 3)];
            Record r = {__longlong_as_double(a.x), __longlong_as_double(a.y),
                        __longlong_as_double(b.x), __longlong_as_double(b.y),
                        c.x, static_cast<int>(c.y), static_cast<int>(c.y >> 32),
                        static_cast<int>(d.x), static_cast<int>(d.x >> 32),
                        static_cast<int>(d.y), static_cast<int>(d.y >> 32)};
            bool right = flag & CORRECT;
            bool was_right = r.n_epochs > 0 && r.last_predicted == r.label;
            r.last_loss = its_loss;
            double p = exp(-r.last_loss), difference = __dadd_rn(p, -r.mean_p);
            r.n_epochs++;
            r.mean_p = __dadd_rn(r.mean_p, difference / r.n_epochs);
            r.m2_p = __dadd_rn(r.m2_p, __dmul_rn(difference, __dadd_rn(p, -r.mean_p)));
            r.n_margin += isfinite(its_margin);
            r.margin_sum = __dadd_rn(r.margin_sum, isfinite(its_margin) ? its_margin : 0.0);
            r.forgetting += was_right && !right;
            if (right && r.n_right == 0) r.first_right = epoch;
            r.n_right += right;
            r.last_predicted = said;
            r.label = label;
            own[place_of(lane, 0)] = {__double_as_longlong(r.mean_p), __double_as_longlong(r.m2_p)};
            own[place_of(lane, 1)] = {__double_as_longlong(r.margin_sum),
                                      __double_as_longlong(r.last_loss)};
            own[place_of(lane, 2)] = {r.first_right, of_pair(r.n_epochs, r.n_right)};
            own[place_of(lane, 3)] = {of_pair(r.n_margin, r.forgetting),
                                      of_pair(r.last_predicted, r.label)};
        }
        __syncwarp();
#pragma unroll
        for (int k = lane; k < LANES * PIECES; k += LANES) {
            if (k >= there) continue;
            longlong2 piece = own[place_of(k / PIECES, k % PIECES)];
            if (aligned) {
                reinterpret_cast<longlong2*>(words)[k] = piece;
            } else {
                words[2 * k] = piece.x;
                words[2 * k + 1] = piece.y;
            }
        }
        __syncwarp();
    }
}
