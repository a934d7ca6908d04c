"""The other side of compare.py: llama.cpp through `llama-cpp-python`'s low-level interface.

    python llama.py quantize IN.gguf OUT.gguf THREADS
    python llama.py bench MODEL.gguf THREADS
    python llama.py decode MODEL.gguf THREADS TOKENS
"""

import ctypes
import json
import sys
import time

import llama_cpp as llama

PROMPT, GENERATE = 256, 64


@llama.llama_log_callback
def quiet(_level, _text, _data):
    pass


def quantize(source: str, out: str, threads: int) -> None:
    params = llama.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = llama.LLAMA_FTYPE_MOSTLY_Q4_K_S
    params.pure = False
    assert llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)) == 0


def open_model(path: str, threads: int):
    """A context, and the tokens of a prompt."""
    model_params = llama.llama_model_default_params()
    model = llama.llama_model_load_from_file(path.encode(), model_params)
    context_params = llama.llama_context_default_params()
    context_params.n_ctx = 512
    context_params.n_batch = context_params.n_ubatch = PROMPT
    context_params.n_threads = context_params.n_threads_batch = threads
    context = llama.llama_init_from_model(model, context_params)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    tokens = [((i * 2654435761) % 2**32 >> 7) % vocabulary for i in range(PROMPT)]
    return context, (llama.llama_token * PROMPT)(*tokens)


def decode_one_by_one(context, array, first: int, count: int) -> None:
    one = ctypes.sizeof(llama.llama_token)
    for i in range(first, first + count):
        token = ctypes.cast(ctypes.addressof(array) + i * one, ctypes.POINTER(llama.llama_token))
        assert llama.llama_decode(context, llama.llama_batch_get_one(token, 1)) == 0


def decode(path: str, threads: int, count: int) -> None:
    """Tokens per second of `count` tokens, after a third as many that warm up."""
    context, array = open_model(path, threads)
    warm = count // 3
    decode_one_by_one(context, array, 0, warm)
    start = time.monotonic()
    decode_one_by_one(context, array, warm, count)
    print(json.dumps([{"test": f"tg{count}", "avg_ts": count / (time.monotonic() - start)}]))


def bench(path: str, threads: int) -> None:
    context, array = open_model(path, threads)

    def clear() -> None:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)

    def prompt() -> None:
        assert llama.llama_decode(context, llama.llama_batch_get_one(array, PROMPT)) == 0

    def generate() -> None:
        decode_one_by_one(context, array, 0, GENERATE)

    rows = []
    for test, count, work in ((f"pp{PROMPT}", PROMPT, prompt), (f"tg{GENERATE}", GENERATE, generate)):
        clear()
        work()  # warms up
        clear()
        start = time.monotonic()
        work()
        rows.append({"test": test, "avg_ts": count / (time.monotonic() - start)})
    print(json.dumps(rows))


if __name__ == "__main__":
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    if sys.argv[1] == "quantize":
        quantize(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1] == "decode":
        decode(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        bench(sys.argv[2], int(sys.argv[3]))
