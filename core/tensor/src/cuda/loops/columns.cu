// Sums down the columns of a matrix, in two stages: pieces of the rows, then the pieces.

// A block takes `across` columns, a power of two up to 32, with its threads in as many lanes and the rest in lines.
template <typename T>
__device__ __forceinline__ double column_sum(const T *in, u64 start, u64 end, u64 columns, u64 across) {
    __shared__ double sums[LANES];
    u64 column = blockIdx.x * across + threadIdx.x % across, lines = LANES / across;
    double sum = 0.0;
    if (column < columns) {
        // Numbers on their way at once, for memory takes as long for one as for all of them.
        constexpr int BATCH = 8;
        for (u64 row = start + threadIdx.x / across; row < end; row += BATCH * lines) {
            T x[BATCH];
#pragma unroll
            for (int b = 0; b < BATCH; b++) x[b] = row + b * lines < end ? in[(row + b * lines) * columns + column] : T(0);
#pragma unroll
            for (int b = 0; b < BATCH; b++) sum += x[b];
        }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = LANES / 2; half >= across; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[threadIdx.x % across];
}

// partial[piece][column] = the sum of the column over a piece (blockIdx.y) of the rows.
extern "C" __global__ void column_pieces(const float *in, double *partial, u64 rows, u64 columns, u64 piece, u64 across) {
    u64 start = blockIdx.y * piece, end = rows - start < piece ? rows : start + piece;
    double sum = column_sum(in, start, end, columns, across);
    u64 column = blockIdx.x * across + threadIdx.x;
    if (threadIdx.x < across && column < columns) partial[blockIdx.y * columns + column] = sum;
}

// The sum over the pieces, times `scale`: the first `split` columns to `first`, the rest to `second`.
extern "C" __global__ void column_join(const double *partial, float *first, float *second, u64 pieces, u64 columns,
                                       u64 split, u64 across, double scale) {
    double sum = column_sum(partial, 0, pieces, columns, across);
    u64 column = blockIdx.x * across + threadIdx.x;
    if (threadIdx.x < across && column < columns) {
        if (column < split) {
            first[column] = (float)(sum * scale);
        } else {
            second[column - split] = (float)(sum * scale);
        }
    }
}
