// Changes of layout: permutation, slices, running sums, maxima. What is addressed as elements are numbers,
// or quads of them where all sizes allow.

// An element's offsets in both operands; all sizes are below 2^32.
__device__ __forceinline__ void short_offsets(const Axes &axes, unsigned i, u64 &x, u64 &y) {
    x = 0;
    y = 0;
    for (int axis = (int)axes.rank - 1; axis >= 0; axis--) {
        unsigned size = (unsigned)axes.size[axis], index = i % size;
        i /= size;
        x += index * axes.x[axis];
        y += index * axes.y[axis];
    }
}

__device__ __forceinline__ float added(float x, float y) { return x + y; }
__device__ __forceinline__ float4 added(float4 x, float4 y) {
    return make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

// out[i] = in at the offset of i.
template <typename T> __device__ __forceinline__ void gather(const T *in, T *out, u64 n, const Axes &axes) {
    EACH(i, n) {
        u64 at, ignored;
        short_offsets(axes, (unsigned)i, at, ignored);
        out[i] = in[at];
    }
}

// Copies blocks of `length` elements, one every `step_in` from `start_in` on, to one every `step_out`; adds them if
// `adds`. n counts the elements copied.
template <typename T>
__device__ __forceinline__ void copy_blocks(const T *in, T *out, u64 n, unsigned length, u64 start_in, u64 step_in,
                                            u64 start_out, u64 step_out, int adds) {
    EACH(i, n) {
        unsigned block = (unsigned)i / length, k = (unsigned)i % length;
        T x = in[start_in + block * step_in + k];
        T *to = out + start_out + block * step_out + k;
        *to = adds ? added(*to, x) : x;
    }
}

#define LAYOUT(suffix, T)                                                                                         \
    extern "C" __global__ void gather##suffix(const T *in, T *out, u64 n, Axes axes) { gather<T>(in, out, n, axes); } \
    extern "C" __global__ void copy_blocks##suffix(const T *in, T *out, u64 n, unsigned length, u64 start_in,     \
                                                   u64 step_in, u64 start_out, u64 step_out, int adds) {          \
        copy_blocks<T>(in, out, n, length, start_in, step_in, start_out, step_out, adds);                         \
    }

LAYOUT(_single, float)
LAYOUT(_quads, float4)

// Sides of the tiles that a transposition moves.
#define TILE 32

// Exchanges an axis of `lines` with stride 1 in the input and one of `inner` with stride 1 in the output: a tile is read
// along the one and written along the other. `outer` has the other axes, `tiles` counts the tiles of all.
extern "C" __global__ void transpose_tiles(const float *in, float *out, u64 tiles, u64 lines, u64 inner, u64 inner_step,
                                           u64 line_step, Axes outer) {
    __shared__ float tile[TILE][TILE + 1];
    u64 down = (lines + TILE - 1) / TILE, across = (inner + TILE - 1) / TILE;
    unsigned lane = threadIdx.x % TILE, line = threadIdx.x / TILE;
    for (u64 t = blockIdx.x; t < tiles; t += gridDim.x) {
        u64 first_line = t % down * TILE, first_inner = t / down % across * TILE, from, to;
        short_offsets(outer, (unsigned)(t / down / across), from, to);
        for (unsigned i = line; i < TILE; i += LANES / TILE) {
            if (first_inner + i < inner && first_line + lane < lines)
                tile[i][lane] = in[from + (first_inner + i) * inner_step + first_line + lane];
        }
        __syncthreads();
        for (unsigned i = line; i < TILE; i += LANES / TILE) {
            if (first_line + i < lines && first_inner + lane < inner)
                out[to + (first_line + i) * line_step + first_inner + lane] = tile[lane][i];
        }
        __syncthreads();
    }
}

// Running sums along the middle axis of [outer, n, inner], backwards from the end if `reversed`: one thread per line.
extern "C" __global__ void cumsum_lines(const float *in, float *out, u64 lines, u64 n, u64 inner, int reversed) {
    EACH(line, lines) {
        u64 start = line / inner * n * inner + line % inner;
        double sum = 0.0;
        for (u64 k = 0; k < n; k++) {
            u64 at = start + (reversed ? n - 1 - k : k) * inner;
            sum += in[at];
            out[at] = (float)sum;
        }
    }
}

// The same along rows: one warp per row.
extern "C" __global__ void cumsum_rows(const float *in, float *out, u64 rows, u64 n, int reversed) {
    unsigned lane = threadIdx.x % 32;
    for (u64 row = (u64)blockIdx.x * (LANES / 32) + threadIdx.x / 32; row < rows; row += (u64)gridDim.x * (LANES / 32)) {
        double before = 0.0;
        for (u64 first = 0; first < n; first += 32) {
            u64 k = first + lane, at = row * n + (reversed ? n - 1 - k : k);
            double sum = k < n ? in[at] : 0.0;
            for (unsigned by = 1; by < 32; by *= 2) {
                double other = __shfl_up_sync(0xffffffffu, sum, by);
                if (lane >= by) sum += other;
            }
            sum += before;
            if (k < n) out[at] = (float)sum;
            before = __shfl_sync(0xffffffffu, sum, 31);
        }
    }
}

// Every row's maximum, and where it stands first: one warp per row.
extern "C" __global__ void row_argmax(const float *in, unsigned *where, float *max, u64 rows, u64 width) {
    unsigned lane = threadIdx.x % 32;
    for (u64 row = (u64)blockIdx.x * (LANES / 32) + threadIdx.x / 32; row < rows; row += (u64)gridDim.x * (LANES / 32)) {
        const float *x = in + row * width;
        float best = -__int_as_float(0x7f800000);
        unsigned at = 0xffffffffu;
        for (u64 k = lane; k < width; k += 32) {
            if (x[k] > best || (x[k] == best && at == 0xffffffffu)) {
                best = x[k];
                at = (unsigned)k;
            }
        }
        for (int with = 16; with > 0; with /= 2) {
            float other = __shfl_xor_sync(0xffffffffu, best, with);
            unsigned place = __shfl_xor_sync(0xffffffffu, at, with);
            if (other > best || (other == best && place < at)) {
                best = other;
                at = place;
            }
        }
        // Where all is NaN, the first.
        if (at == 0xffffffffu) at = 0;
        if (lane == 0) {
            where[row] = at;
            max[row] = x[at];
        }
    }
}

#undef TILE
