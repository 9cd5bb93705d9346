// Convolutions of maps [B, H, W, C] as matrix products of which the left operand, the patches, is gathered tile by tile
// into shared memory (conv_tiles.cu) and never written (implicit GEMM).
//
// One description covers a convolution, the gradient of its input, and both for a map that is doubled first. Per axis:
// the pixels that are written fall into `phases`, pixel a + phases * k being k-th of phase a; all pixels of a phase see
// the same taps; tap t reads pixel k * stride + first + t * step, and multiplies by a slab of the packed weight,
// [slabs][inputs][outputs].
//
// - A convolution has one phase, and a slab for each place in its kernel.
// - The gradient of its input scatters (`scatter`): a stride s gives s phases, and each sees every s-th place.
// - Convolving a doubled map, pixels of one parity see two pixels of the small map, with the weights of the places that
//   fall onto the same one added up: two phases of two taps, four slabs an axis. The gradient of the small map is a
//   convolution of stride 2 with these four.

struct ConvAxis {
    int read, written;  // sizes of both maps
    int phases, stride, first, taps, scatter;
};

struct Conv {
    ConvAxis y, x;
    int slabs, slabs_x;  // of all, and of one row of them
    int batch, inputs, outputs;
    int padded;  // columns of the packed weight: outputs, rounded up to whole tiles
};

// One phase of an axis.
struct Phase {
    int index, count;  // which, and how many pixels it has
    int first, step, taps, slab, slab_step;
};

__device__ __forceinline__ Phase phase_of(const ConvAxis &axis, int index) {
    Phase phase;
    phase.index = index;
    phase.count = (axis.written - index + axis.phases - 1) / axis.phases;
    if (axis.scatter) {
        int at = index + axis.first;
        phase.slab = at % axis.phases;
        phase.slab_step = axis.phases;
        phase.first = at / axis.phases;
        phase.step = -1;
        phase.taps = (axis.taps - phase.slab + axis.phases - 1) / axis.phases;
    } else {
        phase.slab = index * axis.taps;
        phase.slab_step = 1;
        phase.first = index + axis.first;
        phase.step = 1;
        phase.taps = axis.taps;
    }
    return phase;
}

__device__ __forceinline__ int slab_of(const Conv &conv, const Phase &y, const Phase &x, int tap_y, int tap_x) {
    return (y.slab + tap_y * y.slab_step) * conv.slabs_x + x.slab + tap_x * x.slab_step;
}

// Marks a pixel far outside of any map.
#define NOWHERE (-(1 << 30))

// Steps through taps and channels, channels fastest.
struct Cursor {
    int channel, tap_y, tap_x;

    __device__ __forceinline__ void skip(int n, int channels, int taps_x) {
        channel += n;
        while (channel >= channels) {
            channel -= channels;
            if (++tap_x == taps_x) {
                tap_x = 0;
                tap_y++;
            }
        }
    }
};

