//! Drafts of the running answers: each drafts its own tokens, and one [`Pace`] chooses how many of
//! all sequences' drafts a pass checks.

use super::options::EngineModel;
use super::sequence::Sequence;
use crate::model::Compute;
use crate::session::draft::{self, Candidate, Drafts, Ended, Pace, Wanted};

/// Drafts for the sequences of an engine.
pub(super) struct Drafting {
    model: EngineModel,
    pace: Pace,
}

impl Drafting {
    pub fn new(model: &EngineModel) -> Self {
        let depth = model.drafts.resolve(model.model.has_mtp()).depth();
        Self { model: model.clone(), pace: Pace::new(depth) }
    }

    /// The drafts of a new sequence; `None` if tokens are not drafted.
    pub fn begin(&self) -> Option<Drafts> {
        let EngineModel { model, session, drafts, .. } = &self.model;
        let drafts = Drafts::new(model, session.cache, *drafts)?;
        Some(drafts.with_chances(self.pace.chances()))
    }

    /// Begins a pass over `decoding` sequences. Returns the tokens to compute after the next one of
    /// each, at most `room` in all.
    pub fn propose(
        &mut self,
        ctx: &Compute,
        sequences: &mut [Sequence],
        decoding: &[usize],
        room: usize,
    ) -> Vec<(usize, Vec<u32>)> {
        let may_draft = |at: &usize| sequences[*at].drafts.is_some();
        let mut drafting: Vec<usize> = decoding.iter().copied().filter(may_draft).collect();
        if drafting.is_empty() {
            return Vec::new();
        }
        drafting.sort_unstable();
        let candidates = drafting.iter().filter_map(|at| sequences[*at].candidate());
        let candidates: Vec<Candidate> = candidates.collect();
        let others = decoding.len() - candidates.len();
        let depths = self.pace.begin(&candidates, others, room);
        let mut wanted = Vec::new();
        for (at, sequence) in sequences.iter_mut().enumerate() {
            let Ok(found) = drafting.binary_search(&at) else { continue };
            let (tokens, count) = (sequence.answer.tokens(), depths[found]);
            if let Some(drafts) = &mut sequence.drafts {
                wanted.push(Wanted { drafts, tokens, count });
            }
        }
        let proposed = draft::propose(&self.model.model, ctx, &mut wanted);
        drafting.into_iter().zip(proposed).collect()
    }

    /// Takes the end of a pass without a slice of a prompt, which had as many drafts.
    pub fn end(&mut self, drafted: usize) {
        self.pace.end(drafted);
    }

    /// Takes what became of a sequence's drafts.
    pub fn learn(&mut self, ended: Ended) {
        self.pace.learn(ended.drafted, ended.accepted);
    }
}

impl Sequence {
    fn candidate(&self) -> Option<Candidate<'_>> {
        let chances = self.drafts.as_ref()?.chances();
        // The last token needs no logits after it.
        let room = self.reserved.0.saturating_sub(self.answer.tokens().len() + 1);
        let most = if self.cache.goes_back() { room } else { 0 };
        Some(Candidate { chances, most })
    }
}
