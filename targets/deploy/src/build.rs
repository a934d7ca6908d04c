//! Builds the program for a board's processor.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::DeployError;

/// Target of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// 64-bit ARM.
    Aarch64,
    /// 64-bit x86.
    X86_64,
}

impl Target {
    /// The target according to `uname -s -m`.
    pub fn of(uname: &str) -> Option<Self> {
        match uname {
            "Linux aarch64" | "Linux arm64" => Some(Self::Aarch64),
            "Linux x86_64" => Some(Self::X86_64),
            _ => None,
        }
    }

    /// Rust's target triple.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }

    fn is_here(self) -> bool {
        let architecture = match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        };
        std::env::consts::OS == "linux" && std::env::consts::ARCH == architecture
    }
}

/// Builds `vaquita` for a target from the repository at `source`. It is linked statically, to be
/// independent of the board's C library. The output of cargo is shown.
pub fn build(source: &Path, target: Target) -> Result<PathBuf, DeployError> {
    let triple = target.triple();
    let variable = format!("CARGO_TARGET_{}", triple.to_uppercase().replace('-', "_"));
    let folder = source.join("target/deploy");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(source).env(format!("{variable}_RUSTFLAGS"), "-C target-feature=+crt-static");
    let linker = format!("{variable}_LINKER");
    if !target.is_here() && std::env::var_os(&linker).is_none() {
        cargo
            .env(linker, format!("{}-linux-gnu-gcc", triple.split('-').next().unwrap_or_default()));
    }
    cargo.args(["build", "--profile", "release-small", "-p", "vaquita", "--target", triple]);
    let status = cargo.arg("--target-dir").arg(&folder).status();
    let status = status.map_err(|source| DeployError::Start { program: "cargo".into(), source })?;
    match status.success() {
        true => Ok(folder.join(triple).join("release-small/vaquita")),
        false => Err(DeployError::Build { target: triple }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_the_program_is_not_built_for_is_none() {
        assert_eq!(Target::of("Linux aarch64"), Some(Target::Aarch64));
        assert_eq!(Target::of("Linux x86_64"), Some(Target::X86_64));
        for other in ["Linux armv7l", "Darwin arm64", ""] {
            assert_eq!(Target::of(other), None, "{other}");
        }
    }
}
