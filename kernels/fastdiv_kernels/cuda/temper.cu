// What profiles tell of losses at an inverse temperature, in float64; see the contract.
#include "powers.cuh"

constexpr int THREADS = 256, RESULTS = 3;

// Writes the results of a block's rows as they lie.
__device__ __forceinline__ void write_results(
    double (&results)[RESULTS * THREADS], int64 start, int64 n, double* tempered) {
    __syncthreads();
    int size = static_cast<int>(min(static_cast<int64>(THREADS), n - start)) * RESULTS;
    for (int i = threadIdx.x; i < size; i += THREADS) tempered[start * RESULTS + i] = results[i];
    __syncthreads();
}

// Two classes, whose x is (0, -|margin|), or a profile that is a vector.
extern "C" __global__ void __launch_bounds__(256) temper_rows(
    const float* __restrict__ margin, const uint16* __restrict__ profile, int64 n, int classes,
    double beta, double* tempered) {
    constexpr double LOWEST_KEPT = -65504.0;
    __shared__ double results[RESULTS * THREADS];
    for (int64 start = static_cast<int64>(blockIdx.x) * THREADS; start < n;
         start += static_cast<int64>(gridDim.x) * THREADS) {
        int64 i = start + threadIdx.x;
        double s = 0.0, mean = 0.0, square = 0.0;
        if (i < n && classes == 2) {
            double m = margin[i];
            double t = fmax(beta * -fabs(m), LOWEST_KEPT), u = exp(t);
            s = log1p(u);
            mean = t * (u / (1.0 + u));
            square = mean + t * mean - mean * mean;
            if (isnan(m)) s = mean = square = m;
        } else if (i < n) {
            const uint16* row = profile + i * classes;
            double sum = 0.0;
            for (int j = 0; j < classes; j++) {
                double x = half_to_float(__ldg(row + j));
                double t = beta * fmax(x, LOWEST_KEPT), u = exp(t);
                sum += u;
                mean += u * t;
                square += u * t * t;
            }
            s = log(sum);
            mean /= sum;
            square = mean + square / sum - mean * mean;
        }
        double* to = results + threadIdx.x * RESULTS;
        to[0] = s, to[1] = mean, to[2] = square;
        write_results(results, start, n, tempered);
    }
}

// Curves, with what each of their numbers counts for in each result.
extern "C" __global__ void __launch_bounds__(256) temper_curves(
    const uint16* __restrict__ profile, const double* __restrict__ weights, int64 n, int wide,
    double* tempered) {
    alignas(16) __shared__ uint16 curves[THREADS * CURVE];
    __shared__ double results[RESULTS * THREADS], scales[RESULTS * CURVE];
    for (int i = threadIdx.x; i < RESULTS * CURVE; i += THREADS) scales[i] = weights[i];
    for (int64 start = static_cast<int64>(blockIdx.x) * THREADS; start < n;
         start += static_cast<int64>(gridDim.x) * THREADS) {
        int live = static_cast<int>(min(static_cast<int64>(THREADS), n - start));
        int size = live * CURVE, vectors = wide ? size / 8 : 0;
        const uint16* from = profile + start * CURVE;
#pragma unroll 3
        for (int i = threadIdx.x; i < vectors; i += THREADS)
            reinterpret_cast<uint4*>(curves)[i] = __ldg(reinterpret_cast<const uint4*>(from) + i);
        for (int i = vectors * 8 + threadIdx.x; i < size; i += THREADS) curves[i] = from[i];
        __syncthreads();
        double found[RESULTS] = {};
        if (static_cast<int>(threadIdx.x) < live) {
            const uint32* row = reinterpret_cast<const uint32*>(curves) + threadIdx.x * POWERS;
#pragma unroll
            for (int k = 0; k < CURVE; k++) {
                double x = half_to_float(k & 1 ? row[k / 2] >> 16 : row[k / 2] & 0xFFFF);
                for (int r = 0; r < RESULTS; r++) found[r] += scales[r * CURVE + k] * x;
            }
        }
        for (int r = 0; r < RESULTS; r++) results[threadIdx.x * RESULTS + r] = found[r];
        write_results(results, start, n, tempered);
    }
}
