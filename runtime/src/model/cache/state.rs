//! The state of a recurrent mixer: a few matrices that every token changes, and the inputs of the
//! convolution before it. It cannot be cut at a position as rows can, so a copy of an earlier state
//! is kept with the rows of the tokens since then, from which the state at each of those tokens is
//! computed again where a sequence is rolled back: with the same bits, since tokens are processed
//! one by one in either case.
//!
//! Two such checkpoints are kept. `recent` goes along with the sequence and covers the last few
//! tokens: what a failed pass or a rejected draft takes back. `prompt` covers the end of the last
//! long chunk, where the next turn of a conversation often continues.

/// Tokens that a checkpoint covers.
pub(super) const COVERED: usize = 16;

/// Sizes of a recurrent layer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateShape {
    /// Numbers of the state.
    pub state: usize,
    /// Numbers of a token's row: what the mixer computed from the token alone.
    pub row: usize,
    /// Rows before a token that its convolution reads.
    pub window: usize,
}

impl StateShape {
    /// Most numbers that a layer keeps: the state, and two checkpoints.
    pub(super) fn numbers(&self) -> usize {
        3 * self.state + 2 * (self.window + COVERED) * self.row
    }
}

/// A state, and the rows around it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Checkpoint {
    /// Number of tokens before.
    at: usize,
    state: Vec<f32>,
    /// The `window` rows before `at`, and those of the tokens since, at most [`COVERED`].
    rows: Vec<f32>,
}

/// The state of one sequence in one layer.
#[derive(Clone, Debug)]
pub struct StateCache {
    shape: StateShape,
    len: usize,
    /// State after `len` tokens, unless `stale`.
    state: Vec<f32>,
    /// Whether the state has to be computed again from `recent`.
    stale: bool,
    recent: Checkpoint,
    prompt: Option<Checkpoint>,
}

/// What a mixer computes of some tokens: `state` is changed by every row of `rows` but the first
/// `window`, which are those before. `first` is the number of the first token in the pass, or
/// `None` if its outputs are not wanted again.
pub type Advance<'a> = dyn FnMut(&mut [f32], &[f32], Option<usize>) + 'a;

impl StateCache {
    /// The state of an empty sequence.
    pub(super) fn new(shape: StateShape) -> Self {
        let mut new = Self {
            shape,
            len: 0,
            state: Vec::new(),
            stale: false,
            recent: Checkpoint::default(),
            prompt: None,
        };
        new.clear();
        new
    }

    /// Number of tokens in the sequence.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends tokens with the given `rows`, `[tokens, row]`.
    pub fn advance(&mut self, rows: &[f32], run: &mut Advance) {
        let StateShape { row, window, .. } = self.shape;
        let tokens = rows.len() / row;
        self.refresh(run);
        if self.end(&self.recent) != self.len || self.covered(&self.recent) + tokens > COVERED {
            self.checkpoint();
        }
        if tokens <= COVERED {
            let before = self.recent.rows.len() - window * row;
            self.recent.rows.extend_from_slice(rows);
            run(&mut self.state, &self.recent.rows[before..], Some(0));
        } else {
            // The end of the chunk is covered by a checkpoint, its start by the recent one.
            let first = tokens - COVERED;
            let rows = [&self.recent.rows[self.recent.rows.len() - window * row..], rows].concat();
            run(&mut self.state, &rows[..(window + first) * row], Some(0));
            let prompt = self.prompt.get_or_insert_default();
            prompt.at = self.len + first;
            prompt.state.clone_from(&self.state);
            prompt.rows.clear();
            prompt.rows.extend_from_slice(&rows[first * row..]);
            run(&mut self.state, &prompt.rows, Some(first));
        }
        self.len += tokens;
    }

    /// Computes the state again where the sequence was rolled back.
    fn refresh(&mut self, run: &mut Advance) {
        if std::mem::take(&mut self.stale) {
            self.state.clone_from(&self.recent.state);
            if self.covered(&self.recent) > 0 {
                run(&mut self.state, &self.recent.rows, None);
            }
        }
    }

