"""Writes the grids of ggml's IQ types, as the `gguf` package from PyPI (pip install gguf numpy) has them, one file
each: an entry is eight numbers of two bits (IQ1, IQ2) or four of four bits (IQ3), low bits first, which index the
values that grids.rs names."""

from pathlib import Path

import gguf

# File, type, and the values that its numbers stand for, which grids.rs repeats.
GRIDS = {
    "iq2_xxs": (gguf.quants.IQ2_XXS, (8, 25, 43)),
    "iq2_xs": (gguf.quants.IQ2_XS, (8, 25, 43)),
    "iq2_s": (gguf.quants.IQ2_S, (8, 25, 43)),
    "iq3_xxs": (gguf.quants.IQ3_XXS, (4, 12, 20, 28, 36, 44, 52, 62)),
    "iq3_s": (gguf.quants.IQ3_S, (1, 3, 5, 7, 9, 11, 13, 15)),
    "iq1": (gguf.quants.IQ1_S, (-1, 0, 1)),
}


def main() -> None:
    for name, (ty, values) in GRIDS.items():
        assert ty.grid_map == values
        (Path(__file__).parent / f"{name}.bin").write_bytes(bytes.fromhex(ty.grid_hex.decode()))


if __name__ == "__main__":
    main()
