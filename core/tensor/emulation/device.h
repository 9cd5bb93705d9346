// What a kernel finds when the emulation compiles it as C++: CUDA's built-in names, for one thread at a time.
// `__global__` and `__shared__` are left to nvrtc.cpp.
#pragma once
#include <math.h>
#include <string.h>
#include <utility>

// Keeps a parameter from deciding a template's type.
template <class T> struct emulated_same { using type = T; };
template <class T> using emulated_same_t = typename emulated_same<T>::type;

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

// Of the thread that runs now; the scheduler in launch.cpp sets them.
extern "C" {
extern uint3 emulated_thread, emulated_block;
extern dim3 emulated_block_size, emulated_grid_size;
extern unsigned emulated_lane;
void *emulated_dynamic_shared();
void emulated_sync_block();
void emulated_sync_warp(unsigned mask);
unsigned long long emulated_exchange(unsigned mask, unsigned long long value, unsigned from);
unsigned emulated_ballot(unsigned mask, bool vote);
unsigned emulated_count(bool vote);
[[noreturn]] void emulated_trap(const char *why);
}
#define threadIdx emulated_thread
#define blockIdx emulated_block
#define blockDim emulated_block_size
#define gridDim emulated_grid_size
#define warpSize 32

#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Another thread may write what this one reads through a restricted pointer, across a barrier.
#define __restrict__
#define __restrict
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1

#define EMULATED static inline

EMULATED void __syncthreads() { emulated_sync_block(); }
EMULATED int __syncthreads_count(int vote) { return (int)emulated_count(vote != 0); }
EMULATED int __syncthreads_or(int vote) { return emulated_count(vote != 0) != 0; }
EMULATED int __syncthreads_and(int vote) { return emulated_count(vote == 0) == 0; }
EMULATED void __syncwarp(unsigned mask = 0xffffffffu) { emulated_sync_warp(mask); }
EMULATED void __threadfence() {}
EMULATED void __threadfence_block() {}
EMULATED void __trap() { emulated_trap("the kernel called __trap"); }

// Warps. A lane that reads from outside its group reads itself.
template <class T> EMULATED T emulated_shuffle(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = emulated_exchange(mask, bits, from);
    memcpy(&value, &bits, sizeof(T));
    return value;
}
template <class T> EMULATED T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    unsigned base = emulated_lane & ~(unsigned)(width - 1);
    return emulated_shuffle(mask, value, base + ((unsigned)from & (width - 1)));
}
template <class T> EMULATED T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned within = emulated_lane & (width - 1);
    return emulated_shuffle(mask, value, within >= by ? emulated_lane - by : emulated_lane);
}
template <class T> EMULATED T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned within = emulated_lane & (width - 1);
    return emulated_shuffle(mask, value, within + by < (unsigned)width ? emulated_lane + by : emulated_lane);
}
template <class T> EMULATED T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
    unsigned from = emulated_lane ^ (unsigned)with, end = (emulated_lane & ~(unsigned)(width - 1)) + width;
    return emulated_shuffle(mask, value, from < end ? from : emulated_lane);
}
// What tensor cores do, in their layout: sums += a b over a warp, of 16 x 8 and 8 x 8 numbers (tensor_cores.cu says which
// lane holds what). Blocks have one dimension.
EMULATED void emulated_multiply(float *sums, const float *a, const float *b) {
    static float all[32][32][6];
    float(*own)[6] = all[emulated_thread.x / 32];
    memcpy(own[emulated_lane], a, 4 * sizeof(float));
    memcpy(own[emulated_lane] + 4, b, 2 * sizeof(float));
    emulated_sync_warp(0xffffffffu);
    unsigned g = emulated_lane / 4, t = emulated_lane % 4;
    for (unsigned k = 0; k < 8; k++) {
        const float *left = own[4 * g + k % 4] + k / 4 * 2, *right = own[8 * t + k % 4] + 4 + k / 4;
        const float *next = right + 4 * 6;
        sums[0] += left[0] * *right;
        sums[1] += left[0] * *next;
        sums[2] += left[1] * *right;
        sums[3] += left[1] * *next;
    }
    emulated_sync_warp(0xffffffffu);
}
EMULATED unsigned __ballot_sync(unsigned mask, int vote) { return emulated_ballot(mask, vote != 0); }
EMULATED int __any_sync(unsigned mask, int vote) { return emulated_ballot(mask, vote != 0) != 0; }
EMULATED int __all_sync(unsigned mask, int vote) { return emulated_ballot(mask, vote == 0) == 0; }

