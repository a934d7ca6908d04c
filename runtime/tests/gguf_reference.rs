//! A file written by the reference implementation (`tests/golden/gguf/make_gguf.py`) is read as it was
//! meant, and survives being written again.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use vaquita_runtime::gguf::{Array, GgmlType, Gguf, GgufWriter, TensorPlan, Value};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/gguf/small.gguf")
}

fn strings(texts: &[&str]) -> Value {
    Value::from(texts.iter().map(|text| text.to_string()).collect::<Vec<_>>())
}

#[test]
fn every_metadata_type_of_the_reference_writer_is_read() {
    let file = Gguf::open(&golden()).unwrap();
    let expected = [
        ("general.architecture", Value::from("deepseek2")),
        ("general.alignment", Value::U32(64)),
        ("general.name", Value::from("small")),
        ("deepseek2.block_count", Value::U32(27)),
        ("test.u8", Value::U8(200)),
        ("test.i8", Value::I8(-100)),
        ("test.u16", Value::U16(60_000)),
        ("test.i16", Value::I16(-30_000)),
        ("test.u32", Value::U32(4_000_000_000)),
        ("test.i32", Value::I32(-2_000_000_000)),
        ("test.u64", Value::U64(1 << 63)),
        ("test.i64", Value::I64(-(1 << 62))),
        ("test.f32", Value::F32(1.5)),
        ("test.f64", Value::F64(-0.1)),
        ("test.bool", Value::Bool(true)),
        ("test.string", Value::from("Ġvaquita ist ein Schweinswal: 海豚")),
        ("test.i32s", Value::from(vec![1i32, -2, 3])),
        ("test.f32s", Value::from(vec![0.5f32, -0.25])),
        ("test.bools", Value::from(vec![true, false, true])),
        ("test.bytes", Value::Array(Array::U8(vec![0, 127, 255]))),
        ("tokenizer.ggml.tokens", strings(&["<s>", "</s>", "Ġthe", "海"])),
    ];
    let found: Vec<_> = file.metadata().iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(found, expected);
}

#[test]
fn tensors_of_the_reference_writer_are_found_with_their_shapes_types_and_bytes() {
    let file = Gguf::open(&golden()).unwrap();
    assert_eq!(file.alignment(), 64);
    assert_eq!(file.file_bytes(), std::fs::metadata(golden()).unwrap().len());
    let tensor = |name: &str| {
        let info = file.tensor(name).unwrap();
        assert_eq!(info.offset % 64, 0, "{name}");
        (info.ty, info.dims.as_slice(), file.bytes(info))
    };

    let (ty, dims, bytes) = tensor("token_embd.weight");
    assert_eq!((ty, dims), (GgmlType::F32, [4, 3].as_slice()));
    let weights: Vec<f32> =
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(weights, (0..12).map(|x| x as f32).collect::<Vec<_>>());

    let (ty, dims, bytes) = tensor("output_norm.weight");
    assert_eq!((ty, dims), (GgmlType::F16, [2].as_slice()));
    assert_eq!(&*bytes, [0x00, 0x38, 0x00, 0xC0]); // 0.5 and -2

    let (ty, dims, bytes) = tensor("output.weight");
    assert_eq!((ty.name(), dims), ("Q8_0", [32, 2].as_slice()));
    assert_eq!(&*bytes, (0..68).collect::<Vec<u8>>());

    let (ty, dims, bytes) = tensor("ids");
    assert_eq!((ty.name(), dims, bytes.len()), ("I32", [3].as_slice(), 12));
    assert_eq!(file.tensors().len(), 4);
}

#[test]
fn a_reference_file_written_again_holds_the_same() {
    let file = Gguf::open(&golden()).unwrap();
    let plan = file.tensors().iter().map(|info| TensorPlan {
        name: info.name.clone(),
        dims: info.dims.clone(),
        ty: info.ty,
    });
    let path = Path::new("again.gguf");
    let out = Cursor::new(Vec::new());
    let mut writer = GgufWriter::new(out, path, file.metadata(), plan.collect()).unwrap();
    for info in file.tensors() {
        writer.write_tensor(&info.name, &file.bytes(info)).unwrap();
    }
    let written = writer.finish().unwrap().into_inner();
    assert_eq!(written, std::fs::read(golden()).unwrap());
}
