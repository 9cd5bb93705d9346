// Rows of logits or probabilities, filtered and drawn from: one block per row.

// A number that orders as x does in IEEE 754's total order.
__device__ __forceinline__ unsigned order_of(float x) {
    unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The order of the k-th largest x / temperature of a row, for k from 1 to its width: eight bits at a time, by how many
// numbers share the bits found so far.
__device__ unsigned kth_largest(const float *x, u64 width, float temperature, u64 k) {
    __shared__ unsigned counts[256];
    unsigned found = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        counts[threadIdx.x] = 0;
        __syncthreads();
        for (u64 i = threadIdx.x; i < width; i += LANES) {
            unsigned order = order_of(x[i] / temperature);
            if (shift == 24 || order >> (shift + 8) == found >> (shift + 8))
                atomicAdd(&counts[order >> shift & 255u], 1u);
        }
        __syncthreads();
        // How many are in this digit or a larger one: thread t looks after digit 255 - t.
        u64 total, own = counts[255 - threadIdx.x], up_to = prefix_of_block<u64>(own, total);
        __syncthreads();
        if (up_to >= k && up_to - own < k) {
            counts[0] = 255 - threadIdx.x;
            counts[1] = (unsigned)(k - (up_to - own));
        }
        __syncthreads();
        found |= counts[0] << shift;
        k = counts[1];
    }
    return found;
}

// The least order that top-k keeps.
__device__ __forceinline__ unsigned least_kept(const float *x, u64 width, float temperature, u64 k) {
    if (k >= width) return 0;
    unsigned least = kth_largest(x, width, temperature, k);
    // Zeros of both signs are equal: a bound at the positive one keeps the negative one too.
    return least == order_of(0.0f) ? order_of(-0.0f) : least;
}

// Cuts a row of probabilities to its nucleus, in place, and scales what is left.
__device__ void cut_to_nucleus(float *row, u64 width, float p) {
    // The sum of what is at least `low` reaches p, if any sum does, and that of what is at least `high` does not.
    // Comparisons are in f32, as in the published form, of sums in f64.
    unsigned low = 0, high = 0x7f800001u;
    double above = 0.0;
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        double sum = 0.0;
        for (u64 i = threadIdx.x; i < width; i += LANES)
            if (row[i] > 0.0f && __float_as_uint(row[i]) >= middle) sum += row[i];
        sum = sum_of_block(sum);
        if ((float)sum < p) {
            high = middle;
            above = sum;
        } else {
            low = middle;
        }
    }
    // All larger than this are kept, and as many of those equal to it, by index, as it takes to reach p; the most
    // probable code is kept in any case.
    float last = __uint_as_float(low);
    u64 equal = 0;
    for (u64 i = threadIdx.x; i < width; i += LANES) equal += row[i] == last;
    equal = count_of_block(equal);
    u64 least = equal > 0, wanted = equal;
    while (least < wanted) {
        u64 middle = least + (wanted - least) / 2;
        if ((float)(above + middle * (double)last) < p)
            least = middle + 1;
        else
            wanted = middle;
    }
    double sum = above + wanted * (double)last;
    u64 before = 0;
    for (u64 start = 0; start < width; start += LANES) {
        u64 i = start + threadIdx.x;
        bool ties = i < width && row[i] == last;
        u64 rank = 0;
        if (wanted < equal) {
            u64 total;
            rank = before + prefix_of_block<u64>(ties, total);
            before += total;
        }
        if (i < width) {
            bool kept = row[i] > last || (ties && rank <= wanted);
            // What is no number stays that.
            if (row[i] == row[i]) row[i] = kept ? (float)(row[i] / sum) : 0.0f;
        }
    }
    __syncthreads();
}

// The probabilities that are drawn from: of x / temperature, after top-k and top-p, where these are asked for.
__device__ void probability_row(const float *x, float *row, u64 width, float temperature, u64 top_k, float top_p) {
    unsigned least = least_kept(x, width, temperature, top_k);
    float max = NEVER;
    EACH_COLUMN(k, width) {
        float logit = x[k] / temperature;
        logit = order_of(logit) >= least ? logit : NEVER;
        row[k] = logit;
        max = logit > max ? logit : max;
    }
    max = max_of_block(max);
    double sum = 0.0;
    EACH_COLUMN(k, width) {
        row[k] = expf(row[k] - max);
        sum += row[k];
    }
    float scale = (float)(1.0 / sum_of_block(sum));
    EACH_COLUMN(k, width) row[k] *= scale;
    __syncthreads();
    if (top_p < 1.0f) cut_to_nucleus(row, width, top_p);
}

// The smallest index whose cumulative probability exceeds `uniform`, in every thread; the last possible one where
// rounding leaves none.
__device__ unsigned draw_row(const float *row, u64 width, float uniform) {
    __shared__ unsigned drawn, possible;
    __syncthreads();
    if (threadIdx.x == 0) {
        drawn = 0xffffffffu;
        possible = 0;
    }
    __syncthreads();
    double before = 0.0;
    for (u64 start = 0; start < width; start += 4 * LANES) {
        double own[4], total, sum = 0.0;
        u64 first = start + 4 * threadIdx.x;
        unsigned last = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float p = first + j < width ? row[first + j] : 0.0f;
            if (p > 0.0f) last = (unsigned)(first + j);
            own[j] = p;
            sum += p;
        }
        if (last > 0) atomicMax(&possible, last);
        double at = before + prefix_of_block<double>(sum, total) - sum;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            at += own[j];
            // A code that cannot be is passed over, however sums were rounded.
            if (own[j] > 0.0 && at > (double)uniform) {
                atomicMin(&drawn, (unsigned)(first + j));
                break;
            }
        }
        before += total;
        __syncthreads();
        if (drawn != 0xffffffffu) break;
    }
    return drawn != 0xffffffffu ? drawn : possible;
}

extern "C" __global__ void sample_rows(const float *in, const float *uniforms, float *rows, unsigned *codes, u64 count,
                                       u64 width, float temperature, u64 top_k, float top_p) {
    EACH_ROW(row, count) {
        probability_row(in + row * width, rows + row * width, width, temperature, top_k, top_p);
        unsigned code = draw_row(rows + row * width, width, uniforms[row]);
        if (threadIdx.x == 0) codes[row] = code;
    }
}

extern "C" __global__ void probability_rows(const float *in, float *out, u64 count, u64 width, float temperature,
                                            u64 top_k, float top_p) {
    EACH_ROW(row, count) {
        probability_row(in + row * width, out + row * width, width, temperature, top_k, top_p);
    }
}

extern "C" __global__ void top_k_rows(const float *in, float *out, u64 count, u64 width, u64 top_k) {
    EACH_ROW(row, count) {
        const float *x = in + row * width;
        unsigned least = least_kept(x, width, 1.0f, top_k);
        EACH_COLUMN(k, width)
        out[row * width + k] = order_of(x[k]) >= least ? x[k] : NEVER;
    }
}

extern "C" __global__ void top_p_rows(const float *in, float *out, u64 count, u64 width, float top_p) {
    EACH_ROW(row, count) {
        EACH_COLUMN(k, width) out[row * width + k] = in[row * width + k];
        __syncthreads();
        cut_to_nucleus(out + row * width, width, top_p);
    }
}

extern "C" __global__ void draw_rows(const float *in, const float *uniforms, unsigned *codes, u64 count, u64 width) {
    EACH_ROW(row, count) {
        unsigned code = draw_row(in + row * width, width, uniforms[row]);
        if (threadIdx.x == 0) codes[row] = code;
    }
}
