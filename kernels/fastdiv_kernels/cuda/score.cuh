// What is found of a row, a part of it after another, and its Scores from that; see `score.py`.
//
// DTYPE says what predictions are stored as, KIND what they mean. Sums leave the maximum out and
// are relative to it; every order of additions is told by the index of a class alone.
#include "halves.cuh"

constexpr int LOGITS = 0, PROBS = 1, LOGPROBS = 2;
constexpr uint32 IS_NAN = 1, POSITIVE_INFINITY = 2, CONTRADICTS_KIND = 3, NO_MASS = 4, LABEL = 5;
constexpr double LOWEST_PROB = -1e-6, HIGHEST_PROB = 1.01;
constexpr double HIGHEST_LOGPROB = 0.009950330853168092;  // log(1.01)
constexpr int NOWHERE = 0x7FFFFFFF;

#if DTYPE == 3
typedef double real;
typedef double stored;
#elif DTYPE == 2
typedef float real;
typedef float stored;
#else
typedef float real;
typedef uint16 stored;
#endif

constexpr int VECTOR = 16 / sizeof(stored);      // values in 16 bytes
constexpr int GROUP = sizeof(real) == 8 ? 4 : 8;  // values that a thread takes together
constexpr int AT_ONCE = sizeof(real) == 8 ? 2 : 4;  // groups of a thread that are read together
constexpr bool TAKES_EXP = KIND != PROBS;

#if DTYPE == 3
__device__ __forceinline__ real infinity() { return __longlong_as_double(0x7FF0000000000000ll); }
__device__ __forceinline__ real not_a_number() { return __longlong_as_double(0x7FF8000000000000ll); }
#else
__device__ __forceinline__ real infinity() { return __int_as_float(0x7F800000); }
__device__ __forceinline__ real not_a_number() { return __int_as_float(0x7FC00000); }
#endif

// What is not there: it neither is a maximum of a valid row nor adds to a sum.
__device__ __forceinline__ real absent() { return TAKES_EXP ? -infinity() : real(0); }

#if DTYPE == 0
__device__ __forceinline__ real value(uint16 x) { return half_to_float(x); }
#elif DTYPE == 1
__device__ __forceinline__ real value(uint16 x) { return __uint_as_float(uint32(x) << 16); }
#else
__device__ __forceinline__ real value(stored x) { return x; }
#endif

// The values that words hold, in the order of memory.
template <int COUNT>
__device__ __forceinline__ void values_of(const uint32* words, real* x) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
#if DTYPE == 3
        x[i] = __longlong_as_double(uint64(words[2 * i + 1]) << 32 | words[2 * i]);
#elif DTYPE == 2
        x[i] = __uint_as_float(words[i]);
#else
        x[i] = value(uint16(words[i / 2] >> 16 * (i % 2)));
#endif
    }
}

#if DTYPE != 3
// 2**t; what is subnormal is 0.
__device__ __forceinline__ float exp2_approx(float t) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(t));
    return result;
#else
    float result = exp2(t);
    return result < 0x1p-126f ? 0 : result;
#endif
}
#endif

// e**d of d <= 0; of NaN NaN. Of float32 what is below the smallest normal number is 0.
__device__ __forceinline__ real weight(real d) {
#if DTYPE == 3
    return exp(d);
#else
    // Rounded down, with log2(e) rounded up, the exponent of 2 is never too large: what is left
    // is no less than 0, and NaN, which it is of -inf, saturates to 0.
    float t = __fmul_rd(d, __int_as_float(0x3FB8AA3C));
    float rest = __saturatef(__fmaf_rn(t, -0.693147182f, d));
    float e = exp2_approx(t);
    return __fmaf_rn(e, rest, e);
#endif
}

__device__ __forceinline__ real next_above(real y) {
    if (y == 0) y = 0;  // not -0.0
#if DTYPE == 3
    int64 bits = __double_as_longlong(y);
    return __longlong_as_double(bits < 0 ? bits - 1 : bits + 1);
#else
    int bits = __float_as_int(y);
    return __int_as_float(bits < 0 ? bits - 1 : bits + 1);
#endif
}

