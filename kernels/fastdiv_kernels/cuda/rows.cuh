// Columns of stored scores, read by fours of rows: 16 bytes at once where addresses allow.
#include "common.cuh"

constexpr int FOUR = 4;
constexpr uint32 EACH = 0x01010101;  // a one for each of four flags

__device__ __forceinline__ uint64 address_of(const void* p) { return reinterpret_cast<uint64>(p); }

// Returns how many rows before the first one fours begin: then a column of 4 bytes is aligned.
__device__ __forceinline__ int rows_before(const void* column) {
    return static_cast<int>(address_of(column) / 4 % FOUR);
}

// Returns whether fours of a column that begin so many rows before it are aligned.
template <class T>
__device__ __forceinline__ bool is_aligned(const T* column, int before) {
    return (address_of(column) - before * sizeof(T)) % (sizeof(T) == 1 ? 4 : 16) == 0;
}

template <class T> struct Four { T at[FOUR]; };

__device__ __forceinline__ void read(Four<float>& to, const float* from) {
    float4 x = __ldg(reinterpret_cast<const float4*>(from));
    to = {{x.x, x.y, x.z, x.w}};
}
__device__ __forceinline__ void read(Four<int>& to, const int* from) {
    int4 x = __ldg(reinterpret_cast<const int4*>(from));
    to = {{x.x, x.y, x.z, x.w}};
}
__device__ __forceinline__ void read(Four<double>& to, const double* from) {
    double2 x = __ldg(reinterpret_cast<const double2*>(from));
    double2 y = __ldg(reinterpret_cast<const double2*>(from) + 1);
    to = {{x.x, x.y, y.x, y.y}};
}
__device__ __forceinline__ void read(uint32& to, const uint8* from) {
    to = __ldg(reinterpret_cast<const uint32*>(from));
}

// Reads rows one by one, of which not all are there; those that are not are 0.
template <class T>
__device__ __forceinline__ void read_some(Four<T>& to, const T* column, int64 row, int64 n) {
#pragma unroll
    for (int i = 0; i < FOUR; i++)
        to.at[i] = row + i >= 0 && row + i < n ? __ldg(column + row + i) : T(0);
}
__device__ __forceinline__ void read_some(uint32& to, const uint8* column, int64 row, int64 n) {
    to = 0;
#pragma unroll
    for (int i = 0; i < FOUR; i++)
        if (row + i >= 0 && row + i < n)
            to |= static_cast<uint32>(__ldg(column + row + i)) << 8 * i;
}

// Of four flags: a one in each byte whose row is there, and has a reason to be invalid.
__device__ __forceinline__ uint32 present_of(uint32 flags) { return flags >> 7 & EACH; }
__device__ __forceinline__ uint32 invalid_of(uint32 flags) {
    return ((flags & EACH * REASON) + EACH * 0x7F) >> 7 & EACH;
}
__device__ __forceinline__ bool has(uint32 ones, int i) { return ones >> 8 * i & 1; }

// Returns a one if row i is in the first word, and one more 16 bits above if it is in the second.
__device__ __forceinline__ uint32 pair_of(uint32 ones, uint32 others, int i) {
#if defined(__CUDA_ARCH__)
    uint32 pair;  // bytes of one word and the other, and of what copies of their signs fill
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(pair) : "r"(ones), "r"(others), "r"(0x8480 + 0x1111 * i));
    return pair;
#else
    return (ones >> 8 * i & 1) | (others >> 8 * i & 1) << 16;
#endif
}

// Sums the four bytes of a word.
__device__ __forceinline__ int bytes_of(uint32 word) {
    word = (word & 0x00FF00FF) + (word >> 8 & 0x00FF00FF);
    return (word & 0xFFFF) + (word >> 16);
}
