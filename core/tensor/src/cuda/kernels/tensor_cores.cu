// Products in tensor cores, where the device has them and the precision allows them (TENSOR_CORES is defined then). Compiled
// for anything else, the same code multiplies as f32 does.

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

#endif
