// The innermost axis as one unit: one block per row.

// The maximum over the block; NaN is passed over.
__device__ __forceinline__ float block_max(float value) {
    __shared__ float lanes[LANES];
    lanes[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = LANES / 2; half > 0; half /= 2) {
        if (threadIdx.x < half && lanes[threadIdx.x + half] > lanes[threadIdx.x])
            lanes[threadIdx.x] = lanes[threadIdx.x + half];
        __syncthreads();
    }
    float max = lanes[0];
    __syncthreads();
    return max;
}

__device__ __forceinline__ float row_max(const float *x, u64 width) {
    float max = -__int_as_float(0x7f800000);
    for (u64 k = threadIdx.x; k < width; k += LANES) max = x[k] > max ? x[k] : max;
    return block_max(max);
}

// The sum of e^(x - max) over a row.
__device__ __forceinline__ double row_exp_sum(const float *x, u64 width, float max) {
    double sum = 0.0;
    for (u64 k = threadIdx.x; k < width; k += LANES) sum += expf(x[k] - max);
    return block_sum(sum);
}

#define EACH_ROW(row, rows) for (u64 row = blockIdx.x; row < (rows); row += gridDim.x)
#define EACH_COLUMN(k, width) for (u64 k = threadIdx.x; k < (width); k += LANES)

extern "C" __global__ void softmax_forward(const float *in, float *out, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *x = in + row * width;
        float max = row_max(x, width);
        float scale = (float)(1.0 / row_exp_sum(x, width, max));
        EACH_COLUMN(k, width) out[row * width + k] = expf(x[k] - max) * scale;
    }
}

// Turns the gradient of a softmax into that of its input, given its output.
extern "C" __global__ void softmax_backward(const float *out, float *grad, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *y = out + row * width;
        float *g = grad + row * width;
        double dot = 0.0;
        EACH_COLUMN(k, width) dot += g[k] * y[k];
        float mean = (float)block_sum(dot);
        EACH_COLUMN(k, width) g[k] = y[k] * (g[k] - mean);
    }
}

extern "C" __global__ void log_softmax_forward(const float *in, float *out, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *x = in + row * width;
        float max = row_max(x, width);
        float log_sum = (float)log(row_exp_sum(x, width, max));
        EACH_COLUMN(k, width) out[row * width + k] = (x[k] - max) - log_sum;
    }
}

extern "C" __global__ void log_softmax_backward(const float *out, float *grad, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *y = out + row * width;
        float *g = grad + row * width;
        double sum = 0.0;
        EACH_COLUMN(k, width) sum += g[k];
        float total = (float)block_sum(sum);
        EACH_COLUMN(k, width) g[k] -= expf(y[k]) * total;
    }
}

// Per row -log softmax(x)[target], and log sum e^x.
extern "C" __global__ void cross_entropy_forward(const float *in, const unsigned *targets, float *loss,
                                                 float *normalizer, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *x = in + row * width;
        float max = row_max(x, width);
        float log_sum = (float)log(row_exp_sum(x, width, max));
        if (threadIdx.x == 0) {
            loss[row] = log_sum - (x[targets[row]] - max);
            normalizer[row] = max + log_sum;
        }
    }
}

// grad * (softmax(x) - onehot(target)).
extern "C" __global__ void cross_entropy_backward(const float *in, const unsigned *targets, const float *normalizer,
                                                  const float *grad, float *out, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        EACH_COLUMN(k, width) {
            float one = k == targets[row] ? 1.0f : 0.0f;
            out[row * width + k] = grad[row] * (expf(in[row * width + k] - normalizer[row]) - one);
        }
    }
}
