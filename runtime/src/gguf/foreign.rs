//! Recognizes files that are not GGUF files, so that the error can name the remedy.

use std::path::Path;

use serde_json::Value;

use super::{GgufError, MAGIC};

/// Bytes of an Ollama manifest that are parsed.
const MANIFEST_BYTES: usize = 64 << 10;

/// Replaces an error of parsing a file by one that names what the file is, if that can be told.
pub(super) fn explain(error: GgufError, bytes: &[u8], path: &Path) -> GgufError {
    let unreadable = matches!(
        error,
        GgufError::Magic { .. } | GgufError::Version { .. } | GgufError::Truncated { .. }
    );
    match named(bytes, path).filter(|_| unreadable) {
        Some((what, advice)) => GgufError::Foreign { path: path.into(), what, advice },
        None => error,
    }
}

/// Kind of the file, and the remedy.
fn named(bytes: &[u8], path: &Path) -> Option<(&'static str, String)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    // The ends of files that were cut for an upload limit, such as model.gguf-split-a.
    if let Some((whole, _)) =
        ["-split-", ".part"].iter().find_map(|cut| name.split_once(&format!(".gguf{cut}")))
    {
        let advice = format!("put all pieces together with `cat`, in order, as {whole}.gguf");
        return Some(("one piece of a file that was cut", advice));
    }
    if bytes.starts_with(&MAGIC) {
        let version = bytes.get(4..8)?;
        let big_endian = version[..3] == [0; 3] && version[3] != 0;
        let advice = "take the file for little-endian machines, such as x86 and ARM";
        return big_endian.then(|| ("a big-endian GGUF file", advice.into()));
    }
    const STARTS: [(&[u8], &str, &str); 12] = [
        (
            b"version https://git-lfs.github.com/spec/",
            "a Git LFS pointer, which stands for the file",
            "get the file itself with `git lfs pull`, or download it",
        ),
        (b"<!DOCTYPE", "a web page", "download the file itself: its page may need a login"),
        (b"<!doctype", "a web page", "download the file itself: its page may need a login"),
        (b"<html", "a web page", "download the file itself: its page may need a login"),
        (b"PK\x03\x04", "a ZIP archive, as PyTorch writes weights", SAFETENSORS),
        (b"lmgg", "a GGML file of before August 2023", NEWER),
        (b"fmgg", "a GGML file of before August 2023", NEWER),
        (b"tjgg", "a GGML file of before August 2023", NEWER),
        (b"algg", "a GGML adapter of before August 2023", NEWER),
        (b"\x1f\x8b", "compressed (gzip)", "unpack it first"),
        (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "unpack it first"),
        (b"\xfd7zXZ", "compressed (xz)", "unpack it first"),
    ];
    if let Some((_, what, advice)) = STARTS.iter().find(|(start, ..)| bytes.starts_with(start)) {
        return Some((what, (*advice).into()));
    }
    if bytes.is_empty() {
        return Some(("empty", "download or copy it again".into()));
    }
    if let Some(advice) = manifest(bytes) {
        return Some(("a manifest of Ollama, not the model", advice));
    }
    let header = bytes.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
    let is_safetensors = bytes.get(8) == Some(&b'{') && header < bytes.len() as u64;
    is_safetensors.then(|| {
        let advice = "give the folder with this file and its config.json";
        ("a safetensors file", advice.into())
    })
}

const SAFETENSORS: &str = "take a checkpoint in safetensors, or a GGUF file";
const NEWER: &str = "take a newer file, in GGUF";

/// Where the model of an Ollama manifest is.
fn manifest(bytes: &[u8]) -> Option<String> {
    let json = bytes.get(..bytes.len().min(MANIFEST_BYTES)).filter(|text| text[0] == b'{')?;
    let json: Value = serde_json::from_slice(json).ok()?;
    let is_model = |layer: &&Value| layer["mediaType"] == "application/vnd.ollama.image.model";
    let layer = json["layers"].as_array()?.iter().find(is_model)?;
    let digest = layer["digest"].as_str()?;
    let hex = digest.strip_prefix("sha256:")?;
    let sound = hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    sound.then(|| format!("give the file blobs/sha256-{hex} of Ollama's models folder"))
}