// out = patches of `in` times the packed weight, plus the bias if there is one. A block makes a tile of ROWS pixels by
// COLUMNS channels; blockIdx.y is the phase. Where that gives few blocks, the sum is cut into pieces of `piece` numbers, a
// multiple of DEPTH (blockIdx.z), each with an output of its own after the other. QUADS: `inputs` is a multiple of 4.
template <int ROWS, int COLUMNS, bool QUADS>
__device__ __forceinline__ void convolve(const float *in, const float *weight, const float *bias, float *out,
                                         const Conv &conv, int piece) {
    constexpr int WIDE = QUADS ? 4 : 1, ACROSS = DEPTH / WIDE, DOWN = LANES / ACROSS, LOADS = ROWS / DOWN;
    constexpr int RIGHT_ACROSS = COLUMNS / 4, SUMS = ROWS * COLUMNS / LANES;
    // As quads, which sets the alignment.
    __shared__ float4 left_quads[2][ROWS * LEFT_STRIDE / 4], right_quads[2][WORDS * ROW_STRIDE(COLUMNS) / 4];
    __shared__ int written[ROWS];
    Phase y = phase_of(conv.y, blockIdx.y / conv.x.phases), x = phase_of(conv.x, blockIdx.y % conv.x.phases);
    int positions = conv.batch * y.count * x.count, column_tiles = conv.padded / COLUMNS;
    int first_row = blockIdx.x / column_tiles * ROWS, first_column = blockIdx.x % column_tiles * COLUMNS;
    if (first_row >= positions) return;

    if (threadIdx.x < ROWS) {
        int row = first_row + threadIdx.x, pixel = -1;
        if (row < positions) {
            int k_x = row % x.count, k_y = row / x.count % y.count, image = row / x.count / y.count;
            pixel = (image * conv.y.written + y.index + k_y * conv.y.phases) * conv.x.written + x.index +
                    k_x * conv.x.phases;
        }
        written[threadIdx.x] = pixel;
    }

    // The rows of which this thread gathers patches: the image, and the pixel that the first tap reads.
    int image_at[LOADS], y_at[LOADS], x_at[LOADS];
    int left_column = threadIdx.x % ACROSS * WIDE, left_row = threadIdx.x / ACROSS;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        int row = first_row + left_row + i * DOWN;
        image_at[i] = row / x.count / y.count * conv.y.read * conv.x.read;
        y_at[i] = row < positions ? row / x.count % y.count * conv.y.stride + y.first : NOWHERE;
        x_at[i] = row % x.count * conv.x.stride + x.first;
    }
    int right_row = threadIdx.x / RIGHT_ACROSS, right_column = threadIdx.x % RIGHT_ACROSS * 4;
    bool loads_right = threadIdx.x < WORDS * RIGHT_ACROSS;

    int first = blockIdx.z * piece, depth = y.taps * x.taps * conv.inputs - first;
    int steps = ((depth < piece ? depth : piece) + DEPTH - 1) / DEPTH;
    Cursor left_at = {0, 0, 0}, right_at = {0, 0, 0};
    if (steps > 0) {
        left_at.skip(first + left_column, conv.inputs, x.taps);
        right_at.skip(first + right_row * PER_WORD, conv.inputs, x.taps);
    }
    float4 left_next[LOADS], right_next[PER_WORD];

    auto fetch = [&]() {
        bool live = left_at.tap_y < y.taps;
        int down = left_at.tap_y * y.step, across = left_at.tap_x * x.step;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            int v = y_at[i] + down, u = x_at[i] + across;
            bool inside = live && v >= 0 && v < conv.y.read && u >= 0 && u < conv.x.read;
            left_next[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (inside) {
                const float *from = in + (u64)(image_at[i] + v * conv.x.read + u) * conv.inputs + left_at.channel;
                if (QUADS) {
                    left_next[i] = *(const float4 *)from;
                } else {
                    left_next[i].x = *from;
                }
            }
        }
        left_at.skip(DEPTH, conv.inputs, x.taps);
        if (loads_right) {
            // A whole word of each column: with bf16, two rows of the weight, which may lie in two taps.
            Cursor at = right_at;
#pragma unroll
            for (int part = 0; part < PER_WORD; part++) {
                if (part > 0) at.skip(1, conv.inputs, x.taps);
                right_next[part] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (at.tap_y < y.taps) {
                    u64 row = (u64)slab_of(conv, y, x, at.tap_y, at.tap_x) * conv.inputs + at.channel;
                    right_next[part] = *(const float4 *)(weight + row * conv.padded + first_column + right_column);
                }
            }
            right_at.skip(DEPTH, conv.inputs, x.taps);
        }
    };
    auto store = [&](int buffer) {
        TileWord *left = (TileWord *)left_quads[buffer], *right = (TileWord *)right_quads[buffer];
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            store_along<QUADS>(left + (left_row + i * DOWN) * LEFT_STRIDE, left_column, left_next[i]);
        if (loads_right) store_across<true>(right + right_row * ROW_STRIDE(COLUMNS) + right_column, right_next);
    };

    float sums[SUMS];
#pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] = 0.0f;
    if (steps > 0) {
        fetch();
        store(0);
    }
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        // The next tiles are on their way from memory while these are multiplied.
        if (step + 1 < steps) fetch();
        multiply_tiles<ROWS, COLUMNS, false>((const TileWord *)left_quads[step % 2],
                                             (const TileWord *)right_quads[step % 2], sums);
        if (step + 1 < steps) store((step + 1) % 2);
        __syncthreads();
    }

    out += (u64)blockIdx.z * conv.batch * conv.y.written * conv.x.written * conv.outputs;
