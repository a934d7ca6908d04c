/* ik_llama.cpp's side of compare.py: a prompt and decode after DEPTH positions, in vaquita's form.
 *
 *     cc -O2 -o ik ik.c -I CHECKOUT/include -I CHECKOUT/ggml/include -L CHECKOUT/build/src -lllama
 *     ./ik MODEL.gguf THREADS DEPTH PROMPT GENERATE
 *
 * As its users run it: `-mla 3 -fa -fmoe -rtr`. The work is that of work.py.
 */
#include <llama.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct llama_context *context;
static llama_token *tokens;

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)level, (void)text, (void)data;
}

static void check(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "ik_llama.cpp: %s failed\n", what);
        exit(1);
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Decodes tokens from position `first`, `together` at a time. */
static void decode(int first, int count, int together) {
    for (int at = first; at < first + count; at += together) {
        int here = first + count - at < together ? first + count - at : together;
        check(llama_decode(context, llama_batch_get_one(tokens + at, here, at, 0)) == 0, "llama_decode");
    }
}

/* Tokens per second after `depth` positions, behind a run that warms up. */
static double rate(int depth, int count, int together) {
    double start = 0;
    for (int run = 0; run < 2; run++) {
        check(llama_kv_cache_seq_rm(context, 0, depth, -1), "llama_kv_cache_seq_rm");
        start = seconds();
        decode(depth, count, together);
    }
    return count / (seconds() - start);
}

int main(int count, char **words) {
    if (count != 6) {
        fprintf(stderr, "usage: %s MODEL.gguf THREADS DEPTH PROMPT GENERATE\n", words[0]);
        return 2;
    }
    int threads = atoi(words[2]), depth = atoi(words[3]), prompt = atoi(words[4]), generate = atoi(words[5]);
    int positions = depth + 2 * prompt;
    llama_log_set(quiet, NULL);
    struct llama_model_params of_model = llama_model_default_params();
    of_model.mla = 3;
    of_model.flash_attn = true;
    of_model.repack_tensors = true;
    struct llama_model *model = llama_model_load_from_file(words[1], of_model);
    check(model != NULL, "llama_model_load_from_file");
    struct llama_context_params of_context = llama_context_default_params();
    of_context.n_ctx = (uint32_t)positions;
    of_context.n_batch = of_context.n_ubatch = (uint32_t)prompt;
    of_context.n_threads = of_context.n_threads_batch = (uint32_t)threads;
    of_context.mla_attn = 3;
    of_context.flash_attn = true;
    of_context.fused_moe_up_gate = true;
    context = llama_init_from_model(model, of_context);
    check(context != NULL, "llama_init_from_model");

    uint32_t vocabulary = (uint32_t)llama_n_vocab(model);
    tokens = malloc((size_t)positions * sizeof *tokens);
    check(tokens != NULL, "malloc");
    for (uint32_t i = 0; i < (uint32_t)positions; i++) {
        tokens[i] = (llama_token)((i * 2654435761u >> 7) % vocabulary);
    }
    decode(0, depth, prompt);
    double prompts = rate(depth, prompt, prompt), generated = rate(depth, generate, 1);
    char at[32] = "";
    if (depth > 0) {
        snprintf(at, sizeof at, " @ d%d", depth);
    }
    printf("[{\"test\": \"pp%d%s\", \"avg_ts\": %f}, {\"test\": \"tg%d%s\", \"avg_ts\": %f}]\n", prompt, at, prompts, generate,
           at, generated);
    return 0;
}
