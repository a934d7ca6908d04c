//! Hints for commands that users of other programs type by habit.

mod flags;
mod paths;

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;

pub use flags::foreign_flag;
pub use paths::check_model;

/// Commands of other programs.
const FOREIGN_COMMANDS: [(&[&str], &str); 8] = [
    (&["generate", "ask", "complete", "cli"], "`vaquita run MODEL \"PROMPT\"` answers a prompt"),
    (&["create", "convert-hf", "gguf"], "`vaquita quantize FOLDER -o FILE` makes a file"),
    (&["perplexity"], "`vaquita eval perplexity MODEL --text FILE` measures it"),
    (&["imatrix"], "`vaquita calibrate FOLDER -o FILE` collects statistics of a text"),
    (&["version"], "`vaquita --version` prints it"),
    (&["list", "ls", "rm", "cache"], "`vaquita models` lists and removes models of the hub"),
    (&["download", "fetch"], "`vaquita pull OWNER/NAME` fetches a model of the hub"),
    (
        &["ps", "stop", "cp", "push", "login"],
        "vaquita keeps no models loaded, and works on files that you name",
    ),
];

/// The failure for a command line that cannot be parsed, with what to type instead where we know.
pub fn explain(error: clap::Error, words: &[OsString]) -> Failure {
    match better(&error, words) {
        Some(message) => Failure::Usage(message),
        None => Failure::CommandLine(Box::new(error)),
    }
}

fn better(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let first = words.get(1).map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument if first.starts_with('-') => {
            let rest = words.iter().skip(1).map(|word| word.to_string_lossy());
            let rest: Vec<_> = rest.collect();
            Some(format!("options follow a command, as in: vaquita run {}", rest.join(" ")))
        }
        ErrorKind::InvalidSubcommand => {
            let known = FOREIGN_COMMANDS.iter().find(|(names, _)| names.contains(&first.as_str()));
            if let Some((_, advice)) = known {
                return Some(format!("{first} is no command of vaquita: {advice}"));
            }
            let is_model = first.ends_with(".gguf") || Path::new(&first).exists();
            is_model.then(|| {
                format!("{first} is a model; answer a prompt with `vaquita run {first} \"PROMPT\"`")
            })
        }
        ErrorKind::ValueValidation => refused_value(error),
        ErrorKind::UnknownArgument => {
            let makes_a_file = ["quantize", "convert", "export"].contains(&first.as_str());
            let found = text(error, ContextKind::InvalidArg)?;
            (makes_a_file && !found.starts_with('-')).then(|| {
                format!(
                    "{found}: the output is an option, as in: vaquita {first} SOURCE -o {found}"
                )
            })
        }
        _ => None,
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// The message for a value that an option does not take, in one line.
fn refused_value(error: &clap::Error) -> Option<String> {
    let option = text(error, ContextKind::InvalidArg)?.split(' ').next()?;
    let value = text(error, ContextKind::InvalidValue)?;
    let is_negative = value.parse().is_ok_and(|number: i128| number < 0);
    let cause = error.source()?.to_string();
    // Of the standard library's integers; our own parsers say what they take.
    match cause.as_str() {
        "invalid digit found in string" if is_negative => {
            Some(format!("{option} is {value}; it takes no negative number"))
        }
        "number would be zero for non-zero type" => {
            Some(format!("{option} is {value}; it takes numbers from 1"))
        }
        cause if cause.starts_with("number too large") => {
            Some(format!("{option} is {value}, which is too large"))
        }
        cause => Some(format!("{option} is {value}: {cause}")),
    }
}
