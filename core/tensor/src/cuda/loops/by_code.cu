// Rows and the codes that name them: gathering, and sums over the rows of each code in a fixed order.

// Rows of a block that sorts.
#define CHUNK 1024
#define DIGITS 256

// Row and column of element i; the division is short where it can be.
__device__ __forceinline__ void row_of(u64 i, u64 n, u64 width, u64 &row, u64 &column) {
    if (n <= 0xffffffffull) {
        row = (unsigned)i / (unsigned)width;
        column = (unsigned)i - (unsigned)row * (unsigned)width;
    } else {
        row = i / width;
        column = i - row * width;
    }
}

// out[i] = table[codes[i]], for rows of `width` elements of type T.
#define GATHER(name, T)                                                                                           \
    extern "C" __global__ void name(const T *table, const unsigned *codes, T *out, u64 n, u64 width) {            \
        EACH(i, n) {                                                                                              \
            u64 row, column;                                                                                      \
            row_of(i, n, width, row, column);                                                                     \
            out[i] = table[codes[row] * width + column];                                                          \
        }                                                                                                         \
    }

GATHER(gather_rows, float)
GATHER(gather_rows_by_four, float4)

// out[row] = in[row][codes[row]].
extern "C" __global__ void pick_columns(const float *in, const unsigned *codes, float *out, u64 rows, u64 width) {
    EACH(row, rows) { out[row] = in[row * width + codes[row]]; }
}

// out[row][k] = grad[row] where the code is k, and 0 elsewhere.
extern "C" __global__ void put_columns(const float *grad, const unsigned *codes, float *out, u64 n, u64 width) {
    EACH(i, n) {
        u64 row, column;
        row_of(i, n, width, row, column);
        out[i] = codes[row] == column ? grad[row] : 0.0f;
    }
}

// A stable sort of rows by their codes, 8 bits at a time. `order` lists rows; null stands for their own order.

__device__ __forceinline__ unsigned row_at(const unsigned *order, u64 i) { return order ? order[i] : (unsigned)i; }

// counts[digit * chunks + chunk] = how many rows of the chunk have the digit.
extern "C" __global__ void count_digits(const unsigned *codes, const unsigned *order, unsigned *counts, u64 n,
                                        unsigned shift) {
    __shared__ unsigned found[DIGITS];
    found[threadIdx.x] = 0;
    __syncthreads();
    for (u64 i = (u64)blockIdx.x * CHUNK + threadIdx.x; i < n && i < ((u64)blockIdx.x + 1) * CHUNK; i += LANES)
        atomicAdd(&found[codes[row_at(order, i)] >> shift & (DIGITS - 1)], 1u);
    __syncthreads();
    counts[(u64)threadIdx.x * gridDim.x + blockIdx.x] = found[threadIdx.x];
}

// One block: replaces every count by the sum of those before it.
extern "C" __global__ void scan_counts(unsigned *counts, u64 n) {
    __shared__ unsigned sums[LANES];
    u64 each = (n + LANES - 1) / LANES, start = threadIdx.x * each;
    u64 end = start + each < n ? start + each : n;
    unsigned own = 0;
    for (u64 i = start; i < end; i++) own += counts[i];
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned step = 1; step < LANES; step *= 2) {
        unsigned before = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += before;
        __syncthreads();
    }
    unsigned sum = sums[threadIdx.x] - own;
    for (u64 i = start; i < end; i++) {
        unsigned count = counts[i];
        counts[i] = sum;
        sum += count;
    }
}

// The lanes of the warp that have this digit and are `there`, as bits; of use to those.
__device__ __forceinline__ unsigned lanes_with(unsigned digit, bool there) {
    unsigned lanes = __ballot_sync(0xffffffffu, there);
#pragma unroll
    for (unsigned bit = 1; bit < DIGITS; bit *= 2) {
        unsigned set = __ballot_sync(0xffffffffu, (digit & bit) != 0);
        lanes &= digit & bit ? set : ~set;
    }
    return lanes;
}

