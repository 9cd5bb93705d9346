// Losses.

// partial[p] = the sum of (x - y)^2 over the p-th `piece` numbers, a multiple of four.
extern "C" __global__ void squared_pieces(const float *xs, const float *ys, double *partial, u64 n, u64 piece) {
    u64 start = blockIdx.x * piece;
    u64 end = start + piece < n ? start + piece : n;
    u64 whole = start + (end - start) / 4 * 4;
    double sum = 0.0;
    for (u64 i = start + 4 * threadIdx.x; i < whole; i += 4 * LANES) {
        float4 x = *(const float4 *)(xs + i), y = *(const float4 *)(ys + i);
        float a = x.x - y.x, b = x.y - y.y, c = x.z - y.z, d = x.w - y.w;
        sum += (a * a + b * b) + (c * c + d * d);
    }
    u64 i = whole + threadIdx.x;
    if (i < end) sum += (xs[i] - ys[i]) * (xs[i] - ys[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// out = grad[0] * scale * (x - y).
extern "C" __global__ void scaled_difference(const float *xs, const float *ys, const float *grad, float *out, u64 n,
                                             double scale) {
    float by = (float)(grad[0] * scale);
    EACH(i, n / 4) {
        float4 x = ((const float4 *)xs)[i], y = ((const float4 *)ys)[i];
        ((float4 *)out)[i] = make_float4(by * (x.x - y.x), by * (x.y - y.y), by * (x.z - y.z), by * (x.w - y.w));
    }
    u64 rest = n / 4 * 4 + threadIdx.x;
    if (blockIdx.x == 0 && rest < n) out[rest] = by * (xs[rest] - ys[rest]);
}

// The constant in the published soft loss: SOFT_EPS in cpu/rows.rs.
#define SOFT_EPS 1e-7f

// What one pass over a row gathers: its maximum, the sum of e^(x - max), and the sums of q and of q (x - shift), where the
// shift is the row's first logit: it keeps the last sum small.
struct Soft {
    float max, exps, targets;
    double dot;
};

__device__ __forceinline__ void soft_join(Soft &a, float max, float exps, float targets, double dot) {
    float high = fmaxf(a.max, max);
    // Both may be empty: -inf less -inf is no number.
    float own = a.max == high ? 1.0f : expf(a.max - high), other = max == high ? 1.0f : expf(max - high);
    a.exps = a.exps * own + exps * other;
    a.max = high;
    a.targets += targets;
    a.dot += dot;
}

// One block per row. `kept` gets each row's maximum, and the factor of e^(x - max) in the gradient.
extern "C" __global__ void soft_cross_entropy_forward(const float *in, const float *targets, float *loss, float *kept,
                                                      u64 rows, u64 width) {
    __shared__ Soft warps[LANES / 32];
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const float *x = in + row * width, *q = targets + row * width;
        float shift = x[0];
        Soft own = {-__int_as_float(0x7f800000), 0.0f, 0.0f, 0.0};
        for (u64 k = threadIdx.x; k < width; k += LANES) {
            float value = x[k], target = q[k];
            if (value > own.max) {
                own.exps = own.exps * expf(own.max - value) + 1.0f;
                own.max = value;
            } else {
                own.exps += value == own.max ? 1.0f : expf(value - own.max);
            }
            own.targets += target;
            own.dot += (double)target * (value - shift);
        }
        for (int step = 16; step > 0; step /= 2) {
            float max = __shfl_xor_sync(0xffffffffu, own.max, step), exps = __shfl_xor_sync(0xffffffffu, own.exps, step);
            float sum = __shfl_xor_sync(0xffffffffu, own.targets, step);
            soft_join(own, max, exps, sum, __shfl_xor_sync(0xffffffffu, own.dot, step));
        }
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = own;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < LANES / 32; w++)
                soft_join(own, warps[w].max, warps[w].exps, warps[w].targets, warps[w].dot);
            float normalizer = (own.max - shift) + logf(own.exps + SOFT_EPS);
            loss[row] = (float)((double)normalizer * own.targets - own.dot);
            kept[2 * row] = own.max;
            kept[2 * row + 1] = own.targets / (own.exps + SOFT_EPS);
        }
        __syncthreads();
    }
}

// grad * (e^(x - max) * factor - q).
extern "C" __global__ void soft_cross_entropy_backward(const float *in, const float *targets, const float *kept,
                                                       const float *grad, float *out, u64 rows, u64 width) {
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        float max = kept[2 * row], factor = kept[2 * row + 1], by = grad[row];
        for (u64 k = threadIdx.x; k < width; k += LANES) {
            u64 i = row * width + k;
            out[i] = by * (expf(in[i] - max) * factor - targets[i]);
        }
    }
}
