//! Changes to logits before tokens are filtered: bias, repetition, presence and frequency
//! penalties.

use std::collections::BTreeMap;

use super::options::SamplingOptions;

/// Adds `logit_bias`. Tokens outside the vocabulary are ignored.
pub(super) fn bias(logits: &mut [f32], options: &SamplingOptions) {
    for &(token, bias) in &options.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
}

/// For every token that occurs `count` times in the last `repetition_window` tokens of `history`:
///
/// ```text
/// logit = logit / repetition_penalty where logit > 0, else logit * repetition_penalty
/// logit = logit - count * frequency_penalty - presence_penalty
/// ```
///
/// The order and the window are those of llama.cpp; the first line is from CTRL (arXiv 1909.05858,
/// section 4.1), the second from OpenAI.
pub(super) fn penalize(logits: &mut [f32], history: &[u32], options: &SamplingOptions) {
    let SamplingOptions { repetition_penalty, presence_penalty, frequency_penalty, .. } = *options;
    if (repetition_penalty, presence_penalty, frequency_penalty) == (1.0, 0.0, 0.0) {
        return;
    }
    let start = history.len().saturating_sub(options.repetition_window);
    let mut counts = BTreeMap::new();
    for token in &history[start..] {
        *counts.entry(*token).or_insert(0u32) += 1;
    }
    for (token, count) in counts {
        if let Some(logit) = logits.get_mut(token as usize) {
            let scaled = match *logit > 0.0 {
                true => *logit / repetition_penalty,
                false => *logit * repetition_penalty,
            };
            *logit = scaled - count as f32 * frequency_penalty - presence_penalty;
        }
    }
}
