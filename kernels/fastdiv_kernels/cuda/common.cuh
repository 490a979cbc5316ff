// What all sources share: types, numbers of the contract, and halves as float32.
typedef signed char int8;
typedef unsigned char uint8;
typedef unsigned short uint16;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;

// Flags and statuses, as the contract has them.
constexpr uint32 REASON = 0x07, UNNORMALIZED = 0x08, TIE = 0x10, CORRECT = 0x20, TOP5 = 0x40;
constexpr uint32 PRESENT = 0x80;
constexpr uint32 WHOLE_WARP = 0xFFFFFFFFu;

#if defined(__CUDA_ARCH__)
#define DYNAMIC_SHARED(type, name)                       \
    extern __shared__ __align__(128) uint8 name##_raw[]; \
    type* name = reinterpret_cast<type*>(name##_raw)
#else  // the tests' host
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(host::dynamic_shared)
#endif

#if defined(LOSS_BYTES)
#if LOSS_BYTES == 8
typedef double loss_t;
#else
typedef float loss_t;
#endif
#endif
