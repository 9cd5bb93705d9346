// Attention in tiles: no matrix of queries by keys is ever in memory (Dao et al., "FlashAttention", 2022).
//
// One block takes TILE rows of one head and walks over the other side in tiles of AHEAD (forward) or BACK (backward), of C
// numbers of a head at a time. Each of its 128 threads holds HELD rows of a tile of scores, of each some columns, and for
// the same rows N times some columns of the result. Which ones is for the multiplier to say: `row_of`, `other_of` and
// `column_of`. Heads of more than C * N numbers are cut into slices; the block of each slice computes the scores anew.
//
// Rows of a tile in shared memory are C + 4 numbers apart, so that the reads of a warp fall into different banks.

#define TEAM 128

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
    // Whether four numbers may be read and written at once.
    unsigned wide;
    unsigned unused;
};

__device__ __forceinline__ float *head_of(const HeadRows &rows, const Attention &size, u64 n, u64 pair) {
    return rows.data + pair / size.heads * n * rows.stride + pair % size.heads * size.head;
}

// C columns of ROWS rows, with zeros for what lies beyond the `rows` and `columns` that there are.
template <int ROWS, int C>
__device__ __forceinline__ void load_tile(float *to, const float *from, u64 stride, u64 rows, u64 columns, bool wide) {
    constexpr int ACROSS = C / 4, DOWN = TEAM / ACROSS;
    int down = rows < ROWS ? (int)rows : ROWS, across = columns < C ? (int)columns : C;
    if (wide) {
        int first = threadIdx.x / ACROSS, column = threadIdx.x % ACROSS * 4;
        from += first * stride + column;
        to += first * (C + 4) + column;
        // Few at a time: registers for more would be lacking elsewhere.
#pragma unroll 4
        for (int row = first; row < first + ROWS; row += DOWN) {
            float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (row < down && column < across) value = *(const float4 *)from;
            *(float4 *)to = operands(value);
            from += DOWN * stride;
            to += DOWN * (C + 4);
        }
    } else {
#pragma unroll 2
        for (int i = threadIdx.x; i < ROWS * C; i += TEAM) {
            int row = i / C, column = i % C;
            to[row * (C + 4) + column] = row < down && column < across ? operand(from[row * stride + column]) : 0.0f;
        }
    }
}

#ifdef TENSOR_CORES

// Each of the four warps takes 16 rows, with all that they see of a tile: what belongs to one row lies in four lanes of one
// warp, weights never leave its registers, and warps wait for each other only to load. With 32 rows for four warps, two
// would have to join their halves of every row, and memory would be asked for twice as much per product. In the backward
// pass, tiles of the other side are 32 wide: with both of its operands, 64 rows would leave no room for 64 more in the
// 48 KB of shared memory that every device has, and no registers for two gradients of long heads.
//
// The numbers that a product sums over may come in any order that both operands share, and so may the columns of the
// right operand. They come such that a lane reads four neighbours at once, and the eight lanes whose reads are served
// together read from all banks: `mixed` sees to that.
#define TILE 64
#define AHEAD 64
#define BACK 32
#define HELD 2

// 0, 4, 1, 5, 2, 6, 3, 7.
__device__ __forceinline__ int mixed(int i) { return i % 2 * 4 + i / 2; }

// This thread's scores in a tile, for i-th row and j-th column of its own.
template <int OTHER>
struct Scores {
    static constexpr int COUNT = OTHER / 4;
    float v[HELD * COUNT];
    __device__ __forceinline__ float &at(int i, int j) { return v[j / 2 * 4 + 2 * i + j % 2]; }
};

// Its part of the result, of which RUN columns follow each other.
template <int C>
struct Sums {
    static constexpr int COUNT = C / 4, RUN = 4;
    float v[HELD * COUNT];
    __device__ __forceinline__ float &at(int i, int c) { return v[(c / 8 * 4 + c % 4) * 4 + 2 * i + c / 4 % 2]; }
};