#pragma unroll
    for (int i = 0; i < SUMS; i += SIDE) {
        int row, column;
        place_of<ROWS, COLUMNS>(i, row, column);
        column += first_column;
        if (written[row] < 0) continue;
        float side[SIDE];
#pragma unroll
        for (int j = 0; j < SIDE; j++)
            side[j] = sums[i + j] + (bias && column + j < conv.outputs ? bias[column + j] : 0.0f);
        write_side(out + (u64)written[row] * conv.outputs, column, conv.outputs, side);
    }
}

// The gradient of the packed weight: patches of `in`, transposed, times `grad`, the gradient of the map that the
// convolution writes. A block makes a tile of ROWS places and input channels by COLUMNS output channels, over a piece of
// the positions (blockIdx.y) of a phase (blockIdx.z): partial[piece][slab][input][output]. QUADS: both numbers of
// channels are multiples of 4.
template <int ROWS, int COLUMNS, bool QUADS>
__device__ __forceinline__ void convolve_weight(const float *in, const float *grad, float *partial, const Conv &conv,
                                                int piece) {
    constexpr int WIDE = QUADS ? 4 : 1, SUMS = ROWS * COLUMNS / LANES;
    constexpr int LEFT_ACROSS = ROWS / WIDE, LEFT_DOWN = LANES / LEFT_ACROSS, LEFT_LOADS = WORDS / LEFT_DOWN;
    constexpr int RIGHT_ACROSS = COLUMNS / WIDE;
    constexpr int RIGHT_DOWN = LANES / RIGHT_ACROSS < WORDS ? LANES / RIGHT_ACROSS : WORDS;
    constexpr int RIGHT_LOADS = WORDS / RIGHT_DOWN;
    __shared__ float4 left_quads[2][WORDS * ROW_STRIDE(ROWS) / 4], right_quads[2][WORDS * ROW_STRIDE(COLUMNS) / 4];
    // Of a run of positions: the image and pixel read without a tap's share, and the pixel written.
    __shared__ int image_at[LANES], y_at[LANES], x_at[LANES], written[LANES];
    Phase y = phase_of(conv.y, blockIdx.z / conv.x.phases), x = phase_of(conv.x, blockIdx.z % conv.x.phases);
    int column_tiles = (conv.outputs + COLUMNS - 1) / COLUMNS, places = y.taps * x.taps * conv.inputs;
    int first_row = blockIdx.x / column_tiles * ROWS, first_column = blockIdx.x % column_tiles * COLUMNS;
    if (first_row >= places) return;

    int left_column = threadIdx.x % LEFT_ACROSS * WIDE, left_row = threadIdx.x / LEFT_ACROSS;
    int place = first_row + left_column, tap = place / conv.inputs, channel = place % conv.inputs;
    bool live = place < places;
    int down = live ? y.first + tap / x.taps * y.step : 0, across = live ? x.first + tap % x.taps * x.step : 0;
    int right_column = threadIdx.x % RIGHT_ACROSS * WIDE, right_row = threadIdx.x / RIGHT_ACROSS;
    bool loads_right = right_row < RIGHT_DOWN, live_right = first_column + right_column < conv.outputs;
    // A thread loads whole words: with bf16, from two positions that follow each other, so that it can pair them.
    float4 left_next[LEFT_LOADS][PER_WORD], right_next[RIGHT_LOADS][PER_WORD];

    auto fetch = [&](int start) {
#pragma unroll
        for (int i = 0; i < LEFT_LOADS * PER_WORD; i++) {
            int position = start + (left_row + i / PER_WORD * LEFT_DOWN) * PER_WORD + i % PER_WORD;
            int v = y_at[position] + down, u = x_at[position] + across;
            float4 &next = left_next[i / PER_WORD][i % PER_WORD];
            next = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (live && v >= 0 && v < conv.y.read && u >= 0 && u < conv.x.read) {
                const float *from = in + (u64)(image_at[position] + v * conv.x.read + u) * conv.inputs + channel;
                if (QUADS) {
                    next = *(const float4 *)from;
                } else {
                    next.x = *from;
                }
            }
        }
        if (loads_right) {
#pragma unroll
            for (int i = 0; i < RIGHT_LOADS * PER_WORD; i++) {
                int pixel = written[start + (right_row + i / PER_WORD * RIGHT_DOWN) * PER_WORD + i % PER_WORD];
                float4 &next = right_next[i / PER_WORD][i % PER_WORD];
                next = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (live_right && pixel >= 0) {
                    const float *from = grad + (u64)pixel * conv.outputs + first_column + right_column;
                    if (QUADS) {
                        next = *(const float4 *)from;
                    } else {
                        next.x = *from;
                    }
                }
            }
        }
    };
    auto store = [&](int buffer) {
        TileWord *left = (TileWord *)left_quads[buffer], *right = (TileWord *)right_quads[buffer];
#pragma unroll
        for (int i = 0; i < LEFT_LOADS; i++)
            store_across<QUADS>(left + (left_row + i * LEFT_DOWN) * ROW_STRIDE(ROWS) + left_column, left_next[i]);
        if (loads_right) {
#pragma unroll
            for (int i = 0; i < RIGHT_LOADS; i++)
                store_across<QUADS>(right + (right_row + i * RIGHT_DOWN) * ROW_STRIDE(COLUMNS) + right_column,
                                    right_next[i]);
        }
    };

    float sums[SUMS];
#pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] = 0.0f;
    int positions = conv.batch * y.count * x.count, start = blockIdx.y * piece;
    int end = positions - start < piece ? positions : start + piece;
    for (; start < end; start += LANES) {
        int position = start + threadIdx.x, rest = position / x.count;
        int k_x = position % x.count, k_y = rest % y.count, image = rest / y.count;
        image_at[threadIdx.x] = image * conv.y.read * conv.x.read;
        y_at[threadIdx.x] = position < end ? k_y * conv.y.stride : NOWHERE;
        x_at[threadIdx.x] = k_x * conv.x.stride;
        written[threadIdx.x] = position < end ? (image * conv.y.written + y.index + k_y * conv.y.phases) *
                                                        conv.x.written + x.index + k_x * conv.x.phases
                                              : -1;
        __syncthreads();
        int left = end - start < LANES ? end - start : LANES, steps = (left + DEPTH - 1) / DEPTH;
        fetch(0);
        store(0);
        __syncthreads();
        for (int step = 0; step < steps; step++) {
            if (step + 1 < steps) fetch((step + 1) * DEPTH);
            multiply_tiles<ROWS, COLUMNS, true>((const TileWord *)left_quads[step % 2],
                                                (const TileWord *)right_quads[step % 2], sums);
            if (step + 1 < steps) store((step + 1) % 2);
            __syncthreads();
        }
    }

#pragma unroll
    for (int i = 0; i < SUMS; i += SIDE) {
        int row, column;
        place_of<ROWS, COLUMNS>(i, row, column);
        row += first_row;
        if (row >= places) continue;
        int tap = row / conv.inputs, slab = slab_of(conv, y, x, tap / x.taps, tap % x.taps);
        u64 to = ((u64)blockIdx.y * conv.slabs + slab) * conv.inputs + row % conv.inputs;
        write_side(partial + to * conv.outputs, first_column + column, conv.outputs, sums + i);
    }
}

