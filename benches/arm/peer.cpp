// One of ggml's kernels, as often as asked and nothing else: for counting instructions under emulation (count.py), which
// compiles this with ggml's own sources. What it multiplies is zeros: none of these kernels looks.
//
// peer KERNEL ROWS COLS TOKENS REPETITIONS

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
typedef void dot(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int rows);
typedef void packed(int n, float *s, size_t bs, const void *x, const void *y, int tokens, int rows);
dot ggml_vec_dot_q2_K_q8_K, ggml_vec_dot_q3_K_q8_K, ggml_vec_dot_q4_K_q8_K, ggml_vec_dot_q4_0_q8_0, ggml_vec_dot_q8_0_q8_0;
packed ggml_gemv_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x4_q8_0, ggml_gemv_q4_0_4x8_q8_0, ggml_gemm_q4_0_4x8_q8_0;
packed ggml_gemv_q4_K_8x4_q8_K, ggml_gemm_q4_K_8x4_q8_K, ggml_gemv_q4_K_8x8_q8_K, ggml_gemm_q4_K_8x8_q8_K;
packed ggml_gemv_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x4_q8_0, ggml_gemv_q8_0_4x8_q8_0, ggml_gemm_q8_0_4x8_q8_0;

[[noreturn]] void ggml_abort(const char *, int, const char *, ...) { abort(); }
}

// A row's dot products with the tokens, or all tokens with rows that are packed in fours and eights. A group of `per`
// weights takes `bytes`, one of activations `x_bytes`.
struct Kernel {
    const char *name;
    int per, bytes, x_bytes;
    dot *one;
    packed *token, *tokens;
};

static const Kernel kernels[] = {
    {"q2_K", 256, 84, 292, ggml_vec_dot_q2_K_q8_K, nullptr, nullptr},
    {"q3_K", 256, 110, 292, ggml_vec_dot_q3_K_q8_K, nullptr, nullptr},
    {"q4_K", 256, 144, 292, ggml_vec_dot_q4_K_q8_K, nullptr, nullptr},
    {"q4_0", 32, 18, 34, ggml_vec_dot_q4_0_q8_0, nullptr, nullptr},
    {"q8_0", 32, 34, 34, ggml_vec_dot_q8_0_q8_0, nullptr, nullptr},
    {"q4_K_8x4", 256, 144, 292, nullptr, ggml_gemv_q4_K_8x4_q8_K, ggml_gemm_q4_K_8x4_q8_K},
    {"q4_K_8x8", 256, 144, 292, nullptr, ggml_gemv_q4_K_8x8_q8_K, ggml_gemm_q4_K_8x8_q8_K},
    {"q4_0_4x4", 32, 18, 34, nullptr, ggml_gemv_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x4_q8_0},
    {"q4_0_4x8", 32, 18, 34, nullptr, ggml_gemv_q4_0_4x8_q8_0, ggml_gemm_q4_0_4x8_q8_0},
    {"q8_0_4x4", 32, 34, 34, nullptr, ggml_gemv_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x4_q8_0},
    {"q8_0_4x8", 32, 34, 34, nullptr, ggml_gemv_q8_0_4x8_q8_0, ggml_gemm_q8_0_4x8_q8_0},
};

int main(int argc, char **argv) {
    const Kernel *found = nullptr;
    for (const Kernel &kernel : kernels)
        if (argc == 6 && !strcmp(kernel.name, argv[1])) found = &kernel;
    if (!found) return fprintf(stderr, "give KERNEL ROWS COLS TOKENS REPETITIONS\n"), 1;
    const Kernel k = *found;
    int rows = atoi(argv[2]), cols = atoi(argv[3]), tokens = atoi(argv[4]), repetitions = atoi(argv[5]);
    size_t row = size_t(cols / k.per) * k.bytes, x_row = size_t(cols / k.per) * k.x_bytes;
    std::vector<char> w(row * rows), x(x_row * tokens);
    std::vector<float> y(size_t(rows) * tokens);
    for (int i = 0; i < repetitions; i++) {
        if (k.one)
            for (int r = 0; r < rows; r++)
                for (int t = 0; t < tokens; t++)
                    k.one(cols, &y[size_t(t) * rows + r], 0, &w[r * row], 0, &x[t * x_row], 0, 1);
        else
            (tokens == 1 ? k.token : k.tokens)(cols, y.data(), rows, w.data(), x.data(), tokens, rows);
    }
    return 0;
}
