// Codes.

// Copies every from_stride-th code to every to_stride-th place.
extern "C" __global__ void copy_codes(const unsigned *from, unsigned *to, u64 n, u64 from_stride, u64 from_start,
                                      u64 to_stride, u64 to_start) {
    EACH(i, n) { to[i * to_stride + to_start] = from[i * from_stride + from_start]; }
}
