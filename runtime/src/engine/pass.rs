//! One pass of the model over tokens of several sequences.

use std::sync::Arc;

use super::options::EngineModel;
use super::request::EngineError;
use super::sequence::Sequence;
use crate::model::{Chunk, Compute, Logits, ModelError, Purpose};

/// Tokens of a sequence in a pass.
pub(super) struct Part {
    /// Index of the sequence.
    pub at: usize,
    /// Tokens of the sequence to compute.
    pub tokens: usize,
    /// Drafts to compute after them.
    pub drafts: Vec<u32>,
    pub purpose: Purpose,
}

/// Logits after the last token of a part, or after each if it has drafts, and the model's states at
/// all of them if the sequence drafts with them.
pub(super) struct Computed {
    pub logits: Vec<f32>,
    pub states: Vec<f32>,
}

/// Computes parts, by the order of their sequences. One that fails or is cancelled leaves its cache
/// as it was, and the others go on. Drafts of a part that fails with them are removed.
pub(super) fn run(
    model: &EngineModel,
    ctx: &Compute,
    sequences: &mut [Sequence],
    parts: &mut [Part],
) -> Vec<Result<Computed, Arc<ModelError>>> {
    let mut results = compute(model, ctx, sequences, parts);
    for (part, result) in parts.iter_mut().zip(&mut results) {
        let failed = result.as_ref().is_err_and(|error| !matches!(**error, ModelError::Cancelled));
        if failed && !part.drafts.is_empty() {
            part.drafts.clear(); // what a draft does to the model must not end the answer
            let again = compute(model, ctx, sequences, std::slice::from_mut(part)).pop();
            *result = again.unwrap_or(Err(Arc::new(ModelError::Cancelled)));
        }
    }
    results
}

fn compute(
    model: &EngineModel,
    ctx: &Compute,
    sequences: &mut [Sequence],
    parts: &[Part],
) -> Vec<Result<Computed, Arc<ModelError>>> {
    let mut states: Vec<Vec<f32>> = parts.iter().map(|_| Vec::new()).collect();
    let mut fed: Vec<Vec<u32>> = Vec::with_capacity(parts.len());
    for Part { at, tokens, drafts, .. } in parts {
        let sequence = &sequences[*at];
        let from = sequence.cache.len();
        fed.push([&sequence.answer.tokens()[from..from + tokens], drafts].concat());
    }
    let mut chunks = Vec::with_capacity(parts.len());
    let mut rest = parts.iter().zip(fed.iter().zip(&mut states)).peekable();
    for (at, sequence) in sequences.iter_mut().enumerate() {
        let Some((part, (tokens, states))) = rest.next_if(|(part, _)| part.at == at) else {
            continue;
        };
        let wanted = if part.drafts.is_empty() { Logits::Last } else { Logits::All };
        let needs_states = sequence.drafts.as_ref().is_some_and(|drafts| drafts.needs_states());
        chunks.push(Chunk {
            states: needs_states.then_some(states),
            purpose: part.purpose,
            cancel: Some(&sequence.cancel),
            ..Chunk::new(tokens, &mut sequence.cache, wanted)
        });
    }
    let results = together(model, ctx, &mut chunks);
    drop(chunks);
    let computed = results.into_iter().zip(states);
    computed.map(|(logits, states)| Ok(Computed { logits: logits?, states })).collect()
}

fn together(
    model: &EngineModel,
    ctx: &Compute,
    chunks: &mut [Chunk],
) -> Vec<Result<Vec<f32>, Arc<ModelError>>> {
    match model.model.forward_batch(ctx, chunks) {
        Ok(results) => results.into_iter().map(|result| result.map_err(Arc::new)).collect(),
        // An expert cannot be read: only those that need it fail.
        Err(_) if chunks.len() > 1 => {
            chunks.chunks_mut(1).flat_map(|chunk| together(model, ctx, chunk)).collect()
        }
        Err(error) => vec![Err(Arc::new(error))],
    }
}

impl From<Arc<ModelError>> for EngineError {
    fn from(error: Arc<ModelError>) -> Self {
        Self::Model(error)
    }
}
