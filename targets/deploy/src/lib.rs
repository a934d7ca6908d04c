//! Deploys the program and models to a board over ssh. [`build()`] builds the program for the
//! board's processor, and [`Remote::copy`] copies files and resumes interrupted copies.
//!
//! The board needs only a shell and POSIX tools.

pub mod build;
mod cksum;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub use build::{Target, build};
use cksum::Cksum;

/// Error of a deployment.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The host name is invalid.
    #[error("{host:?} is not a host; write it like pi@raspberrypi.local")]
    Host {
        /// The name given.
        host: String,
    },
    /// A local file cannot be read.
    #[error("{path}: {source}")]
    Local {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// ssh or cargo cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// Name of the program.
        program: String,
        /// The I/O error.
        source: io::Error,
    },
    /// A command failed on the board, or ssh itself failed.
    #[error("{host}: {message}")]
    Remote {
        /// Name of the board.
        host: String,
        /// Output of the command.
        message: String,
    },
    /// The board's processor or system is not supported.
    #[error("{host} is {found}; allowed: Linux on aarch64 or x86_64")]
    System {
        /// Name of the board.
        host: String,
        /// The system found.
        found: String,
    },
    /// The copy differs from the original.
    #[error("{host}: {path} arrived damaged, and was removed; try again")]
    Damaged {
        /// Name of the board.
        host: String,
        /// Path of the file on the board.
        path: String,
    },
    /// The program cannot be built.
    #[error(
        "the program cannot be built for {target}: see above; or give one that is built, with --binary"
    )]
    Build {
        /// Target triple.
        target: &'static str,
    },
}

/// A board that ssh can reach.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The ssh program and its options.
    ssh: Vec<String>,
    host: String,
}

/// Result of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes that were on the board already.
    pub kept_bytes: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
}

impl Remote {
    /// A board by its ssh destination. `ssh` is the command with its options, such as `ssh -p
    /// 2222`.
    pub fn new(ssh: &str, host: &str) -> Result<Self, DeployError> {
        let ssh: Vec<String> = ssh.split_whitespace().map(String::from).collect();
        // ssh would interpret a leading `-` as an option, which can name a program to run.
        if ssh.is_empty() || host.is_empty() || host.starts_with('-') {
            return Err(DeployError::Host { host: host.into() });
        }
        Ok(Self { ssh, host: host.into() })
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(&self.ssh[0]);
        command.args(&self.ssh[1..]).arg("--").arg(&self.host).arg(script);
        command
    }

    fn start_error(&self, source: io::Error) -> DeployError {
        DeployError::Start { program: self.ssh[0].clone(), source }
    }

    fn failed(&self, output: &Output) -> DeployError {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        let message = if said.is_empty() { output.status.to_string() } else { said };
        DeployError::Remote { host: self.host.clone(), message }
    }

    /// Output of a script on the board.
    pub fn output(&self, script: &str) -> Result<String, DeployError> {
        let output = self.command(script).stdin(Stdio::null()).output();
        let output = output.map_err(|error| self.start_error(error))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
            false => Err(self.failed(&output)),
        }
    }

    /// Runs a script on the board and prints its output here.
    pub fn show(&self, script: &str) -> Result<(), DeployError> {
        let status = self.command(script).stdin(Stdio::null()).status();
        let status = status.map_err(|error| self.start_error(error))?;
        let message = || format!("{script}: {status}");
        let failed = || DeployError::Remote { host: self.host.clone(), message: message() };
        if status.success() { Ok(()) } else { Err(failed()) }
    }

    /// The build target of the board.
    pub fn target(&self) -> Result<Target, DeployError> {
        let found = self.output("uname -s -m")?;
        Target::of(&found).ok_or(DeployError::System { host: self.host.clone(), found })
    }

    /// Copies a file to a path on the board. Keeps the intact part of an earlier attempt; the file
    /// appears under its name only once it is complete. `progress` receives the bytes present and
    /// the total.
    pub fn copy(
        &self,
        from: &Path,
        to: &str,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Copied, DeployError> {
        let local = |source| DeployError::Local { path: from.into(), source };
        let mut file = File::open(from).map_err(local)?;
        let all = file.metadata().map_err(local)?.len();
        let (path, partial) = (quote(to), quote(&format!("{to}.partial")));
        let whole = Cksum::of(&mut file, all).map_err(local)?;
        if self.cksum(&path)? == Some((whole, all)) {
            progress(all, all);
            return Ok(Copied { kept_bytes: all, sent_bytes: 0 });
        }
        let kept = match self.cksum(&partial)? {
            Some((sum, bytes)) if bytes <= all => {
                file.rewind().map_err(local)?;
                if Cksum::of(&mut file, bytes).map_err(local)? == sum { bytes } else { 0 }
            }
            _ => 0,
        };
        file.seek(SeekFrom::Start(kept)).map_err(local)?;
        let into = if kept == 0 { ">" } else { ">>" };
        self.send(file.take(all - kept), &format!("cat {into} {partial}"), &mut |sent| {
            progress(kept + sent, all);
        })?;
        if self.cksum(&partial)? != Some((whole, all)) {
            self.output(&format!("rm -f {partial}"))?;
            return Err(DeployError::Damaged { host: self.host.clone(), path: to.into() });
        }
        let mode =
            if is_executable(from) { format!("chmod 755 {partial} && ") } else { String::new() };
        self.output(&format!("{mode}mv {partial} {path}"))?;
        Ok(Copied { kept_bytes: kept, sent_bytes: all - kept })
    }

    /// Checksum and length of a file on the board; `None` if it does not exist.
    fn cksum(&self, quoted: &str) -> Result<Option<(u32, u64)>, DeployError> {
        let said = self.output(&format!("if [ -f {quoted} ]; then cksum < {quoted}; fi"))?;
        let mut fields = said.split_whitespace();
        let sum = fields.next().and_then(|field| field.parse().ok());
        Ok(sum.zip(fields.next().and_then(|field| field.parse().ok())))
    }

    fn send(
        &self,
        mut from: impl Read,
        script: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DeployError> {
        let mut command = self.command(script);
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| self.start_error(error))?;
        let mut sent = || -> io::Result<()> {
            let mut into = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            let (mut buffer, mut sent) = (vec![0; 1 << 20], 0);
            loop {
                let read = from.read(&mut buffer)?;
                if read == 0 {
                    return into.flush();
                }
                into.write_all(&buffer[..read])?;
                sent += read as u64;
                progress(sent);
            }
        };
        let sent = sent();
        let output = child.wait_with_output().map_err(|error| self.start_error(error))?;
        if !output.status.success() {
            return Err(self.failed(&output)); // it says more than a broken pipe
        }
        sent.map_err(|error| DeployError::Remote {
            host: self.host.clone(),
            message: error.to_string(),
        })
    }
}

/// Quotes a word for the board's shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    true
}
