// Layer norm and group norm. Sums over many numbers are of differences from a value near the mean, in f32 over short
// runs and in f64 beyond, and are joined in a fixed order.

__device__ __forceinline__ double warp_total(double value) {
    for (int with = 16; with > 0; with /= 2) value += __shfl_xor_sync(0xffffffffu, value, with);
    return value;
}

__device__ __forceinline__ float warp_total(float value) {
    for (int with = 16; with > 0; with /= 2) value += __shfl_xor_sync(0xffffffffu, value, with);
    return value;
}

// What a thread reads at a time: a number, or four that lie side by side.
template <int N> struct Pack {
    float x[N];
};

template <int N> __device__ __forceinline__ Pack<N> read_pack(const float *at);

template <> __device__ __forceinline__ Pack<1> read_pack<1>(const float *at) {
    Pack<1> pack = {{*at}};
    return pack;
}

template <> __device__ __forceinline__ Pack<4> read_pack<4>(const float *at) {
    float4 quad = *(const float4 *)at;
    Pack<4> pack = {{quad.x, quad.y, quad.z, quad.w}};
    return pack;
}

__device__ __forceinline__ void write_pack(float *at, const Pack<1> &pack) { *at = pack.x[0]; }

__device__ __forceinline__ void write_pack(float *at, const Pack<4> &pack) {
    *(float4 *)at = make_float4(pack.x[0], pack.x[1], pack.x[2], pack.x[3]);
}

// Rows that f32 sums well before they are added up in f64.
#define RUN 64

// Maps [B, positions, channels]. A block works on a chunk of the positions of one map; the chunks of a map follow each
// other.
struct Maps {
    int positions, channels, groups;
    int chunk, chunks;  // positions of a chunk, and how many there are
    float eps;
    int silu;
};

#define OWN_MAP(maps) ((u64)blockIdx.x / (maps).chunks)
#define OWN_CHUNK(maps) ((int)(blockIdx.x % (maps).chunks))

// How a block is laid over rows of channels: lanes along a row, N channels each, and lines down the rows. The rows of a
// block's chunk are [first, end).
struct Layout {
    int lanes, lines, lane, line, first, end;
    u64 base;  // of the map

    __device__ __forceinline__ Layout(const Maps &maps, int wide) {
        int across = maps.channels / wide;
        lanes = across < LANES ? across : LANES;
        lines = LANES / lanes;
        lane = threadIdx.x % lanes;
        line = threadIdx.x / lanes;
        first = OWN_CHUNK(maps) * maps.chunk;
        end = maps.positions - first < maps.chunk ? maps.positions : first + maps.chunk;
        base = OWN_MAP(maps) * maps.positions * maps.channels;
    }
};

// Two sums of each of `lanes * N` channels, joined over the lines in order and written from channel `start` on, as
// [2][channels] for each block.
template <int N>
__device__ __forceinline__ void join_lines(const Layout &at, const double (&first)[N], const double (&second)[N], int start,
                                           double *partial, const Maps &maps) {
    __shared__ double sums[LANES * 2 * N];
    int width = at.lanes * N;
    if (at.line < at.lines) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            sums[at.line * 2 * width + at.lane * N + i] = first[i];
            sums[at.line * 2 * width + width + at.lane * N + i] = second[i];
        }
    }
    __syncthreads();
    double *to = partial + (u64)blockIdx.x * 2 * maps.channels;
    for (int i = threadIdx.x; i < 2 * width; i += LANES) {
        int channel = start + i % width;
        if (channel >= maps.channels) continue;
        double sum = 0.0;
        for (int line = 0; line < at.lines; line++) sum += sums[line * 2 * width + i];
        to[i / width * maps.channels + channel] = sum;
    }
    __syncthreads();
}

