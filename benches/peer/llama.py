"""The other side of compare.py: llama.cpp through `llama-cpp-python`'s low-level interface.

    python llama.py quantize IN.gguf OUT.gguf THREADS
    python llama.py bench MODEL.gguf THREADS [DEPTH [SEQUENCES...]]
    python llama.py decode MODEL.gguf THREADS TOKENS
    python llama.py first MODEL.gguf THREADS TEXT
"""

import ctypes
import json
import sys
import time

import llama_cpp as llama

import work
from work import GENERATE, PROMPT


@llama.llama_log_callback
def quiet(_level, _text, _data):
    pass


def quantize(source: str, out: str, threads: int) -> None:
    params = llama.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = llama.LLAMA_FTYPE_MOSTLY_Q4_K_S
    params.pure = False
    assert llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)) == 0


def open_model(path: str, threads: int, positions: int = 512, sequences: int = 1, mapped: bool = False):
    """A context, and as many tokens as it has positions per sequence. `mapped`: weights stay in the mapped file, and are
    not copied into an order that is faster."""
    model_params = llama.llama_model_default_params()
    model_params.use_extra_bufts = not mapped
    model = llama.llama_model_load_from_file(path.encode(), model_params)
    context_params = llama.llama_context_default_params()
    context_params.n_ctx = positions * sequences
    context_params.n_seq_max = sequences
    context_params.kv_unified = False
    context_params.n_batch = context_params.n_ubatch = PROMPT
    context_params.n_threads = context_params.n_threads_batch = threads
    context = llama.llama_init_from_model(model, context_params)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    return context, (llama.llama_token * positions)(*work.tokens(positions, vocabulary))


def decode_one_by_one(context, array, first: int, count: int) -> None:
    one = ctypes.sizeof(llama.llama_token)
    for i in range(first, first + count):
        token = ctypes.cast(ctypes.addressof(array) + i * one, ctypes.POINTER(llama.llama_token))
        assert llama.llama_decode(context, llama.llama_batch_get_one(token, 1)) == 0


def decode(path: str, threads: int, count: int) -> None:
    """Tokens per second of `count` tokens, after a third as many that warm up."""
    context, array = open_model(path, threads, mapped=True)
    warm = count // 3
    decode_one_by_one(context, array, 0, warm)
    start = time.monotonic()
    decode_one_by_one(context, array, warm, count)
    print(json.dumps([{"test": f"tg{count}", "avg_ts": count / (time.monotonic() - start)}]))


def first(path: str, threads: int, text: str) -> None:
    """Seconds from opening the file to the first token after a text. Python and its libraries are already loaded."""
    start = time.monotonic()
    context, array = open_model(path, threads, mapped=True)
    model = llama.llama_get_model(context)
    vocabulary = llama.llama_model_get_vocab(model)
    written = text.encode()
    count = llama.llama_tokenize(vocabulary, written, len(written), array, len(array), True, True)
    assert count > 0
    assert llama.llama_decode(context, part(array, 0, count)) == 0
    greedy = llama.llama_sampler_init_greedy()
    llama.llama_sampler_sample(greedy, context, -1)
    print(json.dumps([{"tokens": count, "seconds": time.monotonic() - start}]))


def part(array, first: int, count: int):
    """A batch of the tokens from `first`, which continue the first sequence."""
    at = ctypes.addressof(array) + first * ctypes.sizeof(llama.llama_token)
    return llama.llama_batch_get_one(ctypes.cast(at, ctypes.POINTER(llama.llama_token)), count)


def side_by_side(context, array, sequences: int, count: int) -> None:
    """Decodes `count` tokens in each sequence, one of each at a time."""
    batch = llama.llama_batch_init(sequences, 0, 1)
    batch.n_tokens = sequences
    for position in range(count):
        for sequence in range(sequences):
            batch.token[sequence] = array[(position + sequence * count) % len(array)]
            batch.pos[sequence] = position
            batch.n_seq_id[sequence] = 1
            batch.seq_id[sequence][0] = sequence
            batch.logits[sequence] = 1
        assert llama.llama_decode(context, batch) == 0
    llama.llama_batch_free(batch)


def bench(path: str, threads: int, depth: int, sequences: list[int]) -> None:
    """A prompt and decode after `depth` positions, and decode of several sequences, in vaquita's form."""
    context, array = open_model(path, threads, depth + 2 * PROMPT)
    memory = llama.llama_get_memory(context)

    def decode_at(first: int, count: int) -> None:
        assert llama.llama_decode(context, part(array, first, count)) == 0

    def back() -> None:
        assert llama.llama_memory_seq_rm(memory, 0, depth, -1)

    rows = work.prompt_and_decode(depth, decode_at, back)
    llama.llama_free(context)
    for count in sequences:
        context, array = open_model(path, threads, 512, count)

        def clear() -> None:
            llama.llama_memory_clear(llama.llama_get_memory(context), True)

        def several() -> None:
            side_by_side(context, array, count, GENERATE)

        rows.append({"test": f"tg{GENERATE} x {count}", "avg_ts": work.rate(count * GENERATE, clear, several)})
        llama.llama_free(context)
    print(json.dumps(rows))


if __name__ == "__main__":
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    if sys.argv[1] == "quantize":
        quantize(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1] == "decode":
        decode(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1] == "first":
        first(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        depth, *sequences = [int(word) for word in sys.argv[4:]] or [0]
        bench(sys.argv[2], int(sys.argv[3]), depth, sequences)