#define CONVOLVE(name, rows, columns, quads)                                                                      \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        conv_##name(const float *in, const float *weight, const float *bias, float *out, Conv conv, int piece) {  \
        convolve<rows, columns, quads>(in, weight, bias, out, conv, piece);                                       \
    }

CONVOLVE(128x64, 128, 64, true)
CONVOLVE(64x64, 64, 64, true)
CONVOLVE(128x32, 128, 32, true)
CONVOLVE(64x32, 64, 32, true)
CONVOLVE(single_64x64, 64, 64, false)
CONVOLVE(single_64x32, 64, 32, false)

// The sum of the pieces of a convolution, plus the bias if there is one.
extern "C" __global__ void conv_join(const float *partial, const float *bias, float *out, u64 n, u64 outputs, int pieces) {
    EACH(i, n) {
        float sum = bias ? bias[i % outputs] : 0.0f;
        for (int piece = 0; piece < pieces; piece++) sum += partial[piece * n + i];
        out[i] = sum;
    }
}

#define CONVOLVE_WEIGHT(name, rows, columns, quads)                                                               \
    extern "C" __global__ void __launch_bounds__(LANES)                                                           \
        conv_weight_##name(const float *in, const float *grad, float *partial, Conv conv, int piece) {            \
        convolve_weight<rows, columns, quads>(in, grad, partial, conv, piece);                                    \
    }