// Vectors.
#define EMULATED_VECTORS(T, name, align)                                                        \
    struct alignas(align / 2) name##2 { T x, y; };                                              \
    struct name##3 { T x, y, z; };                                                              \
    struct alignas(align) name##4 { T x, y, z, w; };                                            \
    EMULATED name##2 make_##name##2(T x, T y) { return {x, y}; }                                \
    EMULATED name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                        \
    EMULATED name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float, 16)
EMULATED_VECTORS(int, int, 16)
EMULATED_VECTORS(unsigned char, uchar, 4)
EMULATED_VECTORS(signed char, char, 4)
EMULATED_VECTORS(unsigned short, ushort, 8)
EMULATED_VECTORS(short, short, 8)
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
EMULATED uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
EMULATED uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
EMULATED double2 make_double2(double x, double y) { return {x, y}; }
EMULATED ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

// Memory.
template <class T> EMULATED T __ldg(const T *at) { return *at; }
template <class T> EMULATED T __ldcs(const T *at) { return *at; }
template <class T> EMULATED T __ldcg(const T *at) { return *at; }
template <class T> EMULATED T __ldca(const T *at) { return *at; }
template <class T> EMULATED void __stcs(T *at, T value) { *at = value; }
template <class T> EMULATED void __stcg(T *at, T value) { *at = value; }
template <class T> EMULATED void __stwt(T *at, T value) { *at = value; }
#define EMULATED_ATOMIC(name, value)                                                            \
    template <class T> EMULATED T name(T *at, emulated_same_t<T> by) {                     \
        T old = *at;                                                                            \
        *at = (value);                                                                          \
        return old;                                                                             \
    }
EMULATED_ATOMIC(atomicAdd, old + by)
EMULATED_ATOMIC(atomicSub, old - by)
EMULATED_ATOMIC(atomicMax, old > by ? old : by)
EMULATED_ATOMIC(atomicMin, old < by ? old : by)
EMULATED_ATOMIC(atomicOr, old | by)
EMULATED_ATOMIC(atomicAnd, old & by)
EMULATED_ATOMIC(atomicXor, old ^ by)
EMULATED_ATOMIC(atomicExch, by)
template <class T> EMULATED T atomicCAS(T *at, emulated_same_t<T> from, emulated_same_t<T> to) {
    T old = *at;
    if (old == from) *at = to;
    return old;
}

