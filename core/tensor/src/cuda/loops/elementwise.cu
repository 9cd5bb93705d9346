// Functions of one element with their slopes, and of two under broadcasting.

// `value` is a function of x and of the parameters a and b.
#define MAP(name, value)                                                                                          \
    extern "C" __global__ void name##_forward(const float *in, float *out, u64 n, float a, float b) {             \
        EACH(i, n) {                                                                                              \
            float x = in[i];                                                                                      \
            out[i] = (value);                                                                                     \
        }                                                                                                         \
    }

// `slope` is a function of `at`: the input or the output of the function, as the host chose.
#define FUNCTION(name, value, slope)                                                                              \
    MAP(name, value)                                                                                              \
    extern "C" __global__ void name##_backward(const float *where, float *grad, u64 n, float a, float b) {        \
        EACH(i, n) {                                                                                              \
            float at = where[i];                                                                                  \
            grad[i] *= (slope);                                                                                   \
        }                                                                                                         \
    }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The distribution function of the standard normal, and its density.
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
__device__ __forceinline__ float normal_density(float x) { return 0.39894228040143268f * expf(-0.5f * x * x); }

// Half of one plus tanh(sqrt(2 / pi) (x + 0.044715 x^3)).
__device__ __forceinline__ float gelu_gate(float x) {
    return sigmoid(1.5957691216f * x * (1.0f + 0.044715f * x * x));
}

FUNCTION(abs, fabsf(x), at > 0.0f ? 1.0f : at < 0.0f ? -1.0f : 0.0f)
FUNCTION(square, x *x, 2.0f * at)
FUNCTION(sqrt, sqrtf(x), 0.5f / at)
FUNCTION(exp, expf(x), at)
FUNCTION(ln, logf(x), 1.0f / at)
FUNCTION(tanh, tanhf(x), 1.0f - at * at)
FUNCTION(sigmoid, sigmoid(x), at *(1.0f - at))
FUNCTION(relu, x < 0.0f ? 0.0f : x, at > 0.0f ? 1.0f : 0.0f)
FUNCTION(leaky_relu, x < 0.0f ? a * x : x, at > 0.0f ? 1.0f : a)
FUNCTION(elu, x > 0.0f ? x : expm1f(x), at > 0.0f ? 1.0f : at + 1.0f)
FUNCTION(softplus, fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))) + 0.0f * x, sigmoid(at))
FUNCTION(silu, x *sigmoid(x), sigmoid(at) * (1.0f + at * (1.0f - sigmoid(at))))
FUNCTION(gelu, x *normal_cdf(x), normal_cdf(at) + at * normal_density(at))
FUNCTION(gelu_tanh, x *gelu_gate(x),
         gelu_gate(at) * (1.0f + at * (1.0f - gelu_gate(at)) * 1.5957691216f * (1.0f + 0.134145f * at * at)))
FUNCTION(clamp, x < a ? a : x > b ? b : x, at < a || at > b ? 0.0f : 1.0f)
FUNCTION(round, rintf(x), 0.0f)
FUNCTION(floor, floorf(x), 0.0f)
FUNCTION(heaviside, x > 0.0f ? 1.0f : x <= 0.0f ? 0.0f : x, 0.0f)
MAP(add_scalar, x + a)
MAP(mul_scalar, x *a)

// `flat_` is for two operands of the output's shape.
#define ZIP(name, value)                                                                                          \
    extern "C" __global__ void zip_##name(const float *xs, const float *ys, float *out, u64 n, Axes axes) {       \
        EACH(i, n) {                                                                                              \
            u64 at_x, at_y;                                                                                       \
            offsets(axes, i, at_x, at_y);                                                                         \
            float x = xs[at_x], y = ys[at_y];                                                                     \
            out[i] = (value);                                                                                     \
        }                                                                                                         \
    }                                                                                                             \
    extern "C" __global__ void flat_##name(const float *xs, const float *ys, float *out, u64 n) {                 \
        auto one = [](float x, float y) { return (value); };                                                      \
        EACH(i, n / 4) {                                                                                          \
            float4 x = ((const float4 *)xs)[i], y = ((const float4 *)ys)[i];                                      \
            ((float4 *)out)[i] = make_float4(one(x.x, y.x), one(x.y, y.y), one(x.z, y.z), one(x.w, y.w));         \
        }                                                                                                         \
        u64 rest = n / 4 * 4 + threadIdx.x;                                                                       \
        if (blockIdx.x == 0 && rest < n) out[rest] = one(xs[rest], ys[rest]);                                     \
    }

ZIP(add, x + y)
ZIP(sub, x - y)
ZIP(mul, x *y)
ZIP(div, x / y)
ZIP(minus_mul, -(x * y))

// Copies with repetition.
extern "C" __global__ void stretch(const float *in, float *out, u64 n, Axes axes) {
    EACH(i, n) {
        u64 at, ignored;
        offsets(axes, i, at, ignored);
        out[i] = in[at];
    }
}

extern "C" __global__ void add_assign(float *target, const float *other, u64 n) {
    EACH(i, n) { target[i] += other[i]; }
}

extern "C" __global__ void fill(float *out, u64 n, float value) {
    EACH(i, n) { out[i] = value; }
}