CONVOLVE_WEIGHT(128x64, 128, 64, true)
CONVOLVE_WEIGHT(128x32, 128, 32, true)
CONVOLVE_WEIGHT(single_64x64, 64, 64, false)
CONVOLVE_WEIGHT(single_64x32, 64, 32, false)

// Of a kernel of 3 over a doubled map: the places 0, 1 and 2 that slab 0, 1, 2 or 3 adds up (first and last of a run),
// and the two slabs that hold place 0, 1 or 2. Slabs 0 and 1 are the taps of even pixels, 2 and 3 those of odd ones.
__device__ __forceinline__ int nibble(unsigned table, int index) { return table >> (4 * index) & 15; }
#define FIRST_PLACE(slab) nibble(0x2010u, slab)
#define LAST_PLACE(slab) nibble(0x2120u, slab)
#define FIRST_SLAB(place) nibble(0x110u, place)
#define LAST_SLAB(place) nibble(0x322u, place)
// The slabs in the order in which a pixel of the small map meets the rows around it.
#define SLAB_AROUND(tap) nibble(0x0213u, tap)

// Packs a weight [outputs][inputs][height][width] as [slabs][inputs][padded], or, transposed, as
// [slabs][outputs][padded] for the gradient of the input.
extern "C" __global__ void conv_pack(const float *weight, float *packed, u64 n, int outputs, int inputs, int height,
                                     int width, int padded, int transposed, int doubled) {
    int depth = transposed ? outputs : inputs, columns = transposed ? inputs : outputs;
    EACH(i, n) {
        int column = i % padded, k = i / padded % depth, slab = i / padded / depth;
        float sum = 0.0f;
        if (column < columns) {
            const float *of_pair = weight + (u64)(transposed ? k * inputs + column : column * inputs + k) * height * width;
            if (doubled) {
                int y = slab / 4, x = slab % 4;
                if (transposed) {
                    y = SLAB_AROUND(y);
                    x = SLAB_AROUND(x);
                }
                for (int r = FIRST_PLACE(y); r <= LAST_PLACE(y); r++)
                    for (int s = FIRST_PLACE(x); s <= LAST_PLACE(x); s++) sum += of_pair[3 * r + s];
            } else {
                sum = of_pair[slab];
            }
        }
        packed[i] = sum;
    }
}

// The gradient of a weight [outputs][inputs][height][width] from that of the packed one, in pieces, which `lines` threads
// share for each number.
extern "C" __global__ void conv_weight_join(const float *partial, float *out, u64 n, int outputs, int inputs, int height,
                                            int width, int pieces, int doubled, unsigned lines) {
    __shared__ double sums[LANES];
    u64 slab_size = (u64)inputs * outputs, piece_size = slab_size * (doubled ? 16 : height * width);
    unsigned across = LANES / lines, lane = threadIdx.x % across, line = threadIdx.x / across;
    for (u64 first = (u64)blockIdx.x * across; first < n; first += (u64)gridDim.x * across) {
        // Neighbouring threads read neighbouring outputs.
        u64 i = first + lane;
        int output = i % outputs, input = i / outputs % inputs, place = i / slab_size;
        int r = place / width, s = place % width;
        double sum = 0.0;
        if (i < n) {
            int rows[2] = {r, r}, columns[2] = {s, s}, each = doubled ? 2 : 1, per_row = doubled ? 4 : width;
            if (doubled) {
                rows[0] = FIRST_SLAB(r);
                rows[1] = LAST_SLAB(r);
                columns[0] = FIRST_SLAB(s);
                columns[1] = LAST_SLAB(s);
            }
            for (int a = 0; a < each; a++) {
                for (int b = 0; b < each; b++) {
                    u64 slab = rows[a] * per_row + columns[b];
                    const float *from = partial + slab * slab_size + (u64)input * outputs + output;
#pragma unroll 4
                    for (int piece = line; piece < pieces; piece += lines) sum += from[piece * piece_size];
                }
            }
        }
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (line == 0 && i < n) {
            for (unsigned other = 1; other < lines; other++) sum += sums[other * across + lane];
            out[(u64)(output * inputs + input) * height * width + place] = (float)sum;
        }
        __syncthreads();
    }
}

#undef PER_WORD
#undef WORDS
#undef DEPTH
#undef SIDE
#undef LEFT_STRIDE
#undef ROW_STRIDE
#undef NOWHERE
