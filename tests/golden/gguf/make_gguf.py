"""Writes small.gguf with the `gguf` package from PyPI (pip install gguf numpy): every type of
metadata, arrays, and tensors of a plain, a half and a block type. runtime/tests/gguf_reference.rs
says what must be read from it."""

from pathlib import Path

import gguf
import numpy as np

OUT = Path(__file__).parent / "small.gguf"
ALIGNMENT = 64


def main() -> None:
    writer = gguf.GGUFWriter(OUT, "deepseek2")
    writer.add_custom_alignment(ALIGNMENT)
    writer.add_name("small")
    writer.add_block_count(27)
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60_000)
    writer.add_int16("test.i16", -30_000)
    writer.add_uint32("test.u32", 4_000_000_000)
    writer.add_int32("test.i32", -2_000_000_000)
    writer.add_uint64("test.u64", 1 << 63)
    writer.add_int64("test.i64", -(1 << 62))
    writer.add_float32("test.f32", 1.5)
    writer.add_float64("test.f64", -0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "Ġvaquita ist ein Schweinswal: 海豚")
    writer.add_array("test.i32s", [1, -2, 3])
    writer.add_array("test.f32s", [0.5, -0.25])
    writer.add_array("test.bools", [True, False, True])
    writer.add_array("test.bytes", b"\x00\x7f\xff")
    writer.add_token_list(["<s>", "</s>", "Ġthe", "海"])
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("output_norm.weight", np.array([0.5, -2.0], dtype=np.float16))
    blocks = np.arange(2 * 34, dtype=np.uint8).reshape(2, 34)
    writer.add_tensor("output.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("ids", np.array([7, -7, 1 << 20], dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