// Per chunk and channel the sums of x less the map's first value in that channel, and of its square. The squares of x
// itself would cancel where the mean is large against the deviation.
template <int N>
__device__ __forceinline__ void moment_sums(const float *in, double *partial, const Maps &maps) {
    Layout at(maps, N);
    for (int start = 0; start < maps.channels; start += at.lanes * N) {
        int channel = start + at.lane * N;
        double sum[N] = {}, squares[N] = {};
        if (at.line < at.lines && channel < maps.channels) {
            const float *x = in + at.base + channel;
            Pack<N> centre = read_pack<N>(x);
            for (int row = at.first + at.line; row < at.end;) {
                float run_sum[N] = {}, run_squares[N] = {};
#pragma unroll 4
                for (int i = 0; i < RUN && row < at.end; i++, row += at.lines) {
                    Pack<N> pack = read_pack<N>(x + (u64)row * maps.channels);
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        float d = pack.x[j] - centre.x[j];
                        run_sum[j] += d;
                        run_squares[j] += d * d;
                    }
                }
#pragma unroll
                for (int j = 0; j < N; j++) {
                    sum[j] += run_sum[j];
                    squares[j] += run_squares[j];
                }
            }
        }
        join_lines<N>(at, sum, squares, start, partial, maps);
    }
}

// Mean and reciprocal standard deviation of every group of the block's map, one warp per group.
__device__ __forceinline__ void group_moments(const float *in, const double *partial, float *moments, const Maps &maps) {
    int width = maps.channels / maps.groups, lane = threadIdx.x % 32;
    const float *centre = in + OWN_MAP(maps) * maps.positions * maps.channels;
    const double *sums = partial + OWN_MAP(maps) * maps.chunks * 2 * maps.channels;
    double n = maps.positions;
    for (int group = threadIdx.x / 32; group < maps.groups; group += LANES / 32) {
        // Means of channels as distances from one value, lest their squares cancel.
        double origin = centre[group * width], mean = 0.0, spread = 0.0;
        for (int i = lane; i < width; i += 32) {
            int channel = group * width + i;
            double sum = 0.0, squares = 0.0;
#pragma unroll 4
            for (int chunk = 0; chunk < maps.chunks; chunk++) {
                sum += sums[(u64)chunk * 2 * maps.channels + channel];
                squares += sums[(u64)(chunk * 2 + 1) * maps.channels + channel];
            }
            double distance = centre[channel] - origin + sum / n;
            mean += distance;
            spread += (squares - sum * sum / n) / n + distance * distance;
        }
        mean = warp_total(mean) / width;
        double variance = warp_total(spread) / width - mean * mean;
        if (lane == 0) {
            moments[2 * group] = (float)(origin + mean);
            moments[2 * group + 1] = (float)(1.0 / sqrt((variance > 0.0 ? variance : 0.0) + maps.eps));
        }
    }
    __syncthreads();
}

// What a group norm does to the channels of a thread: (x - centre) * scale + shift.
template <int N> struct Affine {
    float centre[N], scale[N], shift[N], deviation[N];

    __device__ __forceinline__ Affine(const float *moments, const float *weight, const float *bias, int channel,
                                      const Maps &maps) {
        int width = maps.channels / maps.groups;
#pragma unroll
        for (int j = 0; j < N; j++) {
            int group = (channel + j) / width;
            centre[j] = moments[2 * group];
            deviation[j] = moments[2 * group + 1];
            scale[j] = weight[channel + j] * deviation[j];
            shift[j] = bias[channel + j];
        }
    }
};

template <int N>
__device__ __forceinline__ void normalize(const float *in, const double *partial, const float *weight, const float *bias,
                                          float *out, float *moments, const Maps &maps) {
    extern __shared__ float of_groups[];
    group_moments(in, partial, of_groups, maps);
    if (OWN_CHUNK(maps) == 0) {
        for (int i = threadIdx.x; i < 2 * maps.groups; i += LANES) moments[OWN_MAP(maps) * 2 * maps.groups + i] = of_groups[i];
    }
    Layout at(maps, N);
    if (at.line >= at.lines) return;
    for (int channel = at.lane * N; channel < maps.channels; channel += at.lanes * N) {
        Affine<N> how(of_groups, weight, bias, channel, maps);
#pragma unroll 4
        for (int row = at.first + at.line; row < at.end; row += at.lines) {
            u64 place = at.base + (u64)row * maps.channels + channel;
            Pack<N> pack = read_pack<N>(in + place);
#pragma unroll
            for (int j = 0; j < N; j++) {
                float h = (pack.x[j] - how.centre[j]) * how.scale[j] + how.shift[j];
                pack.x[j] = maps.silu ? h * sigmoid(h) : h;
            }
            write_pack(out + place, pack);
        }
    }
}

