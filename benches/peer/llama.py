"""The other side of compare.py: llama.cpp through `llama-cpp-python`'s low-level interface.

    python llama.py quantize IN.gguf OUT.gguf THREADS
    python llama.py bench MODEL.gguf THREADS
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


def bench(path: str, threads: int) -> None:
    model_params = llama.llama_model_default_params()
    model = llama.llama_model_load_from_file(path.encode(), model_params)
    context_params = llama.llama_context_default_params()
    context_params.n_ctx = 512
    context_params.n_batch = context_params.n_ubatch = PROMPT
    context_params.n_threads = context_params.n_threads_batch = threads
    context = llama.llama_init_from_model(model, context_params)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    tokens = [((i * 2654435761) % 2**32 >> 7) % vocabulary for i in range(PROMPT)]
    array = (llama.llama_token * PROMPT)(*tokens)
    one = ctypes.sizeof(llama.llama_token)

    def clear() -> None:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)

    def prompt() -> None:
        assert llama.llama_decode(context, llama.llama_batch_get_one(array, PROMPT)) == 0

    def generate() -> None:
        for i in range(GENERATE):
            token = ctypes.cast(ctypes.addressof(array) + i * one, ctypes.POINTER(llama.llama_token))
            assert llama.llama_decode(context, llama.llama_batch_get_one(token, 1)) == 0

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
    else:
        bench(sys.argv[2], int(sys.argv[3]))
