// Attention in tiles: no matrix of queries by keys is ever in memory (Dao et al., "FlashAttention", 2022).
//
// One block takes 32 rows of one head and walks over the other side in tiles of 64, of C numbers of a head at a time.
// Each of its 128 threads holds four rows and four columns of a tile of scores, so that a number read from shared
// memory serves four products, and N times C / 16 columns of the result. Heads of more than C * N numbers are cut into
// slices; the block of each slice computes the scores anew.

#define TILE 32
#define OTHER 64
#define TEAM 128
// Numbers between two rows of weights in shared memory: a multiple of four, and no two rows of four in one bank.
#define WEIGHTS (OTHER + 4)

// Rows of one operand: those of a batch entry follow each other, `stride` numbers apart; a head is a part of a row.
struct HeadRows {
    float *data;
    u64 stride;
};

struct Attention {
    // Batch entries times heads.
    u64 pairs;
    u64 heads;
    u64 queries;
    u64 keys;
    // Numbers of a head.
    u64 head;
    float scale;
    unsigned causal;
    // Whether four numbers may be read at once.
    unsigned wide;
    unsigned unused;
};

__device__ __forceinline__ float *head_of(const HeadRows &rows, const Attention &size, u64 n, u64 pair) {
    return rows.data + pair / size.heads * n * rows.stride + pair % size.heads * size.head;
}

// C columns of ROWS rows, with zeros for what lies beyond the `rows` and `columns` that there are.
template <int ROWS, int C>
__device__ __forceinline__ void load_tile(float *to, const float *from, u64 stride, u64 rows, u64 columns, bool wide) {
    if (wide) {
        for (int i = threadIdx.x; i < ROWS * C / 4; i += TEAM) {
            int row = i / (C / 4), column = i % (C / 4) * 4;
            float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (row < rows && column < columns) value = *(const float4 *)(from + row * stride + column);
            *(float4 *)(to + row * (C + 4) + column) = value;
        }
    } else {
        for (int i = threadIdx.x; i < ROWS * C; i += TEAM) {
            int row = i / C, column = i % C;
            to[row * (C + 4) + column] = row < rows && column < columns ? from[row * stride + column] : 0.0f;
        }
    }
}

// sums[i][j] += left[4 ty + i] · right[tx + 16 j].
template <int C>
__device__ __forceinline__ void tile_dots(const float *left, const float *right, float sums[4][4]) {
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll 2
    for (int k = 0; k < C; k += 4) {
        float4 a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = *(const float4 *)(left + (4 * ty + i) * (C + 4) + k);
#pragma unroll
        for (int j = 0; j < 4; j++) b[j] = *(const float4 *)(right + (tx + 16 * j) * (C + 4) + k);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                sums[i][j] = fmaf(a[i].x, b[j].x, sums[i][j]);
                sums[i][j] = fmaf(a[i].y, b[j].y, sums[i][j]);
                sums[i][j] = fmaf(a[i].z, b[j].z, sums[i][j]);
                sums[i][j] = fmaf(a[i].w, b[j].w, sums[i][j]);
            }
        }
    }
}

// out[i][c] += the sum over s of weights[4 ty + i][s] * right[s][C / 16 tx + c].
template <int C>
__device__ __forceinline__ void tile_mix(const float *weights, const float *right, float out[4][C / 16]) {
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll 2
    for (int s = 0; s < OTHER; s += 4) {
        Neighbours<4> w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = *(const Neighbours<4> *)(weights + (4 * ty + i) * WEIGHTS + s);
#pragma unroll
        for (int u = 0; u < 4; u++) {
            Neighbours<C / 16> r = *(const Neighbours<C / 16> *)(right + (s + u) * (C + 4) + tx * (C / 16));
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int c = 0; c < C / 16; c++) out[i][c] = fmaf(w[i].v[u], r.v[c], out[i][c]);
            }
        }
    }
}

// Writes this thread's part of a slice of a tile, times `scale[i]`.
template <int C, int N>
__device__ __forceinline__ void store_tile(float *to, u64 stride, u64 rows, u64 head, u64 slice,
                                           const float sums[N][4][C / 16], const float scale[4]) {
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int c = 0; c < C / 16; c++) {
                u64 column = (slice * N + n) * C + tx * (C / 16) + c;
                if (4 * ty + i < rows && column < head) to[(4 * ty + i) * stride + column] = sums[n][i][c] * scale[i];
            }
        }
    }
}

