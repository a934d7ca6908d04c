//! A forward pass over chunks of several sequences: their hidden states side by side.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ModelError;
use super::cache::KvCache;
use super::part::Part;
use super::store::Purpose;
use super::transformer::{Logits, embed};
use crate::blocks::Matrix;
use crate::checkpoint::Config;

/// Tokens of one sequence in a pass.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The tokens, which follow the positions in `cache`.
    pub tokens: &'a [u32],
    /// State of the sequence.
    pub cache: &'a mut KvCache,
    /// Tokens whose logits are wanted.
    pub wanted: Logits,
    /// Receives the states after the final norm, `[tokens, hidden_size]`, if the pass succeeds.
    pub states: Option<&'a mut Vec<f32>>,
    /// Purpose of the tokens.
    pub purpose: Purpose,
    /// Flag that, once set, ends this chunk before the next layer.
    pub cancel: Option<&'a AtomicBool>,
}

impl<'a> Chunk<'a> {
    /// A chunk that nothing cancels. One token is taken for a part of an answer, several for a part
    /// of a prompt.
    pub fn new(tokens: &'a [u32], cache: &'a mut KvCache, wanted: Logits) -> Self {
        let purpose = if tokens.len() == 1 { Purpose::Decode } else { Purpose::Prompt };
        Self { tokens, cache, wanted, states: None, purpose, cancel: None }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }
}

/// A pass in progress. Chunks that end early leave it, and their caches are as they were.
pub(super) struct Step<'s, 'a> {
    /// Hidden states of all running chunks, `[tokens, hidden_size]`.
    pub x: Vec<f32>,
    /// Purpose of each token.
    pub purposes: Vec<Purpose>,
    /// Per-layer embeddings of each token, if the model has any, `[tokens, layers * width]`.
    pub inputs: Vec<f32>,
    width: usize,
    running: Vec<Running<'s, 'a>>,
    /// Results of the chunks that have ended, in the order of all chunks.
    results: Vec<Option<Result<Vec<f32>, ModelError>>>,
}

/// A chunk whose tokens are computed.
struct Running<'s, 'a> {
    chunk: &'s mut Chunk<'a>,
    /// Index among all chunks.
    index: usize,
    /// Positions in the cache before the pass.
    past: usize,
    /// Rows of its tokens.
    rows: Range<usize>,
}

