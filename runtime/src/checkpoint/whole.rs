//! Reads a whole file and compares everything with the checksums that it has.

use super::GgufWeights;

/// Result of reading a whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Whether the header has a checksum; it matches if the file opened with verification.
    pub header: bool,
    /// Tensors with a checksum.
    pub verified: usize,
    /// Names of the tensors that do not match theirs.
    pub damaged: Vec<String>,
}

impl GgufWeights {
    /// Reads all tensors of a mapped file, and calls `progress` with the bytes of each.
    pub fn read_whole(&self, progress: &mut dyn FnMut(u64)) -> Whole {
        let gguf = self.gguf();
        let mut whole = Whole { header: gguf.header_checksum().is_some(), ..Whole::default() };
        for (number, info) in gguf.tensors().iter().enumerate() {
            let bytes = gguf.bytes(info);
            let found = crc32fast::hash(&bytes);
            bytes.release();
            if let Some(expected) = self.checksum(number) {
                whole.verified += 1;
                if found != expected {
                    whole.damaged.push(info.name.clone());
                }
            }
            whole.tensors += 1;
            whole.bytes += info.len;
            progress(info.len);
        }
        whole
    }
}