// Counts x if it is no less than y.
__device__ __forceinline__ void count_from(int& count, real x, real y) {
#if defined(__CUDA_ARCH__) && DTYPE != 3  // what a compiler makes of the other takes one more
    asm("{ .reg .pred p; setp.ge.f32 p, %1, %2; @p add.s32 %0, %0, 1; }"
        : "+r"(count) : "f"(x), "f"(y));
#else
    count += x >= y;
#endif
}

// The highest number, none NaN, of 2**size neighbours in a warp.
__device__ __forceinline__ real highest_of_team(real x, int size) {
#if DTYPE != 3
    if (size == 5) {  // as integers in the same order, which a warp compares at once
        int bits = __float_as_int(x);
        bits = __reduce_max_sync(WHOLE_WARP, bits ^ (bits >> 31 & 0x7FFFFFFF));
        return __int_as_float(bits ^ (bits >> 31 & 0x7FFFFFFF));
    }
#endif
    for (int by = (1 << size) / 2; by; by >>= 1) x = fmax(x, __shfl_xor_sync(WHOLE_WARP, x, by));
    return x;
}

// What was found of some values of a row.
struct Part {
    real highest, second;  // second: the highest of those below the highest
    real sum, squares;     // of weights, without what attains the maximum
    real lowest;           // of probabilities only
    int attained, at;      // how often the maximum is attained, and where first
    int ahead;             // how many stand ahead of the label
    int nan;               // of probabilities only; else the sum is NaN

    __device__ __forceinline__ void clear() {
        highest = second = -infinity();
        lowest = infinity();
        sum = squares = 0;
        attained = ahead = nan = 0;
        at = NOWHERE;
    }

    // Makes a higher maximum, of others, the one that all here is relative to.
    __device__ __forceinline__ void raise(real higher) {
        if (higher == highest) return;
        if (TAKES_EXP) {
            real factor = exp(highest - higher);
            sum = (sum + real(attained)) * factor;
            squares = (squares + real(attained)) * factor * factor;
        } else if (attained) {
            sum = fma(real(attained), highest, sum);
            squares = fma(real(attained) * highest, highest, squares);
        }
        second = highest;
        highest = higher;
        attained = 0;
        at = NOWHERE;
    }

    // Joins what has the same maximum.
    __device__ __forceinline__ void join(const Part& other) {
        sum += other.sum;
        squares += other.squares;
        second = fmax(second, other.second);
        attained += other.attained;
        at = min(at, other.at);
        ahead += other.ahead;
        if (!TAKES_EXP) {
            lowest = fmin(lowest, other.lowest);
            nan |= other.nan;
        }
    }

    // Joins the parts of all threads of a team, 2**size neighbours in a warp.
    __device__ __forceinline__ void join_team(int size) {
        raise(highest_of_team(highest, size));
        second = highest_of_team(second, size);
        if (size == 5) {
#pragma unroll
            for (int by = 16; by; by >>= 1) add_sums(by);
            attained = __reduce_add_sync(WHOLE_WARP, attained);
            ahead = __reduce_add_sync(WHOLE_WARP, ahead);
            at = __reduce_min_sync(WHOLE_WARP, at);
            return;
        }
        for (int by = (1 << size) / 2; by; by >>= 1) {
            add_sums(by);
            attained += __shfl_xor_sync(WHOLE_WARP, attained, by);
            ahead += __shfl_xor_sync(WHOLE_WARP, ahead, by);
            at = min(at, __shfl_xor_sync(WHOLE_WARP, at, by));
        }
    }

    __device__ __forceinline__ void add_sums(int by) {
        sum += __shfl_xor_sync(WHOLE_WARP, sum, by);
        squares += __shfl_xor_sync(WHOLE_WARP, squares, by);
        if (!TAKES_EXP) {
            lowest = fmin(lowest, __shfl_xor_sync(WHOLE_WARP, lowest, by));
            nan |= __shfl_xor_sync(WHOLE_WARP, nan, by);
        }
    }
};

