//! How a command fails: one clear line on stderr, and an exit code.

use std::error::Error;
use std::io;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Something went wrong: exit code 1.
    Error(String),
    /// The command line makes no sense: exit code 2.
    Usage(String),
    /// Whoever read our output has gone, as `head` does: nothing to say.
    BrokenPipe,
}

/// What commands return.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// Says it and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Error(message) => (message, 1),
            Self::Usage(message) => (message, 2),
            Self::BrokenPipe => return ExitCode::SUCCESS,
        };
        // One line, whatever was in a file's strings.
        let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        eprintln!("error: {line}");
        ExitCode::from(code)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let any: &(dyn Error + 'static) = &error;
        match any.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Error(error.to_string()),
        }
    }
}
