"""Writes blocks.safetensors with the `gguf` package from PyPI (pip install gguf safetensors numpy): for each of
ggml's block types that run, `NAME.bytes`, random blocks, and `NAME.values`, what the package decodes them to.
tests/tests/ggml_blocks.rs compares bit for bit."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

# Where the half-precision scales are in a block: all other bytes may be anything.
SCALES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
    Type.MXFP4: [],
}
ROWS, BLOCKS = 8, 3


def main() -> None:
    random = np.random.default_rng(11)
    tensors = {}
    for ty, scales in SCALES.items():
        _, size = gguf.GGML_QUANT_SIZES[ty]
        blocks = random.integers(0, 256, (ROWS, BLOCKS, size), dtype=np.uint8)
        if ty == Type.MXFP4:  # exponents from the least to ones whose values are finite
            blocks[:, :, 0] = random.integers(0, 250, (ROWS, BLOCKS))
            blocks[0, :, 0] = [0, 1, 2]
        for at in scales:
            values = random.normal(0, 0.01, (ROWS, BLOCKS)).astype(np.float16)
            blocks[:, :, at : at + 2] = values[..., None].view(np.uint8)
        blocks = blocks.reshape(ROWS, BLOCKS * size)
        tensors[f"{ty.name.lower()}.bytes"] = blocks
        tensors[f"{ty.name.lower()}.values"] = gguf.quants.dequantize(blocks, ty)
    save_file(tensors, Path(__file__).parent / "blocks.safetensors")


if __name__ == "__main__":
    main()
