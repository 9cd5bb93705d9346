// The tiles that convolutions multiply, in shared memory: how they are stored and multiplied, in three precisions.
//
// A tile is made of words: a number in f32 or tf32, or two numbers in bf16 that follow each other along the depth, as
// tensor cores take them. A tile of bf16 thus holds twice the depth in as much memory. A word goes to the same lane in
// both of tensor cores' products, so that all but the storing is the same for tf32 and bf16.

#ifdef TENSOR_CORES_BF16
typedef unsigned TileWord;
#define PER_WORD 2
#else
typedef float TileWord;
#define PER_WORD 1
#endif

// Words, and numbers, that a tile sums over at a time.
#define WORDS 16
#define DEPTH (WORDS * PER_WORD)

// Words between rows of a tile: chosen so that the reads of a warp fall into different banks.
#define LEFT_STRIDE (WORDS + 4)
#define ROW_STRIDE(size) ((size) + 8)

// Writes a number, or with QUADS four, of one row of a tile that is stored [rows][WORDS], from depth `at` on.
template <bool QUADS>
__device__ __forceinline__ void store_along(TileWord *row, int at, float4 x) {
#ifdef TENSOR_CORES_BF16
    if (QUADS) {
        *(uint2 *)(row + at / 2) = make_uint2(bf16_pair(x.x, x.y), bf16_pair(x.z, x.w));
    } else {
        ((unsigned short *)row)[at] = (unsigned short)bf16_pair(x.x, 0.0f);
    }
#else
    if (QUADS) {
        *(float4 *)(row + at) = operands(x);
    } else {
        row[at] = operand(x.x);
    }
#endif
}

// Writes a word, or with QUADS four side by side, of a tile that is stored [WORDS][rows or columns]. The numbers of a word
// are PER_WORD elements of `x`.
template <bool QUADS>
__device__ __forceinline__ void store_across(TileWord *to, const float4 *x) {
#ifdef TENSOR_CORES_BF16
    if (QUADS) {
        *(uint4 *)to = make_uint4(bf16_pair(x[0].x, x[1].x), bf16_pair(x[0].y, x[1].y), bf16_pair(x[0].z, x[1].z),
                                  bf16_pair(x[0].w, x[1].w));
    } else {
        *to = bf16_pair(x[0].x, x[1].x);
    }
#else
    if (QUADS) {
        *(float4 *)to = operands(x[0]);
    } else {
        *to = operand(x[0].x);
    }
#endif
}

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

// sums += a tile of the left operand, stored [ROWS][WORDS] or, if BY_DEPTH, [WORDS][ROWS], times one of the right,
// [WORDS][COLUMNS].
template <int ROWS, int COLUMNS, bool BY_DEPTH>
__device__ __forceinline__ void multiply_tiles(const TileWord *left, const TileWord *right, float *sums) {
    constexpr int DOWN = ROWS / 64, ACROSS = COLUMNS / 16;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    int first_row = warp / 2 * (ROWS / 4) + g, first_column = warp % 2 * (COLUMNS / 2) + g;
#pragma unroll
    for (int k = 0; k < WORDS; k += 8) {
        TileWord a[DOWN][4], b[ACROSS][2];
#pragma unroll
        for (int i = 0; i < DOWN; i++) {
#pragma unroll
            for (int part = 0; part < 4; part++) {
                int row = first_row + 16 * i + part % 2 * 8, word = k + t + part / 2 * 4;
                a[i][part] = BY_DEPTH ? left[word * ROW_STRIDE(ROWS) + row] : left[row * LEFT_STRIDE + word];
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

// sums += a tile of the left operand, stored [ROWS][WORDS] or, if BY_DEPTH, [WORDS][ROWS], times one of the right,
// [WORDS][COLUMNS].
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