__device__ __forceinline__ int row_of(int i) { return threadIdx.x / 32 * 16 + mixed(threadIdx.x % 32 / 4) + 8 * i; }

__device__ __forceinline__ int other_of(int j) { return j / 2 * 8 + j % 2 * 4 + threadIdx.x % 4; }

template <int C>
__device__ __forceinline__ int column_of(int c) {
    return c / 8 * 32 + c / 4 % 2 * 16 + threadIdx.x % 4 * 4 + c % 4;
}

// Whether this thread speaks for its rows.
__device__ __forceinline__ bool first_of_row() { return threadIdx.x % 4 == 0; }

// Over the threads that share a row.
__device__ __forceinline__ float max_of_row(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
}

__device__ __forceinline__ float sum_of_row(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 2);
    return value + __shfl_xor_sync(0xffffffffu, value, 1);
}

// scores += rows of `left` · rows of `right`.
template <int C, int OTHER>
__device__ __forceinline__ void tile_dots(const float *left, const float *right, Scores<OTHER> &scores) {
    int quad = threadIdx.x % 4 * 4;
    left += row_of(0) * (C + 4) + quad;
    right += mixed(threadIdx.x % 32 / 4) * (C + 4) + quad;
#pragma unroll
    for (int k = 0; k < C; k += 16) {
        float4 upper = *(const float4 *)(left + k), lower = *(const float4 *)(left + 8 * (C + 4) + k);
        float a[2][4] = {{upper.x, lower.x, upper.y, lower.y}, {upper.z, lower.z, upper.w, lower.w}};
#pragma unroll
        for (int first = 0; first < OTHER; first += 32) {
            float b[2][4][2];
#pragma unroll
            for (int part = 0; part < 4; part++) {
                float4 r = *(const float4 *)(right + (first + 8 * part) * (C + 4) + k);
                b[0][part][0] = r.x;
                b[0][part][1] = r.y;
                b[1][part][0] = r.z;
                b[1][part][1] = r.w;
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int part = 0; part < 4; part++)
                    warp_multiply(scores.v + 4 * (first / 8 + part), a[half], b[half][part]);
            }
        }
    }
}

// Makes scores the weights of `tile_mix`. They stay where they are.
template <int OTHER>
__device__ __forceinline__ void put_weights(Scores<OTHER> &scores) {
#pragma unroll
    for (int i = 0; i < HELD * Scores<OTHER>::COUNT; i++) scores.v[i] = operand(scores.v[i]);
}

// Waits until all threads have put their weights, or have mixed with them.
__device__ __forceinline__ void wait_for_weights() {}

// out += weights times `right`.
template <int C, int OTHER>
__device__ __forceinline__ void tile_mix(const Scores<OTHER> &weights, const float *right, Sums<C> &out) {
    right += threadIdx.x % 4 * (C + 4) + 4 * mixed(threadIdx.x % 32 / 4);
#pragma unroll
    for (int s = 0; s < OTHER; s += 8) {
        const float *w = weights.v + s / 2;
        float a[4] = {w[0], w[2], w[1], w[3]};
#pragma unroll
        for (int column = 0; column < C; column += 32) {
            float4 near = *(const float4 *)(right + s * (C + 4) + column);
            float4 far = *(const float4 *)(right + (s + 4) * (C + 4) + column);
            float b[4][2] = {{near.x, far.x}, {near.y, far.y}, {near.z, far.z}, {near.w, far.w}};
#pragma unroll
            for (int part = 0; part < 4; part++) warp_multiply(out.v + 4 * (column / 8 + part), a, b[part]);
        }
    }
}

#else

// A thread holds four rows and four columns of a tile of scores, so that a number read from shared memory serves four
// products.
#define TILE 32
#define AHEAD 64
#define BACK 64
#define HELD 4
// Numbers between two rows of weights in shared memory: a multiple of four, and no two rows of four in one bank.
#define WEIGHTS(other) (other + 4)

