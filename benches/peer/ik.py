"""ik_llama.cpp's side of compare.py, through `ik-llama-cpp-python`'s low-level interface.

    python ik.py MODEL.gguf THREADS [DEPTH]

As its users run it: `-mla 3 -fa -fmoe -rtr`. The package's library is compiled for AVX2; IK_LLAMA_CPP_LIB_PATH names
another `libllama.so`, such as one that was compiled for this processor.
"""

import ctypes
import json
import sys

import ik_llama_cpp._ctypes_api as ik

import work

LIBRARY = ik._lib
LIBRARY.llama_batch_get_one.argtypes = [ik.llama_token_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]
LIBRARY.llama_batch_get_one.restype = ik.llama_batch
LIBRARY.llama_kv_cache_seq_rm.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]
LIBRARY.llama_kv_cache_seq_rm.restype = ctypes.c_bool


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def quiet(_level, _text, _data):
    pass


def open_model(path: str, threads: int, positions: int):
    """A context, and as many tokens as it has positions."""
    model_params = ik.llama_model_default_params()
    model_params.mla = 3
    model_params.flash_attn = True
    model_params.repack_tensors = True
    model = ik.llama_model_load_from_file(path.encode(), model_params)
    context_params = ik.llama_context_default_params()
    context_params.n_ctx = positions
    context_params.n_batch = context_params.n_ubatch = work.PROMPT
    context_params.n_threads = context_params.n_threads_batch = threads
    context_params.mla_attn = 3
    context_params.flash_attn = True
    context_params.fused_moe_up_gate = True
    context = ik.llama_init_from_model(model, context_params)
    vocabulary = ik.llama_vocab_n_tokens(ik.llama_model_get_vocab(model))
    return context, (ik.llama_token * positions)(*work.tokens(positions, vocabulary))


def bench(path: str, threads: int, depth: int) -> None:
    context, tokens = open_model(path, threads, depth + 2 * work.PROMPT)

    def decode(first: int, count: int) -> None:
        at = ctypes.addressof(tokens) + first * ctypes.sizeof(ik.llama_token)
        batch = LIBRARY.llama_batch_get_one(ctypes.cast(at, ik.llama_token_p), count, first, 0)
        assert ik.llama_decode(context, batch) == 0

    def back() -> None:
        assert LIBRARY.llama_kv_cache_seq_rm(context, 0, depth, -1)

    print(json.dumps(work.prompt_and_decode(depth, decode, back)))


if __name__ == "__main__":
    LIBRARY.llama_log_set(quiet, None)
    bench(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