// Puts every row behind those with a lower digit, and those with the same digit that came before. Each warp ranks its own
// part of the chunk, 32 rows at a time; then the block adds up how many the warps before have of each digit.
extern "C" __global__ void place_rows(const unsigned *codes, const unsigned *order, const unsigned *starts,
                                      unsigned *placed, u64 n, unsigned shift) {
    constexpr unsigned WARPS = LANES / 32, ROUNDS = CHUNK / LANES;
    // How many rows of a digit each warp has met, and then where its first one goes.
    __shared__ unsigned places[WARPS][DIGITS];
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (unsigned w = 0; w < WARPS; w++) places[w][threadIdx.x] = 0;
    __syncthreads();
    u64 first = (u64)blockIdx.x * CHUNK + warp * (CHUNK / WARPS) + lane;
    unsigned rows[ROUNDS], digits[ROUNDS], ranks[ROUNDS];
#pragma unroll
    for (unsigned s = 0; s < ROUNDS; s++) {
        rows[s] = first + 32 * s < n ? row_at(order, first + 32 * s) : 0;
        digits[s] = codes[rows[s]] >> shift & (DIGITS - 1);
    }
#pragma unroll
    for (unsigned s = 0; s < ROUNDS; s++) {
        bool there = first + 32 * s < n;
        unsigned equal = lanes_with(digits[s], there), before = equal & ((1u << lane) - 1);
        ranks[s] = places[warp][digits[s]] + __popc(before);
        __syncwarp();
        if (there && before == 0) places[warp][digits[s]] += __popc(equal);
        __syncwarp();
    }
    __syncthreads();
    unsigned place = starts[(u64)threadIdx.x * gridDim.x + blockIdx.x];
#pragma unroll
    for (unsigned w = 0; w < WARPS; w++) {
        unsigned count = places[w][threadIdx.x];
        places[w][threadIdx.x] = place;
        place += count;
    }
    __syncthreads();
#pragma unroll
    for (unsigned s = 0; s < ROUNDS; s++)
        if (first + 32 * s < n) placed[places[warp][digits[s]] + ranks[s]] = rows[s];
}

// starts[code] = how many rows have a lower code, for codes up to and with `size`.
extern "C" __global__ void find_starts(const unsigned *codes, const unsigned *order, unsigned *starts, u64 n, u64 size) {
    EACH(code, size + 1) {
        u64 low = 0, high = n;
        while (low < high) {
            u64 middle = (low + high) / 2;
            if (codes[order[middle]] < code) low = middle + 1; else high = middle;
        }
        starts[code] = (unsigned)low;
    }
}

// The sums over a code's rows, however many it has, in two stages. The order of the rows is cut into pieces, and each code's
// rows begin in one of them: own[code] is the sum of those rows of the code that lie in that piece, and heads[piece] the sum
// of those rows at the beginning of a piece whose code began before it. Of a code without rows nothing is written. A warp
// takes 32 columns of a piece, which are a multiple of 32 rows.
extern "C" __global__ void sum_runs(const float *in, const unsigned *codes, const unsigned *order,
                                    const unsigned *starts, float *own, float *heads, u64 n, u64 width, u64 piece) {
    constexpr int BATCH = 8;
    unsigned lane = threadIdx.x % 32;
    u64 tiles = (width + 31) / 32, pieces = (n + piece - 1) / piece;
    for (u64 job = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32; job < pieces * tiles;
         job += (u64)gridDim.x * blockDim.x / 32) {
        u64 at = job / tiles, column = job % tiles * 32 + lane;
        u64 first = at * piece, end = n - first < piece ? n : first + piece;
        bool there = column < width;
        unsigned code = codes[order[first]];
        float *to = starts[code] < first ? heads + at * width : own + code * width, sum = 0.0f;
        for (u64 i = first; i < end; i += 32) {
            // Past the end the last row stands again, of which nothing is added.
            unsigned row = order[i + lane < end ? i + lane : end - 1], of_row = codes[row];
            for (int j = 0; j < 32; j += BATCH) {
                float x[BATCH];
#pragma unroll
                for (int b = 0; b < BATCH; b++) {
                    u64 from = __shfl_sync(0xffffffffu, row, j + b);
                    x[b] = there && i + j + b < end ? in[from * width + column] : 0.0f;
                }
#pragma unroll
                for (int b = 0; b < BATCH; b++) {
                    unsigned next = __shfl_sync(0xffffffffu, of_row, j + b);
                    if (next != code) {
                        if (there) to[column] = sum;
                        code = next;
                        to = own + code * width;
                        sum = 0.0f;
                    }
                    sum += x[b];
                }
            }
        }
        if (there) to[column] = sum;
    }
}