// This thread's scores in a tile, for i-th row and j-th column of its own.
template <int OTHER>
struct Scores {
    static constexpr int COUNT = OTHER / 16;
    float v[HELD * COUNT];
    __device__ __forceinline__ float &at(int i, int j) { return v[i * COUNT + j]; }
};

// Its part of the result, of which RUN columns follow each other.
template <int C>
struct Sums {
    static constexpr int COUNT = C / 16, RUN = COUNT;
    float v[HELD * COUNT];
    __device__ __forceinline__ float &at(int i, int c) { return v[i * COUNT + c]; }
};

__device__ __forceinline__ int row_of(int i) { return threadIdx.x / 16 * 4 + i; }

__device__ __forceinline__ int other_of(int j) { return threadIdx.x % 16 + 16 * j; }

template <int C>
__device__ __forceinline__ int column_of(int c) {
    return threadIdx.x % 16 * (C / 16) + c;
}

// Whether this thread speaks for its rows.
__device__ __forceinline__ bool first_of_row() { return threadIdx.x % 16 == 0; }

// Over the threads that share a row.
__device__ __forceinline__ float max_of_row(float value) { return max_of_16(value); }
__device__ __forceinline__ float sum_of_row(float value) { return sum_of_16(value); }

// scores += rows of `left` · rows of `right`.
template <int C, int OTHER>
__device__ __forceinline__ void tile_dots(const float *left, const float *right, Scores<OTHER> &scores) {
    constexpr int COUNT = Scores<OTHER>::COUNT;
#pragma unroll 2
    for (int k = 0; k < C; k += 4) {
        float4 a[HELD], b[COUNT];
#pragma unroll
        for (int i = 0; i < HELD; i++) a[i] = *(const float4 *)(left + row_of(i) * (C + 4) + k);
#pragma unroll
        for (int j = 0; j < COUNT; j++) b[j] = *(const float4 *)(right + other_of(j) * (C + 4) + k);
#pragma unroll
        for (int i = 0; i < HELD; i++) {
#pragma unroll
            for (int j = 0; j < COUNT; j++) {
                float &sum = scores.at(i, j);
                sum = fmaf(a[i].x, b[j].x, sum);
                sum = fmaf(a[i].y, b[j].y, sum);
                sum = fmaf(a[i].z, b[j].z, sum);
                sum = fmaf(a[i].w, b[j].w, sum);
            }
        }
    }
}

template <int OTHER>
__device__ __forceinline__ float *weights_of_block() {
    __shared__ float4 quads[TILE * WEIGHTS(OTHER) / 4];
    return (float *)quads;
}

// Makes scores the weights of `tile_mix`: in shared memory, as each is for all threads of its row.
template <int OTHER>
__device__ __forceinline__ void put_weights(Scores<OTHER> &scores) {
    float *weights = weights_of_block<OTHER>();
#pragma unroll
    for (int i = 0; i < HELD; i++) {
#pragma unroll
        for (int j = 0; j < Scores<OTHER>::COUNT; j++)
            weights[row_of(i) * WEIGHTS(OTHER) + other_of(j)] = scores.at(i, j);
    }
}

// Waits until all threads have put their weights, or have mixed with them.
__device__ __forceinline__ void wait_for_weights() { __syncthreads(); }

// out += weights times `right`.
template <int C, int OTHER>
__device__ __forceinline__ void tile_mix(const Scores<OTHER> &, const float *right, Sums<C> &out) {
    constexpr int COUNT = Sums<C>::COUNT;
    const float *weights = weights_of_block<OTHER>();
#pragma unroll 2
    for (int s = 0; s < OTHER; s += 4) {
        Neighbours<4> w[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) w[i] = *(const Neighbours<4> *)(weights + row_of(i) * WEIGHTS(OTHER) + s);
#pragma unroll
        for (int u = 0; u < 4; u++) {
            Neighbours<COUNT> r = *(const Neighbours<COUNT> *)(right + (s + u) * (C + 4) + column_of<C>(0));
#pragma unroll
            for (int i = 0; i < HELD; i++) {
#pragma unroll
                for (int c = 0; c < COUNT; c++) out.at(i, c) = fmaf(w[i].v[u], r.v[c], out.at(i, c));
            }
        }
    }
}