// What one block works at: a slice of a tile of one pair of batch entry and head. Tiles with more to see come first.
struct Job {
    u64 slice;
    u64 pair;
    u64 first;
};

__device__ __forceinline__ Job job_of(u64 index, u64 slices, u64 tiles, bool last_first) {
    Job job;
    job.slice = index % slices;
    u64 tile = index / slices % tiles;
    job.first = (last_first ? tiles - 1 - tile : tile) * TILE;
    job.pair = index / slices / tiles;
    return job;
}

__device__ __forceinline__ bool sees(const Attention &size, u64 query, u64 key) {
    return query < size.queries && key < size.keys && (!size.causal || key <= query);
}

// The output, and each row's log of the sum of its exponentials: what the backward pass computes weights from.
template <int C, int N>
__device__ __forceinline__ void attention_forward(const Attention &size, const HeadRows &q, const HeadRows &k,
                                                  const HeadRows &v, const HeadRows &out, float *log_sums) {
    __shared__ float4 left_quads[TILE * (C + 4) / 4];
    __shared__ float4 right_quads[OTHER * (C + 4) / 4];
    __shared__ float4 weights_quads[TILE * WEIGHTS / 4];
    float *left = (float *)left_quads, *right = (float *)right_quads, *weights = (float *)weights_quads;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    u64 chunks = (size.head + C - 1) / C, slices = (chunks + N - 1) / N, tiles = (size.queries + TILE - 1) / TILE;
    for (u64 index = blockIdx.x; index < size.pairs * tiles * slices; index += gridDim.x) {
        Job job = job_of(index, slices, tiles, true);
        const float *qs = head_of(q, size, size.queries, job.pair) + job.first * q.stride;
        const float *ks = head_of(k, size, size.keys, job.pair), *vs = head_of(v, size, size.keys, job.pair);
        float best[4], total[4], sums[N][4][C / 16];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            best[i] = NEVER;
            total[i] = 0.0f;
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int c = 0; c < C / 16; c++) sums[n][i][c] = 0.0f;
            }
        }
        u64 rows = size.queries - job.first;
        u64 seen = size.causal && job.first + TILE < size.keys ? job.first + TILE : size.keys;
        for (u64 start = 0; start < seen; start += OTHER) {
            float scores[4][4] = {};
            for (u64 chunk = 0; chunk < chunks; chunk++) {
                u64 at = chunk * C;
                __syncthreads();
                if (chunks > 1 || start == 0)
                    load_tile<TILE, C>(left, qs + at, q.stride, rows, size.head - at, size.wide);
                load_tile<OTHER, C>(right, ks + start * k.stride + at, k.stride, size.keys - start, size.head - at,
                                    size.wide);
                __syncthreads();
                tile_dots<C>(left, right, scores);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                u64 row = job.first + 4 * ty + i;
                float most = best[i];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    // Rows beyond the last see all: their scores are zeros.
                    u64 key = start + tx + 16 * j;
                    bool seen = key < size.keys && (!size.causal || key <= row);
                    scores[i][j] = seen ? scores[i][j] * size.scale : NEVER;
                    most = fmaxf(most, scores[i][j]);
                }
                most = max_of_16(most);
                float shrink = expf(best[i] - most), sum = 0.0f;
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    float weight = expf(scores[i][j] - most);
                    weights[(4 * ty + i) * WEIGHTS + tx + 16 * j] = weight;
                    sum += weight;
                }
                best[i] = most;
                total[i] = total[i] * shrink + sum_of_16(sum);
#pragma unroll
                for (int n = 0; n < N; n++) {
#pragma unroll
                    for (int c = 0; c < C / 16; c++) sums[n][i][c] *= shrink;
                }
            }
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                __syncthreads();
                load_tile<OTHER, C>(right, vs + start * v.stride + at, v.stride, size.keys - start, size.head - at,
                                    size.wide);
                __syncthreads();
                tile_mix<C>(weights, right, sums[n]);
            }
        }
        float scale[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            scale[i] = 1.0f / total[i];
            if (job.slice == 0 && tx == 0 && 4 * ty + i < rows)
                log_sums[job.pair * size.queries + job.first + 4 * ty + i] = best[i] + logf(total[i]);
        }
        float *to = head_of(out, size, size.queries, job.pair) + job.first * out.stride;
        store_tile<C, N>(to, out.stride, rows, size.head, job.slice, sums, scale);
    }
}

