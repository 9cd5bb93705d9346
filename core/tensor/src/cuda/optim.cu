// Optimizer steps over many tensors in one launch. A launch gets a table of tensors by value; a block finds the tensor that
// it works on, and its piece of it.

#define MAX_TENSORS 64
// Numbers of a block. A tensor's first piece starts on a boundary that vector loads want.
#define PIECE 4096

// Tensors of up to four roles, of which all of one index have `size` elements; `first[t]` is the first block of tensor t.
struct Tensors {
    u64 count;
    u64 size[MAX_TENSORS];
    float *at[4][MAX_TENSORS];
    unsigned first[MAX_TENSORS + 1];
};

__device__ __forceinline__ unsigned tensor_of(const Tensors &tensors, unsigned block) {
    unsigned low = 0, high = (unsigned)tensors.count;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (tensors.first[middle] <= block) low = middle; else high = middle;
    }
    return low;
}

// Where a block begins and ends in its tensor.
struct Piece {
    unsigned tensor;
    u64 start, end;
};

__device__ __forceinline__ Piece piece_of(const Tensors &tensors, unsigned block) {
    Piece piece;
    piece.tensor = tensor_of(tensors, block);
    piece.start = (u64)(block - tensors.first[piece.tensor]) * PIECE;
    u64 size = tensors.size[piece.tensor];
    piece.end = piece.start + PIECE < size ? piece.start + PIECE : size;
    return piece;
}

struct Adam {
    float l2, keep, beta1, rest1, beta2, rest2, step_size, root_scale, eps;
};

__device__ __forceinline__ void adam_one(const Adam &how, float scale, float &p, float g, float &m, float &v) {
    g = g * scale + how.l2 * p;
    m = how.beta1 * m + how.rest1 * g;
    v = how.beta2 * v + how.rest2 * (g * g);
    p = p * how.keep - how.step_size * m / (sqrtf(v) * how.root_scale + how.eps);
}

// Roles: parameter, gradient, average gradient, average square. Gradients are multiplied by a number that another kernel has
// left; NaN there means that nothing is to change.
extern "C" __global__ void adam_step(const Tensors tensors, const Adam how, const float *grad_scale) {
    float scale = *grad_scale;
    if (scale != scale) return;
    Piece piece = piece_of(tensors, blockIdx.x);
    float *p = tensors.at[0][piece.tensor], *m = tensors.at[2][piece.tensor], *v = tensors.at[3][piece.tensor];
    const float *g = tensors.at[1][piece.tensor];
    u64 whole = piece.start + (piece.end - piece.start) / 4 * 4;
    for (u64 i = piece.start + 4 * threadIdx.x; i < whole; i += 4 * LANES) {
        float4 ps = *(float4 *)(p + i), ms = *(float4 *)(m + i), vs = *(float4 *)(v + i);
        float4 gs = *(const float4 *)(g + i);
        adam_one(how, scale, ps.x, gs.x, ms.x, vs.x);
        adam_one(how, scale, ps.y, gs.y, ms.y, vs.y);
        adam_one(how, scale, ps.z, gs.z, ms.z, vs.z);
        adam_one(how, scale, ps.w, gs.w, ms.w, vs.w);
        *(float4 *)(p + i) = ps;
        *(float4 *)(m + i) = ms;
        *(float4 *)(v + i) = vs;
    }
    u64 i = whole + threadIdx.x;
    if (i < piece.end) adam_one(how, scale, p[i], g[i], m[i], v[i]);
}

// Roles: average, value.
extern "C" __global__ void ema_step(const Tensors tensors, float decay, float rest) {
    Piece piece = piece_of(tensors, blockIdx.x);
    float *average = tensors.at[0][piece.tensor];
    const float *value = tensors.at[1][piece.tensor];
    u64 whole = piece.start + (piece.end - piece.start) / 4 * 4;
    for (u64 i = piece.start + 4 * threadIdx.x; i < whole; i += 4 * LANES) {
        float4 a = *(float4 *)(average + i), v = *(const float4 *)(value + i);
        *(float4 *)(average + i) = make_float4(decay * a.x + rest * v.x, decay * a.y + rest * v.y,
                                               decay * a.z + rest * v.z, decay * a.w + rest * v.w);
    }
    u64 i = whole + threadIdx.x;
    if (i < piece.end) average[i] = decay * average[i] + rest * value[i];
}

// partial[block] = the sum of squares of the block's piece.
extern "C" __global__ void square_pieces(const Tensors tensors, double *partial) {
    Piece piece = piece_of(tensors, blockIdx.x);
    const float *x = tensors.at[0][piece.tensor];
    u64 whole = piece.start + (piece.end - piece.start) / 4 * 4;
    double sum = 0.0;
    for (u64 i = piece.start + 4 * threadIdx.x; i < whole; i += 4 * LANES) {
        float4 v = *(const float4 *)(x + i);
        sum += (double)v.x * v.x + (double)v.y * v.y + (double)v.z * v.z + (double)v.w * v.w;
    }
    u64 i = whole + threadIdx.x;
    if (i < piece.end) sum += (double)x[i] * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block per tensor: sums[t] = the sum over its pieces.
extern "C" __global__ void square_sums(const Tensors tensors, const double *partial, double *sums) {
    unsigned t = blockIdx.x;
    double sum = 0.0;
    for (unsigned i = tensors.first[t] + threadIdx.x; i < tensors.first[t + 1]; i += LANES) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[t] = sum;
}

// What brings gradients with these sums of squares to a norm of at most `most`; NaN if one is not finite.
extern "C" __global__ void clip_factor(const double *sums, u64 count, float most, float *factor) {
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < count; i += LANES) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *factor = sum - sum == 0.0 ? (float)fmin(most / (sqrt(sum) + 1e-6), 1.0) : __int_as_float(0x7fffffff);
}
