// What is stored of a row's correctness, rank and status; see the contract.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) write_flags(
    const uint8* __restrict__ correct, const int* __restrict__ rank,
    const uint8* __restrict__ status, int64 n, uint8* __restrict__ flags) {
    int64 step = static_cast<int64>(gridDim.x) * blockDim.x;
    for (int64 i = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
        // As unsigned, the rank of an invalid row, -1, is large.
        uint32 top5 = static_cast<uint32>(rank[i]) < 5 ? TOP5 : 0;
        flags[i] = static_cast<uint8>(status[i] | PRESENT | (correct[i] ? CORRECT : 0) | top5);
    }
}
