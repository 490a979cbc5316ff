// Totals of an epoch by class; see the contract.
//
// Rows are added to a table in shared memory: each class has as many copies of its words as there
// is room for, so that lanes that meet in a class meet less often in a word. Losses are summed in
// limbs of 32 bits, the one that a number ends in and the next; what an atomic addition returns
// tells whether there is one to carry. Classes that the table has no room for, and losses that its
// limbs do not span, are added to global memory.
//
// Where all rows of a warp's turn have one label, as in a data set that is sorted by class, each
// thread sums its own, and they are added up when a turn comes with another.
#include "parts.cuh"
#include "rows.cuh"

constexpr int THREADS = 512;
constexpr int SPAN = 512;  // fours of rows after which the table is added up
constexpr int HELD = SETTLED / FOUR;
// Words of a class: rows that are right, that are wrong, that are wrongly said to be of it, limbs.
constexpr int RIGHT = 0, WRONG = 1, FALSELY = 2, LIMB = 3, KEPT_LIMBS = 4, WORDS = 7;
constexpr int LOWEST_UNIT = -96;  // the lowest limb is in units of 2**-96, the highest of 1
constexpr int FOUND = 4, INFINITE = 3;  // totals of a class: the first three words, and infinite

using E = Exact<loss_t>;
using Losses = Sum<loss_t, 1, sizeof(loss_t) == 4 ? 6 : 4>;  // with no far words
constexpr int LIMBS = E::LIMBS, AT = (LOWEST_UNIT - E::ORIGIN) / 32;
// Losses from 2**(LOWEST_UNIT + MANTISSA) to below 2**11 span limbs of the table.
constexpr uint64 LOWEST_BITS = static_cast<uint64>(E::HIGHEST / 2 + LOWEST_UNIT + E::MANTISSA)
                               << E::MANTISSA;
constexpr uint64 HIGHEST_BITS = static_cast<uint64>(E::HIGHEST / 2 + 11) << E::MANTISSA;

constexpr uint32 SPANNED = static_cast<uint32>(HIGHEST_BITS - LOWEST_BITS);  // of float32
constexpr uint32 LOWEST_EXPONENT = E::HIGHEST / 2 + E::MANTISSA + LOWEST_UNIT;

struct Table {
    uint32* words;
    int64* found;
    int64* sums;
    int inside;  // classes
    int copies;  // a power of two
    int size;    // words of one meaning

    __device__ __forceinline__ uint32* place(int k) const {
        return words + k * copies + (threadIdx.x & (copies - 1));
    }

    __device__ __forceinline__ void count(int k, int which) const {
        if (k < inside) atomicAdd(place(k) + which * size, 1u);
        else add_to(found + static_cast<int64>(k) * FOUND + which, 1);
    }

    static __device__ __forceinline__ bool spans(loss_t x) {
        return E::bits(x) - LOWEST_BITS < HIGHEST_BITS - LOWEST_BITS;
    }

    __device__ __forceinline__ void add(int k, loss_t x) const {
        int64* limbs = sums + static_cast<int64>(k) * LIMBS;
        uint64 bits = E::bits(x);
        if (!spans(x)) {
            if (x != 0) add_to_limbs(limbs, x, 1);
            return;
        }
        int position = static_cast<int>(bits >> E::MANTISSA) - E::HIGHEST / 2 - E::MANTISSA -
                       LOWEST_UNIT;
        int limb = position >> 5, shift = position & 31;
        uint64 mantissa = (bits & ((1ull << E::MANTISSA) - 1)) | 1ull << E::MANTISSA;
        uint64 low = (mantissa & 0xFFFFFFFF) << shift;
        uint64 high = (mantissa >> 32 << shift) + (low >> 32);
        uint32 part[3] = {static_cast<uint32>(low), static_cast<uint32>(high),
                          static_cast<uint32>(high >> 32)};
        if (k >= inside) {
            limbs += AT + limb;
            for (int i = 0; i < 3; i++)
                if (part[i]) add_to(limbs + i, part[i]);
            return;
        }
        uint32* to = place(k) + (LIMB + limb) * size;
        uint32 carried = 0;
        for (int i = 0; i < KEPT_LIMBS; i++, to += size) {
            uint32 more = i < 3 ? part[i] : 0;
            uint32 sum = more + carried;  // 0 with something carried: the next limb gets it
            carried = sum < more;
            if (sum) carried = atomicAdd(to, sum) > ~sum;
            if (!carried && (i >= 2 || !(i < 1 ? high : high >> 32))) return;
        }
    }
};

