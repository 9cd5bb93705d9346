// What products need before and after.

extern "C" __global__ void to_bf16(const float *in, unsigned short *out, u64 n) {
    EACH(i, n / 4) {
        float4 x = reinterpret_cast<const float4 *>(in)[i];
        reinterpret_cast<ushort4 *>(out)[i] =
            make_ushort4(rounded_to_bf16(x.x), rounded_to_bf16(x.y), rounded_to_bf16(x.z), rounded_to_bf16(x.w));
    }
    u64 rest = n / 4 * 4 + threadIdx.x;
    if (blockIdx.x == 0 && rest < n) out[rest] = rounded_to_bf16(in[rest]);
}

// The column of element i; the division is short where it can be.
__device__ __forceinline__ u64 column_of(u64 i, u64 n, u64 width) {
    return n <= 0xffffffffull ? (unsigned)i % (unsigned)width : i % width;
}

// Of every row an element x, that of the bias b and that of another matrix y; `bias` and `other` may be null, and `to` may
// be `from`.
#define THEN(name, value)                                                                                         \
    extern "C" __global__ void then_##name(const float *from, float *to, const float *bias, const float *other,  \
                                              u64 n, u64 width) {                                               \
        auto one = [](float x, float b, float y) { return (value); };                                             \
        if (bias == nullptr || width % 4 == 0) {                                                                  \
            EACH(i, n / 4) {                                                                                      \
                float4 x = reinterpret_cast<const float4 *>(from)[i];                                             \
                float4 b = make_float4(0.0f, 0.0f, 0.0f, 0.0f), y = b;                                            \
                if (bias) b = *reinterpret_cast<const float4 *>(bias + column_of(4 * i, n, width));               \
                if (other) y = reinterpret_cast<const float4 *>(other)[i];                                        \
                reinterpret_cast<float4 *>(to)[i] =                                                               \
                    make_float4(one(x.x, b.x, y.x), one(x.y, b.y, y.y), one(x.z, b.z, y.z), one(x.w, b.w, y.w));  \
            }                                                                                                     \
            u64 rest = n / 4 * 4 + threadIdx.x;                                                                   \
            if (blockIdx.x == 0 && rest < n) to[rest] = one(from[rest], 0.0f, other ? other[rest] : 0.0f);        \
        } else {                                                                                                  \
            EACH(i, n) to[i] = one(from[i], bias[column_of(i, n, width)], other ? other[i] : 0.0f);               \
        }                                                                                                         \
    }

THEN(nothing, x + b)
THEN(add, (x + b) + y)
THEN(gelu, (x + b) * normal_cdf(x + b))
// x is the gradient, y what the bias was added to.
THEN(gelu_backward, x *(normal_cdf(y + b) + (y + b) * normal_density(y + b)))
