// Resampling of maps: copies and sums between pixels and cells of them. Follows layout.cu, whose sums of quads it uses.

__device__ __forceinline__ float scaled(float x, float by) { return x * by; }
__device__ __forceinline__ float4 scaled(float4 x, float by) {
    return make_float4(x.x * by, x.y * by, x.z * by, x.w * by);
}

// The cells of maps of height x width pixels: rows x columns of them, of factor x factor pixels each.
struct Cells {
    unsigned height, width, rows, columns, channels, factor;
    float scale;
};

// Spreads every pixel of the maps of cells, times the scale, over its cell; what belongs to no cell becomes 0. n counts
// the elements written.
template <typename T>
__device__ __forceinline__ void repeat(const T *in, T *out, u64 n, const Cells &cells) {
    EACH(i, n) {
        unsigned channel = (unsigned)i % cells.channels, pixel = (unsigned)i / cells.channels;
        unsigned line = pixel / cells.width, column = pixel % cells.width / cells.factor;
        unsigned image = line / cells.height, row = line % cells.height / cells.factor;
        bool inside = row < cells.rows && column < cells.columns;
        u64 from = inside ? (u64)(image * cells.rows + row) * cells.columns + column : 0;
        out[i] = inside ? scaled(in[from * cells.channels + channel], cells.scale) : T();
    }
}

// Sums every cell, times the scale, into its pixel of the maps of cells. n counts the elements written.
template <typename T>
__device__ __forceinline__ void sum_cells(const T *in, T *out, u64 n, const Cells &cells) {
    EACH(i, n) {
        unsigned channel = (unsigned)i % cells.channels, pixel = (unsigned)i / cells.channels;
        unsigned line = pixel / cells.columns, column = pixel % cells.columns;
        u64 first = (u64)(line / cells.rows) * cells.height + line % cells.rows * cells.factor;
        u64 corner = first * cells.width + column * cells.factor;
        T sum = in[corner * cells.channels + channel];
        for (unsigned k = 1; k < cells.factor * cells.factor; k++) {
            u64 at = corner + (u64)(k / cells.factor) * cells.width + k % cells.factor;
            sum = added(sum, in[at * cells.channels + channel]);
        }
        out[i] = scaled(sum, cells.scale);
    }
}

#define RESAMPLE(suffix, T)                                                                                       \
    extern "C" __global__ void repeat##suffix(const T *in, T *out, u64 n, Cells cells) {                          \
        repeat<T>(in, out, n, cells);                                                                             \
    }                                                                                                             \
    extern "C" __global__ void sum_cells##suffix(const T *in, T *out, u64 n, Cells cells) {                       \
        sum_cells<T>(in, out, n, cells);                                                                          \
    }

RESAMPLE(_single, float)
RESAMPLE(_quads, float4)
