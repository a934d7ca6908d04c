"""Writes quantized.safetensors: `values`, rows of numbers, and for each type the bytes that ggml's own quantizers give for
them without an importance matrix. quantize/src/encoders/ggml.rs gives the same.

    python3 make_quantized.py LIBGGML_BASE

LIBGGML_BASE is ggml's library `libggml-base.so`, built without fused multiplications (0.13.1 was used; pip install
numpy safetensors)."""

import ctypes
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TYPES = {"q4_0": 2, "q8_0": 8, "q4_k": 12, "q6_k": 14}
COLS = 512


def values() -> np.ndarray:
    random = np.random.default_rng(21)
    x = random.normal(size=(14, COLS)).astype(np.float32)
    x[2] *= np.exp(2 * random.normal(size=COLS)).astype(np.float32)  # heavy tails
    x[3] *= 1e-4
    x[4] *= 1e-9  # scales below half precision
    x[5] = np.abs(x[5])
    x[6] = -np.abs(x[6])
    x[7] = 0
    x[8, :256] = 0  # a block of zeros
    x[9, :48] = 0  # groups of zeros
    x[10] = 1.5
    x[11] = np.round(x[11])
    x[12, ::32] *= 50  # one large weight in each group
    x[13] *= 100
    return x


def quantized(library: ctypes.CDLL, ty: int, x: np.ndarray) -> np.ndarray:
    out = np.zeros(4 * x.size, dtype=np.uint8)
    pointer = lambda array: array.ctypes.data_as(ctypes.c_void_p)
    rows, cols = (ctypes.c_int64(size) for size in x.shape)
    length = library.ggml_quantize_chunk(ctypes.c_int(ty), pointer(x), pointer(out), ctypes.c_int64(0), rows, cols, None)
    return out[:length].copy()


library = ctypes.CDLL(sys.argv[1])
library.ggml_quantize_chunk.restype = ctypes.c_size_t
x = np.ascontiguousarray(values())
tensors = {"values": x} | {name: quantized(library, ty, x) for name, ty in TYPES.items()}
save_file(tensors, Path(__file__).with_name("quantized.safetensors"))
