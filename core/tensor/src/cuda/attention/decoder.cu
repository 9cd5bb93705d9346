// Steps of a decoder: a few rows at a time, so that reading the weights is what takes time.

// What becomes of a product: FINISH_GELU and FINISH_ADD, which adds it to what is there.
#define FINISH_GELU 1
#define FINISH_ADD 2

__device__ __forceinline__ void finish(float *to, float value, unsigned how) {
    if (how & FINISH_GELU) value *= normal_cdf(value);
    *to = how & FINISH_ADD ? *to + value : value;
}

// One weight and four neighbouring ones, in f32 or in bf16, which is the upper half of it.
__device__ __forceinline__ float weight_at(const float *at) { return *at; }
__device__ __forceinline__ float weight_at(const unsigned short *at) { return __uint_as_float((unsigned)*at << 16); }
__device__ __forceinline__ float4 four_at(const float *at) { return *(const float4 *)at; }
__device__ __forceinline__ float4 four_at(const unsigned short *at) {
    uint2 pairs = *(const uint2 *)at;
    return make_float4(__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xffff0000u),
                       __uint_as_float(pairs.y << 16), __uint_as_float(pairs.y & 0xffff0000u));
}

// out = x · weightᵀ + bias of up to R rows: a warp takes two outputs, and reads their weights once for all rows.
template <int R, class W>
__device__ __forceinline__ void product_few(const float *x, const W *weight, const float *bias, float *out, u64 rows,
                                            u64 outputs, u64 inputs, unsigned how) {
    unsigned lane = threadIdx.x % 32;
    for (u64 pair = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32; 2 * pair < outputs;
         pair += (u64)gridDim.x * blockDim.x / 32) {
        bool both = 2 * pair + 1 < outputs;
        const W *first = weight + 2 * pair * inputs, *second = both ? first + inputs : first;
        float sums[2][R] = {};
        if (inputs % 4 == 0) {
#pragma unroll 2
            for (u64 i = 4 * lane; i < inputs; i += 128) {
                float4 a = four_at(first + i), b = four_at(second + i);
#pragma unroll
                for (int r = 0; r < R; r++) {
                    if (r < rows) {
                        float4 v = *(const float4 *)(x + r * inputs + i);
                        sums[0][r] = fmaf(a.x, v.x, fmaf(a.y, v.y, fmaf(a.z, v.z, fmaf(a.w, v.w, sums[0][r]))));
                        sums[1][r] = fmaf(b.x, v.x, fmaf(b.y, v.y, fmaf(b.z, v.z, fmaf(b.w, v.w, sums[1][r]))));
                    }
                }
            }
        } else {
            for (u64 i = lane; i < inputs; i += 32) {
                float a = weight_at(first + i), b = weight_at(second + i);
#pragma unroll
                for (int r = 0; r < R; r++) {
                    if (r < rows) {
                        float v = x[r * inputs + i];
                        sums[0][r] = fmaf(a, v, sums[0][r]);
                        sums[1][r] = fmaf(b, v, sums[1][r]);
                    }
                }
            }
        }
#pragma unroll
        for (int o = 0; o < 2; o++) {
#pragma unroll
            for (int r = 0; r < R; r++) {
                float value = sum_of_warp(sums[o][r]);
                u64 output = 2 * pair + o;
                if (lane == r && r < rows && output < outputs)
                    finish(out + r * outputs + output, bias ? value + bias[output] : value, how);
            }
        }
    }
}

#define PRODUCT_FEW(R)                                                                                            \
    extern "C" __global__ void product_few_##R(const float *x, const float *weight, const float *bias, float *out, \
                                               u64 rows, u64 outputs, u64 inputs, unsigned how) {                 \
        product_few<R>(x, weight, bias, out, rows, outputs, inputs, how);                                         \
    }                                                                                                             \
    extern "C" __global__ void product_few_bf16_##R(const float *x, const unsigned short *weight,                 \
                                                    const float *bias, float *out, u64 rows, u64 outputs,         \
                                                    u64 inputs, unsigned how) {                                   \
        product_few<R>(x, weight, bias, out, rows, outputs, inputs, how);                                         \
    }

PRODUCT_FEW(1)
PRODUCT_FEW(2)
PRODUCT_FEW(4)
PRODUCT_FEW(8)

// The same end for a product of many rows.
extern "C" __global__ void finish_product(const float *product, const float *bias, float *out, u64 n, u64 width,
                                          unsigned how) {
    EACH(i, n) { finish(out + i, bias ? product[i] + bias[i % width] : product[i], how); }
}

// A norm, around the mean or around zero, that keeps nothing for a backward pass: one block per row.
extern "C" __global__ void decoder_norm(const float *in, const float *weight, const float *bias, float *out, u64 rows,
                                        u64 width, float eps, int centred) {
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const float *x = in + row * width;
        double sum = 0.0, squares = 0.0;
        for (u64 k = threadIdx.x; k < width; k += LANES) sum += x[k];
        float mean = centred ? (float)(sum_of_block(sum) / width) : 0.0f;
        for (u64 k = threadIdx.x; k < width; k += LANES) squares += (x[k] - mean) * (x[k] - mean);
        float scale = (float)(1.0 / sqrt(sum_of_block(squares) / width + eps));
        for (u64 k = threadIdx.x; k < width; k += LANES)
            out[row * width + k] = (x[k] - mean) * scale * weight[k] + bias[k];
    }
}

