//! The container: what is written is read, and nothing hostile gets further than an error.

use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;
use vaquita_runtime::bytes::Bytes;
use vaquita_runtime::gguf::{
    Array, GgmlType, Gguf, GgufError, GgufWriter, Metadata, TensorPlan, Value,
};

const PATH: &str = "test.gguf";

fn parse(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
    Gguf::parse(bytes.into(), Path::new(PATH))
}

/// A file with tensors of bytes.
fn write(metadata: &Metadata, tensors: &[(String, Vec<u8>)]) -> Vec<u8> {
    let plan = tensors.iter().map(|(name, bytes)| TensorPlan {
        name: name.clone(),
        dims: vec![bytes.len() as u64],
        ty: GgmlType::I8,
    });
    let out = Cursor::new(Vec::new());
    let mut writer = GgufWriter::new(out, Path::new(PATH), metadata, plan.collect()).unwrap();
    for (name, bytes) in tensors {
        writer.write_tensor(name, bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn small_file() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "deepseek2");
    metadata.insert("general.alignment", 64u32);
    metadata.insert("tokens", vec!["a".to_string(), "Ġb".to_string()]);
    metadata.insert("scores", vec![1.0f32, -2.5]);
    metadata
        .insert("nested", Value::Array(Array::Array(vec![Array::U8(vec![1]), Array::U8(vec![])])));
    write(&metadata, &[("one".into(), vec![1, 2, 3]), ("two".into(), vec![9; 100])])
}

fn value() -> impl Strategy<Value = Value> {
    let text = ".{0,12}";
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e30f32..1e30).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        text.prop_map(Value::String),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e300f64..1e300).prop_map(Value::F64),
        array().prop_map(Value::Array),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    use proptest::collection::vec;
    let flat = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(-1e30f32..1e30, 0..9).prop_map(Array::F32),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(".{0,9}", 0..9).prop_map(Array::String),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(-1e300f64..1e300, 0..9).prop_map(Array::F64),
    ];
    flat.prop_recursive(2, 12, 3, |inner| vec(inner, 0..3).prop_map(Array::Array))
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::btree_map("[a-z.]{1,12}", value(), 0..10),
        tensors in proptest::collection::btree_map(
            "[a-z.]{1,12}", proptest::collection::vec(any::<u8>(), 1..200), 0..8),
        alignment in 3u32..13,
    ) {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(key, value);
        }
        metadata.insert("general.alignment", 1u32 << alignment);
        let tensors: Vec<(String, Vec<u8>)> = tensors.into_iter().collect();
        let file = parse(write(&metadata, &tensors)).unwrap();
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (name, bytes) in &tensors {
            let info = file.tensor(name).unwrap();
            prop_assert_eq!(info.offset % (1 << alignment), 0);
            prop_assert_eq!(&*file.bytes(info), bytes.as_slice());
        }
    }

    #[test]
    fn flipped_bits_give_an_error_or_a_file_whose_tensors_lie_within_it(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u32..8), 1..4),
    ) {
        let mut bytes = small_file();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Ok(file) = parse(bytes) {
            for info in file.tensors() {
                prop_assert_eq!(file.bytes(info).len() as u64, info.len);
            }
        }
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(parse(bytes.clone()).is_err());
        let mut with_header = b"GGUF\x03\0\0\0".to_vec();
        with_header.extend(bytes);
        let _ = parse(with_header);
    }
}

#[test]
fn every_flipped_bit_of_a_small_file_is_survived() {
    let whole = small_file();
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let _ = parse(bytes);
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = small_file();
    let end =
        parse(whole.clone()).unwrap().tensors().iter().map(|t| t.offset + t.len).max().unwrap();
    for len in 0..end as usize {
        let error = parse(whole[..len].to_vec()).unwrap_err();
        let message = error.to_string();
        let said = if len == 0 { "test.gguf is empty" } else { "test.gguf: " };
        assert!(message.starts_with(said), "{message}");
    }
}

#[test]
fn a_count_beyond_the_file_is_refused_before_anything_is_allocated() {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0u64.to_le_bytes()); // tensors
    bytes.extend(1u64.to_le_bytes()); // metadata entries
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(b"k");
    bytes.extend(9u32.to_le_bytes()); // an array
    bytes.extend(10u32.to_le_bytes()); // of u64
    bytes.extend((1u64 << 25).to_le_bytes());
    let message = parse(bytes).unwrap_err().to_string();
    let expected = "test.gguf: the file ends within what the length of k announces (33554432); \
                    it is truncated or damaged: copy it again";
    assert_eq!(message, expected);
}

#[test]
fn errors_name_the_file_the_place_what_was_found_and_what_is_allowed() {
    let message = |bytes: Vec<u8>| parse(bytes).unwrap_err().to_string();
    assert_eq!(message(b"GGML....".to_vec()), "test.gguf: not a GGUF file");
    assert_eq!(
        message(b"GGUF\x04\0\0\0".to_vec()),
        "test.gguf: GGUF version 4; versions 2 and 3, little-endian, can be read"
    );
    let plan = |ty, dims: &[u64]| TensorPlan { name: "t".into(), dims: dims.to_vec(), ty };
    let mut metadata = Metadata::new();
    let header = |metadata: &Metadata, plan: Vec<TensorPlan>| {
        let out = Cursor::new(Vec::new());
        let mut writer = GgufWriter::new(out, Path::new(PATH), metadata, plan)?;
        writer.write_tensor("t", &[0; 4])?;
        Ok::<_, GgufError>(writer.finish()?.into_inner())
    };
    let twice = vec![plan(GgmlType::F32, &[1]), plan(GgmlType::F32, &[1])];
    let order = header(&metadata, twice).unwrap_err().to_string();
    assert_eq!(order, "test.gguf: tensor \"the end\" was written where the plan has \"t\"");

    let sound = header(&metadata, vec![plan(GgmlType::F32, &[1])]).unwrap();
    let mut unknown = sound.clone();
    let at = sound.windows(4).rposition(|w| w == [1, 0, 0, 0]).unwrap() + 8; // after dims [1]
    unknown[at] = 77;
    assert!(message(unknown).contains("the type of tensor t is 77"), "names the type's number");

    metadata.insert("general.alignment", 48u32);
    let error = header(&metadata, vec![plan(GgmlType::F32, &[1])]).unwrap_err().to_string();
    assert_eq!(
        error,
        "test.gguf: general.alignment is 48; allowed: a power of two between 8 and 1048576"
    );
}

