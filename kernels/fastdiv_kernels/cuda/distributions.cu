// How confidence, loss and margin are distributed; see the contract.
#include "bins.cuh"
#include "rows.cuh"

constexpr int THREADS = 256, SPAN = SETTLED / FOUR;  // fours of rows
constexpr int LIMBS = Exact<loss_t>::LIMBS;
constexpr int CONFIDENCES = 50, LOSSES = 82, MARGINS = 82;
constexpr int LOWEST_OCTAVE = -14;
constexpr float LEAST = 6.103515625e-05f;  // where the second bin of losses begins
constexpr float LAST_LOSS = 64;            // where the last one does
// In a bin of losses, a quarter of an octave, the upper bits are the same, and only the lower ones
// are summed. Of a float32 they are one word, of a float64 several.
constexpr int MANTISSA = Exact<loss_t>::MANTISSA, LOWER = MANTISSA - 2;
constexpr int LOW_WORDS = sizeof(loss_t) == 4 ? 1 : 3, LOW_BITS = sizeof(loss_t) == 4 ? LOWER : 17;
// A confidence is in a cell, of the 50 bins and of the 15: the sum of the two numbers tells both, as
// each is higher by one from an edge on. Beyond the first of the 15 confidences are multiples of
// 2**-27, and what they are above their bin's edge is summed in one word. The first is summed apart.
constexpr int CELLS = CONFIDENCES + BINS - 1, CELL_GRID = 27;
constexpr int CELL_STEP = (1 << CELL_GRID) / CONFIDENCES;  // about from edge to edge
constexpr float HIGHEST_IN_CELL = 1.01f, CELL_SCALE = 1 << CELL_GRID;
// Words of the table.
constexpr int OF_CELL = 0, OF_ABOVE = OF_CELL + CELLS, OF_MARGIN = OF_ABOVE + CELLS;
constexpr int OF_LOSS = OF_MARGIN + MARGINS, OF_LOW = OF_LOSS + LOSSES;
constexpr int NOT_FINITE = OF_LOW + LOSSES * LOW_WORDS, WORDS = NOT_FINITE + 1;

using Small = Sum<loss_t, sizeof(loss_t) == 4 ? 2 : 1, sizeof(loss_t) == 4 ? 4 : 3>;
constexpr float SMALL = 0.000244140625f;  // as much as part 2 takes of a float32
// Confidences of the first bin: multiples of 2**-25 and of 2**-48, up to 2**-3.
constexpr int LOW_GRID = 25, LOW_STEP = Parts<float>::BITS;
constexpr float BELOW_ONE = 0.99999994f;

// Returns which of so many equal parts of [0, 1) a number is in. No float32 within is on an edge of
// 15 parts but 0, so that it does not matter which of the two bins an edge belongs to.
__device__ __forceinline__ int part_of(float within, int parts) {
    return __float_as_int(__fmaf_rd(parts, within, ROUNDING)) - __float_as_int(ROUNDING);
}
__device__ __forceinline__ int margin_bin(float x) {
    float within = fmaxf(fminf(x, 20.0f), -20.5f);
    return __float_as_int(__fmaf_rd(2.0f, within, ROUNDING)) - __float_as_int(ROUNDING) + 41;
}

// Returns how much higher a confidence is than the edge of bin k, in units of its cell.
__device__ __forceinline__ uint32 above_edge(float p, int k) {
    return static_cast<uint32>(static_cast<int>(p * CELL_SCALE)) - k * CELL_STEP;
}