    /// Moves the recent checkpoint to the end of the sequence.
    fn checkpoint(&mut self) {
        let window = self.shape.window * self.shape.row;
        let covering = match &self.prompt {
            Some(prompt) if self.end(&self.recent) != self.len => &prompt.rows,
            _ => &self.recent.rows,
        };
        let rows = covering[covering.len() - window..].to_vec();
        self.recent.at = self.len;
        self.recent.state.clone_from(&self.state);
        self.recent.rows.clear();
        self.recent.rows.extend_from_slice(&rows);
    }

    /// Tokens that a checkpoint covers.
    fn covered(&self, checkpoint: &Checkpoint) -> usize {
        checkpoint.rows.len() / self.shape.row - self.shape.window
    }

    /// Position after the last token that a checkpoint covers.
    fn end(&self, checkpoint: &Checkpoint) -> usize {
        checkpoint.at + self.covered(checkpoint)
    }

    /// The last position up to `len` that the sequence can be rolled back to.
    pub(super) fn nearest(&self, len: usize) -> usize {
        if len >= self.len {
            return self.len;
        }
        let within =
            |checkpoint: &Checkpoint| (checkpoint.at <= len).then(|| len.min(self.end(checkpoint)));
        [Some(&self.recent), self.prompt.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(within)
            .max()
            .unwrap_or(0)
    }

    /// Rolls back to `len`, which is a position that [`nearest`](Self::nearest) returned.
    pub(super) fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        let covers =
            |checkpoint: &Checkpoint| (checkpoint.at..=self.end(checkpoint)).contains(&len);
        if !covers(&self.recent) {
            match self.prompt.as_ref().filter(|prompt| covers(prompt)) {
                Some(prompt) => self.recent.clone_from(prompt),
                None => return self.clear(),
            }
        }
        let kept =
            |checkpoint: &Checkpoint| (self.shape.window + len - checkpoint.at) * self.shape.row;
        let recent = kept(&self.recent);
        self.recent.rows.truncate(recent);
        match self.prompt.take() {
            Some(mut prompt) if prompt.at <= len => {
                let end = kept(&prompt);
                prompt.rows.truncate(end);
                self.prompt = Some(prompt);
            }
            _ => {}
        }
        (self.len, self.stale) = (len, true);
    }

    fn clear(&mut self) {
        let StateShape { state, row, window } = self.shape;
        (self.len, self.stale, self.prompt) = (0, false, None);
        self.state = vec![0.0; state];
        self.recent = Checkpoint { at: 0, state: vec![0.0; state], rows: vec![0.0; window * row] };
    }

    /// Memory of the state and its checkpoints, in bytes.
    pub(super) fn capacity(&self) -> usize {
        let checkpoint = |checkpoint: &Checkpoint| checkpoint.state.len() + checkpoint.rows.len();
        let kept = checkpoint(&self.recent) + self.prompt.as_ref().map_or(0, checkpoint);
        4 * (self.state.len() + kept)
    }

    /// A checkpoint that covers the end of the sequence, as bytes: state, then rows.
    pub(super) fn saved(&self) -> Vec<u8> {
        if self.len == 0 {
            return Vec::new();
        }
        let covering = match &self.prompt {
            Some(prompt) if self.end(&self.recent) != self.len => prompt,
            _ => &self.recent,
        };
        let numbers = covering.state.iter().chain(&covering.rows);
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }

    /// Whether `len` bytes can be a checkpoint of a sequence of `positions` tokens.
    pub(super) fn can_restore(&self, positions: usize, len: usize) -> bool {
        let StateShape { state, row, window } = self.shape;
        if positions == 0 || len == 0 {
            return positions == len;
        }
        let rows = (len / 4).checked_sub(state + window * row);
        let covered = rows.map(|rows| rows / row);
        len.is_multiple_of(4)
            && rows.is_some_and(|rows| rows.is_multiple_of(row))
            && covered.is_some_and(|covered| covered <= COVERED.min(positions))
    }