impl<'s, 'a> Step<'s, 'a> {
    /// Embeds the tokens of the chunks.
    pub fn new(config: &Config, embedding: &Matrix, chunks: &'s mut [Chunk<'a>]) -> Self {
        let (width, results) = (config.hidden_size, chunks.iter().map(|_| None).collect());
        let (x, purposes, running) = (Vec::new(), Vec::new(), Vec::new());
        let mut step = Self { x, purposes, inputs: Vec::new(), width, running, results };
        for (index, chunk) in chunks.iter_mut().enumerate() {
            match embed(config, embedding, chunk.tokens) {
                Err(error) => step.results[index] = Some(Err(error)),
                Ok(x) if x.is_empty() => step.results[index] = Some(Ok(x)),
                Ok(x) => {
                    let first = step.purposes.len();
                    step.purposes.resize(first + chunk.tokens.len(), chunk.purpose);
                    let (rows, past) = (first..step.purposes.len(), chunk.cache.len());
                    step.running.push(Running { chunk, index, past, rows });
                    match step.x.is_empty() {
                        true => step.x = x,
                        false => step.x.extend(x),
                    }
                }
            }
        }
        step
    }

    /// Whether all chunks have ended.
    pub fn is_done(&self) -> bool {
        self.running.is_empty()
    }

    /// Tokens of all running chunks.
    pub fn tokens(&self) -> Vec<u32> {
        self.running.iter().flat_map(|running| running.chunk.tokens).copied().collect()
    }

    /// The parts of the running chunks in a layer whose entries are in the cache of `layer`.
    pub fn parts(&mut self, layer: usize) -> (&mut [f32], Vec<Part<'_>>) {
        let parts = self.running.iter_mut();
        let parts = parts.map(|Running { chunk, rows, past, .. }| Part {
            rows: rows.clone(),
            cache: chunk.cache.layer(layer),
            past: *past,
        });
        (&mut self.x, parts.collect())
    }

    /// Ends the chunks that were cancelled.
    pub fn drop_cancelled(&mut self) {
        self.check(|chunk, _| match chunk.is_cancelled() {
            true => Err(ModelError::Cancelled),
            false => Ok(()),
        });
    }

    /// Ends the chunks with whose hidden states something is wrong.
    pub fn check<E: Into<ModelError>>(&mut self, check: impl Fn(&Chunk, &[f32]) -> Result<(), E>) {
        let mut at = 0;
        while let Some(Running { chunk, rows, .. }) = self.running.get(at) {
            match check(chunk, &self.x[rows.start * self.width..rows.end * self.width]) {
                Ok(()) => at += 1,
                Err(error) => self.end(at, error.into()),
            }
        }
    }

    /// Ends a running chunk: its tokens are removed from the pass and from its cache.
    fn end(&mut self, at: usize, error: ModelError) {
        let Running { chunk, index, past, rows } = self.running.remove(at);
        chunk.cache.truncate(past);
        self.results[index] = Some(Err(error));
        self.x.drain(rows.start * self.width..rows.end * self.width);
        let per_token = self.inputs.len() / self.purposes.len().max(1);
        self.inputs.drain(rows.start * per_token..rows.end * per_token);
        self.purposes.drain(rows.clone());
        for later in &mut self.running[at..] {
            later.rows = later.rows.start - rows.len()..later.rows.end - rows.len();
        }
    }

    /// Ends all chunks because the pass as a whole failed.
    pub fn roll_back(self) {
        for Running { chunk, past, .. } in self.running {
            chunk.cache.truncate(past);
        }
    }

    /// Hidden states of the tokens whose logits are wanted, `[wanted tokens, hidden_size]`.
    pub fn wanted(&self) -> Vec<f32> {
        let rows = self.running.iter().map(Running::wanted);
        let values = rows.flat_map(|rows| &self.x[rows.start * self.width..rows.end * self.width]);
        values.copied().collect()
    }

    /// Gives the chunks the states that they ask for.
    pub fn show_states(&mut self, norm: impl Fn(&[f32]) -> Vec<f32>) {
        for Running { chunk, rows, .. } in &mut self.running {
            if let Some(states) = &mut chunk.states {
                **states = norm(&self.x[rows.start * self.width..rows.end * self.width]);
            }
        }
    }

    /// Ends the running chunks with their logits, `[wanted tokens, vocab_size]`, unless `check`
    /// finds something wrong with a token's, and returns the results of all chunks in their order.
    pub fn finish(
        mut self,
        mut logits: Vec<f32>,
        check: impl Fn(&[f32]) -> Result<(), ModelError>,
        vocab_size: usize,
    ) -> Vec<Result<Vec<f32>, ModelError>> {
        // From the last chunk to the first, so that the logits of the first are not copied.
        while let Some(Running { chunk, index, past, rows }) = self.running.pop() {
            let wanted = chunk.wanted.rows(&rows).len() * vocab_size;
            let own = match logits.len() - wanted {
                0 => std::mem::take(&mut logits),
                before => logits.split_off(before),
            };
            let checked = own.chunks_exact(vocab_size).try_for_each(&check);
            if checked.is_err() {
                chunk.cache.truncate(past);
            }
            self.results[index] = Some(checked.map(|()| own));
        }
        self.results
            .into_iter()
            .map(|result| result.unwrap_or(Err(ModelError::Cancelled)))
            .collect()
    }
}

impl Running<'_, '_> {
    fn wanted(&self) -> Range<usize> {
        self.chunk.wanted.rows(&self.rows)
    }
}

impl Logits {
    /// The wanted ones of a chunk's rows, of which there is at least one.
    fn rows(self, rows: &Range<usize>) -> Range<usize> {
        match self {
            Self::Last => rows.end - 1..rows.end,
            Self::All => rows.clone(),
        }
    }
}
