// Codes.

// Copies blocks of `len` codes: n of them in all, whose blocks begin `from_step` and `to_step` codes apart.
extern "C" __global__ void copy_codes(const unsigned *from, unsigned *to, u64 n, u64 len, u64 from_step, u64 from_start,
                                      u64 to_step, u64 to_start) {
    EACH(i, n) {
        u64 block = i / len, at = i % len;
        to[block * to_step + to_start + at] = from[block * from_step + from_start + at];
    }
}

// Numbers as codes up to `last`; NaN is 0.
extern "C" __global__ void codes_of_numbers(const float *numbers, unsigned *codes, u64 n, float last) {
    EACH(i, n) { codes[i] = (unsigned)fminf(fmaxf(numbers[i], 0.0f), last); }
}

// Codes as numbers.
extern "C" __global__ void numbers_of_codes(const unsigned *codes, float *numbers, u64 n) {
    EACH(i, n) { numbers[i] = (float)codes[i]; }
}