// The gradient of the queries, and each row's mean of the weights' gradient under the weights, which is y · dy.
template <int C, int N>
__device__ __forceinline__ void attention_queries(const Attention &size, const HeadRows &q, const HeadRows &k,
                                                  const HeadRows &v, const HeadRows &y, const HeadRows &dy,
                                                  const float *log_sums, float *means, const HeadRows &dq) {
    __shared__ float4 left_q_quads[TILE * (C + 4) / 4];
    __shared__ float4 left_dy_quads[TILE * (C + 4) / 4];
    __shared__ float4 right_quads[OTHER * (C + 4) / 4];
    __shared__ float4 weights_quads[TILE * WEIGHTS / 4];
    float *left_q = (float *)left_q_quads, *left_dy = (float *)left_dy_quads;
    float *right = (float *)right_quads, *weights = (float *)weights_quads;
    __shared__ float row_means[TILE];
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    u64 chunks = (size.head + C - 1) / C, slices = (chunks + N - 1) / N, tiles = (size.queries + TILE - 1) / TILE;
    for (u64 index = blockIdx.x; index < size.pairs * tiles * slices; index += gridDim.x) {
        Job job = job_of(index, slices, tiles, true);
        const float *qs = head_of(q, size, size.queries, job.pair) + job.first * q.stride;
        const float *ys = head_of(y, size, size.queries, job.pair) + job.first * y.stride;
        const float *dys = head_of(dy, size, size.queries, job.pair) + job.first * dy.stride;
        const float *ks = head_of(k, size, size.keys, job.pair), *vs = head_of(v, size, size.keys, job.pair);
        u64 rows = size.queries - job.first;
        __syncthreads();
        for (int row = threadIdx.x / 32; row < TILE; row += TEAM / 32) {
            float mean = 0.0f;
            if (row < rows)
                for (u64 c = threadIdx.x % 32; c < size.head; c += 32)
                    mean = fmaf(ys[row * y.stride + c], dys[row * dy.stride + c], mean);
            mean = sum_of_warp(mean);
            if (threadIdx.x % 32 == 0) {
                row_means[row] = mean;
                if (job.slice == 0 && row < rows) means[job.pair * size.queries + job.first + row] = mean;
            }
        }
        __syncthreads();
        float mean[4], log_sum[4], sums[N][4][C / 16];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u64 row = 4 * ty + i;
            mean[i] = row_means[row];
            log_sum[i] = row < rows ? log_sums[job.pair * size.queries + job.first + row] : 0.0f;
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int c = 0; c < C / 16; c++) sums[n][i][c] = 0.0f;
            }
        }
        u64 seen = size.causal && job.first + TILE < size.keys ? job.first + TILE : size.keys;
        for (u64 start = 0; start < seen; start += OTHER) {
            float scores[4][4] = {}, slopes[4][4] = {};
            for (u64 chunk = 0; chunk < chunks; chunk++) {
                u64 at = chunk * C;
                __syncthreads();
                if (chunks > 1 || start == 0) {
                    load_tile<TILE, C>(left_q, qs + at, q.stride, rows, size.head - at, size.wide);
                    load_tile<TILE, C>(left_dy, dys + at, dy.stride, rows, size.head - at, size.wide);
                }
                load_tile<OTHER, C>(right, vs + start * v.stride + at, v.stride, size.keys - start, size.head - at,
                                    size.wide);
                __syncthreads();
                tile_dots<C>(left_dy, right, slopes);
                __syncthreads();
                load_tile<OTHER, C>(right, ks + start * k.stride + at, k.stride, size.keys - start, size.head - at,
                                    size.wide);
                __syncthreads();
                tile_dots<C>(left_q, right, scores);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    bool seen = sees(size, job.first + 4 * ty + i, start + tx + 16 * j);
                    float p = seen ? expf(scores[i][j] * size.scale - log_sum[i]) : 0.0f;
                    weights[(4 * ty + i) * WEIGHTS + tx + 16 * j] = p * (slopes[i][j] - mean[i]);
                }
            }
            __syncthreads();
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                // The only chunk of the keys is still there.
                if (chunks > 1) {
                    __syncthreads();
                    load_tile<OTHER, C>(right, ks + start * k.stride + at, k.stride, size.keys - start,
                                        size.head - at, size.wide);
                    __syncthreads();
                }
                tile_mix<C>(weights, right, sums[n]);
            }
        }
        float scale[4] = {size.scale, size.scale, size.scale, size.scale};
        float *to = head_of(dq, size, size.queries, job.pair) + job.first * dq.stride;
        store_tile<C, N>(to, dq.stride, rows, size.head, job.slice, sums, scale);
    }
}

