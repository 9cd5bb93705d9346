// Rotations of queries and keys: the first `turned` numbers of each row, by row `first + r % period` of a table of cosines
// and of sines with their signs.
extern "C" __global__ void rotate_heads(const float *in, const float *table, float *out, u64 n, u64 row, u64 turned,
                                        u64 head, u64 period, u64 first, float sign) {
    EACH(i, n) {
        u64 r = i / row, column = i % row, c = column % head;
        const float *turn = table + (first + r % period) * 2 * head;
        out[i] = column < turned ? fmaf(in[i], turn[c], sign * in[i ^ 1] * turn[head + c]) : in[i];
    }
}
