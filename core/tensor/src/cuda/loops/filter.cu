// Weighted sums along an axis: lines [.., from, inner] become [.., to, inner]. A row of the table has the first old
// position, how many, and their weights.
extern "C" __global__ void filter_lines(const float *in, const float *table, float *out, u64 n, unsigned from, unsigned to,
                                        unsigned inner, unsigned width) {
    EACH(i, n) {
        u64 line = i / inner, outer = line / to;
        const float *row = table + (line % to) * width;
        const float *x = in + (outer * from + (unsigned)row[0]) * inner + i % inner;
        unsigned count = (unsigned)row[1];
        float sum = 0.0f;
        for (unsigned k = 0; k < count; k++) sum += row[2 + k] * x[(u64)k * inner];
        out[i] = sum;
    }
}