// The gradients of keys and values: the rows of a tile are keys, and it walks over the queries.
template <int C, int N>
__device__ __forceinline__ void attention_keys(const Attention &size, const HeadRows &q, const HeadRows &k,
                                               const HeadRows &v, const HeadRows &dy, const float *log_sums,
                                               const float *means, const HeadRows &dk, const HeadRows &dv) {
    __shared__ float4 left_k_quads[TILE * (C + 4) / 4];
    __shared__ float4 left_v_quads[TILE * (C + 4) / 4];
    __shared__ float4 right_quads[OTHER * (C + 4) / 4];
    __shared__ float4 weights_quads[TILE * WEIGHTS / 4];
    float *left_k = (float *)left_k_quads, *left_v = (float *)left_v_quads;
    float *right = (float *)right_quads, *weights = (float *)weights_quads;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    u64 chunks = (size.head + C - 1) / C, slices = (chunks + N - 1) / N, tiles = (size.keys + TILE - 1) / TILE;
    for (u64 index = blockIdx.x; index < size.pairs * tiles * slices; index += gridDim.x) {
        Job job = job_of(index, slices, tiles, false);
        const float *ks = head_of(k, size, size.keys, job.pair) + job.first * k.stride;
        const float *vs = head_of(v, size, size.keys, job.pair) + job.first * v.stride;
        const float *qs = head_of(q, size, size.queries, job.pair), *dys = head_of(dy, size, size.queries, job.pair);
        u64 rows = size.keys - job.first;
        float of_keys[N][4][C / 16], of_values[N][4][C / 16];
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int c = 0; c < C / 16; c++) of_keys[n][i][c] = of_values[n][i][c] = 0.0f;
            }
        }
        // Queries before a key do not see it.
        u64 from = size.causal ? job.first / OTHER * OTHER : 0;
        for (u64 start = from; start < size.queries; start += OTHER) {
            float scores[4][4] = {}, slopes[4][4] = {};
            for (u64 chunk = 0; chunk < chunks; chunk++) {
                u64 at = chunk * C;
                __syncthreads();
                if (chunks > 1 || start == from) {
                    load_tile<TILE, C>(left_k, ks + at, k.stride, rows, size.head - at, size.wide);
                    load_tile<TILE, C>(left_v, vs + at, v.stride, rows, size.head - at, size.wide);
                }
                load_tile<OTHER, C>(right, qs + start * q.stride + at, q.stride, size.queries - start,
                                    size.head - at, size.wide);
                __syncthreads();
                tile_dots<C>(left_k, right, scores);
                __syncthreads();
                load_tile<OTHER, C>(right, dys + start * dy.stride + at, dy.stride, size.queries - start,
                                    size.head - at, size.wide);
                __syncthreads();
                tile_dots<C>(left_v, right, slopes);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u64 query = start + tx + 16 * j;
                bool there = query < size.queries;
                float log_sum = there ? log_sums[job.pair * size.queries + query] : 0.0f;
                float mean = there ? means[job.pair * size.queries + query] : 0.0f;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    bool seen = sees(size, query, job.first + 4 * ty + i);
                    scores[i][j] = seen ? expf(scores[i][j] * size.scale - log_sum) : 0.0f;
                    weights[(4 * ty + i) * WEIGHTS + tx + 16 * j] = scores[i][j];
                    slopes[i][j] = scores[i][j] * (slopes[i][j] - mean);
                }
            }
            __syncthreads();
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                // The only chunk of the output's gradient is still there.
                if (chunks > 1) {
                    __syncthreads();
                    load_tile<OTHER, C>(right, dys + start * dy.stride + at, dy.stride, size.queries - start,
                                        size.head - at, size.wide);
                    __syncthreads();
                }
                tile_mix<C>(weights, right, of_values[n]);
            }
            __syncthreads();
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) weights[(4 * ty + i) * WEIGHTS + tx + 16 * j] = slopes[i][j];
            }
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                __syncthreads();
                load_tile<OTHER, C>(right, qs + start * q.stride + at, q.stride, size.queries - start,
                                    size.head - at, size.wide);
                __syncthreads();
                tile_mix<C>(weights, right, of_keys[n]);
            }
        }
        float scale[4] = {size.scale, size.scale, size.scale, size.scale}, one[4] = {1.0f, 1.0f, 1.0f, 1.0f};
        float *to = head_of(dk, size, size.keys, job.pair) + job.first * dk.stride;
        store_tile<C, N>(to, dk.stride, rows, size.head, job.slice, of_keys, scale);
        to = head_of(dv, size, size.keys, job.pair) + job.first * dv.stride;
        store_tile<C, N>(to, dv.stride, rows, size.head, job.slice, of_values, one);
    }
}