#endif

template <int C, int N>
__device__ __forceinline__ void clear(Sums<C> (&sums)[N]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < HELD * Sums<C>::COUNT; i++) sums[n].v[i] = 0.0f;
    }
}

// Writes this thread's part of a slice of a tile, times `scale[i]`.
template <int C, int N>
__device__ __forceinline__ void store_tile(float *to, u64 stride, u64 rows, const Attention &size, u64 slice,
                                           Sums<C> (&sums)[N], const float scale[HELD]) {
    constexpr int RUN = Sums<C>::RUN;
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
#pragma unroll
            for (int c = 0; c < Sums<C>::COUNT; c += RUN) {
                u64 column = (slice * N + n) * C + column_of<C>(c);
                if (row_of(i) >= rows || column >= size.head) continue;
                float *at = to + row_of(i) * stride + column;
                Neighbours<RUN> run;
#pragma unroll
                for (int u = 0; u < RUN; u++) run.v[u] = sums[n].at(i, c + u) * scale[i];
                if (size.wide) {
                    *(Neighbours<RUN> *)at = run;
                } else {
#pragma unroll
                    for (int u = 0; u < RUN; u++) {
                        if (column + u < size.head) at[u] = run.v[u];
                    }
                }
            }
        }
    }
}

// Chunks of C numbers in a head. Kernels of one sum are for heads of one chunk.
template <int C, int N>
__device__ __forceinline__ u64 chunks_of(const Attention &size) {
    return N == 1 ? 1 : (size.head + C - 1) / C;
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

// How many of the `count` keys from `start` on a query sees. Queries beyond the last see all.
__device__ __forceinline__ int seen_by(const Attention &size, u64 query, u64 start, int count) {
    u64 end = size.causal && query < size.keys ? query + 1 : size.keys;
    return end < start ? 0 : end - start < count ? (int)(end - start) : count;
}

// The output, and each row's log of the sum of its exponentials: what the backward pass computes weights from.
template <int C, int N>
__device__ __forceinline__ void attention_forward(const Attention &size, const HeadRows &q, const HeadRows &k,
                                                  const HeadRows &v, const HeadRows &out, float *log_sums) {
    __shared__ float4 left_quads[TILE * (C + 4) / 4];
    __shared__ float4 right_quads[AHEAD * (C + 4) / 4];
    float *left = (float *)left_quads, *right = (float *)right_quads;
    u64 chunks = chunks_of<C, N>(size), slices = (chunks + N - 1) / N, tiles = (size.queries + TILE - 1) / TILE;
    for (u64 index = blockIdx.x; index < size.pairs * tiles * slices; index += gridDim.x) {
        Job job = job_of(index, slices, tiles, true);
        const float *qs = head_of(q, size, size.queries, job.pair) + job.first * q.stride;
        const float *ks = head_of(k, size, size.keys, job.pair), *vs = head_of(v, size, size.keys, job.pair);
        float best[HELD], total[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            best[i] = NEVER;
            total[i] = 0.0f;
        }
        Sums<C> sums[N];
        clear(sums);
        u64 rows = size.queries - job.first;
        u64 seen = size.causal && job.first + TILE < size.keys ? job.first + TILE : size.keys;
        for (u64 start = 0; start < seen; start += AHEAD) {
            Scores<AHEAD> scores = {};
            for (u64 chunk = 0; chunk < chunks; chunk++) {
                u64 at = chunk * C;
                __syncthreads();
                if (chunks > 1 || start == 0)
                    load_tile<TILE, C>(left, qs + at, q.stride, rows, size.head - at, size.wide);
                load_tile<AHEAD, C>(right, ks + start * k.stride + at, k.stride, size.keys - start, size.head - at,
                                    size.wide);
                __syncthreads();
                tile_dots<C>(left, right, scores);
            }
#pragma unroll
            for (int i = 0; i < HELD; i++) {
                int seen = seen_by(size, job.first + row_of(i), start, AHEAD);
                float most = best[i];
#pragma unroll
                for (int j = 0; j < scores.COUNT; j++) {
                    scores.at(i, j) = other_of(j) < seen ? scores.at(i, j) * size.scale : NEVER;
                    most = fmaxf(most, scores.at(i, j));
                }
                most = max_of_row(most);
                float shrink = expf(best[i] - most), sum = 0.0f;
#pragma unroll
                for (int j = 0; j < scores.COUNT; j++) {
                    scores.at(i, j) = expf(scores.at(i, j) - most);
                    sum += scores.at(i, j);
                }
                best[i] = most;
                total[i] = total[i] * shrink + sum_of_row(sum);
#pragma unroll
                for (int n = 0; n < N; n++) {
#pragma unroll
                    for (int c = 0; c < sums[n].COUNT; c++) sums[n].at(i, c) *= shrink;
                }
            }
            put_weights(scores);
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                __syncthreads();
                load_tile<AHEAD, C>(right, vs + start * v.stride + at, v.stride, size.keys - start, size.head - at,
                                    size.wide);
                __syncthreads();
                tile_mix(scores, right, sums[n]);
            }
        }
        float scale[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            scale[i] = 1.0f / total[i];
            if (job.slice == 0 && first_of_row() && row_of(i) < rows)
                log_sums[job.pair * size.queries + job.first + row_of(i)] = best[i] + logf(total[i]);
        }
        float *to = head_of(out, size, size.queries, job.pair) + job.first * out.stride;
        store_tile(to, out.stride, rows, size, job.slice, sums, scale);
    }
}

