// Nearest rows of a codebook, and distances to all of them: products in tiles of 128 rows by 128 codes, of which each
// of 256 threads has eight by eight in registers. Scores never leave the registers.

#define SIDE 128
#define DEPTH 8
// Numbers between two channels of a tile in shared memory: a multiple of four that spreads them over the banks.
#define PITCH (SIDE + 4)

// One warp a row: out = scale * |x|².
extern "C" __global__ void square_rows(const float *in, float *out, u64 rows, u64 channels, float scale) {
    for (u64 row = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32; row < rows;
         row += (u64)gridDim.x * blockDim.x / 32) {
        float sum = 0.0f;
        for (u64 c = threadIdx.x % 32; c < channels; c += 32) {
            float x = in[row * channels + c];
            sum = fmaf(x, x, sum);
        }
        sum = sum_of_warp(sum);
        if (threadIdx.x % 32 == 0) out[row] = scale * sum;
    }
}

// DEPTH channels from `channel` on of SIDE rows, of which `rows` are there: four numbers a thread.
__device__ __forceinline__ void fetch_side(float numbers[4], const float *from, u64 rows, u64 channels, u64 channel) {
    unsigned row = threadIdx.x / DEPTH;
    u64 own = channel + threadIdx.x % DEPTH;
#pragma unroll
    for (int i = 0; i < 4; i++, row += SIDE / 4)
        numbers[i] = row < rows && own < channels ? from[row * channels + own] : 0.0f;
}

__device__ __forceinline__ void store_side(float *to, const float numbers[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) to[threadIdx.x % DEPTH * PITCH + threadIdx.x / DEPTH + SIDE / 4 * i] = numbers[i];
}

// The code that column j of a thread stands for: two groups of four neighbours.
__device__ __forceinline__ int column_of(int j) { return (j < 4 ? 0 : SIDE / 2 - 4) + 4 * (threadIdx.x % 16) + j; }

// sums[i][j] = x[8 ty + i] · e[column_of(j)], where x and e begin at the tile.
__device__ __forceinline__ void score_tile(float sums[8][8], const float *x, u64 rows, const float *e, u64 codes,
                                           u64 channels) {
    // While one half of each is multiplied, the other gets the channels that follow.
    __shared__ float4 left_quads[2][DEPTH * PITCH / 4];
    __shared__ float4 right_quads[2][DEPTH * PITCH / 4];
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16, half = 0;
    float of_x[4], of_e[4];
#pragma unroll
    for (int i = 0; i < 8; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) sums[i][j] = 0.0f;
    }
    fetch_side(of_x, x, rows, channels, 0);
    fetch_side(of_e, e, codes, channels, 0);
    // The tile before may still be read.
    __syncthreads();
    store_side((float *)left_quads[0], of_x);
    store_side((float *)right_quads[0], of_e);
    __syncthreads();
    for (u64 channel = 0; channel < channels; channel += DEPTH, half ^= 1) {
        bool more = channel + DEPTH < channels;
        // On their way while the products run.
        if (more) {
            fetch_side(of_x, x, rows, channels, channel + DEPTH);
            fetch_side(of_e, e, codes, channels, channel + DEPTH);
        }
        const float *left = (const float *)left_quads[half] + 8 * ty;
        const float *right = (const float *)right_quads[half] + 4 * tx;
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            Neighbours<4> a[2], b[2];
            a[0] = *(const Neighbours<4> *)(left + k * PITCH);
            a[1] = *(const Neighbours<4> *)(left + k * PITCH + 4);
            b[0] = *(const Neighbours<4> *)(right + k * PITCH);
            b[1] = *(const Neighbours<4> *)(right + k * PITCH + SIDE / 2);
#pragma unroll
            for (int i = 0; i < 8; i++) {
#pragma unroll
                for (int j = 0; j < 8; j++)
                    sums[i][j] = fmaf(a[i / 4].v[i % 4], b[j / 4].v[j % 4], sums[i][j]);
            }
        }
        if (more) {
            store_side((float *)left_quads[half ^ 1], of_x);
            store_side((float *)right_quads[half ^ 1], of_e);
            __syncthreads();
        }
    }
}

// Whether a score wins over another: of equal ones the lower code does.
__device__ __forceinline__ bool wins(float score, unsigned code, float other, unsigned other_code) {
    return score > other || (score == other && code < other_code);
}

