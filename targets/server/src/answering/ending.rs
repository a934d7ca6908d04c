//! Ends the reasoning of an answer: the answer is cancelled, and continued from what it was with
//! its reasoning closed.

use vaquita_runtime::engine::Request;
use vaquita_runtime::session::generate::Generation;

use crate::error::{ApiError, Result};
use crate::served::Served;

/// Text that closes the reasoning.
const CLOSE: &str = "\n</think>\n\n";

/// Whether and how far an answer's reasoning was ended.
#[derive(Debug, Default)]
pub(super) enum Ending {
    /// It goes on.
    #[default]
    No,
    /// The answer is being cancelled.
    Cancelling,
    /// The answer is continued after this part of it.
    Continued(Box<Generation>),
}

/// The request that continues `begun`, an answer to `request`, after its reasoning; adds the tokens
/// that close the reasoning to `begun`.
pub(super) fn continued(
    model: &Served,
    request: &Request,
    begun: &mut Generation,
) -> Result<Request> {
    let close = model.prompter().tokenizer().encode(CLOSE, true);
    begun.tokens.extend(close.map_err(|error| ApiError::internal(error.to_string()))?);
    let mut next = request.clone();
    next.prompt.extend(&begun.tokens);
    next.options.reasoning_open = false;
    let used = begun.tokens.len();
    next.options.max_tokens = next.options.max_tokens.map(|most| most.saturating_sub(used));
    Ok(next)
}

/// The whole of an answer that was continued.
pub(super) fn join(begun: Generation, rest: Generation) -> Generation {
    Generation {
        reasoning: begun.reasoning + &rest.reasoning,
        tokens: [begun.tokens, rest.tokens].concat(),
        logprobs: [begun.logprobs, rest.logprobs].concat(),
        prompt_tokens: begun.prompt_tokens,
        cached_tokens: begun.cached_tokens,
        prefill: begun.prefill,
        decode: begun.decode + rest.prefill + rest.decode,
        ..rest
    }
}