// The gradient at the output of the norm proper, from that at the output of the SiLU that may follow.
template <int N>
__device__ __forceinline__ void through_silu(Pack<N> &grad, const Pack<N> &x, const Affine<N> &how, const Maps &maps) {
    if (!maps.silu) return;
#pragma unroll
    for (int j = 0; j < N; j++) {
        float h = (x.x[j] - how.centre[j]) * how.scale[j] + how.shift[j], s = sigmoid(h);
        grad.x[j] *= s * (1.0f + h * (1.0f - s));
    }
}

// Per chunk and channel what the gradients of weight and bias sum up: those of the output, times the normalised x, and
// alone.
template <int N>
__device__ __forceinline__ void gradient_sums(const float *in, const float *grad, const float *weight, const float *bias,
                                              const float *moments, double *partial, const Maps &maps) {
    Layout at(maps, N);
    const float *of_groups = moments + OWN_MAP(maps) * 2 * maps.groups;
    for (int start = 0; start < maps.channels; start += at.lanes * N) {
        int channel = start + at.lane * N;
        double projected[N] = {}, plain[N] = {};
        if (at.line < at.lines && channel < maps.channels) {
            Affine<N> how(of_groups, weight, bias, channel, maps);
            for (int row = at.first + at.line; row < at.end;) {
                float run_projected[N] = {}, run_plain[N] = {};
#pragma unroll 4
                for (int i = 0; i < RUN && row < at.end; i++, row += at.lines) {
                    u64 place = at.base + (u64)row * maps.channels + channel;
                    Pack<N> x = read_pack<N>(in + place), g = read_pack<N>(grad + place);
                    through_silu(g, x, how, maps);
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        run_plain[j] += g.x[j];
                        run_projected[j] += g.x[j] * (x.x[j] - how.centre[j]);
                    }
                }
#pragma unroll
                for (int j = 0; j < N; j++) {
                    plain[j] += run_plain[j];
                    projected[j] += (double)run_projected[j] * how.deviation[j];
                }
            }
        }
        join_lines<N>(at, projected, plain, start, partial, maps);
    }
}

// dx = (g w - mean(g w) - n mean(g w n)) / deviation with the normalised n, and means over the group.
template <int N>
__device__ __forceinline__ void input_gradient(const float *in, const float *grad, const float *weight, const float *bias,
                                               const float *moments, const double *partial, float *dx, const Maps &maps) {
    extern __shared__ float of_groups[];
    int width = maps.channels / maps.groups, lane = threadIdx.x % 32;
    const float *own = moments + OWN_MAP(maps) * 2 * maps.groups;
    const double *sums = partial + OWN_MAP(maps) * maps.chunks * 2 * maps.channels;
    for (int group = threadIdx.x / 32; group < maps.groups; group += LANES / 32) {
        double plain = 0.0, projected = 0.0;
        for (int i = lane; i < width; i += 32) {
            int channel = group * width + i;
            double p = 0.0, q = 0.0;
#pragma unroll 4
            for (int chunk = 0; chunk < maps.chunks; chunk++) {
                q += sums[(u64)chunk * 2 * maps.channels + channel];
                p += sums[(u64)(chunk * 2 + 1) * maps.channels + channel];
            }
            plain += p * weight[channel];
            projected += q * weight[channel];
        }
        double scale = own[2 * group + 1], n = (double)maps.positions * width;
        plain = warp_total(plain) / n;
        projected = warp_total(projected) / n;
        if (lane == 0) {
            of_groups[2 * group] = (float)(-scale * plain);
            of_groups[2 * group + 1] = (float)(-scale * scale * projected);
        }
    }
    __syncthreads();
    Layout at(maps, N);
    if (at.line >= at.lines) return;
    for (int channel = at.lane * N; channel < maps.channels; channel += at.lanes * N) {
        Affine<N> how(own, weight, bias, channel, maps);
        float constant[N], slope[N];
#pragma unroll
        for (int j = 0; j < N; j++) {
            constant[j] = of_groups[2 * ((channel + j) / width)];
            slope[j] = of_groups[2 * ((channel + j) / width) + 1];
        }
#pragma unroll 4
        for (int row = at.first + at.line; row < at.end; row += at.lines) {
            u64 place = at.base + (u64)row * maps.channels + channel;
            Pack<N> x = read_pack<N>(in + place), g = read_pack<N>(grad + place);
            through_silu(g, x, how, maps);
#pragma unroll
            for (int j = 0; j < N; j++)
                g.x[j] = g.x[j] * how.scale[j] + ((x.x[j] - how.centre[j]) * slope[j] + constant[j]);
            write_pack(dx + place, g);
        }
    }
}

