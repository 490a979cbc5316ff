// `score` of long rows: a block finds a part of a row, whose length is fixed; then parts are joined.
#include "groups.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;
static_assert(sizeof(Part) <= 56, "room for a part, as the host makes it");

extern "C" __global__ void __launch_bounds__(256) score_parts(
    const stored* __restrict__ predictions, const int* __restrict__ labels, int64 n, int classes,
    int length, int parts_of_row, Part* parts) {
    __shared__ Part of_warps[WARPS];
    Given given{predictions, labels, n, classes, 0};
    int64 number = blockIdx.x / parts_of_row;
    int which = blockIdx.x % parts_of_row;
    Row row(given, number);
    Part part;
    part.clear();
    if (which == 0) part.ahead = row.ties_before(threadIdx.x, THREADS);
    int first = which * (length / GROUP);
    int end = min(first + length / GROUP, (classes + GROUP - 1) / GROUP);
    for (int at = first; at < end; at += AT_ONCE * THREADS) {
        int here = min(AT_ONCE, (end - at + THREADS - 1) / THREADS);
        add_groups(part, row, at + threadIdx.x, THREADS, here, 5);
    }
    part.join_team(5);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = part;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    part = of_warps[threadIdx.x % WARPS];
    part.join_team(3);
    static_assert(WARPS == 8, "the warps' parts are joined by 2**3 lanes");
    if (threadIdx.x == 0) parts[blockIdx.x] = part;
}

extern "C" __global__ void __launch_bounds__(128) score_joined(
    const stored* __restrict__ predictions, const int* __restrict__ labels, int64 n, int classes,
    double tolerance, int parts_of_row, const Part* parts,
    real* loss, uint8* correct, int* predicted, float* confidence, float* margin, float* brier,
    int* rank, uint8* status) {
    Outputs to{loss, correct, predicted, confidence, margin, brier, rank, status};
    int64 row = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= n) return;
    const Part* of_row = parts + row * parts_of_row;
    real most = of_row[0].highest;
    for (int i = 1; i < parts_of_row; i++) most = fmax(most, of_row[i].highest);
    Part joined = of_row[0];
    joined.raise(most);
    for (int i = 1; i < parts_of_row; i++) {
        Part part = of_row[i];
        part.raise(most);
        joined.join(part);
    }
    int label = labels[row];
    real y = value_of_label(predictions + row * classes, label, classes);
    finish(joined, y, label, classes, tolerance, to, row);
}
