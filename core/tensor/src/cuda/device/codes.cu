// Codes.

// Copies every from_stride-th code to every to_stride-th place.
extern "C" __global__ void copy_codes(const unsigned *from, unsigned *to, u64 n, u64 from_stride, u64 from_start,
                                      u64 to_stride, u64 to_start) {
    EACH(i, n) { to[i * to_stride + to_start] = from[i * from_stride + from_start]; }
}

// Numbers as codes up to `last`; NaN is 0.
extern "C" __global__ void codes_of_numbers(const float *numbers, unsigned *codes, u64 n, float last) {
    EACH(i, n) { codes[i] = (unsigned)fminf(fmaxf(numbers[i], 0.0f), last); }
}