// The best score x · e - |e|² / 2 and its code, of every row [N] within each of `splits` parts of the codebook
// [splits, N].
extern "C" __global__ void __launch_bounds__(256, 2)
    nearest_tiles(const float *x, const float *codebook, const float *halves, float *scores, unsigned *codes, u64 rows,
                  u64 size, u64 channels, u64 splits) {
    u64 tiles = (rows + SIDE - 1) / SIDE, all = (size + SIDE - 1) / SIDE, part = (all + splits - 1) / splits;
    for (u64 job = blockIdx.x; job < tiles * splits; job += gridDim.x) {
        u64 row = job % tiles * SIDE, split = job / tiles;
        u64 from = split * part * SIDE, to = (split + 1) * part * SIDE < size ? (split + 1) * part * SIDE : size;
        float best[8];
        unsigned code[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            best[i] = NEVER;
            // A part without codes is no better than any.
            code[i] = (unsigned)(from < size ? from : 0);
        }
        for (u64 first = from; first < to; first += SIDE) {
            float sums[8][8];
            score_tile(sums, x + row * channels, rows - row, codebook + first * channels, size - first, channels);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                u64 column = first + column_of(j);
                if (column < size) {
                    float half = halves[column];
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        // Codes come in rising order.
                        if (sums[i][j] - half > best[i]) {
                            best[i] = sums[i][j] - half;
                            code[i] = (unsigned)column;
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int step = 8; step > 0; step /= 2) {
                float other = __shfl_xor_sync(0xffffffffu, best[i], step);
                unsigned other_code = __shfl_xor_sync(0xffffffffu, code[i], step);
                if (wins(other, other_code, best[i], code[i])) {
                    best[i] = other;
                    code[i] = other_code;
                }
            }
            u64 own = row + threadIdx.x / 16 * 8 + i;
            if (threadIdx.x % 16 == 0 && own < rows) {
                scores[split * rows + own] = best[i];
                codes[split * rows + own] = code[i];
            }
        }
    }
}

// One warp a row: the best of up to 32 parts becomes the code at `depth` of `depths`, and what it leaves of x the
// residual, if that is wanted. x may be the residual itself.
extern "C" __global__ void nearest_settle(const float *scores, const unsigned *parts, u64 splits, unsigned *codes,
                                          u64 depths, u64 depth, const float *x, const float *codebook,
                                          float *residual, u64 rows, u64 channels) {
    unsigned lane = threadIdx.x % 32;
    for (u64 row = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32; row < rows;
         row += (u64)gridDim.x * blockDim.x / 32) {
        u64 split = lane < splits ? lane : 0;
        float best = scores[split * rows + row];
        unsigned code = parts[split * rows + row];
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            float other = __shfl_xor_sync(0xffffffffu, best, step);
            unsigned other_code = __shfl_xor_sync(0xffffffffu, code, step);
            if (wins(other, other_code, best, code)) {
                best = other;
                code = other_code;
            }
        }
        if (lane == 0) codes[row * depths + depth] = code;
        if (residual) {
            for (u64 c = lane; c < channels; c += 32)
                residual[row * channels + c] = x[row * channels + c] - codebook[code * channels + c];
        }
    }
}

// out[row][code] = |x|² - 2 x · e + |e|².
extern "C" __global__ void __launch_bounds__(256, 2)
    distance_tiles(const float *x, const float *codebook, const float *x_squares, const float *squares, float *out,
                   u64 rows, u64 size, u64 channels) {
    u64 across = (size + SIDE - 1) / SIDE, down = (rows + SIDE - 1) / SIDE;
    for (u64 job = blockIdx.x; job < across * down; job += gridDim.x) {
        u64 row = job / across * SIDE, first = job % across * SIDE;
        float sums[8][8];
        score_tile(sums, x + row * channels, rows - row, codebook + first * channels, size - first, channels);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            u64 own = row + threadIdx.x / 16 * 8 + i;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                u64 column = first + column_of(j);
                if (own < rows && column < size)
                    out[own * size + column] = x_squares[own] - 2.0f * sums[i][j] + squares[column];
            }
        }
    }
}

#undef SIDE
#undef DEPTH
#undef PITCH

// Tensors that are added one after another.
#define TERMS 8
struct Terms {
    const float *of[TERMS];
    u64 count;
};

// Adds up to TERMS terms to `sum`, or to zeros; partial[d * gridDim.x + block] gets the block's part of |x - sum|² after
// term d.
extern "C" __global__ void partial_sums(const float *x, Terms terms, float *sum, double *partial, u64 n, unsigned fresh) {
    double squares[TERMS] = {};
    EACH(i, n) {
        float s = fresh ? 0.0f : sum[i], own = x[i];
#pragma unroll
        for (int d = 0; d < TERMS; d++) {
            if (d < terms.count) {
                s += terms.of[d][i];
                squares[d] += (own - s) * (own - s);
            }
        }
        sum[i] = s;
    }
#pragma unroll
    for (int d = 0; d < TERMS; d++) {
        if (d < terms.count) {
            double square = sum_of_block(squares[d]);
            if (threadIdx.x == 0) partial[d * gridDim.x + blockIdx.x] = square;
        }
    }
}

// One block: the mean squares of all terms, and their sum.
extern "C" __global__ void partial_totals(const double *partial, float *means, float *total, u64 terms, u64 blocks,
                                          u64 n) {
    float all = 0.0f;
    for (u64 d = 0; d < terms; d++) {
        double square = 0.0;
        for (u64 i = threadIdx.x; i < blocks; i += LANES) square += partial[d * blocks + i];
        float mean = (float)(sum_of_block(square) / n);
        if (threadIdx.x == 0) means[d] = mean;
        all += mean;
    }
    if (threadIdx.x == 0) total[0] = all;
}

// out = 2 / n * grad * the sum of the differences x - sum after each term, or adds it; `sum` is as above, and not
// written if no terms follow.
extern "C" __global__ void partial_differences(const float *x, Terms terms, float *sum, const float *grad, float *out,
                                               u64 n, unsigned fresh, unsigned more) {
    float scale = (float)(grad[0] * 2.0 / n);
    EACH(i, n) {
        float s = fresh ? 0.0f : sum[i], own = x[i], all = 0.0f;
#pragma unroll
        for (int d = 0; d < TERMS; d++) {
            if (d < terms.count) {
                s += terms.of[d][i];
                all += own - s;
            }
        }
        out[i] = fresh ? scale * all : out[i] + scale * all;
        if (more) sum[i] = s;
    }
}

#undef TERMS
