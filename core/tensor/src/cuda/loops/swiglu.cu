// The hidden state of SwiGLU, after `sigmoid` of elementwise.cu.
extern "C" __global__ void silu_mul(const float *gate, const float *in, float *out, u64 n) {
    EACH(i, n) { out[i] = gate[i] * sigmoid(gate[i]) * in[i]; }
}

extern "C" __global__ void silu_mul_gate(const float *gate, const float *in, const float *grad, float *out, u64 n) {
    EACH(i, n) {
        float s = sigmoid(gate[i]);
        out[i] = grad[i] * in[i] * s * (1.0f + gate[i] * (1.0f - s));
    }
}