// Numbers.
template <class To, class From> EMULATED To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
EMULATED int __float_as_int(float x) { return emulated_bits<int>(x); }
EMULATED unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
EMULATED float __int_as_float(int x) { return emulated_bits<float>(x); }
EMULATED float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
EMULATED long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
EMULATED double __longlong_as_double(long long x) { return emulated_bits<double>(x); }
EMULATED int __float2int_rn(float x) { return (int)rintf(x); }
EMULATED int __float2int_rz(float x) { return (int)x; }
EMULATED int __float2int_rd(float x) { return (int)floorf(x); }
EMULATED unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
EMULATED unsigned __float2uint_rz(float x) { return (unsigned)x; }
EMULATED float __int2float_rn(int x) { return (float)x; }
EMULATED float __uint2float_rn(unsigned x) { return (float)x; }
EMULATED float __double2float_rn(double x) { return (float)x; }
// A product or sum of its own: the compiler must not fuse it into a neighbour.
template <class T> EMULATED T emulated_alone(T x) {
    asm("" : "+x"(x));
    return x;
}
EMULATED float __fadd_rn(float x, float y) { return emulated_alone(x + y); }
EMULATED float __fsub_rn(float x, float y) { return emulated_alone(x - y); }
EMULATED float __fmul_rn(float x, float y) { return emulated_alone(x * y); }
EMULATED double __dadd_rn(double x, double y) { return emulated_alone(x + y); }
EMULATED double __dmul_rn(double x, double y) { return emulated_alone(x * y); }
EMULATED float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
EMULATED double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
EMULATED float __fdiv_rn(float x, float y) { return emulated_alone(x / y); }
EMULATED float __fdividef(float x, float y) { return x / y; }
EMULATED float fdividef(float x, float y) { return x / y; }
EMULATED float __frcp_rn(float x) { return 1.0f / x; }
EMULATED float __fsqrt_rn(float x) { return sqrtf(x); }
EMULATED float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
EMULATED float rsqrtf(float x) { return 1.0f / sqrtf(x); }
EMULATED double rsqrt(double x) { return 1.0 / sqrt(x); }
// Names that the C library declares for itself.
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __sincosf sincosf
EMULATED float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
EMULATED float sinpif(float x) { return (float)sin(M_PI * x); }
EMULATED float cospif(float x) { return (float)cos(M_PI * x); }
EMULATED void sincospif(float x, float *s, float *c) { *s = sinpif(x), *c = cospif(x); }
EMULATED float normcdff(float x) { return 0.5f * erfcf(-x * (float)M_SQRT1_2); }
EMULATED unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)((unsigned long long)x * y >> 32); }
EMULATED int __mulhi(int x, int y) { return (int)((long long)x * y >> 32); }
EMULATED unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
EMULATED int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
EMULATED int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
EMULATED int __popc(unsigned x) { return __builtin_popcount(x); }
EMULATED int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
EMULATED int __ffs(int x) { return __builtin_ffs(x); }
EMULATED int __ffsll(long long x) { return __builtin_ffsll(x); }
EMULATED unsigned __brev(unsigned x) {
    unsigned to = 0;
    for (int i = 0; i < 32; i++) to |= (x >> i & 1u) << (31 - i);
    return to;
}
EMULATED unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return (unsigned)((((unsigned long long)high << 32 | low) << (by & 31)) >> 32);
}
EMULATED unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
EMULATED unsigned __byte_perm(unsigned x, unsigned y, unsigned select) {
    unsigned long long from = (unsigned long long)y << 32 | x;
    unsigned to = 0;
    for (int i = 0; i < 4; i++) to |= (unsigned)(from >> 8 * (select >> 4 * i & 7) & 255) << 8 * i;
    return to;
}
EMULATED int __dp4a(int x, int y, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(signed char)(x >> 8 * i) * (int)(signed char)(y >> 8 * i);
    return sum;
}
EMULATED unsigned __dp4a(unsigned x, unsigned y, unsigned sum) {
    for (int i = 0; i < 4; i++) sum += (x >> 8 * i & 255) * (y >> 8 * i & 255);
    return sum;
}
#define EMULATED_EXTREMES(T)                                                                    \
    EMULATED T min(T x, T y) { return y < x ? y : x; }                                          \
    EMULATED T max(T x, T y) { return x < y ? y : x; }
EMULATED_EXTREMES(int)
EMULATED_EXTREMES(unsigned)
EMULATED_EXTREMES(long)
EMULATED_EXTREMES(unsigned long)
EMULATED_EXTREMES(long long)
EMULATED_EXTREMES(unsigned long long)
EMULATED float min(float x, float y) { return fminf(x, y); }
EMULATED float max(float x, float y) { return fmaxf(x, y); }
EMULATED double min(double x, double y) { return fmin(x, y); }
EMULATED double max(double x, double y) { return fmax(x, y); }

// Calls a kernel with the parameters that a launch points at.
template <class... P, size_t... I>
EMULATED void emulated_spread(void (*kernel)(P...), void **at, std::index_sequence<I...>) {
    kernel(*(std::remove_reference_t<P> *)at[I]...);
}
template <class... P> EMULATED void emulated_call(void (*kernel)(P...), void **at) {
    emulated_spread(kernel, at, std::index_sequence_for<P...>());
}
