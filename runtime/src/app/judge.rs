//! The one judge of whether a model runs: opening a model asks it, and so does everything that
//! describes a model or makes another file from it.

use std::path::Path;
use std::sync::Arc;

use super::AppError;
use crate::checkpoint::gguf_weights::OpenError;
use crate::checkpoint::{Config, GgufWeights, Role, Verify, Weights, WeightsError};
use crate::gguf::Gguf;
use crate::kernels::scan::all_finite;
use crate::opening::OpenModelError;
use crate::session::chat::Message;
use crate::session::prompt::{PromptError, Prompter};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Verdict on a model that runs.
#[derive(Debug)]
pub struct Fit {
    /// How its tokenizer was read, if that matters to the user.
    pub note: Option<String>,
    /// Why it continues texts but holds no conversations; `None` if it does.
    pub no_chat: Option<PromptError>,
}

/// Whether weights run with a tokenizer. Matrices are not read: only their names, shapes and types
/// are checked.
///
/// # Errors
/// The reason why it does not run.
pub fn judge(
    weights: &dyn Weights,
    tokenizer: Result<Tokenizer, TokenizerError>,
) -> Result<Fit, AppError> {
    judge_weights(weights)?;
    let prompter = judge_text(Arc::new(tokenizer?), weights.config())?;
    let greeting = [Message::new("user", "Hi")];
    let no_chat = match prompter.chat(&greeting, None) {
        // Such a context is short, but it runs.
        Ok(_) | Err(PromptError::TooLong { .. }) => None,
        Err(error) => Some(error),
    };
    Ok(Fit { note: prompter.tokenizer().note().map(str::to_string), no_chat })
}

/// Whether a GGUF file runs.
///
/// # Errors
/// The reason why it does not run.
pub fn judge_file(path: &Path) -> Result<Fit, AppError> {
    let gguf = Gguf::open(path).map_err(open_error)?;
    let weights = GgufWeights::new(gguf, Verify::First).map_err(open_error)?;
    judge(&weights, Tokenizer::from_metadata(weights.gguf().metadata()))
}

fn open_error(error: impl Into<OpenError>) -> AppError {
    OpenModelError::from(error.into()).into()
}

/// Whether the weights of a model are all there: [`Weights::check`], and vectors without NaN and
/// infinity, which a model reads when it is loaded.
pub fn judge_weights(weights: &dyn Weights) -> Result<(), OpenModelError> {
    weights.check()?;
    let config = weights.config();
    for spec in config.family.tensors(config) {
        let is_vector = spec.role == Role::Vector && spec.rows == 1;
        if !is_vector || spec.layer().is_some_and(|layer| layer >= config.num_hidden_layers) {
            continue;
        }
        let vector = weights.tensor(&spec)?.map(|vector| vector.decode());
        if vector.is_some_and(|vector| !all_finite(&vector)) {
            return Err(WeightsError::NotFinite { name: format!("tensor {}", spec.name) }.into());
        }
    }
    Ok(())
}

/// The prompts of a model: whether its tokenizer and its template can be used.
pub fn judge_text(tokenizer: Arc<Tokenizer>, config: &Config) -> Result<Prompter, AppError> {
    Ok(Prompter::for_model(tokenizer, config)?)
}