// out[code] = keep * out[code] + share * the sum of the code's rows, of which sum_runs has summed up the pieces; nothing of
// `out` is read if `keep` is 0. A block takes 32 columns of a code, and adds up eight pieces side by side.
extern "C" __global__ void sum_by_code(const float *own, const float *heads, const unsigned *starts, float *out,
                                       u64 size, u64 width, u64 piece, float keep, float share) {
    __shared__ float sums[8][32];
    unsigned x = threadIdx.x % 32, y = threadIdx.x / 32;
    u64 tiles = (width + 31) / 32;
    for (u64 at = blockIdx.x; at < size * tiles; at += gridDim.x) {
        u64 code = at / tiles, column = at % tiles * 32 + x;
        u64 start = starts[code], end = starts[code + 1];
        float sum = 0.0f;
        if (column < width && start < end) {
            if (y == 0) sum = own[code * width + column];
#pragma unroll 4
            for (u64 cut = start / piece + 1 + y; cut <= (end - 1) / piece; cut += 8) sum += heads[cut * width + column];
        }
        sums[y][x] = sum;
        __syncthreads();
        if (y == 0 && column < width) {
            for (unsigned other = 1; other < 8; other++) sum += sums[other][x];
            float *to = out + code * width + column;
            *to = keep == 0.0f ? share * sum : keep * *to + share * sum;
        }
        __syncthreads();
    }
}

// counts[code] = keep * counts[code] + share * how many rows the code has.
extern "C" __global__ void count_by_code(const unsigned *starts, float *counts, u64 size, float keep, float share) {
    EACH(code, size) { counts[code] = keep * counts[code] + share * (float)(starts[code + 1] - starts[code]); }
}

// means[code] = sums[code] / counts[code].
extern "C" __global__ void divide_rows(const float *sums, const float *counts, float *means, u64 n, u64 width) {
    EACH(i, n) {
        u64 row, column;
        row_of(i, n, width, row, column);
        means[i] = sums[i] / counts[row];
    }
}

// One block: the counts, with `eps` added to each, scaled to the sum they had without.
extern "C" __global__ void smooth_counts(const float *counts, float *smoothed, u64 size, double eps) {
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < size; i += LANES) sum += counts[i];
    sum = block_sum(sum);
    double scale = sum / (sum + size * eps);
    for (u64 i = threadIdx.x; i < size; i += LANES) smoothed[i] = (float)((counts[i] + eps) * scale);
}

// Where a code's count is below `least`, its sums become `least` times its candidate, and then the count `least`.
extern "C" __global__ void replace_rare_sums(const float *candidates, const float *counts, float *sums, u64 n, u64 width,
                                             float least) {
    EACH(i, n) {
        u64 row, column;
        row_of(i, n, width, row, column);
        if (counts[row] < least) sums[i] = candidates[i] * least;
    }
}

extern "C" __global__ void replace_rare_counts(float *counts, u64 size, float least) {
    EACH(i, size) {
        if (counts[i] < least) counts[i] = least;
    }
}

// One block: how many counts are below `least`.
extern "C" __global__ void count_rare(const float *counts, u64 size, float least, float *number) {
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < size; i += LANES) sum += counts[i] < least ? 1.0 : 0.0;
    sum = block_sum(sum);
    if (threadIdx.x == 0) *number = (float)sum;
}
