// Runs CUDA kernels on the CPU, for tests: one block after another, the threads of a block as
// fibers that give way where threads have to wait for each other. Nothing runs at the same time,
// so atomics are plain; a race shows only where the order of threads matters, and so the order is
// one of several (see `order`). Reads and writes out of bounds are for a sanitizer to find.
//
// What the sources use is here, and no more: a name that is missing is an error of the compiler.
#include <sys/mman.h>
#include <ucontext.h>

#include <cfenv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

#define VECTOR(name, type, n)                                       \
    struct alignas(sizeof(type) * n > 16 ? 16 : sizeof(type) * n) name
VECTOR(float2, float, 2) { float x, y; };
VECTOR(float4, float, 4) { float x, y, z, w; };
VECTOR(double2, double, 2) { double x, y; };
VECTOR(int2, int, 2) { int x, y; };
VECTOR(int4, int, 4) { int x, y, z, w; };
VECTOR(uint2, unsigned, 2) { unsigned x, y; };
VECTOR(uint4, unsigned, 4) { unsigned x, y, z, w; };
VECTOR(uchar4, unsigned char, 4) { unsigned char x, y, z, w; };
VECTOR(ushort4, unsigned short, 4) { unsigned short x, y, z, w; };
VECTOR(longlong2, long long, 2) { long long x, y; };
VECTOR(ulonglong2, unsigned long long, 2) { unsigned long long x, y; };
#undef VECTOR

// Where all that a block declares in shared memory begins and ends, if there is any.
#define EDGE extern "C" __attribute__((weak, visibility("hidden"))) unsigned char
EDGE __start_block_shared[];
EDGE __stop_block_shared[];
#undef EDGE

namespace host {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr size_t STACK = 256 << 10;

// Where a fiber goes on. Of the C library's contexts each change is two system calls.
#if defined(__x86_64__)
using Place = void*;
__attribute__((naked, noinline)) inline void change(Place*, Place*) {  // from, to
    asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15;"
        "mov %rsp, (%rdi); mov (%rsi), %rsp;"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret");
}
inline void place_at(Place& place, unsigned char* stack, size_t size, void (*enter)()) {
    void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack) + size) & ~15ul);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(enter);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    place = top;
}
#else
using Place = ucontext_t;
inline void change(Place* from, Place* to) { swapcontext(from, to); }
inline void place_at(Place& place, unsigned char* stack, size_t size, void (*enter)()) {
    getcontext(&place);
    place.uc_stack.ss_sp = stack;
    place.uc_stack.ss_size = size;
    place.uc_link = nullptr;
    makecontext(&place, enter, 0);
}
#endif

struct Fiber {
    Place place;
    uint3 index;
    unsigned number;
    bool ended;
    bool at_barrier;        // waits for the block
    unsigned mask;          // of the lanes it waits for; 0: for none
    uint64_t given;         // to them
    uint64_t got[WARP];     // from them
    unsigned there;         // lanes whose predicate holds
};

inline Fiber fibers[MOST_THREADS];
inline Fiber* current;
inline Place scheduler;
inline unsigned char* stacks;
inline unsigned threads, order;
inline int barrier_sum, barrier_found;
inline dim3 grid, block;
inline uint3 block_index;
inline unsigned char* dynamic_shared;
inline unsigned long long wide_atomics;  // additions to 64 bits, which are slow, so far
inline const char* failed;
inline void (*body)(void*);
inline void* body_of;

inline void give_way() { change(&current->place, &scheduler); }

inline void enter() {
    body(body_of);
    current->ended = true;
    give_way();
}

// Goes on with a fiber until it gives way or ends.
inline void go_on(Fiber& fiber) {
    current = &fiber;
    change(&scheduler, &fiber.place);
}

inline Fiber& lane_of(const Fiber& fiber, unsigned lane) {
    return fibers[fiber.number / WARP * WARP + lane];
}

// Waits until all lanes of a mask are here with the same mask; then each has what they gave.
inline void meet(unsigned mask, uint64_t given) {
    Fiber& me = *current;
    if (!(mask >> me.number % WARP & 1)) { failed = "a lane is not in its own mask"; give_way(); }
    me.mask = mask;
    me.given = given;
    bool all = true;
    for (unsigned lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1) {
            Fiber& other = lane_of(me, lane);
            all = all && other.number < threads && !other.ended && other.mask == mask;
        }
    if (!all) {
        while (me.mask) give_way();
        return;
    }
    for (unsigned lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1)
            for (unsigned from = 0; from < WARP; from++)
                if (mask >> from & 1) lane_of(me, lane).got[from] = lane_of(me, from).given;
    for (unsigned lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1) lane_of(me, lane).mask = 0;
}

