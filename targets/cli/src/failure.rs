//! Failure of a command: one line on stderr, and an exit code.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use vaquita_calibration::EvalError;
use vaquita_calibration::cluster::STOPPED;
use vaquita_calibration::statistics::CalibrationError;
use vaquita_quantize::QuantizeError;
use vaquita_runtime::app::AppError;

use crate::hints::in_words;

/// 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Reason of a failure.
#[derive(Debug)]
pub enum Failure {
    /// An error: exit code 1.
    Error(String),
    /// Invalid usage: exit code 2.
    Usage(String),
    /// Stopped after a step; the same command resumes from there: exit code 75, `EX_TEMPFAIL`.
    Stopped(String),
    /// A command line that cannot be parsed, or a wish for help: exit code 2 or 0.
    CommandLine(Box<clap::Error>),
    /// Ended by Ctrl-C, after what it had: exit code 130, as shells give it.
    Interrupted,
    /// The reader of our output is gone, as with `head`: exit silently.
    BrokenPipe,
}

/// Result of a command.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// Prints the message and returns the exit code.
    pub fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Error(message) => (message, 1),
            Self::Usage(message) => (message, 2),
            Self::Stopped(message) => (message, STOPPED),
            Self::CommandLine(error) => {
                // Nothing is left to report to if this fails.
                let _ = error.print();
                return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
            }
            Self::Interrupted => return ExitCode::from(INTERRUPTED),
            Self::BrokenPipe => return ExitCode::SUCCESS,
        };
        // One line, even if strings from a file contain line breaks.
        let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        eprintln!("error: {line}");
        ExitCode::from(code)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let any: &(dyn Error + 'static) = &error;
        if let Some(error) = any.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            return Self::BrokenPipe;
        }
        if was_stopped(any) {
            return Self::Stopped(error.to_string());
        }
        let message = in_words(&error);
        match any.downcast_ref() {
            Some(AppError::Context { .. }) => Self::Usage(message),
            _ => Self::Error(message),
        }
    }
}

fn was_stopped(error: &(dyn Error + 'static)) -> bool {
    let quantizing = error.downcast_ref::<QuantizeError>();
    let calibrating = error.downcast_ref::<EvalError>();
    matches!(quantizing, Some(QuantizeError::Stopped { .. }))
        || matches!(calibrating, Some(EvalError::Calibration(CalibrationError::Stopped { .. })))
}
