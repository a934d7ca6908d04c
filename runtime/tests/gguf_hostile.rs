//! Files made to mislead: each is built field by field, is wrong in one place, and is told so.

use std::path::Path;

use vaquita_runtime::gguf::{GgmlType, Gguf, GgufWriter, Metadata, TensorPlan};

const STRING: u32 = 8;
const ARRAY: u32 = 9;
const F32: u32 = 0;
const Q8_0: u32 = 8;

/// A file's bytes, one field after the other.
#[derive(Clone)]
struct File(Vec<u8>);

impl File {
    fn new(tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(entries)
    }

    fn u32(mut self, x: u32) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    fn u64(mut self, x: u64) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }

    fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        let file = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(file, |file, &dim| file.u64(dim)).u32(ty).u64(offset)
    }

    /// Pads to the data section and adds `len` bytes of it.
    fn data(mut self, len: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }

    fn read(&self) -> Result<Gguf, String> {
        let bytes = self.0.clone().into();
        Gguf::parse(bytes, Path::new("x.gguf")).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn is_refused(&self, expected: &str) {
        match self.read() {
            Ok(_) => panic!("was read; expected: {expected}"),
            Err(message) => assert_eq!(message, format!("x.gguf: {expected}")),
        }
    }
}

#[test]
fn a_sound_file_built_by_hand_is_read() {
    let file = File::new(2, 1).text("k").u32(STRING).text("v");
    let file = file.tensor("a", &[32, 2], Q8_0, 0).tensor("b", &[4], F32, 96).data(96 + 16);
    let file = file.read().unwrap();
    assert_eq!(file.metadata().str("k").unwrap(), Some("v"));
    assert_eq!(file.tensors().iter().map(|info| info.len).collect::<Vec<_>>(), [68, 16]);
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let file = File::new(2, 0).tensor("a", &[9], F32, 0).tensor("b", &[1], F32, 32).data(64);
    let Err(message) = file.read() else { panic!("was read") };
    assert!(message.starts_with("x.gguf: the offset of tensor b is "), "{message}");
    assert!(message.ends_with(", where tensor a ends"), "{message}");
    let file = File::new(2, 0).tensor("a", &[1], F32, 0).tensor("b", &[1], F32, 0).data(64);
    assert!(file.read().is_err(), "the same place twice");
}

#[test]
fn an_offset_off_the_alignment_is_refused() {
    let file = File::new(1, 0).tensor("a", &[1], F32, 4).data(64);
    file.is_refused("the offset of tensor a is 4; allowed: multiples of 32");
}

#[test]
fn a_tensor_beyond_the_end_is_refused_however_its_extent_wraps() {
    let message = File::new(1, 0).tensor("a", &[1], F32, 64).data(64).read().unwrap_err();
    assert!(message.contains("the file ends within tensor a"), "{message}");
    assert!(message.ends_with("it is truncated or damaged: copy it again"), "{message}");
    for offset in [u64::MAX - 31, 1 << 63] {
        let file = File::new(1, 0).tensor("a", &[1], F32, offset).data(64);
        let message = file.read().unwrap_err();
        let is_named = message.contains(&format!("the offset of tensor a is {offset}; allowed"));
        assert!(is_named || message.contains("the file ends within tensor a"), "{message}");
    }
    for dims in [[1 << 62, 1], [1 << 32, 1 << 32], [u64::MAX, 2], [1 << 61, 2]] {
        let message = File::new(1, 0).tensor("a", &dims, F32, 0).data(64).read().unwrap_err();
        assert!(message.contains("tensor a"), "{message}");
    }
}

