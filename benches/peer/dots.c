/* Decode of each of llama.cpp's block types by one thread: rates at which its dot products read rows of 2,048 weights,
 * beside those of `cargo run --release -p vaquita-benches --bin roofline 1`. Weights take 64 MiB; the fastest of seven runs.
 *
 *     gcc -O2 -o dots benches/peer/dots.c -ldl
 *     LD_LIBRARY_PATH=LIB ./dots LIB/libggml-cpu.so LIB/libggml-base.so
 *
 * LIB is the folder of llama.cpp's libraries: `llama_cpp/lib` in the packages of a Python with llama-cpp-python.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*dot)(int n, float *out, size_t, const void *weights, size_t, const void *activations, size_t, int rows);
struct traits { void *from_float; dot vec_dot; int activations; long rows; };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void *symbol(void *library, const char *name) {
    void *found = library ? dlsym(library, name) : NULL;
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}

int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "usage: %s libggml-cpu.so libggml-base.so\n", words[0]);
        return 2;
    }
    void *cpu = dlopen(words[1], RTLD_NOW | RTLD_GLOBAL), *base = dlopen(words[2], RTLD_NOW | RTLD_GLOBAL);
    const struct traits *(*traits_of)(int) = symbol(cpu, "ggml_get_type_traits_cpu");
    size_t (*row_size)(int, long) = symbol(base, "ggml_row_size");
    const char *(*name)(int) = symbol(base, "ggml_type_name");
    ((void (*)(void))symbol(cpu, "ggml_cpu_init"))();
    const int types[] = {2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 29, 34, 35, 39, 40};
    const int columns = 2048;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        dot product = traits_of(types[t])->vec_dot;
        size_t row = row_size(types[t], columns), rows = (64 << 20) / row;
        unsigned char *weights = malloc(rows * row), *activations = malloc(8 * columns);
        unsigned state = 1;
        /* Bits that make no half-precision scale infinite. */
        for (size_t i = 0; i < rows * row; i++) weights[i] = (state = state * 1664525 + 1013904223) >> 24 & 0x7b;
        memset(activations, 1, 8 * columns);
        double best = 1e9;
        for (int run = 0; run < 7; run++) {
            volatile float sink = 0;
            double start = seconds();
            for (size_t i = 0; i < rows; i++) {
                float out;
                product(columns, &out, 0, weights + i * row, 0, activations, 0, 1);
                sink += out;
            }
            double taken = seconds() - start;
            if (taken < best) best = taken;
        }
        printf("%-8s %6.2f GB/s\n", name(types[t]), (double)(rows * row) / best / 1e9);
        free(weights);
        free(activations);
    }
}
