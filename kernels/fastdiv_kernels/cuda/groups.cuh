// A thread's share of a row: groups of GROUP neighbours, every TEAM-th one of the row.
//
// Which values are whose is told by the index of a class. Where they lie in memory says only how
// they are read: 16 bytes at once where a row begins at such a boundary; else the 16 bytes that
// begin before and those after, from which a group is cut.
#include "pairs.cuh"

constexpr int READS = GROUP / VECTOR;  // of 16 bytes, for a group
constexpr int WORDS = 4 * READS;

struct Row {
    const stored* values;
    const uint8 *begin, *end;  // of all predictions: nothing else is read
    int classes, label;
    stored stored_label;  // the label's value

    __device__ __forceinline__ real of_label() const { return value(stored_label); }

    __device__ __forceinline__ Row(const Given& given, int64 row) {
        classes = given.classes;
        values = given.predictions + row * classes;
        begin = reinterpret_cast<const uint8*>(given.predictions);
        end = reinterpret_cast<const uint8*>(given.predictions + given.n * classes);
        label = given.labels[row];
        stored_label = values[label >= 0 && label < classes ? label : 0];
    }

    // How many tie with the label and are before it in its own group, of every step-th value.
    __device__ __forceinline__ int ties_before(int from, int step) const {
        int ties = 0, there = label >= 0 && label < classes ? label % GROUP : 0;
#pragma unroll 1
        for (int i = from; i < there; i += step)
            ties += value(values[label - there + i]) == of_label();
        return ties;
    }

    // Reads a group of which only a part is there, or nothing.
    __device__ __forceinline__ void read_end(int group, uint32* words) const {
        int left = classes - group * GROUP;
        const stored* from = values + group * GROUP;
#pragma unroll
        for (int i = 0; i < WORDS; i++) words[i] = 0;
#pragma unroll
        for (int i = 0; i < GROUP; i++) put(words, i, absent_stored());
        if (left <= 0) return;
#pragma unroll
        for (int i = 0; i < GROUP; i++)
            if (i < left) put(words, i, from[i]);
    }

    static __device__ __forceinline__ void put(uint32* words, int i, stored x) {
#if DTYPE == 3
        uint64 bits = __double_as_longlong(x);
        words[2 * i] = uint32(bits);
        words[2 * i + 1] = uint32(bits >> 32);
#elif DTYPE == 2
        words[i] = __float_as_uint(x);
#else
        words[i / 2] = (words[i / 2] & 0xFFFF0000u >> 16 * (i % 2)) | uint32(x) << 16 * (i % 2);
#endif
    }

    // Reads groups, of which the last ones of some threads may not be there.
    __device__ __forceinline__ void read(
        int first, int step, int here, uint32 (&words)[AT_ONCE][WORDS]) const {
        const uint4* from = reinterpret_cast<const uint4*>(values);
        uint32 skew = uint32(reinterpret_cast<uint64>(values) % 16);
        int whole = classes / GROUP;
        if (skew == 0) {
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++)
#pragma unroll
                for (int r = 0; r < READS; r++) {
                    int group = first + k * step;
                    uint4 got = {0, 0, 0, 0};
                    if (group < whole) got = __ldg(from + int64(group) * READS + r);
                    spread(got, words[k] + 4 * r);
                }
        } else {
            const uint8* start = reinterpret_cast<const uint8*>(values) - skew;
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                int group = first + k * step;
                const uint8* at = start + int64(group) * GROUP * sizeof(stored);
                if (k < here && group < whole) {
                    uint32 both[WORDS + 4];
                    if (at >= begin && at + 16 * (READS + 1) <= end) {
#pragma unroll
                        for (int r = 0; r <= READS; r++)
                            spread(__ldg(reinterpret_cast<const uint4*>(at) + r), both + 4 * r);
                        cut(both, skew);
#pragma unroll
                        for (int i = 0; i < WORDS; i++) words[k][i] = both[i];
                    } else {
                        read_end(group, words[k]);
                    }
                }
            }
        }
        if (first + (here - 1) * step < whole) return;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (k < here && first + k * step >= whole) read_end(first + k * step, words[k]);
    }

    static __device__ __forceinline__ void spread(uint4 v, uint32* words) {
        words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    }

    // Moves words down by some bytes.
    static __device__ __forceinline__ void cut(uint32* words, uint32 bytes) {
#pragma unroll
        for (int i = 0; i < WORDS + 2; i++) words[i] = bytes & 8 ? words[i + 2] : words[i];
#if DTYPE < 3
#pragma unroll
        for (int i = 0; i < WORDS + 1; i++) words[i] = bytes & 4 ? words[i + 1] : words[i];
#endif
#if DTYPE < 2
#pragma unroll
        for (int i = 0; i < WORDS; i++)
            words[i] = bytes & 2 ? __funnelshift_r(words[i], words[i + 1], 16) : words[i];
#endif
    }
};

// Values of groups as they are compared: in pairs, where there are instructions for two at once.
#if DTYPE < 2
struct Values {
    static_assert(AT_ONCE * WORDS == 16, "a bit for each of 32 values");
    uint32 (&words)[AT_ONCE][WORDS];
    uint32 top;  // twice the highest

