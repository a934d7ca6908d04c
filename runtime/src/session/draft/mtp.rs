//! Drafts of the multi-token-prediction layer for one sequence.

use super::MOST_DRAFTS;
use crate::model::cache::{CacheType, LayerCache};
use crate::model::{Compute, Model, ModelError, MtpChunk};

/// Positions whose states wait for the layer: those of a step. While nothing is drafted, older ones
/// are forgotten, so that a trial costs no more than a step.
const MOST_PENDING: usize = 1 + MOST_DRAFTS;

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

    /// The tokens after pending positions, as far as they are known.
    fn next_tokens(&self, tokens: &[u32]) -> Vec<u32> {
        let known = self.pending.iter().filter(|position| *position + 1 < tokens.len());
        known.map(|position| tokens[position + 1]).collect()
    }
}

/// A sequence for which tokens are to be guessed.
pub(super) struct Guess<'a> {
    pub mtp: &'a mut MtpDrafts,
    pub tokens: &'a [u32],
    pub count: usize,
}

/// Makes entries of the pending positions whose next token is known, of all sequences that want
/// tokens, and returns the layer's state after the last one of each; none where there is none.
pub(super) fn catch_up(
    model: &Model,
    ctx: &Compute,
    guesses: &mut [Guess],
) -> Result<Vec<Vec<f32>>, ModelError> {
    let width = model.config().hidden_size;
    let next = guesses.iter().map(|guess| match guess.count {
        0 => Vec::new(),
        _ => guess.mtp.next_tokens(guess.tokens),
    });
    let next: Vec<Vec<u32>> = next.collect();
    let mut chunks = Vec::new();
    for (guess, next) in guesses.iter_mut().zip(&next).filter(|(_, next)| !next.is_empty()) {
        let MtpDrafts { cache, states, .. } = &mut *guess.mtp;
        chunks.push(MtpChunk { states: &states[..next.len() * width], tokens: next, cache });
    }
    let after = model.run_mtp(ctx, &mut chunks)?;
    let mut after = after.chunks_exact(width);
    let mut states = Vec::with_capacity(guesses.len());
    for (guess, next) in guesses.iter_mut().zip(&next) {
        let MtpDrafts { positions, pending, states: waiting, .. } = &mut *guess.mtp;
        positions.extend(pending.drain(..next.len()));
        waiting.drain(..next.len() * width);
        let state = if next.is_empty() { None } else { after.next() };
        states.push(state.unwrap_or_default().to_vec());
    }
    Ok(states)
}

/// For each sequence at most as many tokens as are wanted, which may follow its own. The layer runs
/// over all sequences at once.
pub(super) fn draft(
    model: &Model,
    ctx: &Compute,
    guesses: &mut [Guess],
) -> Result<Vec<Vec<u32>>, ModelError> {
    let width = model.config().hidden_size;
    let mut drafts: Vec<Vec<u32>> = vec![Vec::new(); guesses.len()];
    let mut states = catch_up(model, ctx, guesses)?;
    let entries: Vec<usize> = guesses.iter().map(|guess| guess.mtp.cache.len()).collect();
    loop {
        let goes_on = |at: &usize| !states[*at].is_empty();
        let going: Vec<usize> = (0..guesses.len()).filter(goes_on).collect();
        if going.is_empty() {
            break;
        }
        let now: Vec<f32> = going.iter().flat_map(|at| &states[*at]).copied().collect();
        for (at, token) in going.iter().zip(model.predict(ctx, &now)) {
            drafts[*at].push(token);
        }
        let mut chunks: Vec<MtpChunk> = Vec::new();
        let further = guesses.iter_mut().zip(states.iter().zip(&drafts));
        let further = further
            .filter(|(guess, (state, drafts))| !state.is_empty() && drafts.len() < guess.count);
        for (guess, (state, drafts)) in further {
            let tokens = &drafts[drafts.len() - 1..];
            chunks.push(MtpChunk { states: state, tokens, cache: &mut guess.mtp.cache });
        }
        if chunks.is_empty() {
            break;
        }
        let Ok(next) = model.run_mtp(ctx, &mut chunks) else {
            break; // shorter drafts are slower, not wrong
        };
        let mut next = next.chunks_exact(width);
        for (guess, (state, drafts)) in guesses.iter().zip(states.iter_mut().zip(&drafts)) {
            let further = !state.is_empty() && drafts.len() < guess.count;
            *state = if further { next.next().unwrap_or_default().to_vec() } else { Vec::new() };
        }
    }
    for (guess, entries) in guesses.iter_mut().zip(entries) {
        // Entries of drafts have states of this layer, not of the model.
        guess.mtp.cache.truncate(entries);
    }
    Ok(drafts)
}