// Positions that go on from `past` ones in caches [B, heads, capacity, head].
struct Continued {
    u64 batch;
    u64 heads;
    u64 head;
    u64 fresh;
    u64 past;
    u64 capacity;
};

// Warps of a block, and keys that each looks at together.
#define CACHED_WARPS 4
#define CACHED_KEYS 4

// Attention of each new position over all before it and itself, and its key and value to the caches. One block takes
// one position of one head; a warp reads every fourth group of four keys, of which a lane has R numbers each. What is
// new is read from `qkv` [B, fresh, 3W], as other blocks write it to the caches meanwhile.
template <int R>
__device__ __forceinline__ void cached_attention(const float *qkv, float *keys, float *values, float *out,
                                                 const Continued &size) {
    __shared__ float parts[CACHED_WARPS][32 * R], bests[CACHED_WARPS], totals[CACHED_WARPS];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u64 width = size.heads * size.head;
    float scale = 1.0f / sqrtf((float)size.head);
    for (u64 job = blockIdx.x; job < size.batch * size.heads * size.fresh; job += gridDim.x) {
        u64 t = job % size.fresh, pair = job / size.fresh, b = pair / size.heads, h = pair % size.heads;
        const float *rows = qkv + b * size.fresh * 3 * width + h * size.head, *row = rows + t * 3 * width;
        float *own_keys = keys + pair * size.capacity * size.head;
        float *own_values = values + pair * size.capacity * size.head;
        for (u64 c = threadIdx.x; c < size.head; c += 32 * CACHED_WARPS) {
            own_keys[(size.past + t) * size.head + c] = row[width + c];
            own_values[(size.past + t) * size.head + c] = row[2 * width + c];
        }
        u64 seen = size.past + t + 1;
        float query[R], sums[R] = {}, best = NEVER, total = 0.0f;
        lane_row<R>(query, row, size.head);
        for (u64 start = CACHED_KEYS * warp; start < seen; start += CACHED_KEYS * CACHED_WARPS) {
            float key[CACHED_KEYS][R], value[CACHED_KEYS][R], scores[CACHED_KEYS], most = best;
#pragma unroll
            for (int i = 0; i < CACHED_KEYS; i++) {
                u64 s = start + i, there = s < seen ? size.head : 0;
                bool old = s < size.past;
                lane_row<R>(key[i], old ? own_keys + s * size.head : rows + (s - size.past) * 3 * width + width, there);
                lane_row<R>(value[i], old ? own_values + s * size.head : rows + (s - size.past) * 3 * width + 2 * width,
                            there);
            }
#pragma unroll
            for (int i = 0; i < CACHED_KEYS; i++) {
                float score = lane_dot<R>(query, key[i]) * scale;
                scores[i] = start + i < seen ? score : NEVER;
                most = fmaxf(most, scores[i]);
            }
            float shrink = expf(best - most);
            total *= shrink;
#pragma unroll
            for (int r = 0; r < R; r++) sums[r] *= shrink;
#pragma unroll
            for (int i = 0; i < CACHED_KEYS; i++) {
                float weight = expf(scores[i] - most);
                total += weight;
#pragma unroll
                for (int r = 0; r < R; r++) sums[r] = fmaf(weight, value[i][r], sums[r]);
            }
            best = most;
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < R; r++) parts[warp][lane + 32 * r] = sums[r];
        if (lane == 0) {
            bests[warp] = best;
            totals[warp] = total;
        }
        __syncthreads();
        float most = bests[0], all = 0.0f, shares[CACHED_WARPS];
#pragma unroll
        for (int w = 1; w < CACHED_WARPS; w++) most = fmaxf(most, bests[w]);
#pragma unroll
        for (int w = 0; w < CACHED_WARPS; w++) {
            // A warp without keys has the best of -infinity, and no share.
            shares[w] = expf(bests[w] - most);
            all += shares[w] * totals[w];
        }
        for (u64 c = threadIdx.x; c < size.head; c += 32 * CACHED_WARPS) {
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < CACHED_WARPS; w++) sum = fmaf(shares[w], parts[w][c], sum);
            out[(b * size.fresh + t) * width + h * size.head + c] = sum / all;
        }
    }
}

#define CACHED(R)                                                                                                 \
    extern "C" __global__ void cached_attention_##R(const float *qkv, float *keys, float *values, float *out,     \
                                                    Continued size) {                                             \
        cached_attention<R>(qkv, keys, values, out, size);                                                        \
    }

CACHED(1)
CACHED(2)
CACHED(4)
CACHED(8)
CACHED(16)
