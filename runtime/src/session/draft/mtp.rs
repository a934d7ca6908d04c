//! Drafts of the multi-token-prediction layer for one sequence.

use crate::model::cache::{CacheType, LayerCache};
use crate::model::{Compute, Model, ModelError, MtpChunk};

/// Positions whose states wait for the layer; while nothing is drafted, older ones are forgotten.
const MOST_PENDING: usize = 128;

/// State of the layer over a sequence. An entry of its cache needs the main model's state at a
/// position and the token after it.
#[derive(Debug)]
pub(super) struct MtpDrafts {
    cache: LayerCache,
    /// Position in the sequence of each entry. Where the states of positions are unknown there is a
    /// gap, and drafts are less good.
    positions: Vec<usize>,
    /// Positions whose states are known and that have no entry, with their states, `[positions,
    /// hidden_size]`.
    pending: Vec<usize>,
    states: Vec<f32>,
}

impl MtpDrafts {
    /// The state of an empty sequence.
    pub fn new(model: &Model, ty: CacheType) -> Self {
        let (positions, pending, states) = (Vec::new(), Vec::new(), Vec::new());
        Self { cache: model.mtp_cache(ty), positions, pending, states }
    }

    /// Memory of the entries, in bytes.
    pub fn bytes(&self) -> usize {
        self.cache.capacity() + self.states.capacity() * size_of::<f32>()
    }

    /// Takes the states of the positions from `first` on, `[positions, hidden_size]`.
    pub fn learn(&mut self, first: usize, states: &[f32], width: usize) {
        self.pending.extend(first..first + states.len() / width);
        self.states.extend_from_slice(states);
    }

    /// Forgets all but the last pending positions.
    pub fn forget(&mut self, width: usize) {
        let old = self.pending.len().saturating_sub(MOST_PENDING);
        self.pending.drain(..old);
        self.states.drain(..old * width);
    }

    /// Removes what depends on the tokens from position `len` on.
    pub fn truncate(&mut self, len: usize, width: usize) {
        let entries = self.positions.partition_point(|position| position + 1 < len);
        self.positions.truncate(entries);
        self.cache.truncate(entries);
        let pending = self.pending.partition_point(|position| *position < len);
        self.pending.truncate(pending);
        self.states.truncate(pending * width);
    }

    /// Makes entries of the pending positions whose next token is known, and returns the layer's
    /// state after the last of them.
    pub fn catch_up(
        &mut self,
        model: &Model,
        ctx: &Compute,
        tokens: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        let width = model.config().hidden_size;
        let known = self.pending.partition_point(|position| position + 1 < tokens.len());
        if known == 0 {
            return Ok(Vec::new());
        }
        let next: Vec<u32> = self.pending[..known].iter().map(|at| tokens[at + 1]).collect();
        let states = &self.states[..known * width];
        let chunk = MtpChunk { states, tokens: &next, cache: &mut self.cache };
        let state = model.run_mtp(ctx, &mut [chunk])?;
        self.positions.extend(self.pending.drain(..known));
        self.states.drain(..known * width);
        Ok(state)
    }

    /// At most `count` tokens that may follow `tokens`.
    pub fn draft(
        &mut self,
        model: &Model,
        ctx: &Compute,
        tokens: &[u32],
        count: usize,
    ) -> Result<Vec<u32>, ModelError> {
        let mut state = self.catch_up(model, ctx, tokens)?;
        let (mut drafts, entries) = (Vec::with_capacity(count), self.cache.len());
        while drafts.len() < count && !state.is_empty() {
            let Some(token) = model.predict(ctx, &state).pop() else { break };
            drafts.push(token);
            if drafts.len() < count {
                let chunk = MtpChunk { states: &state, tokens: &[token], cache: &mut self.cache };
                match model.run_mtp(ctx, &mut [chunk]) {
                    Ok(next) => state = next,
                    Err(_) => break, // shorter drafts are slower, not wrong
                }
            }
        }
        // Entries of drafts have states of this layer, not of the model.
        self.cache.truncate(entries);
        Ok(drafts)
    }
}