// Each kernel twice: by quads, where the number of channels is a multiple of 4, and by single numbers.
#define GROUP_NORM(suffix, n)                                                                                     \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        group_norm_moments##suffix(const float *in, double *partial, Maps maps) {                                 \
        moment_sums<n>(in, partial, maps);                                                                        \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        group_norm_forward##suffix(const float *in, const double *partial, const float *weight, const float *bias, \
                                   float *out, float *moments, Maps maps) {                                       \
        normalize<n>(in, partial, weight, bias, out, moments, maps);                                              \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        group_norm_sums##suffix(const float *in, const float *grad, const float *weight, const float *bias,       \
                                const float *moments, double *partial, Maps maps) {                               \
        gradient_sums<n>(in, grad, weight, bias, moments, partial, maps);                                         \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        group_norm_backward##suffix(const float *in, const float *grad, const float *weight, const float *bias,   \
                                    const float *moments, const double *partial, float *dx, Maps maps) {          \
        input_gradient<n>(in, grad, weight, bias, moments, partial, dx, maps);                                    \
    }

GROUP_NORM(_single, 1)
GROUP_NORM(_quads, 4)

// A row that a warp keeps in registers, COUNT numbers a lane.
template <int COUNT>
__device__ __forceinline__ void read_row(const float *row, int width, float (&x)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        int k = threadIdx.x % 32 + 32 * i;
        x[i] = k < width ? row[k] : 0.0f;
    }
}

#define EACH_KEPT(i, k, width)                                                                                    \
    _Pragma("unroll") for (int i = 0, k = threadIdx.x % 32; i < COUNT; i++, k += 32) if (k < width)

// A warp per row.
#define EACH_WARP_ROW(row, rows)                                                                                  \
    for (u64 row = (u64)blockIdx.x * (LANES / 32) + threadIdx.x / 32; row < (rows); row += (u64)gridDim.x * (LANES / 32))

// Layer norm of rows of up to 32 * COUNT numbers, each read once. `moments` gets each row's mean and reciprocal standard
// deviation.
template <int COUNT>
__device__ __forceinline__ void layer_norm(const float *in, const float *weight, const float *bias, float *out,
                                           float *moments, u64 rows, int width, float eps, int centred) {
    EACH_WARP_ROW(row, rows) {
        float x[COUNT], sum = 0.0f, squares = 0.0f, centre = centred ? in[row * width] : 0.0f;
        read_row<COUNT>(in + row * width, width, x);
        EACH_KEPT(i, k, width) {
            x[i] -= centre;
            sum += x[i];
        }
        float mean = centred ? warp_total(sum) / width : 0.0f;
        EACH_KEPT(i, k, width) {
            x[i] -= mean;
            squares += x[i] * x[i];
        }
        float scale = 1.0f / sqrtf(warp_total(squares) / width + eps);
        EACH_KEPT(i, k, width) out[row * width + k] = x[i] * scale * weight[k] + bias[k];
        if (threadIdx.x % 32 == 0) {
            moments[2 * row] = centre + mean;
            moments[2 * row + 1] = scale;
        }
    }
}

// The gradient of the input.
template <int COUNT>
__device__ __forceinline__ void layer_norm_input(const float *in, const float *moments, const float *weight,
                                                 const float *grad, float *dx, u64 rows, int width, int centred) {
    EACH_WARP_ROW(row, rows) {
        float x[COUNT], g[COUNT], plain = 0.0f, projected = 0.0f;
        read_row<COUNT>(in + row * width, width, x);
        read_row<COUNT>(grad + row * width, width, g);
        float mean = moments[2 * row], scale = moments[2 * row + 1];
        EACH_KEPT(i, k, width) {
            x[i] = (x[i] - mean) * scale;
            g[i] *= weight[k];
            plain += g[i];
            projected += g[i] * x[i];
        }
        plain = centred ? warp_total(plain) / width : 0.0f;
        projected = warp_total(projected) / width;
        EACH_KEPT(i, k, width) dx[row * width + k] = scale * (g[i] - plain - x[i] * projected);
    }
}