extern "C" __global__ void __launch_bounds__(256, LOSS_BYTES == 8 ? 2 : 4) distributions(
    const loss_t* __restrict__ loss, const float* __restrict__ confidence,
    const float* __restrict__ margin, const uint8* __restrict__ flags, int64 n, int64* counts,
    int64* confidences, int64* losses, int64* margins, int64* bins, int64* loss_sums,
    int64* confidence_sums) {
    DYNAMIC_SHARED(uint32, table);
    int me = threadIdx.x, lane = lane_of();
    for (int i = me; i < WORDS * LANES; i += THREADS) table[i] = 0;
    Small::word* far = reinterpret_cast<Small::word*>(table + WORDS * LANES) + me;
    for (int k = 0; k < Small::FAR; k++) far[k * THREADS] = 0;
    __syncthreads();

    Small::word small[Small::NEAR] = {};
    int lowest[2] = {};  // confidences
    uint32 counted = 0;  // by bytes
    auto add_pair = [](int64* to, int apart, int64 rows) {  // wrong rows, and right ones
        int64 right = rows >> 16, wrong = (rows & 0xFFFF) - right;
        if (wrong) add_to(to, wrong);
        if (right) add_to(to + apart, right);
    };
    auto settle = [&] {
        Small::settle(loss_sums, small);
        Small::settle_far(loss_sums, far);
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int64 sum = over_warp(lowest[k]);
            if (lane == 0) add_fixed<float>(confidence_sums, sum, LOW_GRID + LOW_STEP * k);
            lowest[k] = 0;
        }
        add_counts(counts, bytes_of(counted));
        counted = 0;
        __syncthreads();
        for (int w = me / LANES; w < WORDS; w += THREADS / LANES) {
            int64 sum = taken<uint32>(table, w);
            if (lane != 0 || !sum) continue;
            if (w < OF_MARGIN) {
                int cell = (w - OF_CELL) % CELLS, k = (10 * cell + 9) / 13, b = cell - k;
                int64* to = confidence_sums + b * LIMBS_32;
                if (w >= OF_ABOVE) {
                    add_fixed<float>(to, sum, CELL_GRID);
                    continue;
                }
                add_pair(confidences + k, CONFIDENCES, sum);
                add_to(bins + 2 * b, sum & 0xFFFF);
                if (sum >> 16) add_to(bins + 2 * b + 1, sum >> 16);
                if (b > 0) add_fixed<float>(to, (sum & 0xFFFF) * k * CELL_STEP, CELL_GRID);
            } else if (w < OF_LOSS) {
                add_pair(margins + w - OF_MARGIN, MARGINS, sum);
            } else if (w < OF_LOW) {
                int k = w - OF_LOSS;
                add_pair(losses + k, LOSSES, sum);
                if (k > 0 && k < LOSSES - 1) {  // their upper bits, 4 to 7 in units of the lower
                    add_fixed<loss_t>(loss_sums + k * LIMBS, (sum & 0xFFFF) * (4 + (k - 1) % 4),
                                      2 - LOWEST_OCTAVE - (k - 1) / 4);
                }
            } else if (w < NOT_FINITE) {
                int k = (w - OF_LOW) / LOW_WORDS, which = (w - OF_LOW) % LOW_WORDS;
                add_fixed<loss_t>(loss_sums + k * LIMBS, sum,
                                  MANTISSA - LOWEST_OCTAVE - (k - 1) / 4 - which * LOW_BITS);
            } else {
                add_to(counts + 1, sum);
            }
        }
        __syncthreads();
    };

    int before = rows_before(confidence);
    bool aligned = is_aligned(loss, before) && is_aligned(confidence, before) &&
                   is_aligned(margin, before) && is_aligned(flags, before);
    int64 fours = (n + before + FOUR - 1) / FOUR, step = static_cast<int64>(gridDim.x) * THREADS;
    int since = 0;
    for (int64 first = static_cast<int64>(blockIdx.x) * THREADS; first < fours; first += step) {
        int64 row = first * FOUR - before;  // of the block
        uint32 mine = me * FOUR;
        uint32 own = 0;
        Four<loss_t> x;
        Four<float> p, m;
        if (aligned && row >= 0 && row + THREADS * FOUR <= n) {
            read(own, flags + row + mine);
            read(x, loss + row + mine);
            read(p, confidence + row + mine);
            read(m, margin + row + mine);
        } else {
            read_some(own, flags, row + mine, n);
            read_some(x, loss, row + mine, n);
            read_some(p, confidence, row + mine, n);
            read_some(m, margin, row + mine, n);
        }
        uint32 valid = present_of(own) & ~invalid_of(own), right = own >> 5 & valid;
        counted += valid;
        if (valid != EACH) {
#pragma unroll
            for (int i = 0; i < FOUR; i++)
                if (!has(valid, i)) x.at[i] = p.at[i] = m.at[i] = 0;
        }
        uint32 of_loss[FOUR];
        bool usual = true;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            of_loss[i] = pair_of(valid, right, i);
            usual &= fabs(x.at[i]) < LAST_LOSS;
            usual &= __float_as_uint(p.at[i]) <= __float_as_uint(HIGHEST_IN_CELL);
        }
        if (!usual) {
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                if (!isfinite(x.at[i])) {
                    atomicAdd(table + NOT_FINITE * LANES + lane, 1u);
                    x.at[i] = 0;
                    of_loss[i] = 0;
                } else if (!(fabs(x.at[i]) < LAST_LOSS)) {
                    int k = x.at[i] < 0 ? 0 : LOSSES - 1;
                    add_to_limbs(loss_sums + k * LIMBS, x.at[i], 1);
                    atomicAdd(table + (OF_LOSS + k) * LANES + lane, of_loss[i]);
                    x.at[i] = 0;
                    of_loss[i] = 0;
                }
                float& y = p.at[i];
                if (__float_as_uint(y) > __float_as_uint(HIGHEST_IN_CELL)) {
                    bool first = y <= 0;
                    int64* to = confidence_sums + (first ? 0 : BINS - 1) * LIMBS_32;
                    if (isfinite(y)) add_to_limbs(to, y, 1);
                    if (!first) add_to_limbs(to, 1.0f, -1);  // what its cell gets for it
                    y = first ? 0 : 1;
                }
            }
        }
        bool any_low = false;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            uint32 rows = pair_of(valid, right, i);
            float within = fminf(p.at[i], BELOW_ONE);
            int k = part_of(within, CONFIDENCES), b = part_of(within, BINS);
            uint32* place = table + (OF_CELL + k + b) * LANES + lane;
            atomicAdd(place, rows);
            // Adding 0 costs less than a branch.
            atomicAdd(place + (OF_ABOVE - OF_CELL) * LANES, b > 0 ? above_edge(p.at[i], k) : 0u);
            atomicAdd(table + (OF_MARGIN + margin_bin(m.at[i])) * LANES + lane, rows);
            p.at[i] = b > 0 ? 0 : p.at[i];
            any_low |= p.at[i] != 0;
        }
        if (any_low) {
            bool left = false;
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
#pragma unroll
                for (int k = 0; k < 2; k++)
                    lowest[k] += take(p.at[i], LOW_GRID + LOW_STEP * k);
                left |= p.at[i] != 0;
            }
            if (left) {
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    if (p.at[i] != 0) add_to_limbs(confidence_sums, p.at[i], 1);
            }
        }
        bool any_small = false;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            // Octaves are exponents, and quarters of one the two highest bits of the mantissa.
            int64 bits = static_cast<int64>(Exact<loss_t>::bits(x.at[i]));
            bool above = x.at[i] >= static_cast<loss_t>(LEAST);
            int k = static_cast<int>(bits >> LOWER) -
                    (4 * (Exact<loss_t>::HIGHEST / 2 + LOWEST_OCTAVE) - 1);
            k = above ? k : 0;
            uint32* place = table + lane;
            atomicAdd(place + (OF_LOSS + k) * LANES, of_loss[i]);