#[test]
fn getters_take_any_integer_that_fits_and_name_the_key_otherwise() {
    let mut metadata = Metadata::new();
    metadata.insert("small", 7u8);
    metadata.insert("negative", -1i32);
    metadata.insert("text", "x");
    assert_eq!(metadata.usize("small").unwrap(), Some(7));
    assert_eq!(metadata.usize("absent").unwrap(), None);
    assert!(metadata.u32("negative").is_err());
    let message = metadata.u64("text").unwrap_err().to_string();
    assert_eq!(message, "metadata text is a string; expected a non-negative integer");
}

#[test]
fn a_split_model_is_read_through_its_first_file() {
    let folder = tempfile::tempdir().unwrap();
    let part = |no: u16, name: &str| {
        let mut metadata = Metadata::new();
        metadata.insert("split.no", no);
        metadata.insert("split.count", 2u16);
        metadata.insert("split.tensors.count", 2i32);
        let file = folder.path().join(format!("m-{:05}-of-00002.gguf", no + 1));
        std::fs::write(&file, write(&metadata, &[(name.into(), vec![no as u8; 5])])).unwrap();
        file
    };
    let (first, second) = (part(0, "a"), part(1, "b"));
    let file = Gguf::open(&first).unwrap();
    assert_eq!(&*file.bytes(file.tensor("a").unwrap()), &[0; 5]);
    assert_eq!(&*file.bytes(file.tensor("b").unwrap()), &[1; 5]);

    let error = Gguf::open(&second).unwrap_err().to_string();
    assert!(error.ends_with("is part 2 of 2 of a model: give the first, m-00001-of-00002.gguf"));
    let (header, problem) = Gguf::open_header(&second).unwrap();
    assert!(header.tensor("b").is_some() && problem.is_some());
    let renamed = folder.path().join("renamed.gguf");
    std::fs::copy(&first, &renamed).unwrap();
    let error = Gguf::open(&renamed).unwrap_err().to_string();
    assert!(error.contains("call them NAME-00001-of-00002.gguf"), "{error}");
    for (file, upper) in [(&first, "M-00001-of-00002.GGUF"), (&second, "M-00002-of-00002.GGUF")] {
        std::fs::copy(file, folder.path().join(upper)).unwrap();
    }
    let upper = Gguf::open(&folder.path().join("M-00001-of-00002.GGUF")).unwrap();
    assert_eq!(upper.tensors().len(), 2);

    part(1, "a");
    assert!(Gguf::open(&first).unwrap_err().to_string().contains("names that occur once"));
    std::fs::remove_file(&second).unwrap();
    assert!(Gguf::open(&first).unwrap_err().to_string().contains("m-00002-of-00002.gguf"));
}

#[test]
fn a_truncated_file_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.gguf");
    let tensors = [("a".into(), vec![1; 50]), ("b".into(), vec![2; 50])];
    let whole = write(&Metadata::new(), &tensors);
    std::fs::write(&path, &whole[..whole.len() - 50]).unwrap();
    let message = Gguf::open(&path).unwrap_err().to_string();
    assert!(message.contains("within tensor b, after"), "{message}");
    let (header, problem) = Gguf::open_header(&path).unwrap();
    assert_eq!(problem.unwrap().to_string(), message);
    assert_eq!(&*header.bytes(header.tensor("a").unwrap()), &[1; 50]);
    assert!(header.bytes(header.tensor("b").unwrap()).is_empty());
}

#[test]
fn files_of_other_kinds_are_named_with_what_to_do() {
    let manifest = format!(
        r#"{{"layers": [{{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:{}"}}]}}"#,
        "ab".repeat(32)
    );
    let mut safetensors = 2u64.to_le_bytes().to_vec();
    safetensors.extend(b"{}");
    let cases: [(&str, &[u8], &str); 12] = [
        ("m.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        ("m.gguf", b"<!DOCTYPE html><html>", "a web page"),
        ("m.bin", b"PK\x03\x04....", "PyTorch"),
        ("m.bin", b"tjgg....", "before August 2023"),
        ("m.gguf", b"", "is empty"),
        ("m.gz", b"\x1f\x8b....", "unpack it"),
        ("manifest", manifest.as_bytes(), "give the file blobs/sha256-abab"),
        ("model.safetensors", &safetensors, "its config.json"),
        ("m.gguf", b"GGUF\0\0\0\x03", "big-endian"),
        ("m.gguf-split-a", b"GGUF\x03\0\0\0", "`cat`, in order, as m.gguf"),
        ("m.gguf-split-b", b"....", "one piece"),
        ("m.gguf.part2of3", b"....", "one piece"),
    ];
    for (name, bytes, expected) in cases {
        let error = Gguf::parse(Bytes::from(bytes.to_vec()), Path::new(name)).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{name} is ")), "{error}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}
