//! Paths given as a model that are none: what they are, and what to give instead.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::hub::suggestion;

/// Bytes of a file that are looked at.
const HEAD: u64 = 64 << 10;
/// Entries of a folder that are looked at.
const ENTRIES: usize = 1000;

/// Refuses a path that is no model, saying what it is. A path that may be a model passes; opening it
/// says the rest.
pub fn check_model(path: &Path) -> Result {
    let problem = match fs::metadata(path) {
        Err(_) => Some(missing(path)),
        Ok(found) if found.is_dir() => folder(path),
        Ok(_) => file(path),
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(Failure::Error(format!("{}: {problem}", path.display()))),
    }
}

fn missing(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.contains("://") {
        return "this is an address; download the file first (`curl -LO ADDRESS`), then name it"
            .into();
    }
    let name = text.strip_prefix("hf.co/").or(text.strip_prefix("huggingface.co/"));
    let name = name.unwrap_or(&text);
    if let Some(hint) = suggestion(Path::new(name)) {
        return format!("no such file or folder ({hint})");
    }
    if let Some((model, tag)) = name.split_once(':').filter(|(model, _)| !model.contains('/')) {
        return format!(
            "no such file; if it is a model of Ollama's, `ollama show {model}:{tag} --modelfile` \
             names its file after FROM"
        );
    }
    "no such file or folder".into()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(ENTRIES);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn folder(path: &Path) -> Option<String> {
    if path.join("config.json").exists() {
        return None;
    }
    let inside = entries(path);
    if inside.iter().any(|one| one.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")))
    {
        return None; // opening it names the files
    }
    if let Some(snapshot) = snapshot(path, &inside) {
        return Some(format!("a cache of the hub; the model is {}", snapshot.display()));
    }
    if path.join("blobs").is_dir() && path.join("manifests").is_dir() {
        return Some(
            "Ollama's store; `ollama show NAME --modelfile` names a model's file after FROM".into(),
        );
    }
    Some("neither a GGUF file nor a checkpoint: the folder has no config.json".into())
}

/// A snapshot with a model in a hub's cache, given the cache or one repository's part of it.
fn snapshot(path: &Path, inside: &[PathBuf]) -> Option<PathBuf> {
    let hub = path.join("hub");
    let inside = if hub.is_dir() { entries(&hub) } else { inside.to_vec() };
    let named = |one: &&PathBuf| {
        one.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--"))
    };
    let repositories = inside.iter().filter(named).map(PathBuf::as_path);
    let snapshots = repositories.chain([path]).flat_map(|one| entries(&one.join("snapshots")));
    let mut models = snapshots.filter_map(|snapshot| {
        if snapshot.join("config.json").exists() {
            return Some(snapshot);
        }
        entries(&snapshot).into_iter().find(|one| one.extension().is_some_and(|e| e == "gguf"))
    });
    models.next()
}

fn file(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    if head.starts_with(b"GGUF") {
        return None;
    }
    if head.is_empty() {
        return Some("an empty file; its download may have failed".into());
    }
    if head.starts_with(b"version https://git-lfs") {
        return Some("a pointer of Git LFS, not the file itself; `git lfs pull` fetches it".into());
    }
    let start = String::from_utf8_lossy(&head[..head.len().min(512)]).trim_start().to_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return Some("a page in HTML, not a model; download the file itself (on the hub: resolve/main instead of blob/main)".into());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if path.extension().is_some_and(|e| e == "safetensors") {
        return Some(format!(
            "a part of a checkpoint; name its folder, {}, with config.json in it",
            parent.display()
        ));
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x80\x02") {
        return Some(
            "weights of PyTorch, which are programs; vaquita reads safetensors and GGUF".into(),
        );
    }
    if let Ok(manifest) = serde_json::from_slice::<Value>(&head) {
        return Some(json(path, parent, &manifest));
    }
    None
}

/// A JSON file: a manifest of Ollama's names the model's file, and a checkpoint's is in its folder.
fn json(path: &Path, parent: &Path, manifest: &Value) -> String {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let mut model = layers.filter(|layer| {
        layer["mediaType"].as_str().is_some_and(|media| media.ends_with("image.model"))
    });
    let digest = model.next().and_then(|layer| layer["digest"].as_str());
    if let Some(digest) = digest {
        let store = path.ancestors().find(|folder| folder.join("blobs").is_dir());
        let blob = Path::new("blobs").join(digest.replace(':', "-"));
        let blob = store.map_or(blob.clone(), |store| store.join(&blob));
        return format!("a manifest of Ollama's; the model is {}", blob.display());
    }
    match path.file_name().is_some_and(|name| name == "config.json") {
        true => format!("the configuration of a checkpoint; name its folder, {}", parent.display()),
        false => "a JSON file, not a model".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(folder: &Path, name: &str, bytes: &[u8]) -> String {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        file(&path).unwrap_or_default()
    }

    #[test]
    fn files_that_are_no_models_are_named() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        assert!(
            of(folder, "m.gguf", b"version https://git-lfs.github.com/spec/v1\n").contains("LFS")
        );
        assert!(of(folder, "m.gguf", b"<!DOCTYPE html><html>").contains("HTML"));
        assert!(of(folder, "m.gguf", b"").contains("empty"));
        assert!(of(folder, "model.safetensors", b"\x10\0\0\0\0\0\0\0{}").contains("folder"));
        assert!(of(folder, "pytorch_model.bin", b"PK\x03\x04...").contains("PyTorch"));
        assert_eq!(of(folder, "m.gguf", b"GGUF\x03\0\0\0"), "");
        fs::create_dir_all(folder.join("blobs")).unwrap();
        let manifest = br#"{"layers": [
            {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:1"},
            {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:ab12"}]}"#;
        let found = of(folder, "manifests/library/llama/latest", manifest);
        assert!(
            found.ends_with(&folder.join("blobs/sha256-ab12").display().to_string()),
            "{found}"
        );
    }

    #[test]
    fn folders_that_hold_models_name_them() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let snapshot = root.join("hub/models--a--b/snapshots/123");
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(snapshot.join("config.json"), "{}").unwrap();
        for place in [root.to_path_buf(), root.join("hub"), root.join("hub/models--a--b")] {
            let found = folder(&place).unwrap();
            assert!(found.ends_with(&snapshot.display().to_string()), "{found}");
        }
        assert_eq!(folder(&snapshot), None);
        let files = root.join("files");
        fs::create_dir_all(&files).unwrap();
        assert!(folder(&files).unwrap().contains("no config.json"));
        fs::write(files.join("x-Q4_K_M.gguf"), "GGUF").unwrap();
        assert_eq!(folder(&files), None);
    }

    #[test]
    fn names_of_other_programs_are_told_from_paths() {
        let said = |text: &str| missing(Path::new(text));
        assert!(said("https://hf.co/a/b/resolve/main/m.gguf").contains("address"));
        assert!(said("deepseek-ai/DeepSeek-V2-Lite").contains("hf:deepseek-ai/DeepSeek-V2-Lite"));
        assert!(said("hf.co/a/b-GGUF:Q4_K_M").contains("hf:a/b-GGUF:Q4_K_M"));
        assert!(said("llama3:8b").contains("Ollama"));
        for path in ["missing.gguf", "models/missing.gguf", "./a/b", "/a/b"] {
            assert_eq!(said(path), "no such file or folder", "{path}");
        }
    }
}