// The gradient of the queries, and each row's mean of the weights' gradient under the weights, which is y · dy.
template <int C, int N>
__device__ __forceinline__ void attention_queries(const Attention &size, const HeadRows &q, const HeadRows &k,
                                                  const HeadRows &v, const HeadRows &y, const HeadRows &dy,
                                                  const float *log_sums, float *means, const HeadRows &dq) {
    __shared__ float4 left_q_quads[TILE * (C + 4) / 4];
    __shared__ float4 left_dy_quads[TILE * (C + 4) / 4];
    __shared__ float4 right_quads[BACK * (C + 4) / 4];
    float *left_q = (float *)left_q_quads, *left_dy = (float *)left_dy_quads, *right = (float *)right_quads;
    __shared__ float row_means[TILE];
    u64 chunks = chunks_of<C, N>(size), slices = (chunks + N - 1) / N, tiles = (size.queries + TILE - 1) / TILE;
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
        float mean[HELD], log_sum[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            u64 row = row_of(i);
            mean[i] = row_means[row];
            log_sum[i] = row < rows ? log_sums[job.pair * size.queries + job.first + row] : 0.0f;
        }
        Sums<C> sums[N];
        clear(sums);
        u64 seen = size.causal && job.first + TILE < size.keys ? job.first + TILE : size.keys;
        for (u64 start = 0; start < seen; start += BACK) {
            Scores<BACK> scores = {}, slopes = {};
            for (u64 chunk = 0; chunk < chunks; chunk++) {
                u64 at = chunk * C;
                __syncthreads();
                if (chunks > 1 || start == 0) {
                    load_tile<TILE, C>(left_q, qs + at, q.stride, rows, size.head - at, size.wide);
                    load_tile<TILE, C>(left_dy, dys + at, dy.stride, rows, size.head - at, size.wide);
                }
                load_tile<BACK, C>(right, vs + start * v.stride + at, v.stride, size.keys - start, size.head - at,
                                   size.wide);
                __syncthreads();
                tile_dots<C>(left_dy, right, slopes);
                __syncthreads();
                load_tile<BACK, C>(right, ks + start * k.stride + at, k.stride, size.keys - start, size.head - at,
                                   size.wide);
                __syncthreads();
                tile_dots<C>(left_q, right, scores);
            }
#pragma unroll
            for (int i = 0; i < HELD; i++) {
                int seen = seen_by(size, job.first + row_of(i), start, BACK);
#pragma unroll
                for (int j = 0; j < scores.COUNT; j++) {
                    float p = other_of(j) < seen ? expf(scores.at(i, j) * size.scale - log_sum[i]) : 0.0f;
                    slopes.at(i, j) = p * (slopes.at(i, j) - mean[i]);
                }
            }
            put_weights(slopes);
            wait_for_weights();
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                // The only chunk of the keys is still there.
                if (chunks > 1) {
                    __syncthreads();
                    load_tile<BACK, C>(right, ks + start * k.stride + at, k.stride, size.keys - start, size.head - at,
                                       size.wide);
                    __syncthreads();
                }
                tile_mix(slopes, right, sums[n]);
            }
        }
        float scale[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) scale[i] = size.scale;
        float *to = head_of(dq, size, size.queries, job.pair) + job.first * dq.stride;
        store_tile(to, dq.stride, rows, size, job.slice, sums, scale);
    }
}

