// Gated linear units: rows of a and b side by side.

extern "C" __global__ void add_glu(const float *x, const float *gates, float *out, u64 n, u64 width) {
    EACH(i, n) {
        u64 at = i / width * 2 * width + i % width;
        out[i] = x[i] + gates[at] * sigmoid(gates[at + width]);
    }
}

// The gradients of a and b from that of a sigmoid(b).
extern "C" __global__ void glu_gradient(const float *grad, const float *gates, float *out, u64 n, u64 width) {
    EACH(i, n) {
        u64 at = i / width * 2 * width + i % width;
        float s = sigmoid(gates[at + width]);
        out[at] = grad[i] * s;
        out[at + width] = grad[i] * gates[at] * (s * (1.0f - s));
    }
}
