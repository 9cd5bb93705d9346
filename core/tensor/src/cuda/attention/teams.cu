// Sums and maxima over the threads of one warp pernd of a block of LANES threads, by shuffles and in a fixed order.

// Below all numbers.
#define NEVER (-__int_as_float(0x7f800000))

// N neighbouring numbers, read at once.
template <int N>
struct alignas(4 * N) Neighbours {
    float v[N];
};

// Sum and maximum over 16 neighbouring lanes.
__device__ __forceinline__ float sum_of_16(float value) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

__device__ __forceinline__ float max_of_16(float value) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

__device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

// The sum over the block for every thread, by warps: in a fixed order.
__device__ __forceinline__ double sum_of_block(double value) {
    __shared__ double warps[LANES / 32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    double sum = 0.0;
#pragma unroll
    for (int warp = 0; warp < LANES / 32; warp++) sum += warps[warp];
    return sum;
}

__device__ __forceinline__ u64 count_of_block(u64 value) {
    __shared__ u64 warps[LANES / 32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    u64 sum = 0;
#pragma unroll
    for (int warp = 0; warp < LANES / 32; warp++) sum += warps[warp];
    return sum;
}

// The maximum over the block; NaN is passed over.
__device__ __forceinline__ float max_of_block(float value) {
    __shared__ float warps[LANES / 32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    float max = warps[0];
#pragma unroll
    for (int warp = 1; warp < LANES / 32; warp++) max = fmaxf(max, warps[warp]);
    return max;
}

// The sum over the threads up to this one, and over all.
template <class T>
__device__ __forceinline__ T prefix_of_block(T value, T &total) {
    __shared__ T warps[LANES / 32];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        T before = __shfl_up_sync(0xffffffffu, value, step);
        if (threadIdx.x % 32 >= step) value += before;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31) warps[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = 0;
#pragma unroll
    for (int warp = 0; warp < LANES / 32; warp++) {
        if (warp == threadIdx.x / 32) value += sum;
        sum += warps[warp];
    }
    total = sum;
    return value;
}

// A row of up to 32 R numbers over a warp; what lies beyond its end is zero.
template <int R>
__device__ __forceinline__ void lane_row(float row[R], const float *from, u64 head) {
#pragma unroll
    for (int r = 0; r < R; r++) {
        u64 column = threadIdx.x % 32 + 32 * r;
        row[r] = column < head ? from[column] : 0.0f;
    }
}

template <int R>
__device__ __forceinline__ void lane_store(const float row[R], float *to, u64 head) {
#pragma unroll
    for (int r = 0; r < R; r++) {
        u64 column = threadIdx.x % 32 + 32 * r;
        if (column < head) to[column] = row[r];
    }
}

template <int R>
__device__ __forceinline__ float lane_dot(const float a[R], const float b[R]) {
    float sum = 0.0f;
#pragma unroll
    for (int r = 0; r < R; r++) sum = fmaf(a[r], b[r], sum);
    return sum_of_warp(sum);
}
