// The tiles that convolutions multiply, in shared memory.

// Numbers that a tile sums over at a time.
#define DEPTH 16

// Numbers between rows of a tile: chosen so that the reads of a warp fall into different banks.
#define LEFT_STRIDE (DEPTH + 4)
#define ROW_STRIDE(size) ((size) + 8)

#ifdef TENSOR_CORES

// Numbers of a thread's sums that lie side by side.
#define SIDE 2

// A tile is shared out to 4 x 2 warps. Row and column of a thread's i-th sum in a tile.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void place_of(int i, int &row, int &column) {
    constexpr int ACROSS = COLUMNS / 16;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, part = i / 4;
    row = warp / 2 * (ROWS / 4) + part / ACROSS * 16 + lane / 4 + (i & 2) * 4;
    column = warp % 2 * (COLUMNS / 2) + part % ACROSS * 8 + lane % 4 * 2 + (i & 1);
}

// sums += a tile of the left operand, stored [ROWS][DEPTH] or, if BY_DEPTH, [DEPTH][ROWS], times one of the right.
template <int ROWS, int COLUMNS, bool BY_DEPTH>
__device__ __forceinline__ void multiply_tiles(const float *left, const float *right, float *sums) {
    constexpr int DOWN = ROWS / 64, ACROSS = COLUMNS / 16;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    int first_row = warp / 2 * (ROWS / 4) + g, first_column = warp % 2 * (COLUMNS / 2) + g;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 8) {
        float a[DOWN][4], b[ACROSS][2];
#pragma unroll
        for (int i = 0; i < DOWN; i++) {
#pragma unroll
            for (int part = 0; part < 4; part++) {
                int row = first_row + 16 * i + part % 2 * 8, depth = k + t + part / 2 * 4;
                a[i][part] = BY_DEPTH ? left[depth * ROW_STRIDE(ROWS) + row] : left[row * LEFT_STRIDE + depth];
            }
        }
#pragma unroll
        for (int j = 0; j < ACROSS; j++) {
            b[j][0] = right[(k + t) * ROW_STRIDE(COLUMNS) + first_column + 8 * j];
            b[j][1] = right[(k + t + 4) * ROW_STRIDE(COLUMNS) + first_column + 8 * j];
        }
#pragma unroll
        for (int i = 0; i < DOWN; i++) {
#pragma unroll
            for (int j = 0; j < ACROSS; j++) warp_multiply(sums + 4 * (i * ACROSS + j), a[i], b[j]);
        }
    }
}

#else

#define SIDE 4

// A thread sums a block of 4 columns and as many rows as there are. Row and column of its i-th sum in a tile.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void place_of(int i, int &row, int &column) {
    constexpr int ACROSS = COLUMNS / 4, TALL = ROWS * ACROSS / LANES;
    row = threadIdx.x / ACROSS * TALL + i / 4;
    column = threadIdx.x % ACROSS * 4 + i % 4;
}

// sums += a tile of the left operand, stored [ROWS][DEPTH] or, if BY_DEPTH, [DEPTH][ROWS], times one of the right.
template <int ROWS, int COLUMNS, bool BY_DEPTH>
__device__ __forceinline__ void multiply_tiles(const float *left, const float *right, float *sums) {
    constexpr int ACROSS = COLUMNS / 4, TALL = ROWS * ACROSS / LANES;
    int row = threadIdx.x / ACROSS * TALL, column = threadIdx.x % ACROSS * 4;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 4) {
        float a[4][TALL];
        if (BY_DEPTH) {
#pragma unroll
            for (int d = 0; d < 4; d++) {
                const float *from = left + (k + d) * ROW_STRIDE(ROWS) + row;
                if (TALL % 4 == 0) {
#pragma unroll
                    for (int i = 0; i < TALL; i += 4) {
                        float4 quad = *(const float4 *)(from + i);
                        a[d][i] = quad.x;
                        a[d][i + 1] = quad.y;
                        a[d][i + 2] = quad.z;
                        a[d][i + 3] = quad.w;
                    }
                } else {
#pragma unroll
                    for (int i = 0; i < TALL; i++) a[d][i] = from[i];
                }
            }
        } else {
#pragma unroll
            for (int i = 0; i < TALL; i++) {
                float4 quad = *(const float4 *)(left + (row + i) * LEFT_STRIDE + k);
                a[0][i] = quad.x;
                a[1][i] = quad.y;
                a[2][i] = quad.z;
                a[3][i] = quad.w;
            }
        }
#pragma unroll
        for (int d = 0; d < 4; d++) {
            float4 b = *(const float4 *)(right + (k + d) * ROW_STRIDE(COLUMNS) + column);
#pragma unroll
            for (int i = 0; i < TALL; i++) {
                sums[4 * i] += a[d][i] * b.x;
                sums[4 * i + 1] += a[d][i] * b.y;
                sums[4 * i + 2] += a[d][i] * b.z;
                sums[4 * i + 3] += a[d][i] * b.w;
            }
        }
    }
}

#endif

// Writes sums that lie side by side from `column` on.
__device__ __forceinline__ void write_side(float *row, int column, int columns, const float *sums) {
    if (columns % SIDE == 0) {
        if (column >= columns) return;
#ifdef TENSOR_CORES
        *(float2 *)(row + column) = make_float2(sums[0], sums[1]);
#else
        *(float4 *)(row + column) = make_float4(sums[0], sums[1], sums[2], sums[3]);
#endif
    } else {
#pragma unroll
        for (int j = 0; j < SIDE; j++) {
            if (column + j < columns) row[column + j] = sums[j];
        }
    }
}
