// Matrix products as cuBLAS stores them, columns first: C = alpha op(A) op(B) + beta C, summed in f32, operands rounded as
// tensor cores read them.
#include "emulation.h"
#include <vector>

namespace {
enum Type { F32 = 0, F64 = 1, BF16 = 14, TF32 = -1 };
enum Compute { FAST_TF32 = 77 };

size_t width(int type) { return type == F64 ? 8 : type == BF16 ? 2 : 4; }

template <class T> T number(const void *from, size_t at, int type) {
    if (type == F64) return (T)((const double *)from)[at];
    if (type == F32) return (T)((const float *)from)[at];
    unsigned bits;
    if (type == TF32) {
        memcpy(&bits, (const float *)from + at, 4);
        bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    } else {
        bits = (unsigned)((const unsigned short *)from)[at] << 16;
    }
    float value;
    memcpy(&value, &bits, 4);
    return (T)value;
}

// op(X) as rows of columns: to[i * columns + j].
template <class T> std::vector<T> gather(const void *from, int type, bool transposed, size_t rows, size_t columns, size_t ld) {
    std::vector<T> to(rows * columns);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            to[i * columns + j] = number<T>(from, transposed ? i * ld + j : j * ld + i, type);
    return to;
}

template <class T>
void product(bool ta, bool tb, int m, int n, int k, T alpha, const void *a, int a_type, int lda, const void *b,
             int b_type, int ldb, T beta, T *c, int ldc) {
    std::vector<T> left = gather<T>(a, a_type, !ta, k, m, lda), right = gather<T>(b, b_type, tb, k, n, ldb), sum(m);
    for (int j = 0; j < n; j++) {
        sum.assign((size_t)m, 0);
        for (int l = 0; l < k; l++) {
            T by = right[(size_t)l * n + j];
            const T *column = &left[(size_t)l * m];
            for (int i = 0; i < m; i++) sum[i] += column[i] * by;
        }
        for (int i = 0; i < m; i++) {
            T &to = c[(size_t)j * ldc + i];
            to = alpha * sum[i] + (beta != 0 ? beta * to : 0);
        }
    }
}

bool fits(int ta, int tb, int m, int n, int k, int lda, int ldb, int ldc) {
    return m >= 0 && n >= 0 && k >= 0 && lda >= (ta ? k : m) && ldb >= (tb ? n : k) && ldc >= m && lda > 0 && ldb > 0 &&
           ldc > 0;
}
int mode = 0;
} // namespace

extern "C" {
int cublasCreate_v2(void **handle) { return *handle = (void *)1, 0; }
int cublasDestroy_v2(void *) { return 0; }
int cublasSetStream_v2(void *, void *) { return 0; }
int cublasSetWorkspace_v2(void *, void *, size_t) { return 0; }
int cublasSetMathMode(void *, int wanted) { return mode = wanted, 0; }
int cublasGetMathMode(void *, int *is) { return *is = mode, 0; }

int cublasGemmStridedBatchedEx(void *, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int a_type,
                               int lda, long long a_step, const void *b, int b_type, int ldb, long long b_step,
                               const void *beta, void *c, int c_type, int ldc, long long c_step, int batch, int compute,
                               int) {
    trace("product %d x (%d, %d, %d) of types %d, %d\n", batch, m, n, k, a_type, b_type);
    if (!fits(ta, tb, m, n, k, lda, ldb, ldc) || (c_type != F32 && c_type != F64) || batch < 0) return 7;
    if (compute == FAST_TF32 && a_type == F32) a_type = b_type = TF32;
    for (int i = 0; i < batch; i++) {
        const char *left = (const char *)a + i * a_step * (long long)width(a_type);
        const char *right = (const char *)b + i * b_step * (long long)width(b_type);
        char *out = (char *)c + i * c_step * (long long)width(c_type);
        if (c_type == F64)
            product<double>(ta, tb, m, n, k, *(const double *)alpha, left, a_type, lda, right, b_type, ldb,
                            *(const double *)beta, (double *)out, ldc);
        else
            product<float>(ta, tb, m, n, k, *(const float *)alpha, left, a_type, lda, right, b_type, ldb,
                           *(const float *)beta, (float *)out, ldc);
    }
    return 0;
}
int cublasGemmEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int a_type, int lda,
                 const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc, int compute, int how) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type,
                                      ldc, 0, 1, compute, how);
}
#define PRODUCTS(T, letter, type)                                                                                        \
    int cublas##letter##gemmStridedBatched(void *handle, int ta, int tb, int m, int n, int k, const T *alpha, const T *a, \
                                           int lda, long long a_step, const T *b, int ldb, long long b_step,             \
                                           const T *beta, T *c, int ldc, long long c_step, int batch) {                  \
        return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, type, lda, a_step, b, type, ldb, b_step,     \
                                          beta, c, type, ldc, c_step, batch, 0, 0);                                      \
    }                                                                                                                    \
    int cublas##letter##gemm_v2(void *handle, int ta, int tb, int m, int n, int k, const T *alpha, const T *a, int lda,   \
                                const T *b, int ldb, const T *beta, T *c, int ldc) {                                     \
        return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, type, lda, b, type, ldb, beta, c, type, ldc, 0, 0);        \
    }                                                                                                                    \
    int cublas##letter##gemv_v2(void *handle, int ta, int m, int n, const T *alpha, const T *a, int lda, const T *x,      \
                                int step_x, const T *beta, T *y, int step_y) {                                           \
        if (step_x != 1 || step_y != 1) return 15;                                                                       \
        return cublas##letter##gemm_v2(handle, ta, 0, ta ? n : m, 1, ta ? m : n, alpha, a, lda, x, ta ? m : n, beta, y,   \
                                       ta ? n : m);                                                                      \
    }
PRODUCTS(float, S, F32)
PRODUCTS(double, D, F64)
}
