// Weight normalisation: one block per row.

__device__ __forceinline__ double row_dot(const float *x, const float *y, u64 width) {
    double sum = 0.0;
    for (u64 k = threadIdx.x; k < width; k += LANES) sum += (double)x[k] * y[k];
    return block_sum(sum);
}

extern "C" __global__ void weight_norm_forward(const float *v, const float *g, float *out, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *x = v + row * width;
        float scale = (float)(g[row] / sqrt(row_dot(x, x, width)));
        EACH_COLUMN(k, width) out[row * width + k] = scale * x[k];
    }
}

// The gradient of v: what of it lies along v changes nothing.
extern "C" __global__ void weight_norm_direction(const float *grad, const float *v, const float *g, float *out,
                                                 u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *x = v + row * width, *d = grad + row * width;
        double square = row_dot(x, x, width);
        float scale = (float)(g[row] / sqrt(square)), along = (float)(row_dot(d, x, width) / square);
        EACH_COLUMN(k, width) out[row * width + k] = scale * (d[k] - along * x[k]);
    }
}

extern "C" __global__ void weight_norm_length(const float *grad, const float *v, float *out, u64 rows, u64 width) {
    EACH_ROW(row, rows) {
        const float *x = v + row * width;
        double along = row_dot(grad + row * width, x, width), square = row_dot(x, x, width);
        if (threadIdx.x == 0) out[row] = (float)(along / sqrt(square));
    }
}
