// What all kernels share. The sources are joined into one program in the order of kernels.rs.

typedef unsigned long long u64;

// The threads of a block that sums: a power of two.
#define LANES 256

// Visits every index below n, whatever the size of the grid.
#define EACH(i, n) \
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (u64)blockDim.x * gridDim.x)

#define MAX_AXES 8

// Axes of one or two operands, outermost first: sizes, and strides of each operand.
struct Axes {
    u64 rank;
    u64 size[MAX_AXES];
    u64 x[MAX_AXES];
    u64 y[MAX_AXES];
};

// Offsets of flat index i in both operands.
__device__ __forceinline__ void offsets(const Axes &axes, u64 i, u64 &x, u64 &y) {
    x = 0;
    y = 0;
    for (u64 axis = axes.rank; axis-- > 0;) {
        u64 size = axes.size[axis], index;
        // A division of 64 bits takes as long as several of 32.
        if ((i | size) >> 32 == 0) {
            index = (unsigned)i % (unsigned)size;
            i = (unsigned)i / (unsigned)size;
        } else {
            index = i % size;
            i /= size;
        }
        x += index * axes.x[axis];
        y += index * axes.y[axis];
    }
}

// The sum over the block, in a fixed order, for every thread.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double lanes[LANES];
    lanes[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = LANES / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) lanes[threadIdx.x] += lanes[threadIdx.x + half];
        __syncthreads();
    }
    double sum = lanes[0];
    __syncthreads();
    return sum;
}
