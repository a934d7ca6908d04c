//! Perplexity: the exponential of the mean negative log-likelihood of each token given the tokens
//! before it.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::softmax::log_softmax;
use crate::{EvalError, OnProgress, Subject};

/// Result of a perplexity measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// The perplexity.
    pub perplexity: f64,
    /// Number of predicted tokens.
    pub tokens: usize,
}

/// Measures perplexity over texts, each after the begin-of-sentence token.
pub fn perplexity(
    subject: &Subject,
    texts: &[String],
    on_progress: OnProgress,
) -> Result<Perplexity, EvalError> {
    let documents = subject.tokenize(texts)?;
    let done = AtomicUsize::new(0);
    let losses: Vec<(f64, usize)> = documents
        .par_iter()
        .map(|document| {
            let mut loss = 0.0;
            for chunk in subject.chunks(document) {
                let (logits, targets) = chunk?;
                let rows = logits.chunks_exact(logits.len() / targets.len());
                let pairs = rows.zip(targets);
                loss -= pairs.map(|(row, target)| log_softmax(row)[*target as usize]).sum::<f64>();
            }
            on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, documents.len());
            Ok((loss, document.len() - 1))
        })
        .collect::<Result<_, EvalError>>()?;
    let loss: f64 = losses.iter().map(|(loss, _)| loss).sum();
    let tokens = losses.iter().map(|(_, tokens)| tokens).sum();
    Ok(Perplexity { perplexity: (loss / tokens as f64).exp(), tokens })
}
