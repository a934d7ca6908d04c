"""Writes the vectors of ggml's block types with the `gguf` package from PyPI (pip install gguf==0.19.0 safetensors
numpy). tests/tests/ggml_blocks.rs compares bit for bit.

blocks.safetensors: for each type `NAME.bytes`, random blocks, and `NAME.values`, what the package decodes them to.
extremes.safetensors: the same for rows named in `extremes`, where values may be infinite or not numbers.
grids.safetensors: for each type with a grid, blocks that name every entry of it once, whose values are integers.

The package has no code for Q1_0 and Q2_0: `decode` has it, after `dequantize_row_q1_0` and `dequantize_row_q2_0` of
llama.cpp's ggml-quants.c."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

Q2_0 = 42  # a number that the package does not name yet

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
    Type.IQ2_XXS: [0],
    Type.IQ2_XS: [0],
    Type.IQ2_S: [0],
    Type.IQ3_XXS: [0],
    Type.IQ3_S: [0],
    Type.IQ1_S: [0],
    Type.IQ1_M: [],  # in four parts: see `set_scale`
    Type.TQ1_0: [52],
    Type.TQ2_0: [64],
    Type.NVFP4: [],
    Type.Q1_0: [0],
    Q2_0: [0],
}
ROWS, BLOCKS = 8, 3


def name(ty) -> str:
    return "q2_0" if ty == Q2_0 else ty.name.lower()


def size(ty) -> int:
    return 18 if ty == Q2_0 else gguf.GGML_QUANT_SIZES[ty][1]


def decode(blocks: np.ndarray, ty) -> np.ndarray:
    """Rows of blocks as values."""
    if ty not in (Type.Q1_0, Q2_0):
        return gguf.quants.dequantize(blocks, ty)
    rows = blocks.reshape(len(blocks), -1, size(ty))
    d = rows[..., :2].copy().view(np.float16).astype(np.float32)
    bits = 1 if ty == Type.Q1_0 else 2
    codes = rows[..., 2:, None] >> np.arange(0, 8, bits, dtype=np.uint8) & (2**bits - 1)
    codes = codes.reshape(*rows.shape[:2], -1).astype(np.float32)
    values = 2 * codes - 1 if ty == Type.Q1_0 else codes - 1
    return (d * values).reshape(len(blocks), -1)


def set_scale(blocks: np.ndarray, ty, values) -> None:
    """Sets the half-precision scales of `blocks`, `[..., bytes]`."""
    halves = np.broadcast_to(np.asarray(values, dtype=np.float16), blocks.shape[:-1])
    for at in SCALES[ty]:
        blocks[..., at : at + 2] = halves[..., None].copy().view(np.uint8)
    if ty == Type.IQ1_M:
        bits = halves.copy().view(np.uint16)
        for part in range(4):
            at = 49 + 2 * part
            blocks[..., at] = blocks[..., at] & 15 | (bits >> 4 * part & 15).astype(np.uint8) << 4


def random_blocks(random, ty) -> np.ndarray:
    blocks = random.integers(0, 256, (ROWS, BLOCKS, size(ty)), dtype=np.uint8)
    if ty == Type.MXFP4:  # exponents from the least to ones whose values are finite
        blocks[:, :, 0] = random.integers(0, 250, (ROWS, BLOCKS))
        blocks[0, :, 0] = [0, 1, 2]
    for at in SCALES[ty]:
        values = random.normal(0, 0.01, (ROWS, BLOCKS)).astype(np.float16)
        blocks[:, :, at : at + 2] = values[..., None].view(np.uint8)
    if ty == Type.IQ1_M:
        set_scale(blocks, ty, random.normal(0, 0.01, (ROWS, BLOCKS)))
    return blocks.reshape(ROWS, -1)


def extremes(random, ty) -> np.ndarray:
    """Rows of one block."""
    blocks = random.integers(0, 256, (8, size(ty)), dtype=np.uint8)
    blocks[0] = 0
    blocks[1:4] = 255  # with f16 scales that are not numbers in row 1; finite ones from row 2 on
    for row, scale in ((2, 65504), (3, 6e-8), (4, -65504), (5, -6e-8), (6, np.inf), (7, -0.0)):
        set_scale(blocks[row], ty, scale)
    if ty == Type.NVFP4:  # zero, the least, the least normal and the largest scale; no number, and an eighth bit
        blocks[4, :4], blocks[5, :4], blocks[6, :4] = (0, 1, 8, 126), (127, 255, 128, 254), 127
    return blocks


def grid(ty) -> np.ndarray:
    """A row of blocks: every entry of the grid, with a scale that makes values integers."""
    entries, weights = getattr(gguf.quants, ty.name).grid_shape
    of_block = 256 // weights
    index = np.arange(entries, dtype=np.uint16).reshape(-1, of_block)
    blocks = np.zeros((len(index), size(ty)), dtype=np.uint8)
    low, high = (index & 255).astype(np.uint8), index >> 8
    scale = {Type.IQ3_S: 1, Type.IQ3_XXS: 4}.get(ty, 8)
    match ty:
        case Type.IQ2_XXS:
            blocks[:, 2:].reshape(-1, 8, 8)[:, :, :4] = low.reshape(-1, 8, 4)
        case Type.IQ2_XS:
            blocks[:, 2:66] = index.view(np.uint8)
        case Type.IQ2_S:
            blocks[:, 2:34] = low
            blocks[:, 66:74] = (high.reshape(-1, 8, 4) << np.arange(0, 8, 2)).sum(axis=-1)
        case Type.IQ3_XXS:
            blocks[:, 2:66] = low
        case Type.IQ3_S:
            blocks[:, 2:66] = low
            blocks[:, 66:74] = (high.reshape(-1, 8, 8) << np.arange(8)).sum(axis=-1)
        case Type.IQ1_S:
            blocks[:, 2:34] = low
            words = (high.reshape(-1, 8, 4) << np.arange(0, 12, 3)).sum(axis=-1).astype(np.uint16)
            blocks[:, 34:50] = words.view(np.uint8)
        case Type.IQ1_M:
            blocks[:, :32] = low
            blocks[:, 32:48] = (high.reshape(-1, 16, 2) << np.array([0, 4])).sum(axis=-1)
    set_scale(blocks, ty, scale)
    return blocks.reshape(1, -1)


def main() -> None:
    folder = Path(__file__).parent
    random = np.random.default_rng(11)
    blocks = {}
    for ty in SCALES:
        rows = random_blocks(random, ty)
        blocks[f"{name(ty)}.bytes"] = rows
        blocks[f"{name(ty)}.values"] = decode(rows, ty)
    save_file(blocks, folder / "blocks.safetensors")

    random = np.random.default_rng(12)
    blocks = {}
    with np.errstate(all="ignore"):
        for ty in SCALES:
            rows = extremes(random, ty)
            blocks[f"{name(ty)}.bytes"] = rows
            blocks[f"{name(ty)}.values"] = decode(rows, ty)
    save_file(blocks, folder / "extremes.safetensors")

    blocks = {}
    for ty in (ty for ty in SCALES if name(ty).startswith(("iq1", "iq2", "iq3"))):
        rows = grid(ty)
        values = decode(rows, ty)
        assert (values == values.astype(np.int8)).all()
        shape = getattr(gguf.quants, ty.name).grid_shape
        assert len(np.unique(values.reshape(shape), axis=0)) == shape[0], "every entry once"
        blocks[f"{name(ty)}.bytes"] = rows
        blocks[f"{name(ty)}.values"] = values.astype(np.int8)
    save_file(blocks, folder / "grids.safetensors")


if __name__ == "__main__":
    main()
