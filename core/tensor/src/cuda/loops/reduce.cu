// Sums, in f64 and in a fixed order.

// out[o] = scale * the sum over the reduced axes, where `kept` and `reduced` hold the input's strides: one thread an
// output, for few numbers each.
extern "C" __global__ void sum_few(const float *in, float *out, u64 outputs, u64 count, Axes kept, Axes reduced,
                                   float scale) {
    EACH(o, outputs) {
        u64 start, at, ignored;
        offsets(kept, o, start, ignored);
        double sum = 0.0;
        for (u64 i = 0; i < count; i++) {
            offsets(reduced, i, at, ignored);
            sum += in[start + at];
        }
        out[o] = (float)(sum * scale);
    }
}

// The same with one block an output.
extern "C" __global__ void sum_many(const float *in, float *out, u64 outputs, u64 count, Axes kept, Axes reduced,
                                    float scale) {
    for (u64 o = blockIdx.x; o < outputs; o += gridDim.x) {
        u64 start, ignored;
        offsets(kept, o, start, ignored);
        double sum = 0.0;
        for (u64 i = threadIdx.x; i < count; i += LANES) {
            u64 at;
            offsets(reduced, i, at, ignored);
            sum += in[start + at];
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) out[o] = (float)(sum * scale);
    }
}

// One block per piece: partial[p] = the sum of the p-th `piece` numbers.
extern "C" __global__ void sum_pieces(const float *in, double *partial, u64 n, u64 piece) {
    u64 start = blockIdx.x * piece;
    u64 end = start + piece < n ? start + piece : n;
    double sum = 0.0;
    for (u64 i = start + threadIdx.x; i < end; i += LANES) sum += in[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: out[0] = scale * the sum of `n` partial sums.
extern "C" __global__ void sum_partials(const double *partial, float *out, u64 n, double scale) {
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < n; i += LANES) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[0] = (float)(sum * scale);
}