// The gradients of keys and values: the rows of a tile are keys, and it walks over the queries.
template <int C, int N>
__device__ __forceinline__ void attention_keys(const Attention &size, const HeadRows &q, const HeadRows &k,
                                               const HeadRows &v, const HeadRows &dy, const float *log_sums,
                                               const float *means, const HeadRows &dk, const HeadRows &dv) {
    __shared__ float4 left_k_quads[TILE * (C + 4) / 4];
    __shared__ float4 left_v_quads[TILE * (C + 4) / 4];
    __shared__ float4 right_quads[BACK * (C + 4) / 4];
    float *left_k = (float *)left_k_quads, *left_v = (float *)left_v_quads, *right = (float *)right_quads;
    // Of the queries of a tile.
    __shared__ float tile_log_sums[BACK], tile_means[BACK];
    u64 chunks = chunks_of<C, N>(size), slices = (chunks + N - 1) / N, tiles = (size.keys + TILE - 1) / TILE;
    for (u64 index = blockIdx.x; index < size.pairs * tiles * slices; index += gridDim.x) {
        Job job = job_of(index, slices, tiles, false);
        const float *ks = head_of(k, size, size.keys, job.pair) + job.first * k.stride;
        const float *vs = head_of(v, size, size.keys, job.pair) + job.first * v.stride;
        const float *qs = head_of(q, size, size.queries, job.pair), *dys = head_of(dy, size, size.queries, job.pair);
        u64 rows = size.keys - job.first;
        Sums<C> of_keys[N], of_values[N];
        clear(of_keys);
        clear(of_values);
        // Queries before a key do not see it.
        u64 from = size.causal ? job.first / BACK * BACK : 0;
        for (u64 start = from; start < size.queries; start += BACK) {
            Scores<BACK> scores = {}, slopes = {};
            for (u64 chunk = 0; chunk < chunks; chunk++) {
                u64 at = chunk * C;
                __syncthreads();
                if (chunks > 1 || start == from) {
                    load_tile<TILE, C>(left_k, ks + at, k.stride, rows, size.head - at, size.wide);
                    load_tile<TILE, C>(left_v, vs + at, v.stride, rows, size.head - at, size.wide);
                }
                load_tile<BACK, C>(right, qs + start * q.stride + at, q.stride, size.queries - start, size.head - at,
                                   size.wide);
                if (chunk == 0 && threadIdx.x < BACK) {
                    u64 query = start + threadIdx.x;
                    bool there = query < size.queries;
                    tile_log_sums[threadIdx.x] = there ? log_sums[job.pair * size.queries + query] : 0.0f;
                    tile_means[threadIdx.x] = there ? means[job.pair * size.queries + query] : 0.0f;
                }
                __syncthreads();
                tile_dots<C>(left_k, right, scores);
                __syncthreads();
                load_tile<BACK, C>(right, dys + start * dy.stride + at, dy.stride, size.queries - start,
                                   size.head - at, size.wide);
                __syncthreads();
                tile_dots<C>(left_v, right, slopes);
            }
            // How far the first key is ahead of the first query; far behind where all see all. Queries beyond the last are
            // zeros, as are their slopes, and add nothing.
            int ahead = size.causal && job.first + TILE > start ? (int)((long long)job.first - (long long)start) : -TILE;
#pragma unroll
            for (int j = 0; j < scores.COUNT; j++) {
                float log_sum = tile_log_sums[other_of(j)], mean = tile_means[other_of(j)];
#pragma unroll
                for (int i = 0; i < HELD; i++) {
                    float p = ahead + row_of(i) <= other_of(j) ? expf(scores.at(i, j) * size.scale - log_sum) : 0.0f;
                    scores.at(i, j) = p;
                    slopes.at(i, j) = p * (slopes.at(i, j) - mean);
                }
            }
            put_weights(scores);
            wait_for_weights();
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                // The only chunk of the output's gradient is still there.
                if (chunks > 1) {
                    __syncthreads();
                    load_tile<BACK, C>(right, dys + start * dy.stride + at, dy.stride, size.queries - start,
                                       size.head - at, size.wide);
                    __syncthreads();
                }
                tile_mix(scores, right, of_values[n]);
            }
            wait_for_weights();
            put_weights(slopes);
#pragma unroll
            for (int n = 0; n < N; n++) {
                u64 at = (job.slice * N + n) * C;
                if (at >= size.head) break;
                __syncthreads();
                load_tile<BACK, C>(right, qs + start * q.stride + at, q.stride, size.queries - start, size.head - at,
                                   size.wide);
                __syncthreads();
                tile_mix(slopes, right, of_keys[n]);
            }
        }
        float scale[HELD], one[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            scale[i] = size.scale;
            one[i] = 1.0f;
        }
        float *to = head_of(dk, size, size.keys, job.pair) + job.first * dk.stride;
        store_tile(to, dk.stride, rows, size, job.slice, of_keys, scale);
        to = head_of(dv, size, size.keys, job.pair) + job.first * dv.stride;
        store_tile(to, dv.stride, rows, size, job.slice, of_values, one);
    }
}

