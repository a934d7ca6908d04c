//! Fill in the middle: prompts of models that were trained for it.

use crate::error::{ApiError, Result};
use crate::served::Served;

/// Tokens before the text, before what follows the gap, and before what fills it: DeepSeek's,
/// Qwen's, StarCoder's, CodeLlama's.
const MARKERS: [[&str; 3]; 4] = [
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
];

/// The text that makes a model write what belongs between `prefix` and `suffix`.
pub(crate) fn text(model: &Served, prefix: &str, suffix: &str) -> Result<String> {
    let tokenizer = model.prompter().tokenizer();
    let known = |markers: &&[&str; 3]| markers.iter().all(|m| tokenizer.token_to_id(m).is_some());
    let [before, hole, end] = MARKERS.iter().find(known).ok_or_else(|| {
        ApiError::unsupported(
            "this model was not trained to fill in the middle: its vocabulary has no tokens for it",
        )
    })?;
    Ok(format!("{before}{prefix}{hole}{suffix}{end}"))
}
