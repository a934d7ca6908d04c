"""Writes the vectors of ik_llama.cpp's block types as that program decodes them; tests/tests/ggml_blocks.rs compares bit for bit.

    python make_ik_blocks.py CHECKOUT

CHECKOUT is ik_llama.cpp's source (github.com/ikawrakow/ik_llama.cpp, here at 8337e4c of 2026-08-15), of which one file is
compiled, with g++ on x86-64: `iqk_quantize.cpp`, whose `dequantize_row_TYPE` decode a row. That of IQ6_K evaluates a polynomial,
while all products of that program, and its decoder for GPUs, use a table of the nearest integers; so this kernel of
`ggml-cuda/convert.cu` is compiled for the CPU.

ik.safetensors: for each type `NAME.bytes`, rows of random blocks, and `NAME.values`, what they decode to.
ik_extremes.safetensors: the same for rows of zeros, of ones, and with scales at the limits. Needs numpy and safetensors."""

import ctypes
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# Bytes of a block of 256 weights, and of the scale: in half precision at the start of a block, or at the start of a row.
BLOCK_SCALE, ROW_HALF, ROW_SINGLE = "<f2 of a block", "<f2 of a row", "<f4 of a row"
TYPES = {
    "iq2_k": (76, BLOCK_SCALE),
    "iq3_k": (110, BLOCK_SCALE),
    "iq4_k": (144, BLOCK_SCALE),
    "iq5_k": (176, BLOCK_SCALE),
    "iq2_ks": (70, ROW_HALF),
    "iq3_ks": (102, ROW_HALF),
    "iq4_ks": (136, ROW_SINGLE),
    "iq4_kss": (128, ROW_SINGLE),
    "iq5_ks": (168, ROW_SINGLE),
    "iq6_k": (212, BLOCK_SCALE),
}
BLOCKS = 3

# What the decoders use from other files: values of half precision, which are filled in, and the end of the program.
REST = """extern "C" {
float ggml_table_f32_f16[1 << 16];
void ggml_abort(const char *, int, const char *, ...) { __builtin_trap(); }
}
"""

# What the kernel uses from CUDA. One thread after the other decodes a block, at its place in the row.
CUDA = """#pragma once
#include <cstdint>
#include <type_traits>
#define __device__
#define __global__
extern "C" float ggml_table_f32_f16[1 << 16];
struct half { uint16_t bits; operator float() const { return ggml_table_f32_f16[bits]; } };
struct half2 { half x, y; };
struct nv_bfloat16 {};
inline nv_bfloat16 __float2bfloat16(float) { return {}; }
static struct { int x; } blockIdx, threadIdx;
"""
KERNEL = """#define GGML_COMMON_DECL_CUDA
#define GGML_COMMON_IMPL_CUDA
#include "ggml-common.h"
%s
extern "C" void table_row_iq6_k(const void * x, float * y, int64_t k) {
    for (blockIdx.x = 0; blockIdx.x < k / QK_K; ++blockIdx.x) {
        for (threadIdx.x = 0; threadIdx.x < 32; ++threadIdx.x) dequantize_block_iq6_k<float>(x, y);
    }
}
"""


def rows_of(name: str, blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rows from `blocks`, `[rows, blocks, bytes]`, and a scale for each."""
    kind = TYPES[name][1]
    with np.errstate(over="ignore"):
        scales = scales.astype("<f4" if kind == ROW_SINGLE else "<f2")
    if kind == BLOCK_SCALE:
        blocks[:, :, :2] = scales[:, :, None].view(np.uint8)
        return blocks.reshape(len(blocks), -1)
    header = scales[:, :1].copy().view(np.uint8)
    return np.concatenate([header, blocks.reshape(len(blocks), -1)], axis=1)


def decode(library: ctypes.CDLL, name: str, rows: np.ndarray, columns: int) -> np.ndarray:
    # In C++'s form of the name: void f(block_TYPE const*, float*, long).
    function = f"dequantize_row_{name}"
    found = getattr(library, f"table_row_{name}", None) or getattr(library, function, None) or getattr(library, f"_Z{len(function)}{function}PK{len(name) + 6}block_{name}Pfl")
    values = np.empty((len(rows), columns), dtype=np.float32)
    for row, out in zip(rows, values):
        row = np.ascontiguousarray(row)
        found(row.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(columns))
    return values


def main() -> None:
    ggml = Path(sys.argv[1]) / "ggml"
    with tempfile.TemporaryDirectory() as folder:
        names = ("rest.cpp", "kernel.cpp", "cuda_fp16.h", "exported", "libik.so")
        (rest, kernel, cuda, exported, out) = (Path(folder) / name for name in names)
        rest.write_text(REST)
        cuda.write_text(CUDA)
        found = re.search(r"template[^{}]*dequantize_block_iq6_k.*?\n}\n", (ggml / "src/ggml-cuda/convert.cu").read_text(), re.S)
        kernel.write_text(KERNEL % found[0])
        exported.write_text("{ global: *dequantize_row_*; table_row_*; ggml_table_f32_f16; local: *; };")
        options = ["-std=c++17", "-O1", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", "-ffunction-sections"]
        options += ["-fdata-sections", "-Wl,--gc-sections", f"-Wl,--version-script={exported}"]
        folders = [f"-I{ggml / name}" for name in ("include", "src", "src/iqk")] + [f"-I{folder}"]
        subprocess.run(["g++", *options, *folders, ggml / "src/iqk/iqk_quantize.cpp", kernel, rest, "-o", out], check=True)
        library = ctypes.CDLL(str(out))
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    ctypes.memmove((ctypes.c_float * len(halves)).in_dll(library, "ggml_table_f32_f16"), halves.tobytes(), halves.nbytes)
    here = Path(__file__).parent
    random, found = np.random.default_rng(13), {}
    for name, (size, _) in TYPES.items():
        blocks = random.integers(0, 256, (8, BLOCKS, size), dtype=np.uint8)
        rows = rows_of(name, blocks, random.normal(0, 0.01, (8, BLOCKS)))
        found[f"{name}.bytes"], found[f"{name}.values"] = rows, decode(library, name, rows, 256 * BLOCKS)
    save_file(found, here / "ik.safetensors")

    random, found = np.random.default_rng(14), {}
    for name, (size, kind) in TYPES.items():
        blocks = random.integers(0, 256, (8, 1, size), dtype=np.uint8)
        blocks[0], blocks[1:4] = 0, 255
        largest, least = (3e38, 1e-45) if kind == ROW_SINGLE else (65504, 6e-8)
        scales = np.array([0, np.nan, largest, least, -largest, -least, np.inf, -0.0])[:, None]
        rows = rows_of(name, blocks, scales)
        found[f"{name}.bytes"], found[f"{name}.values"] = rows, decode(library, name, rows, 256)
    save_file(found, here / "ik_extremes.safetensors")


if __name__ == "__main__":
    main()