inline int wait_for_block(int given) {
    barrier_sum += given;
    current->at_barrier = true;
    while (current->at_barrier) give_way();
    return barrier_found;
}

inline void run_block() {
    for (unsigned t = 0; t < threads; t++) {
        Fiber& fiber = fibers[t];
        fiber.number = t;
        fiber.index = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
        fiber.ended = fiber.at_barrier = false;
        fiber.mask = 0;
        place_at(fiber.place, stacks + t * STACK, STACK, enter);
    }
    barrier_sum = 0;
    for (;;) {
        unsigned ended = 0, waiting = 0;
        bool moved = false;
        for (unsigned k = 0; k < threads; k++) {
            unsigned t = order == 0 ? k : order == 1 ? threads - 1 - k : (k * 7 + 3) % threads;
            if (order == 2 && threads % 7 == 0) t = k ^ 1u;
            Fiber& fiber = fibers[t < threads ? t : k];
            if (fiber.ended || fiber.at_barrier) continue;
            if (fiber.mask) continue;
            go_on(fiber);
            moved = true;
            if (failed) return;
        }
        for (unsigned t = 0; t < threads; t++) {
            ended += fibers[t].ended;
            waiting += fibers[t].at_barrier;
        }
        if (ended == threads) return;
        if (waiting && ended + waiting == threads) {
            barrier_found = barrier_sum;
            barrier_sum = 0;
            for (unsigned t = 0; t < threads; t++) fibers[t].at_barrier = false;
        } else if (!moved) {
            failed = "threads wait for each other for ever: a barrier or a mask that not all reach";
            return;
        }
    }
}

template <class... Given, size_t... I>
void call(void (*kernel)(Given...), void** given, std::index_sequence<I...>) {
    kernel(*static_cast<Given*>(given[I])...);
}

template <class... Given>
int parameters(void (*)(Given...)) { return sizeof...(Given); }

// Runs a kernel; returns why it cannot, or null.
template <class... Given>
const char* launch(
    void (*kernel)(Given...), unsigned blocks, unsigned blocks_y, unsigned threads_of_block,
    size_t shared, void** given) {
    if (!stacks) {
        void* room = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) return "no memory for stacks";
        stacks = static_cast<unsigned char*>(room);
    }
    if (!threads_of_block || threads_of_block > MOST_THREADS) return "no such number of threads";
    grid = {blocks, blocks_y, 1};
    block = {threads_of_block, 1, 1};
    threads = threads_of_block;
    failed = nullptr;
    std::vector<unsigned char> memory(shared + 128, 0xA5);  // what is not written is no zero
    auto place = reinterpret_cast<uintptr_t>(memory.data());
    dynamic_shared = reinterpret_cast<unsigned char*>((place + 127) / 128 * 128);
    auto of = std::make_pair(kernel, given);
    using Of = decltype(of);
    body = [](void* p) {
        auto& [function, values] = *static_cast<Of*>(p);
        call(function, values, std::index_sequence_for<Given...>{});
    };
    body_of = &of;
    for (unsigned y = 0; y < blocks_y && !failed; y++)
        for (unsigned x = 0; x < blocks && !failed; x++) {
            // What a block before it left there is none of its business.
            std::memset(__start_block_shared, 0xA5, __stop_block_shared - __start_block_shared);
            std::memset(dynamic_shared, 0xA5, shared);
            block_index = {x, y, 0};
            run_block();
        }
    return failed;
}

template <class T>
uint64_t as_bits(T x) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &x, sizeof(T));
    return bits;
}

template <class T>
T from_bits(uint64_t bits) {
    T x;
    std::memcpy(&x, &bits, sizeof(T));
    return x;
}

template <class T>
T from_lane(unsigned mask, T x, unsigned lane, bool inside) {
    meet(mask, as_bits(x));
    return inside && (mask >> lane & 1) ? from_bits<T>(current->got[lane]) : x;
}

}  // namespace host

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__
#define __shared__ static __attribute__((section("block_shared")))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define threadIdx (host::current->index)
#define blockIdx (host::block_index)
#define blockDim (host::block)
#define gridDim (host::grid)
#define warpSize 32