    __device__ __forceinline__ Values(uint32 (&words)[AT_ONCE][WORDS]) : words(words), top(0) {}
    __device__ __forceinline__ real at(int k, int i) const {
        return value(uint16(words[k][i / 2] >> 16 * (i % 2)));
    }
    __device__ __forceinline__ void look(Part& part, const Row& row, int first, int step, int here,
                                         real& most) {
        uint32 y = twice(row.stored_label);
        uint32 above = twice(next_above_stored(row.stored_label));
        uint32 highest = words[0][0], lowest = highest, any_nan = highest, ahead = 0;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            if (k >= here) break;
            uint32 least_ahead = (first + k * step + 1) * GROUP <= row.label ? y : above;
#pragma unroll
            for (int i = 0; i < WORDS; i++) {
                uint32 x = words[k][i];
                highest = larger(highest, x);
                ahead |= no_less(x, least_ahead) & 0x10001u << (k * WORDS + i);
                if (!TAKES_EXP) {
                    lowest = smaller(lowest, x);
                    any_nan = larger_or_nan(any_nan, x);
                }
            }
        }
        part.ahead += __popc(ahead);
        top = larger(highest, highest << 16 | highest >> 16);
        most = fmax(most, value(uint16(top)));
        if (!TAKES_EXP) {
            part.lowest = fmin(
                part.lowest, fmin(value(uint16(lowest)), value(uint16(lowest >> 16))));
            real a = value(uint16(any_nan)), b = value(uint16(any_nan >> 16));
            part.nan |= a != a || b != b;
        }
    }
    // Takes the maximum out; returns where it is first, and counts how often it is.
    __device__ __forceinline__ int leave_out(Part& part, real, int here) {
        uint32 none = twice(absent_stored()), second = none, found = 0;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            if (k >= here) break;
#pragma unroll
            for (int i = 0; i < WORDS; i++) {
                uint32 is = equal(words[k][i], top);
                found |= is & 0x10001u << (k * WORDS + i);
                words[k][i] = (words[k][i] & ~is) | (none & is);
                second = larger(second, words[k][i]);
            }
        }
        part.attained += __popc(found);
        part.second = fmax(part.second, fmax(value(uint16(second)), value(uint16(second >> 16))));
        int low = __ffs(int(found & 0xFFFF)), high = __ffs(int(found >> 16));
        return min(low ? 2 * low - 2 : 31, high ? 2 * high - 1 : 31);
    }
};
#else
struct Values {
    uint32 (&words)[AT_ONCE][WORDS];

    __device__ __forceinline__ real at(int k, int i) const {
        constexpr int OF_ONE = sizeof(real) / 4;
        real x;
        values_of<1>(words[k] + i * OF_ONE, &x);
        return x;
    }
    __device__ __forceinline__ void look(Part& part, const Row& row, int first, int step, int here,
                                         real& most) const {
        real y = row.of_label(), above = next_above(y);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            if (k >= here) break;
            real least_ahead = (first + k * step + 1) * GROUP <= row.label ? y : above;
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                real x = at(k, i);
                most = fmax(most, x);
                count_from(part.ahead, x, least_ahead);
                if (!TAKES_EXP) {
                    part.lowest = fmin(part.lowest, x);
                    part.nan |= x != x;
                }
            }
        }
    }
    // Takes the maximum out; returns where it is first, and counts how often it is.
    __device__ __forceinline__ int leave_out(Part& part, real most, int here) {
        int where = 0;
#pragma unroll
        for (int k = AT_ONCE - 1; k >= 0; k--) {
            if (k >= here) continue;
#pragma unroll
            for (int i = GROUP - 1; i >= 0; i--) {
                real x = at(k, i);
                bool top = x == most;
                if (top) where = k * GROUP + i;
                part.attained += top;
                x = top ? absent() : x;
                Row::put(words[k], i, x);
                part.second = fmax(part.second, x);
            }
        }
        return where;
    }
};
#endif

// Adds groups `first`, `first + step` and so on, `here` of AT_ONCE, to a part. All threads of a
// team, 2**team neighbours in a warp, have the same maximum: what a value adds does not hang on
// whose it is, and later groups rarely have one that is as high.
__device__ __forceinline__ void add_groups(
    Part& part, const Row& row, int first, int step, int here, int team) {
    uint32 words[AT_ONCE][WORDS];
    row.read(first, step, here, words);
    Values values{words};
    real most = -infinity();
    values.look(part, row, first, step, here, most);
    if (!TAKES_EXP && row.of_label() < 0) {  // what is not there counts as 0
        int last = first + (here - 1) * step, end = (last + 1) * GROUP;
        if (end > row.classes) part.ahead -= min(GROUP, end - row.classes);
    }
    part.raise(fmax(part.highest, highest_of_team(most, team)));
    if (most == part.highest) {
        int where = values.leave_out(part, most, here);
        part.at = min(part.at, (first + where / GROUP * step) * GROUP + where % GROUP);
    } else {
        part.second = fmax(part.second, most);
    }
    real origin = part.highest == -infinity() ? real(0) : part.highest;
    real sums[4] = {}, squares[4] = {};
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
        if (k >= here) break;
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            real w = TAKES_EXP ? weight(values.at(k, i) - origin) : values.at(k, i);
            sums[i % 4] += w;
            squares[i % 4] = fma(w, w, squares[i % 4]);
        }
    }
    part.sum += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    part.squares += (squares[0] + squares[1]) + (squares[2] + squares[3]);
}
