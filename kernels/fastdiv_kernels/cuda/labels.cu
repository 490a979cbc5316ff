// Labels of any integers as int32, those that do not fit as -1 or the highest, which are no class.
#include "common.cuh"

#if LABEL_BYTES == 1
typedef int8 with_sign;
typedef uint8 without_sign;
#elif LABEL_BYTES == 2
typedef short with_sign;
typedef uint16 without_sign;
#elif LABEL_BYTES == 4
typedef int with_sign;
typedef uint32 without_sign;
#else
typedef int64 with_sign;
typedef uint64 without_sign;
#endif
#if SIGNED
typedef with_sign label_t;
#else
typedef without_sign label_t;
#endif
constexpr int HIGHEST = 0x7FFFFFFF;

extern "C" __global__ void __launch_bounds__(256) as_int32(
    const label_t* __restrict__ labels, int64 n, int* __restrict__ made) {
    int64 step = static_cast<int64>(gridDim.x) * blockDim.x;
    for (int64 i = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
        label_t y = labels[i];
        if (SIGNED && static_cast<with_sign>(y) < 0) made[i] = -1;
        else made[i] = static_cast<uint64>(y) > HIGHEST ? HIGHEST : static_cast<int>(y);
    }
}
