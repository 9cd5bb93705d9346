// Nearest rows of a codebook, and distances to all of them: products in tiles of 128 rows by 128 codes, of which each
// of 256 threads has eight by eight in registers. Scores never leave the registers.

#define SIDE 128
#define DEPTH 8
// Numbers between two channels of a tile in shared memory: a multiple of four that spreads them over the banks.
#define PITCH (SIDE + 4)

// One warp per row: out = scale * |x|².
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

// Where a thread reads its part of a side, SIDE rows by DEPTH channels: four channels of one row, for the first of which this
// is the place. Past the last row it reads that one again, of which no score is used.
__device__ __forceinline__ const float *part_of_side(const float *from, u64 rows, u64 channels) {
    u64 row = threadIdx.x / 2;
    return from + (row < rows ? row : rows - 1) * channels + threadIdx.x % 2 * 4;
}

// Four channels, of which `left` are there, and zeros for the rest; all or none are there if they can be read at once.
__device__ __forceinline__ void fetch_part(float numbers[4], const float *part, long long left, bool at_once) {
    Neighbours<4> all = {};
    if (at_once) {
        if (left > 0) all = *(const Neighbours<4> *)part;
    } else {
#pragma unroll
        for (int c = 0; c < 4; c++)
            if (c < left) all.v[c] = part[c];
    }
#pragma unroll
    for (int c = 0; c < 4; c++) numbers[c] = all.v[c];
}

__device__ __forceinline__ void store_part(float *to, const float numbers[4]) {
#pragma unroll
    for (int c = 0; c < 4; c++) to[(threadIdx.x % 2 * 4 + c) * PITCH + threadIdx.x / 2] = numbers[c];
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
    const float *part_of_x = part_of_side(x, rows, channels), *part_of_e = part_of_side(e, codes, channels);
    long long left = (long long)channels - threadIdx.x % 2 * 4;
    bool at_once = channels % 4 == 0;
    fetch_part(of_x, part_of_x, left, at_once);
    fetch_part(of_e, part_of_e, left, at_once);
    // The tile before may still be read.
    __syncthreads();
    store_part((float *)left_quads[0], of_x);
    store_part((float *)right_quads[0], of_e);
    __syncthreads();
    for (u64 channel = 0; channel < channels; channel += DEPTH, half ^= 1) {
        bool more = channel + DEPTH < channels;
        // On their way while the products run.
        if (more) {
            part_of_x += DEPTH;
            part_of_e += DEPTH;
            left -= DEPTH;
            fetch_part(of_x, part_of_x, left, at_once);
            fetch_part(of_e, part_of_e, left, at_once);
        }
        const float *of_rows = (const float *)left_quads[half] + 8 * ty;
        const float *of_codes = (const float *)right_quads[half] + 4 * tx;
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            Neighbours<4> a[2], b[2];
            a[0] = *(const Neighbours<4> *)(of_rows + k * PITCH);
            a[1] = *(const Neighbours<4> *)(of_rows + k * PITCH + 4);
            b[0] = *(const Neighbours<4> *)(of_codes + k * PITCH);
            b[1] = *(const Neighbours<4> *)(of_codes + k * PITCH + SIDE / 2);
#pragma unroll
            for (int i = 0; i < 8; i++) {
#pragma unroll
                for (int j = 0; j < 8; j++)
                    sums[i][j] = fmaf(a[i / 4].v[i % 4], b[j / 4].v[j % 4], sums[i][j]);
            }
        }
        if (more) {
            store_part((float *)left_quads[half ^ 1], of_x);
            store_part((float *)right_quads[half ^ 1], of_e);
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
    // What each thread has found for its eight rows, of which it reads nothing while it multiplies: registers are dear.
    __shared__ float bests[8][LANES];
    __shared__ unsigned found[8][LANES];
    u64 tiles = (rows + SIDE - 1) / SIDE, all = (size + SIDE - 1) / SIDE, part = (all + splits - 1) / splits;
    for (u64 job = blockIdx.x; job < tiles * splits; job += gridDim.x) {
        u64 row = job % tiles * SIDE, split = job / tiles;
        u64 from = split * part * SIDE, to = (split + 1) * part * SIDE < size ? (split + 1) * part * SIDE : size;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            bests[i][threadIdx.x] = NEVER;
            // A part without codes is no better than any.
            found[i][threadIdx.x] = (unsigned)(from < size ? from : 0);
        }
        for (u64 first = from; first < to; first += SIDE) {
            float sums[8][8], halves_of[8];
            score_tile(sums, x + row * channels, rows - row, codebook + first * channels, size - first, channels);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                u64 column = first + column_of(j);
                // What is no code has no score that is above any.
                halves_of[j] = column < size ? halves[column] : -NEVER;
            }
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float best = bests[i][threadIdx.x];
                int which = -1;
                // Codes come in rising order.
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    if (sums[i][j] - halves_of[j] > best) {
                        best = sums[i][j] - halves_of[j];
                        which = j;
                    }
                }
                if (which >= 0) {
                    bests[i][threadIdx.x] = best;
                    found[i][threadIdx.x] = (unsigned)(first + column_of(which));
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float best = bests[i][threadIdx.x];
            unsigned code = found[i][threadIdx.x];
#pragma unroll
            for (int step = 8; step > 0; step /= 2) {
                float other = __shfl_xor_sync(0xffffffffu, best, step);
                unsigned other_code = __shfl_xor_sync(0xffffffffu, code, step);
                if (wins(other, other_code, best, code)) {
                    best = other;
                    code = other_code;
                }
            }
            u64 own = row + threadIdx.x / 16 * 8 + i;
            if (threadIdx.x % 16 == 0 && own < rows) {
                scores[split * rows + own] = best;
                codes[split * rows + own] = code;
            }
        }
    }
}

// One warp per row: the best of up to 32 parts becomes the code at `depth` of `depths`, and what it leaves of x the
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
