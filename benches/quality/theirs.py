"""llama.cpp's side of quality.py, through `llama-cpp-python`'s low-level interface."""

import ctypes
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np

TYPES = {
    "Q2_K": llama.LLAMA_FTYPE_MOSTLY_Q2_K,
    "IQ2_XS": llama.LLAMA_FTYPE_MOSTLY_IQ2_XS,
    "IQ2_S": llama.LLAMA_FTYPE_MOSTLY_IQ2_S,
    "IQ3_XXS": llama.LLAMA_FTYPE_MOSTLY_IQ3_XXS,
    "IQ3_S": llama.LLAMA_FTYPE_MOSTLY_IQ3_S,
    "Q3_K_M": llama.LLAMA_FTYPE_MOSTLY_Q3_K_M,
    "IQ4_XS": llama.LLAMA_FTYPE_MOSTLY_IQ4_XS,
    "Q4_K_M": llama.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q5_K_M": llama.LLAMA_FTYPE_MOSTLY_Q5_K_M,
}


@llama.llama_log_callback
def quiet(_level, _text, _data):
    pass


llama.llama_log_set(quiet, ctypes.c_void_p(0))


def importance_matrix(statistics: dict[str, np.ndarray], source: Path) -> dict[str, np.ndarray]:
    """Mean squares of every tensor's inputs under the tensor's name, as llama.cpp's imatrix has them: experts, and heads,
    one after the other. `statistics` are the tensors of a calibration file of ours."""
    parts = {"ffn_gate_exps": "input", "ffn_up_exps": "input", "ffn_down_exps": "hidden"}
    matrix = {}
    for tensor in gguf.GGUFReader(source).tensors:
        block, _, part = tensor.name.removesuffix(".weight").rpartition(".")
        if part in parts:
            found = statistics.get(f"layer.{block.removeprefix('blk.')}.{parts[part]}")
        else:
            found = statistics.get(f"matrix.{tensor.name}")
            if found is not None and len(tensor.shape) == 3:
                found = np.tile(found, int(tensor.shape[2]))
        if found is not None:
            matrix[tensor.name] = np.ascontiguousarray(found.reshape(-1), np.float32)
    return matrix


def quantize(source: Path, out: Path, ftype: int, matrix: dict[str, np.ndarray], threads: int) -> None:
    entries = (llama.llama_model_imatrix_data * (len(matrix) + 1))()
    for entry, (name, values) in zip(entries, matrix.items()):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    params = llama.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.imatrix = threads, ftype, entries
    assert llama.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) == 0, out


def types_of(file: Path) -> str:
    """The tensors of a file by type."""
    counts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(file).tensors:
        if tensor.name.endswith(".weight") and not tensor.name.endswith("norm.weight"):
            counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


class Model:
    """A loaded file."""

    def __init__(self, path: Path, threads: int):
        params = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, path
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 2048
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))

    def logits(self, tokens: list[int]) -> np.ndarray:
        """After each token: `[tokens, vocabulary]`."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, at, 1
            batch.seq_id[at][0], batch.logits[at] = 0, True
        assert llama.llama_decode(self.context, batch) == 0
        llama.llama_batch_free(batch)
        values = llama.llama_get_logits(self.context)
        return np.ctypeslib.as_array(values, (len(tokens), self.vocabulary)).astype(np.float64)

    def close(self) -> None:
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)