// The last three: how many blocks a multiprocessor is to hold, of each kernel, which bounds the registers of a thread.
#define TILED(name, C, N, FORWARD, QUERIES, KEYS)                                                                     \
    extern "C" __global__ void __launch_bounds__(TEAM, FORWARD)                                                       \
        attention_forward_##name(Attention size, HeadRows q, HeadRows k, HeadRows v, HeadRows out, float *log_sums) { \
        attention_forward<C, N>(size, q, k, v, out, log_sums);                                                        \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(TEAM, QUERIES)                                                       \
        attention_queries_##name(Attention size, HeadRows q, HeadRows k, HeadRows v, HeadRows y, HeadRows dy,         \
                                 const float *log_sums, float *means, HeadRows dq) {                                  \
        attention_queries<C, N>(size, q, k, v, y, dy, log_sums, means, dq);                                           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(TEAM, KEYS)                                                          \
        attention_keys_##name(Attention size, HeadRows q, HeadRows k, HeadRows v, HeadRows dy, const float *log_sums, \
                              const float *means, HeadRows dk, HeadRows dv) {                                         \
        attention_keys<C, N>(size, q, k, v, dy, log_sums, means, dk, dv);                                             \
    }

#ifdef TENSOR_CORES
TILED(small, 32, 1, 4, 4, 4)
TILED(medium, 64, 1, 4, 3, 3)
TILED(large, 64, 2, 3, 3, 2)
#else
TILED(small, 32, 1, 4, 3, 3)
TILED(medium, 64, 1, 4, 3, 3)
TILED(large, 64, 2, 4, 3, 3)
#endif

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

#undef TEAM
#undef TILE
#undef AHEAD
#undef BACK
#undef HELD
#undef WEIGHTS
#undef TILED
#undef SHORT
#undef FEW
