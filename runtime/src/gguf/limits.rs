//! Limits on the sizes that a file may declare, far above those of real models. The error of a file
//! that exceeds one names the limit.

/// Number of metadata entries.
pub const METADATA_ENTRIES: u64 = 65_536;
/// Bytes of a key or tensor name.
pub const NAME_BYTES: u64 = 65_535;
/// Bytes of a string value (a tokenizer.json is one).
pub const STRING_BYTES: u64 = 256 << 20;
/// Elements of an array.
pub const ARRAY_ELEMENTS: u64 = 64 << 20;
/// Nesting depth of arrays.
pub const ARRAY_DEPTH: u32 = 4;
/// Number of tensors.
pub const TENSORS: u64 = 1 << 20;
/// Dimensions of a tensor.
pub const DIMENSIONS: u32 = 4;
/// Smallest and largest `general.alignment`, a power of two.
pub const ALIGNMENT: [u64; 2] = [8, 1 << 20];
/// Files of a split model.
pub const SPLITS: u64 = 4096;