#define TILED(name, C, N)                                                                                             \
    extern "C" __global__ void __launch_bounds__(TEAM, 4)                                                             \
        attention_forward_##name(Attention size, HeadRows q, HeadRows k, HeadRows v, HeadRows out, float *log_sums) { \
        attention_forward<C, N>(size, q, k, v, out, log_sums);                                                        \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(TEAM, 3)                                                             \
        attention_queries_##name(Attention size, HeadRows q, HeadRows k, HeadRows v, HeadRows y, HeadRows dy,         \
                                 const float *log_sums, float *means, HeadRows dq) {                                  \
        attention_queries<C, N>(size, q, k, v, y, dy, log_sums, means, dq);                                           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(TEAM, 3)                                                             \
        attention_keys_##name(Attention size, HeadRows q, HeadRows k, HeadRows v, HeadRows dy, const float *log_sums, \
                              const float *means, HeadRows dk, HeadRows dv) {                                         \
        attention_keys<C, N>(size, q, k, v, dy, log_sums, means, dk, dv);                                             \
    }

TILED(small, 32, 1)
TILED(medium, 64, 1)
TILED(large, 64, 2)

// Attention of up to FEW positions over themselves, as many short sequences make it: one warp takes one pair of
// sequence and head, and keeps all of it in registers. A lane has R numbers of each row.
#define FEW 8

// The weights of one query over the first `seen` keys.
template <int R>
__device__ __forceinline__ void few_weights(float weights[FEW], const float query[R], const float keys[FEW][R],
                                            int seen, float scale) {
    float most = NEVER, sum = 0.0f;
#pragma unroll
    for (int s = 0; s < FEW; s++) {
        weights[s] = s < seen ? lane_dot<R>(query, keys[s]) * scale : NEVER;
        most = fmaxf(most, weights[s]);
    }
#pragma unroll
    for (int s = 0; s < FEW; s++) {
        weights[s] = expf(weights[s] - most);
        sum += weights[s];
    }
#pragma unroll
    for (int s = 0; s < FEW; s++) weights[s] /= sum;
}

#define EACH_PAIR(pair, pairs)                                                                                    \
    for (u64 pair = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32; pair < (pairs);                            \
         pair += (u64)gridDim.x * blockDim.x / 32)