    /// Replaces the sequence by one of `positions` tokens with a checkpoint that was saved.
    pub(super) fn restore(&mut self, positions: usize, bytes: &[u8]) {
        self.clear();
        if positions == 0 {
            return;
        }
        let numbers = bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number));
        let mut state: Vec<f32> = numbers.collect();
        let rows = state.split_off(self.shape.state);
        self.recent = Checkpoint { at: 0, state, rows };
        self.recent.at = positions - self.covered(&self.recent);
        (self.len, self.stale) = (positions, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: StateShape = StateShape { state: 2, row: 1, window: 2 };

    /// A state whose value depends on the order of all tokens and on the two before each.
    fn step(state: &mut [f32], rows: &[f32], _: Option<usize>) {
        for token in rows.windows(3) {
            state[0] = 0.75 * state[0] + token[2] - 0.5 * token[1] + 0.25 * token[0];
            state[1] += 1.0;
        }
    }

    fn token(i: usize) -> f32 {
        (i * i % 17) as f32
    }

    fn feed(cache: &mut StateCache, tokens: std::ops::Range<usize>, chunk: usize) {
        let rows: Vec<f32> = tokens.map(token).collect();
        rows.chunks(chunk).for_each(|rows| cache.advance(rows, &mut step));
    }

    fn state(cache: &mut StateCache) -> Vec<f32> {
        cache.refresh(&mut step);
        cache.state.clone()
    }

    fn fed(len: usize) -> StateCache {
        let mut cache = StateCache::new(SHAPE);
        feed(&mut cache, 0..len, 1);
        cache
    }

    #[test]
    fn any_chunks_lead_to_the_same_state() {
        for chunk in [1, 2, COVERED, COVERED + 1, 40, 100] {
            let mut cache = StateCache::new(SHAPE);
            feed(&mut cache, 0..100, chunk);
            assert_eq!(state(&mut cache), state(&mut fed(100)), "{chunk}");
            assert!(cache.capacity() <= 4 * SHAPE.numbers());
        }
    }

    #[test]
    fn it_goes_back_exactly_or_says_how_far() {
        for (chunk, steps) in [(1, 0), (7, 0), (100, 0), (100, 1), (100, 30)] {
            for back in 0..130 {
                let mut cache = StateCache::new(SHAPE);
                feed(&mut cache, 0..100, chunk);
                feed(&mut cache, 100..100 + steps, 1);
                let wanted = (100 + steps).saturating_sub(back);
                let len = cache.nearest(wanted);
                assert!(len <= wanted);
                cache.truncate(len);
                assert_eq!((cache.len(), cache.nearest(len)), (len, len));
                assert_eq!(state(&mut cache), state(&mut fed(len)), "{chunk} {steps} {back}");
                feed(&mut cache, len..150, 9);
                assert_eq!(state(&mut cache), state(&mut fed(150)));
            }
        }
        let mut cache = StateCache::new(SHAPE);
        feed(&mut cache, 0..100, 100);
        assert_eq!([99, 84, 83].map(|len| cache.nearest(len)), [99, 84, 0]);
        feed(&mut cache, 100..140, 1);
        // The end of the prompt, and the last tokens before the end.
        assert_eq!([139, 120, 100, 90].map(|len| cache.nearest(len)), [139, 100, 100, 90]);
    }

    #[test]
    fn a_failed_chunk_is_taken_back_to_its_start() {
        for before in [0, 5, 100] {
            let mut cache = StateCache::new(SHAPE);
            feed(&mut cache, 0..before, 64);
            feed(&mut cache, before..before + 50, 50);
            assert_eq!(cache.nearest(before), before);
        }
    }

    #[test]
    fn a_saved_state_goes_on_and_other_lengths_are_refused() {
        for len in [0, 1, 15, 16, 17, 40, 100] {
            for chunk in [1, 100] {
                let mut cache = StateCache::new(SHAPE);
                feed(&mut cache, 0..len, chunk);
                let bytes = cache.saved();
                let mut back = StateCache::new(SHAPE);
                assert!(back.can_restore(len, bytes.len()));
                back.restore(len, &bytes);
                feed(&mut back, len..120, 3);
                assert_eq!(state(&mut back), state(&mut fed(120)));
                assert!(len == 0 || !back.can_restore(len, bytes.len() - 1));
                assert!(!back.can_restore(len, bytes.len() + 4 * COVERED + 4));
                assert!(len != 15 || !back.can_restore(3, bytes.len()));
            }
        }
    }
}
