"""A copy of a file whose matrices have random blocks of another type, for speed alone: the types with grids are slow to
make, and llama.cpp asks for statistics before it does.

    python retype.py IN.gguf OUT.gguf TYPE

Matrices whose rows are no whole blocks of the type get Q8_0, vectors stay. Scales give weights the variance 1/columns.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "golden" / "blocks"))
from make_blocks import SCALES, set_scale  # noqa: E402

Q8_0 = gguf.GGMLQuantizationType.Q8_0
SAMPLE = 1000


def random_rows(random: np.random.Generator, ty: gguf.GGMLQuantizationType, shape: list[int]) -> np.ndarray:
    """Rows of random blocks, in the order of numpy's shapes."""
    *rows, columns = shape
    weights, size = gguf.GGML_QUANT_SIZES[ty]
    blocks = random.integers(0, 256, (*rows, columns // weights, size), dtype=np.uint8)
    set_scale(blocks, ty, 1.0)
    some = blocks.reshape(-1, size)[:SAMPLE]
    set_scale(blocks, ty, columns**-0.5 / gguf.quants.dequantize(some, ty).std())
    return blocks.reshape(*rows, -1)


def main() -> None:
    source, out, ty = Path(sys.argv[1]), Path(sys.argv[2]), gguf.GGMLQuantizationType[sys.argv[3].upper()]
    assert ty in SCALES, ty
    reader, random = gguf.GGUFReader(source), np.random.default_rng(7)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind,
                                 field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    kinds = {}
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        if len(shape) == 1 or tensor.tensor_type == gguf.GGMLQuantizationType.F32:
            kinds[tensor.name] = None
            writer.add_tensor_info(tensor.name, shape, tensor.data.dtype, tensor.data.nbytes)
            continue
        kind = Q8_0 if shape[-1] % gguf.GGML_QUANT_SIZES[ty][0] else ty
        kinds[tensor.name] = kind
        bytes_shape = gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(tensor.name, bytes_shape, np.dtype(np.uint8), int(np.prod(bytes_shape)), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        kind = kinds[tensor.name]
        shape = [int(size) for size in reversed(tensor.shape)]
        writer.write_tensor_data(tensor.data if kind is None else random_rows(random, kind, shape))
    writer.close()


if __name__ == "__main__":
    main()