template <int R>
__device__ __forceinline__ void few_forward(const Attention &size, const HeadRows &q, const HeadRows &k,
                                            const HeadRows &v, const HeadRows &out) {
    int length = (int)size.queries;
    EACH_PAIR(pair, size.pairs) {
        const float *qs = head_of(q, size, length, pair);
        const float *ks = head_of(k, size, length, pair), *vs = head_of(v, size, length, pair);
        float *to = head_of(out, size, length, pair);
        float keys[FEW][R], values[FEW][R];
#pragma unroll
        for (int s = 0; s < FEW; s++) {
            u64 there = s < length ? size.head : 0;
            lane_row<R>(keys[s], ks + s * k.stride, there);
            lane_row<R>(values[s], vs + s * v.stride, there);
        }
        for (int t = 0; t < length; t++) {
            float query[R], weights[FEW], sum[R] = {};
            lane_row<R>(query, qs + t * q.stride, size.head);
            few_weights<R>(weights, query, keys, size.causal ? t + 1 : length, size.scale);
#pragma unroll
            for (int s = 0; s < FEW; s++) {
#pragma unroll
                for (int r = 0; r < R; r++) sum[r] = fmaf(weights[s], values[s][r], sum[r]);
            }
            lane_store<R>(sum, to + t * out.stride, size.head);
        }
    }
}

template <int R>
__device__ __forceinline__ void few_backward(const Attention &size, const HeadRows &q, const HeadRows &k,
                                             const HeadRows &v, const HeadRows &dy, const HeadRows &dq,
                                             const HeadRows &dk, const HeadRows &dv) {
    int length = (int)size.queries;
    EACH_PAIR(pair, size.pairs) {
        const float *qs = head_of(q, size, length, pair), *dys = head_of(dy, size, length, pair);
        const float *ks = head_of(k, size, length, pair), *vs = head_of(v, size, length, pair);
        float *to = head_of(dq, size, length, pair);
        float keys[FEW][R], values[FEW][R], of_keys[FEW][R] = {}, of_values[FEW][R] = {};
#pragma unroll
        for (int s = 0; s < FEW; s++) {
            u64 there = s < length ? size.head : 0;
            lane_row<R>(keys[s], ks + s * k.stride, there);
            lane_row<R>(values[s], vs + s * v.stride, there);
        }
        for (int t = 0; t < length; t++) {
            int seen = size.causal ? t + 1 : length;
            float query[R], slope[R], weights[FEW], slopes[FEW], sum[R] = {}, mean = 0.0f;
            lane_row<R>(query, qs + t * q.stride, size.head);
            lane_row<R>(slope, dys + t * dy.stride, size.head);
            few_weights<R>(weights, query, keys, seen, size.scale);
#pragma unroll
            for (int s = 0; s < FEW; s++) {
                slopes[s] = s < seen ? lane_dot<R>(slope, values[s]) : 0.0f;
                mean = fmaf(weights[s], slopes[s], mean);
            }
#pragma unroll
            for (int s = 0; s < FEW; s++) {
                float own = weights[s] * (slopes[s] - mean) * size.scale;
#pragma unroll
                for (int r = 0; r < R; r++) {
                    sum[r] = fmaf(own, keys[s][r], sum[r]);
                    of_keys[s][r] = fmaf(own, query[r], of_keys[s][r]);
                    of_values[s][r] = fmaf(weights[s], slope[r], of_values[s][r]);
                }
            }
            lane_store<R>(sum, to + t * dq.stride, size.head);
        }
        float *to_keys = head_of(dk, size, length, pair), *to_values = head_of(dv, size, length, pair);
#pragma unroll
        for (int s = 0; s < FEW; s++) {
            if (s < length) {
                lane_store<R>(of_keys[s], to_keys + s * dk.stride, size.head);
                lane_store<R>(of_values[s], to_values + s * dv.stride, size.head);
            }
        }
    }
}

#define SHORT(name, R)                                                                                            \
    extern "C" __global__ void attention_few_forward_##name(Attention size, HeadRows q, HeadRows k, HeadRows v,   \
                                                            HeadRows out) {                                       \
        few_forward<R>(size, q, k, v, out);                                                                       \
    }                                                                                                             \
    extern "C" __global__ void attention_few_backward_##name(Attention size, HeadRows q, HeadRows k, HeadRows v,  \
                                                             HeadRows dy, HeadRows dq, HeadRows dk,               \
                                                             HeadRows dv) {                                       \
        few_backward<R>(size, q, k, v, dy, dq, dk, dv);                                                           \
    }

SHORT(small, 1)
SHORT(medium, 2)
SHORT(large, 4)

#undef TILE
#undef OTHER
#undef TEAM
#undef WEIGHTS
#undef FEW
