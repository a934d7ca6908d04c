//! Inputs that are read from files.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use vaquita_calibration::reference_file::ReferenceFile;
use vaquita_calibration::statistics::CalibrationFile;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::app::judge;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;

use crate::{golden, open_folder};

/// A folder in memory, where there is one.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

thread_local! {
    static FOLDER: TempDir = folder();
}

/// Writes the bytes to a file in a folder with nothing else in it.
fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = FOLDER.with(|folder| folder.path().join(name));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    fs::write(&path, bytes).expect("written");
    path
}

/// The weights of a checkpoint folder.
pub fn safetensors(bytes: &[u8]) {
    let path = written("model.safetensors", bytes);
    let folder = path.parent().expect("a folder");
    let config = folder.join("config.json");
    if !config.exists() {
        fs::copy(golden("r1-distill-llama").join("config.json"), config).expect("copied");
    }
    if let Ok(weights) = HfFolder::open(folder) {
        let _ = judge(&weights, Tokenizer::from_folder(folder));
    }
}

fn vocabulary(name: &str, bytes: &[u8]) {
    let path = written(name, bytes);
    if let Ok(tokenizer) = Tokenizer::from_folder(path.parent().expect("a folder")) {
        let _ = tokenizer.encode_within("Hello, w\u{f6}rld! 12", true, 1000);
    }
}

/// A `tiktoken.model`.
pub fn tiktoken(bytes: &[u8]) {
    vocabulary("tiktoken.model", bytes);
}

/// A `tokenizer.model`.
pub fn sentencepiece(bytes: &[u8]) {
    vocabulary("tokenizer.model", bytes);
}

fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| open_folder(&golden("deepseek-v2-lite"))).clone()
}

/// A session of a small model.
pub(super) fn small_session() -> Session {
    let options = SessionOptions { cache: CacheType::Q8, context: 64, ..SessionOptions::default() };
    Session::new(model(), Arc::new(Pool::new(1)), options)
}

/// A saved session.
pub fn session(bytes: &[u8]) {
    let path = written("session", bytes);
    let mut session = small_session();
    if session.restore(&path, 7).is_ok() {
        let _ = session.feed(&[5]);
    }
}

/// A calibration file.
pub fn calibration(bytes: &[u8]) {
    let path = written("calibration", bytes);
    if let Ok(file) = CalibrationFile::open(&path) {
        let _ = (file.matrix("output.weight"), file.layer(1));
    }
}

/// A reference file of logits.
pub fn reference(bytes: &[u8]) {
    let path = written("reference", bytes);
    let Ok(file) = ReferenceFile::open(&path) else { return };
    for at in 0..file.documents().min(4) {
        if let Ok(document) = file.document(at) {
            document.rows().take(4).for_each(drop);
        }
    }
}