extern "C" __global__ void __launch_bounds__(512, 2) tally_classes(
    const loss_t* __restrict__ loss, const int* __restrict__ predicted,
    const int* __restrict__ labels, const uint8* __restrict__ flags, int64 n, int classes,
    int inside, int copies, int64* found, int64* sums) {
    DYNAMIC_SHARED(uint32, words);
    Table table = {words, found, sums, inside, copies, inside * copies};
    int me = threadIdx.x, lane = me % 32;
    for (int i = me; i < WORDS * table.size; i += THREADS) words[i] = 0;
    __syncthreads();

    Losses::word near[Losses::NEAR] = {};
    int held = 0, turns = 0, right_rows = 0, rows = 0;  // of the class that all threads hold
    auto let_go = [&] {
        Losses::settle(sums + static_cast<int64>(held) * LIMBS, near);
        add_counts(found + static_cast<int64>(held) * FOUND + RIGHT, right_rows);
        add_counts(found + static_cast<int64>(held) * FOUND + WRONG, rows - right_rows);
        rows = right_rows = turns = 0;
    };
    int before = rows_before(labels);
    bool aligned = is_aligned(loss, before) && is_aligned(predicted, before) &&
                   is_aligned(labels, before) && is_aligned(flags, before);
    int64 fours = (n + before + FOUR - 1) / FOUR, step = static_cast<int64>(gridDim.x) * THREADS;
    int since = 0;
    for (int64 first = static_cast<int64>(blockIdx.x) * THREADS; first < fours; first += step) {
        int64 row = first * FOUR - before;  // of the block
        uint32 mine = me * FOUR;
        uint32 own;
        Four<loss_t> x;
        Four<int> label, said;
        if (aligned && row >= 0 && row + THREADS * FOUR <= n) {
            read(own, flags + row + mine);
            read(label, labels + row + mine);
            read(x, loss + row + mine);
            read(said, predicted + row + mine);
        } else {
            read_some(own, flags, row + mine, n);
            read_some(label, labels, row + mine, n);
            read_some(x, loss, row + mine, n);
            read_some(said, predicted, row + mine, n);
        }
        uint32 valid = present_of(own) & ~invalid_of(own), right = own >> 5 & valid;
        int same = __shfl_sync(WHOLE_WARP, label.at[0], 0);
        uint32 wrong = valid & ~right;
        bool usual = true, finite = true;
#pragma unroll
        for (int i = 0; i < FOUR; i++) {
            x.at[i] = has(valid, i) ? x.at[i] : 0;
            finite &= isfinite(x.at[i]) != 0;
            usual &= !has(valid, i) | (label.at[i] == same);
        }
        if (!finite) {
#pragma unroll
            for (int i = 0; i < FOUR; i++)
                if (!isfinite(x.at[i])) {
                    add_to(found + static_cast<int64>(label.at[i]) * FOUND + INFINITE, 1);
                    x.at[i] = 0;
                }
        }
        if (__all_sync(WHOLE_WARP, usual)) {
            if (same != held || turns == HELD) {
                if (turns) let_go();
                held = same;
            }
            turns++;
            rows += bytes_of(valid);
            right_rows += bytes_of(right);
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                if (has(wrong, i)) table.count(said.at[i], FALSELY);
                loss_t rest = x.at[i];
                if (!(fabs(rest) <= USUAL)) {
                    table.add(same, rest);
                    continue;
                }
                Losses::word parts[Losses::NEAR];
                Losses::split(rest, parts);
#pragma unroll
                for (int k = 0; k < Losses::NEAR; k++) near[k] += parts[k];
                if (rest != 0) table.add(same, rest);
            }
        } else if (inside == classes && sizeof(loss_t) == 4) {
            // Without branches, so that no row waits for what another one's additions return.
            uint32 sum[FOUR], carried[FOUR];
            uint32* limb[FOUR];
            bool more = false, odd = false;
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                int k = has(valid, i) ? label.at[i] : 0;
                uint32* own_words = table.place(k);
                atomicAdd(own_words + (has(right, i) ? RIGHT : WRONG) * table.size,
                          valid >> 8 * i & 1);
                if (has(wrong, i)) atomicAdd(table.place(said.at[i]) + FALSELY * table.size, 1u);
                uint32 bits = static_cast<uint32>(E::bits(x.at[i]));
                bool spans = bits - static_cast<uint32>(LOWEST_BITS) < SPANNED;
                odd |= !spans & (x.at[i] != 0);
                uint32 position = spans ? (bits >> (E::MANTISSA & 31)) - LOWEST_EXPONENT : 0;
                uint32 mantissa = spans ? (bits & 0x7FFFFF) | 0x800000 : 0;
                uint64 at = static_cast<uint64>(mantissa) << (position & 31);
                limb[i] = own_words + (LIMB + (position >> 5)) * table.size;
                uint32 low = static_cast<uint32>(at);
                carried[i] = atomicAdd(limb[i], low) > ~low;
                sum[i] = static_cast<uint32>(at >> 32);
            }
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                sum[i] += carried[i];
                limb[i] += table.size;
                carried[i] = sum[i] && atomicAdd(limb[i], sum[i]) > ~sum[i];
                more |= carried[i];
            }
            if (odd) {
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    if (has(valid, i) && !table.spans(x.at[i])) table.add(label.at[i], x.at[i]);
            }
            if (more) {
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    while (carried[i]) {
                        limb[i] += table.size;
                        carried[i] = atomicAdd(limb[i], 1u) == ~0u;
                    }
            }
        } else {
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                if (!has(valid, i)) continue;
                if (has(wrong, i)) table.count(said.at[i], FALSELY);
                table.count(label.at[i], has(right, i) ? RIGHT : WRONG);
                table.add(label.at[i], x.at[i]);
            }
        }
        if (++since == SPAN || first + step >= fours) {
            since = 0;
            if (turns) let_go();
            __syncthreads();
            // A word's copies are lanes' neighbours.
            for (int at = me - lane; at < WORDS * table.size; at += THREADS) {
                int i = at + lane;
                int64 sum = 0;
                if (i < WORDS * table.size) {
                    sum = words[i];
                    words[i] = 0;
                }
                for (int by = copies / 2; by; by /= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, by);
                if (!sum || (lane & (copies - 1))) continue;
                int w = i / table.size;
                int64 k = i % table.size / copies;
                if (w < LIMB) add_to(found + k * FOUND + w, sum);
                else add_to(sums + k * LIMBS + AT + w - LIMB, sum);
            }
            __syncthreads();
        }
    }
}

// Adds what was found of each class to its counts: support, predicted, true positive, infinite.
extern "C" __global__ void __launch_bounds__(256) add_found(
    int classes, const int64* __restrict__ found, int64* __restrict__ counts) {
    int64 step = static_cast<int64>(gridDim.x) * blockDim.x;
    int64 k = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; k < classes; k += step) {
        const int64* of = found + k * FOUND;
        int64* to = counts + k * FOUND;
        to[0] = of[RIGHT] + of[WRONG];
        to[1] = of[RIGHT] + of[FALSELY];
        to[2] = of[RIGHT];
        to[3] = of[INFINITE];
    }
}