#pragma unroll
            for (int w = 0; w < LOW_WORDS; w++) {
                constexpr uint32 KEPT = (1u << LOW_BITS) - 1;
                int64 lower = bits & ((1ll << LOWER) - 1);
                uint32 word = static_cast<uint32>(lower >> w * LOW_BITS) & KEPT;
                atomicAdd(place + (OF_LOW + k * LOW_WORDS + w) * LANES, above ? word : 0u);
            }
            x.at[i] = above ? 0 : x.at[i];
            any_small |= !above;
        }
        if (any_small) {
            bool left = false, far_below = false;
#pragma unroll
            for (int i = 0; i < FOUR; i++) far_below |= x.at[i] < -SMALL;
            if (far_below) {
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    if (x.at[i] < -SMALL) {
                        add_to_limbs(loss_sums, x.at[i], 1);
                        x.at[i] = 0;
                    }
            }
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                Small::word parts[Small::NEAR];
                Small::split(x.at[i], parts);
#pragma unroll
                for (int k = 0; k < Small::NEAR; k++) small[k] += parts[k];
                left |= x.at[i] != 0;
            }
            if (left) {
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    if (x.at[i] != 0) Small::add_far(far, loss_sums, x.at[i], 1);
            }
        }
        if (++since == SPAN || first + step >= fours) {
            since = 0;
            settle();
        }
    }
}
