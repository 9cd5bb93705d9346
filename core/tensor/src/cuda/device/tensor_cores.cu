// Products in tensor cores, where the device has them and the precision allows them (TENSOR_CORES is defined then, and
// TENSOR_CORES_BF16, too, where the precision is bf16). Compiled for anything else, the same code multiplies as f32 does.

// An operand as the multiplier takes it: with tensor cores, rounded to tf32.
__device__ __forceinline__ float operand(float x) {
#if defined(TENSOR_CORES) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return __uint_as_float(rounded);
#elif defined(TENSOR_CORES) && defined(EMULATED_ROUNDING)
    return __uint_as_float((__float_as_uint(x) + 0x1000) & ~0x1fffu);
#else
    return x;
#endif
}

__device__ __forceinline__ float4 operands(float4 x) {
    return make_float4(operand(x.x), operand(x.y), operand(x.z), operand(x.w));
}

// Of two bf16 numbers equally near, the even one; NaN stays NaN.
__device__ __forceinline__ unsigned short rounded_to_bf16(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned short)(bits >> 16 | 0x40u);
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Two numbers in bf16, the first in the lower half, as tensor cores take them.
__device__ __forceinline__ unsigned bf16_pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return rounded_to_bf16(first) | (unsigned)rounded_to_bf16(second) << 16;
#endif
}

#ifdef TENSOR_CORES

// sums += a b over a warp, of 16 x 8 and 8 x 8 numbers. Lane 4 g + t holds a[g][t], a[g + 8][t], a[g][t + 4],
// a[g + 8][t + 4]; b[t][g], b[t + 4][g]; and the sums at [g][2 t], [g][2 t + 1], [g + 8][2 t], [g + 8][2 t + 1].
__device__ __forceinline__ void warp_multiply(float *sums, const float *a, const float *b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#else
    // Compiled for no such device: only the emulation gets here.
    emulated_multiply(sums, a, b);
#endif
}

// The same of bf16, of 16 x 16 and 16 x 8 numbers: pairs along the depth are where numbers are above. Lane 4 g + t holds
// a[g][2 t, 2 t + 1], a[g + 8][2 t, 2 t + 1], a[g][2 t + 8, 2 t + 9], a[g + 8][2 t + 8, 2 t + 9]; b[2 t, 2 t + 1][g],
// b[2 t + 8, 2 t + 9][g].
__device__ __forceinline__ void warp_multiply(float *sums, const unsigned *a, const unsigned *b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int k = 0; k < 16; k += 2) {
        int from = k % 8 / 2;
        unsigned upper = __shfl_sync(0xffffffffu, k < 8 ? a[0] : a[2], 4 * g + from);
        unsigned lower = __shfl_sync(0xffffffffu, k < 8 ? a[1] : a[3], 4 * g + from);
        unsigned left = __shfl_sync(0xffffffffu, k < 8 ? b[0] : b[1], 8 * t + from);
        unsigned right = __shfl_sync(0xffffffffu, k < 8 ? b[0] : b[1], 8 * t + 4 + from);
        // A number of bf16 is the upper half of the same in f32.
        for (int shift = 16; shift >= 0; shift -= 16) {
            auto half = [&](unsigned pair) { return __uint_as_float(pair << shift & 0xffff0000u); };
            sums[0] += half(upper) * half(left);
            sums[1] += half(upper) * half(right);
            sums[2] += half(lower) * half(left);
            sums[3] += half(lower) * half(right);
        }
    }
#endif
}

#endif