struct Given {
    const stored* predictions;
    const int* labels;
    int64 n;
    int classes;
    double tolerance;
};

struct Outputs {
    real* loss;
    uint8* correct;
    int* predicted;
    float *confidence, *margin, *brier;
    int* rank;
    uint8* status;
};

// The label's value, or the first one of a row whose label is none.
__device__ __forceinline__ real value_of_label(const stored* row, int label, int classes) {
    return value(row[label >= 0 && label < classes ? label : 0]);
}

__device__ __forceinline__ uint32 reason_of(const Part& part, int label, int classes) {
    real m = part.highest;
    if (TAKES_EXP ? part.sum != part.sum : part.nan != 0) return IS_NAN;
    if (m == infinity()) return POSITIVE_INFINITY;
    if (KIND == PROBS) {
        if (part.lowest < LOWEST_PROB || m > HIGHEST_PROB) return CONTRADICTS_KIND;
        if (m <= 0) return NO_MASS;
    } else if (m == -infinity()) {
        return NO_MASS;
    } else if (KIND == LOGPROBS && m > HIGHEST_LOGPROB) {
        return CONTRADICTS_KIND;
    }
    return label >= 0 && label < classes ? 0 : LABEL;
}

// Writes the Scores of a row; the formulas are those of the CPU's `finish.py`.
__device__ __forceinline__ void finish(
    const Part& part, real y, int label, int classes, double tolerance, const Outputs& to,
    int64 row) {
    uint32 reason = reason_of(part, label, classes);
    if (reason) {
        real nan = not_a_number();
        to.loss[row] = nan;
        to.correct[row] = 0;
        to.predicted[row] = to.rank[row] = -1;
        to.confidence[row] = to.margin[row] = to.brier[row] = float(nan);
        to.status[row] = uint8(reason);
        return;
    }
    // Of zeros of either sign any may have been found; -0.0 + 0 is 0.
    real m = part.highest + real(0), more = real(part.attained - 1);
    y += real(0);
    bool at_highest = y == m;
    real other = at_highest && part.attained == 1 ? part.second + real(0) : m;
    real loss, confidence, margin, brier;
    double mass = 1;
    if (KIND == PROBS) {
        real p = fmax(y, real(0));
        other = fmax(other, real(0));
        real squares = part.squares + more * m * m;
        // Near a tie the difference of the logarithms would cancel; p - other is exact there.
        bool near = p < other + other && other < p + p;
        real log_p = log(p), rest = 1 - p;
        margin = near ? log1p((p - other) / other) : log_p - log(other);
        loss = 0 - log_p;
        confidence = m;
        brier = rest * rest + (at_highest ? squares : m * m + squares - p * p);
        mass = m + (part.sum + more * m);
    } else {
        real sum = part.sum + more, squares = part.squares + more;
        real u = exp(y - m);
        real others = at_highest ? squares : 1 + squares - u * u;
        margin = y - other;
        if (KIND == LOGITS) {
            real share = 1 / (1 + sum);
            real rest = at_highest ? sum : 1 + sum - u;
            loss = (m - y) + log1p(sum);
            confidence = share;
            brier = (rest * rest + others) * share * share;
        } else {
            loss = 0 - y;
            confidence = exp(m);
            real rest = -expm1(y);
            brier = rest * rest + others * confidence * confidence;
            mass = confidence * (1 + sum);
        }
    }
    bool off = KIND != LOGITS && !(fabs(mass - 1) <= tolerance);
    to.loss[row] = loss;
    to.correct[row] = part.ahead == 0;
    to.predicted[row] = part.at;
    to.confidence[row] = float(confidence);
    to.margin[row] = float(margin);
    to.brier[row] = float(brier);
    to.rank[row] = part.ahead;
    to.status[row] = uint8((off ? UNNORMALIZED : 0) | (part.attained > 1 ? TIE : 0));
}