#define LAYER_NORM(count)                                                                                         \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        layer_norm_forward_##count(const float *in, const float *weight, const float *bias, float *out,           \
                                   float *moments, u64 rows, u64 width, float eps, int centred) {                 \
        layer_norm<count>(in, weight, bias, out, moments, rows, width, eps, centred);                             \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        layer_norm_backward_##count(const float *in, const float *moments, const float *weight, const float *grad, \
                                    float *dx, u64 rows, u64 width, int centred) {                                \
        layer_norm_input<count>(in, moments, weight, grad, dx, rows, width, centred);                             \
    }

LAYER_NORM(4)
LAYER_NORM(16)
LAYER_NORM(32)

// The same for longer rows, one block per row.
extern "C" __global__ void layer_norm_forward_wide(const float *in, const float *weight, const float *bias, float *out,
                                                   float *moments, u64 rows, u64 width, float eps, int centred) {
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const float *x = in + row * width;
        double sum = 0.0, squares = 0.0;
        for (u64 k = threadIdx.x; k < width; k += LANES) sum += x[k];
        float mean = centred ? (float)(block_sum(sum) / width) : 0.0f;
        for (u64 k = threadIdx.x; k < width; k += LANES) squares += (x[k] - mean) * (x[k] - mean);
        float scale = (float)(1.0 / sqrt(block_sum(squares) / width + eps));
        for (u64 k = threadIdx.x; k < width; k += LANES) out[row * width + k] = (x[k] - mean) * scale * weight[k] + bias[k];
        if (threadIdx.x == 0) {
            moments[2 * row] = mean;
            moments[2 * row + 1] = scale;
        }
    }
}

extern "C" __global__ void layer_norm_backward_wide(const float *in, const float *moments, const float *weight,
                                                    const float *grad, float *dx, u64 rows, u64 width, int centred) {
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const float *x = in + row * width, *g = grad + row * width;
        float mean = moments[2 * row], scale = moments[2 * row + 1];
        double plain = 0.0, projected = 0.0;
        for (u64 k = threadIdx.x; k < width; k += LANES) {
            plain += g[k] * weight[k];
            projected += g[k] * weight[k] * ((x[k] - mean) * scale);
        }
        float a = centred ? (float)(block_sum(plain) / width) : 0.0f, b = (float)(block_sum(projected) / width);
        for (u64 k = threadIdx.x; k < width; k += LANES)
            dx[row * width + k] = scale * (g[k] * weight[k] - a - (x[k] - mean) * scale * b);
    }
}

// Per piece of the rows (blockIdx.y) and column what the gradients of weight and bias sum up: [pieces][2][width].
// A block takes 32 columns.
extern "C" __global__ void layer_norm_sums(const float *in, const float *moments, const float *grad, double *partial,
                                           u64 rows, u64 width, u64 piece) {
    __shared__ double sums[2][LANES];
    u64 column = (u64)blockIdx.x * 32 + threadIdx.x % 32, start = blockIdx.y * piece;
    u64 end = rows - start < piece ? rows : start + piece;
    double projected = 0.0, plain = 0.0;
    if (column < width) {
#pragma unroll 4
        for (u64 row = start + threadIdx.x / 32; row < end; row += LANES / 32) {
            float g = grad[row * width + column];
            plain += g;
            projected += g * ((in[row * width + column] - moments[2 * row]) * moments[2 * row + 1]);
        }
    }
    sums[0][threadIdx.x] = projected;
    sums[1][threadIdx.x] = plain;
    __syncthreads();
    if (threadIdx.x < 64) {
        double sum = 0.0;
        for (int line = 0; line < LANES / 32; line++) sum += sums[threadIdx.x / 32][line * 32 + threadIdx.x % 32];
        if (column < width) partial[(blockIdx.y * 2 + threadIdx.x / 32) * width + column] = sum;
    }
}

#undef RUN
#undef OWN_MAP
#undef OWN_CHUNK
#undef EACH_KEPT
#undef EACH_WARP_ROW