#[test]
fn shapes_that_no_tensor_has_are_refused() {
    let shape = |dims: &[u64], ty| File::new(1, 0).tensor("a", dims, ty, 0).data(4096);
    let dimensions =
        |found| format!("the number of dimensions of tensor a is {found}; allowed: 1 to 4");
    shape(&[], F32).is_refused(&dimensions(0));
    shape(&[1; 5], F32).is_refused(&dimensions(5));
    for (dims, ty) in [(&[4, 0][..], F32), (&[0], F32), (&[33], Q8_0), (&[16, 2], Q8_0)] {
        let message = shape(dims, ty).read().unwrap_err();
        let expected = format!("x.gguf: the shape of tensor a is {dims:?}; allowed: ");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_type_that_ggml_dropped_or_never_had_is_refused_with_its_number() {
    for number in [4, 5, 31, 38, 1000, u32::MAX] {
        let message = File::new(1, 0).tensor("a", &[256], number, 0).data(4096).read().unwrap_err();
        let expected = format!("x.gguf: the type of tensor a is {number}; allowed: ");
        assert!(message.starts_with(&expected), "{message}");
    }
    for (number, name) in [(157, "IQ2_KL"), (154, "IQ3_KT"), (212, "Q4_K_R4"), (337, "IQ2_K_R4")] {
        let message = File::new(1, 0).tensor("a", &[256], number, 0).data(4096).read().unwrap_err();
        let expected = format!("the type of tensor a is {number}, {name} of ik_llama.cpp alone");
        assert!(message.contains(&expected), "{message}");
    }
    File::new(0, 1).text("k").u32(13).u64(0).is_refused("the type of k is 13; allowed: 0 to 12");
}

#[test]
fn names_and_keys_that_occur_twice_are_refused() {
    let file = File::new(2, 0).tensor("a", &[1], F32, 0).tensor("a", &[1], F32, 32).data(64);
    let message = file.read().unwrap_err();
    assert!(message.contains("tensor 1") && message.contains("names that occur once"), "{message}");
    let entry = |file: File| file.text("k").u32(STRING).text("v");
    let message = entry(entry(File::new(0, 2))).data(64).read().unwrap_err();
    assert!(message.contains("entry 1") && message.contains("keys that occur once"), "{message}");
}

#[test]
fn names_that_are_not_utf_8_are_refused_and_values_are_shown_as_far_as_they_are() {
    let bad = |file: File| file.u64(2).bytes(b"\xff\xfe");
    for file in [
        bad(File::new(0, 1)).u32(STRING).text("v"),
        bad(File::new(1, 0)).u32(1).u64(1).u32(F32).u64(0),
    ] {
        let message = file.data(64).read().unwrap_err();
        assert!(message.ends_with("; allowed: UTF-8"), "{message}");
    }
    let value = bad(File::new(0, 1).text("k").u32(STRING)).data(64).read().unwrap();
    assert_eq!(value.metadata().str("k").unwrap(), Some("\u{fffd}\u{fffd}"));
    let array =
        bad(File::new(0, 1).text("k").u32(ARRAY).u32(STRING).u64(1)).data(64).read().unwrap();
    assert_eq!(array.metadata().strings("k").unwrap().unwrap(), ["\u{fffd}\u{fffd}"]);
    let long = vec![0xff; 1 << 20];
    let file = File::new(0, 1).u64(1 << 20).bytes(&long).u32(STRING).text("v");
    let message = file.data(64).read().unwrap_err();
    assert!(message.len() < 1000, "{} bytes", message.len());
}

#[test]
fn a_bool_is_zero_or_one() {
    let file = File::new(0, 1).text("k").u32(7).bytes(&[2]).data(64);
    file.is_refused("k is 2; allowed: 0 or 1, for a bool");
}

#[test]
fn arrays_within_arrays_end_before_the_stack_does() {
    let nested = |depth| {
        let file = File::new(0, 1).text("k").u32(ARRAY);
        (0..depth).fold(file, |file, _| file.u32(ARRAY).u64(1)).u32(0).u64(0).data(64)
    };
    assert!(nested(4).read().is_ok());
    nested(5).is_refused("the depth of k is deeper; allowed: at most 4");
    assert!(nested(100_000).read().is_err());
}

#[test]
fn counts_beyond_the_bytes_that_are_left_are_refused_at_once() {
    let counts = [
        File::new(1 << 20, 0),
        File::new(u64::MAX, 0),
        File::new(0, 65_536),
        File::new(0, u64::MAX),
        File::new(0, 1).u64(u64::MAX),
        File::new(0, 1).u64(60_000),
        File::new(0, 1).text("k").u32(STRING).u64(u64::MAX),
        File::new(0, 1).text("k").u32(STRING).u64(200 << 20),
    ];
    let array = |ty, len| File::new(0, 1).text("k").u32(ARRAY).u32(ty).u64(len);
    let arrays = (0..=12).flat_map(|ty| [array(ty, 50 << 20), array(ty, u64::MAX), array(ty, 65)]);
    for file in counts.into_iter().chain(arrays) {
        let file = file.data(32); // at most 64 bytes follow
        let message = file.read().unwrap_err();
        let named = message.contains("announces") || message.contains("allowed: at most");
        assert!(named, "{message}");
    }
}

#[test]
fn an_alignment_that_is_no_power_of_two_in_range_is_refused() {
    for alignment in [0, 1, 4, 48, 1 << 21, u32::MAX] {
        let file = File::new(0, 1).text("general.alignment").u32(4).u32(alignment).data(64);
        let allowed = "a power of two between 8 and 1048576";
        file.is_refused(&format!("general.alignment is {alignment}; allowed: {allowed}"));
    }
}

#[test]
fn versions_other_than_two_and_three_are_refused() {
    for version in [0u32, 1, 4, 3u32.swap_bytes()] {
        let mut file = File::new(0, 0).data(64);
        file.0[4..8].copy_from_slice(&version.to_le_bytes());
        let message = file.read().unwrap_err();
        let expected = match version {
            0..=4 => format!("GGUF version {version}"),
            _ => "a big-endian GGUF file".into(),
        };
        assert!(message.contains(&expected), "{message}");
    }
    let mut file = File::new(0, 0).data(64);
    file.0[4] = 2;
    assert!(file.read().is_ok(), "version 2 has the same layout");
}

#[test]
fn a_patched_array_is_read_back_and_tensors_follow_undisturbed() {
    let mut metadata = Metadata::new();
    metadata.insert("before", "x");
    metadata.insert("sums", vec![0u32; 3]);
    metadata.insert("after", 1u8);
    let plan = |name: &str| TensorPlan { name: name.into(), dims: vec![5], ty: GgmlType::I8 };
    let out = std::io::Cursor::new(Vec::new());
    let path = Path::new("x.gguf");
    let mut writer = GgufWriter::new(out, path, &metadata, vec![plan("a"), plan("b")]).unwrap();
    writer.write_tensor("a", &[1; 5]).unwrap();
    writer.patch_u32_array("sums", &[7, 8, u32::MAX]).unwrap();
    writer.write_tensor("b", &[2; 5]).unwrap();
    assert!(writer.patch_u32_array("sums", &[1]).is_err(), "another length");
    assert!(writer.patch_u32_array("after", &[1]).is_err(), "not an array of u32");
    let file = Gguf::parse(writer.finish().unwrap().into_inner().into(), path).unwrap();
    metadata.insert("sums", vec![7u32, 8, u32::MAX]);
    assert_eq!(file.metadata(), &metadata);
    assert_eq!(&*file.bytes(file.tensor("a").unwrap()), [1; 5]);
    assert_eq!(&*file.bytes(file.tensor("b").unwrap()), [2; 5]);
}