inline void __syncthreads() { host::wait_for_block(0); }
inline int __syncthreads_count(int x) { return host::wait_for_block(x != 0); }
inline int __syncthreads_or(int x) { return host::wait_for_block(x != 0) != 0; }
inline void __syncwarp(unsigned mask = ~0u) { host::meet(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
    unsigned lane = host::current->number % 32, base = lane / width * width;
    return host::from_lane(mask, x, base + unsigned(from) % width, true);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int flip, int width = 32) {
    unsigned lane = host::current->number % 32, other = lane ^ flip;
    return host::from_lane(mask, x, other % 32, other / width <= lane / width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
    unsigned lane = host::current->number % 32;
    return host::from_lane(mask, x, (lane + by) % 32, lane % width + by < unsigned(width));
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
    unsigned lane = host::current->number % 32;
    return host::from_lane(mask, x, (lane - by) % 32, lane % width >= by);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    host::meet(mask, predicate != 0);
    unsigned found = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && host::current->got[lane]) found |= 1u << lane;
    return found;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T>
unsigned __match_any_sync(unsigned mask, T x) {
    host::meet(mask, host::as_bits(x));
    unsigned found = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && host::current->got[lane] == host::as_bits(x)) found |= 1u << lane;
    return found;
}
template <class T, class Join>
T reduce_lanes(unsigned mask, T x, Join join) {
    host::meet(mask, host::as_bits(x));
    bool first = true;
    T found{};
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) {
            T other = host::from_bits<T>(host::current->got[lane]);
            found = first ? other : join(found, other);
            first = false;
        }
    return found;
}
template <class T>
T __reduce_add_sync(unsigned mask, T x) {
    return reduce_lanes(mask, x, [](T a, T b) { return T(a + b); });
}
template <class T>
T __reduce_max_sync(unsigned mask, T x) {
    return reduce_lanes(mask, x, [](T a, T b) { return a > b ? a : b; });
}
template <class T>
T __reduce_min_sync(unsigned mask, T x) {
    return reduce_lanes(mask, x, [](T a, T b) { return a < b ? a : b; });
}

template <class T, class U>
T atomicAdd(T* place, U x) {
    host::wide_atomics += sizeof(T) == 8;
    T before = *place;
    *place = T(before + T(x));
    return before;
}
template <class T, class U>
T atomicMax(T* place, U x) { T before = *place; if (T(x) > before) *place = T(x); return before; }
template <class T, class U>
T atomicOr(T* place, U x) { T before = *place; *place = T(before | T(x)); return before; }

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, T x) { *p = x; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __float_as_int(float x) { return host::from_bits<int>(host::as_bits(x)); }
inline unsigned __float_as_uint(float x) { return host::from_bits<unsigned>(host::as_bits(x)); }
inline float __int_as_float(int x) { return host::from_bits<float>(host::as_bits(x)); }
inline float __uint_as_float(unsigned x) { return host::from_bits<float>(host::as_bits(x)); }
inline long long __double_as_longlong(double x) { return host::from_bits<long long>(host::as_bits(x)); }
inline double __longlong_as_double(long long x) { return host::from_bits<double>(host::as_bits(x)); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// What compilers must not make part of another instruction.
#if defined(__x86_64__)
inline float alone(float x) { asm("" : "+x"(x)); return x; }
inline double alone(double x) { asm("" : "+x"(x)); return x; }
#else
inline float alone(float x) { volatile float y = x; return y; }
inline double alone(double x) { volatile double y = x; return y; }
#endif
inline float __fadd_rn(float a, float b) { return alone(a + b); }
template <int MODE>  // of rounding
float fma_rounded(float a, float b, float c) {
    volatile float x = a, y = b, z = c;
    int before = std::fegetround();
    std::fesetround(MODE);
    volatile float sum = std::fma(float(x), float(y), float(z));
    std::fesetround(before);
    return sum;
}
inline float __fmaf_rd(float a, float b, float c) { return fma_rounded<FE_DOWNWARD>(a, b, c); }
inline float __fmaf_ru(float a, float b, float c) { return fma_rounded<FE_UPWARD>(a, b, c); }
inline double __dadd_rn(double a, double b) { return alone(a + b); }
inline double __dmul_rn(double a, double b) { return alone(a * b); }
inline float fminf(float a, float b) { return std::fmin(a, b); }
inline float fmaxf(float a, float b) { return std::fmax(a, b); }
inline float __fmul_rd(float a, float b) {
    double product = double(a) * double(b);  // exact
    float rounded = float(product);
    return double(rounded) > product ? std::nextafter(rounded, -HUGE_VALF) : rounded;
}
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }  // NaN: 0
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return unsigned(((uint64_t(high) << 32 | low) >> (by & 31)));
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline long long __float2ll_rn(float x) { return (long long)std::nearbyint(x); }
inline long long __double2ll_rn(double x) { return (long long)std::nearbyint(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline float exp2f_approx(float x) { return std::exp2(x); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
using std::exp;
using std::exp2;
using std::expm1;
using std::fabs;
using std::fma;
using std::fmax;
using std::fmin;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::log;
using std::log1p;
using std::log2;
