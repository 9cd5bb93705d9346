// The random words of rng.rs: Philox4x32-10, a function of key, step and index alone.

struct Words {
    unsigned w[4];
};

// The four words of block `index`.
__device__ __forceinline__ Words philox(unsigned key0, unsigned key1, u64 step, u64 index) {
    unsigned c0 = (unsigned)index, c1 = (unsigned)(index >> 32), c2 = (unsigned)step, c3 = (unsigned)(step >> 32);
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)0xD2511F53u * c0, b = (u64)0xCD9E8D57u * c2;
        c0 = (unsigned)(b >> 32) ^ c1 ^ key0;
        c1 = (unsigned)b;
        c2 = (unsigned)(a >> 32) ^ c3 ^ key1;
        c3 = (unsigned)a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

// A word as a number uniform in [0, 1), of 24 random bits.
__device__ __forceinline__ float unit(unsigned word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }

// Zeroes element i where word `first` + i falls below `threshold`, and scales the rest. A thread takes four elements, whose
// words are those of a block, or of two where a share of a batch begins within one.
extern "C" __global__ void dropout(const float *in, float *out, u64 n, u64 first, unsigned key0, unsigned key1, u64 step,
                                   unsigned threshold, float scale) {
    unsigned skip = (unsigned)(first % 4);
    EACH(group, (n + 3) / 4) {
        Words words = philox(key0, key1, step, first / 4 + group);
        if (skip > 0) {
            Words next = philox(key0, key1, step, first / 4 + group + 1), own = words;
            for (unsigned k = 0; k < 4; k++)
                words.w[k] = skip + k < 4 ? own.w[skip + k] : next.w[skip + k - 4];
        }
        u64 start = 4 * group;
        if (start + 4 <= n) {
            float4 x = ((const float4 *)in)[group];
            x.x = words.w[0] < threshold ? 0.0f : x.x * scale;
            x.y = words.w[1] < threshold ? 0.0f : x.y * scale;
            x.z = words.w[2] < threshold ? 0.0f : x.z * scale;
            x.w = words.w[3] < threshold ? 0.0f : x.w * scale;
            ((float4 *)out)[group] = x;
        } else {
            for (unsigned k = 0; start + k < n; k++)
                out[start + k] = words.w[k] < threshold ? 0.0f : in[start + k] * scale;
        }
    }
}
