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

// Puts every row behind those with a lower digit, and those with the same digit that came before.
extern "C" __global__ void place_rows(const unsigned *codes, const unsigned *order, const unsigned *starts,
                                      unsigned *placed, u64 n, unsigned shift) {
    __shared__ unsigned char digits[CHUNK];
    u64 first = (u64)blockIdx.x * CHUNK;
    unsigned length = n - first < CHUNK ? (unsigned)(n - first) : CHUNK;
    unsigned rows[CHUNK / LANES], ranks[CHUNK / LANES];
    for (unsigned s = 0; s < CHUNK / LANES; s++) {
        unsigned i = s * LANES + threadIdx.x;
        ranks[s] = 0;
        rows[s] = i < length ? row_at(order, first + i) : 0;
        if (i < length) digits[i] = (unsigned char)(codes[rows[s]] >> shift);
    }
    __syncthreads();
    for (unsigned j = 0; j < length; j++) {
        unsigned char digit = digits[j];
        for (unsigned s = 0; s < CHUNK / LANES; s++) {
            unsigned i = s * LANES + threadIdx.x;
            if (i < length) ranks[s] += j < i && digits[i] == digit;
        }
    }
    for (unsigned s = 0; s < CHUNK / LANES; s++) {
        unsigned i = s * LANES + threadIdx.x;
        if (i < length) placed[starts[(u64)digits[i] * gridDim.x + blockIdx.x] + ranks[s]] = rows[s];
    }
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

// out[code] = keep * out[code] + share * the sum of the code's rows of `in`; nothing of `out` is read if `keep` is 0. A block
// sums 32 columns over the rows of a code, eight rows side by side.
extern "C" __global__ void sum_by_code(const float *in, const unsigned *order, const unsigned *starts, float *out,
                                       u64 size, u64 width, float keep, float share) {
    __shared__ float sums[8][32];
    unsigned x = threadIdx.x % 32, y = threadIdx.x / 32;
    u64 tiles = (width + 31) / 32;
    for (u64 at = blockIdx.x; at < size * tiles; at += gridDim.x) {
        u64 code = at / tiles, column = at % tiles * 32 + x;
        unsigned end = starts[code + 1];
        float sum = 0.0f;
        if (column < width)
#pragma unroll 4
            for (unsigned i = starts[code] + y; i < end; i += 8) sum += in[order[i] * width + column];
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
