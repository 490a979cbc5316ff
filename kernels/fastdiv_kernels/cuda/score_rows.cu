// `score` of rows that a few lanes, or a warp, read to the end: 2**team lanes a row.
#include "groups.cuh"

constexpr int THREADS = 128;
constexpr int BLOCKS = sizeof(stored) == 2 ? 6 : sizeof(stored) == 4 ? 5 : 4;  // a multiprocessor

extern "C" __global__ void __launch_bounds__(128, BLOCKS) score_rows(
    const stored* __restrict__ predictions, const int* __restrict__ labels, int64 n, int classes,
    double tolerance, int rows, int team,
    real* loss, uint8* correct, int* predicted, float* confidence, float* margin, float* brier,
    int* rank, uint8* status) {
    // Rows are finished together, a thread each.
    __shared__ Part parts[THREADS];
    __shared__ real of_labels[THREADS];
    Given given{predictions, labels, n, classes, tolerance};
    Outputs to{loss, correct, predicted, confidence, margin, brier, rank, status};
    int64 first = static_cast<int64>(blockIdx.x) * rows;
    int lanes = 1 << team, lane = threadIdx.x & (lanes - 1);
    int groups = (classes + GROUP - 1) / GROUP;
#pragma unroll 1
    for (int r = threadIdx.x >> team; r < rows; r += THREADS >> team) {
        // The last one again where there are no more, so that no lane is missing.
        Row row(given, min(first + r, n - 1));
        Part part;
        part.clear();
        part.ahead = row.ties_before(lane, lanes);
#pragma unroll 1
        for (int at = 0; at < groups; at += AT_ONCE << team) {
            int here = min(AT_ONCE, (groups - at + lanes - 1) >> team);
            add_groups(part, row, at + lane, lanes, here, team);
        }
        part.join_team(team);
        if (lane == 0) {
            parts[r] = part;
            of_labels[r] = row.of_label();
        }
    }
    __syncthreads();
    int64 row = first + threadIdx.x;
    if (int(threadIdx.x) < rows && row < n)
        finish(parts[threadIdx.x], of_labels[threadIdx.x], labels[row], classes, tolerance, to, row);
}
