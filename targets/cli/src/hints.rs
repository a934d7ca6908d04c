//! Options that help after an error of the libraries, which know nothing of a command line.

use std::error::Error;

use vaquita_calibration::EvalError;
use vaquita_calibration::statistics::CalibrationError;
use vaquita_quantize::convert::ConvertError;
use vaquita_quantize::parts::JoinError;
use vaquita_runtime::app::AppError;
use vaquita_runtime::cores::CoresRefused;
use vaquita_runtime::opening::OpenModelError;
use vaquita_runtime::session::SessionError;
use vaquita_runtime::session::chat::ChatError;
use vaquita_runtime::session::generate::GenerateError;
use vaquita_runtime::session::prompt::PromptError;

const MEMORY: &str = "--memory sets the budget, --context the context";
const CONTEXT: &str = "--context sets it";
const RAW: &str = "--raw gives the prompt to the model as it is";

/// The error with its hint, in one line.
pub fn in_words<E: Error + 'static>(error: &E) -> String {
    match hint(error) {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

/// The option that helps after `error`, in words.
fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let found = [
        error.downcast_ref().and_then(app),
        error.downcast_ref().and_then(open),
        error.downcast_ref().and_then(prompt),
        error.downcast_ref().and_then(chat),
        error.downcast_ref().and_then(session),
        error.downcast_ref().and_then(generate),
        error.downcast_ref().and_then(eval),
        error.downcast_ref().and_then(join),
        error.downcast_ref().and_then(convert),
        match error.downcast_ref::<CoresRefused>() {
            Some(CoresRefused::Cores { .. }) => Some("--cpu-mask names cores"),
            _ => None,
        },
    ];
    found.into_iter().flatten().next()
}

fn app(error: &AppError) -> Option<&'static str> {
    match error {
        AppError::Open(error) => open(error),
        AppError::Prompt(error) => prompt(error),
        AppError::Generate(error) => generate(error),
        AppError::TooSmall(_) => Some(MEMORY),
        AppError::Context { .. } => Some(CONTEXT),
        AppError::Cores(error) => hint(error),
        _ => None,
    }
}

fn open(error: &OpenModelError) -> Option<&'static str> {
    match error {
        OpenModelError::TooSmall { .. } | OpenModelError::Text(_) => Some(MEMORY),
        _ => None,
    }
}

fn prompt(error: &PromptError) -> Option<&'static str> {
    match error {
        PromptError::NoTemplate => Some(RAW),
        PromptError::TooLong { .. } => Some(CONTEXT),
        PromptError::Chat(error) => chat(error),
        _ => None,
    }
}

fn chat(error: &ChatError) -> Option<&'static str> {
    match error {
        ChatError::Template { .. } => Some(RAW),
        ChatError::Think { .. } => Some("--template-var sets any variable"),
        _ => None,
    }
}

fn session(error: &SessionError) -> Option<&'static str> {
    matches!(error, SessionError::ContextFull { .. }).then_some(CONTEXT)
}

fn generate(error: &GenerateError) -> Option<&'static str> {
    match error {
        GenerateError::Session(error) => session(error),
        _ => None,
    }
}

fn eval(error: &EvalError) -> Option<&'static str> {
    match error {
        EvalError::Prompt(error) => prompt(error),
        EvalError::Session(error) => session(error),
        EvalError::Generate(error) => generate(error),
        EvalError::Calibration(
            CalibrationError::NotAPart { .. }
            | CalibrationError::DamagedPart { .. }
            | CalibrationError::MissingParts { .. },
        ) => Some("`calibrate --part` makes parts"),
        _ => None,
    }
}

fn join(error: &JoinError) -> Option<&'static str> {
    match error {
        JoinError::NotAPart { .. } | JoinError::Missing { .. } | JoinError::Damaged { .. } => {
            Some("`quantize --part` makes parts")
        }
        _ => None,
    }
}

fn convert(error: &ConvertError) -> Option<&'static str> {
    match error {
        ConvertError::Folder { .. } => Some("`vaquita quantize` takes folders"),
        _ => Some("--type quantizes it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_within_errors_get_the_hint_of_their_cause() {
        let full = || SessionError::ContextFull { limit: 4, needed: 5 };
        assert_eq!(hint(&full()), Some(CONTEXT));
        assert_eq!(hint(&EvalError::Generate(GenerateError::Session(full()))), Some(CONTEXT));
        assert_eq!(hint(&AppError::Prompt(PromptError::NoTemplate)), Some(RAW));
        assert_eq!(hint(&AppError::Nothing), None);
        assert_eq!(hint(&std::fmt::Error), None);
    }
}
