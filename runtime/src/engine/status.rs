//! State and counters of the engine.

use std::time::Duration;

use crate::session::draft::{Ended, MOST_DRAFTS};

/// Weight of a new measurement in the average duration of an answer.
const NEWEST: f64 = 0.2;
/// Bounds of an estimated wait.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// State of an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Sequences that run, those that read their prompt included.
    pub running: usize,
    /// Sequences of those that read their prompt.
    pub reading: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Sequences that can run at the same time.
    pub slots: usize,
    /// Requests that can wait.
    pub queue: usize,
    /// Positions of cache that running sequences have reserved.
    pub cache_tokens_used: usize,
    /// Positions of cache that can be reserved.
    pub cache_tokens: usize,
    /// Bytes of prompts that are kept in memory.
    pub prompt_bytes: u64,
    /// Whether requests are no longer accepted.
    pub draining: bool,
    /// Average duration of an answer, prompt included; `None` before the first has ended.
    pub answer_time: Option<Duration>,
    /// Average duration of the last decode steps; `None` before the first.
    pub step: Option<Duration>,
    /// Sums since the engine started.
    pub counters: Counters,
}

impl Status {
    /// Estimated time until a request with `ahead` others before it begins.
    pub fn wait(&self, ahead: usize) -> Duration {
        let each = self.answer_time.unwrap_or(SHORTEST) / self.slots.max(1) as u32;
        each.saturating_mul(ahead as u32 + 1).clamp(SHORTEST, LONGEST)
    }

    pub(super) fn record_answer(&mut self, time: Duration) {
        let average = self
            .answer_time
            .map_or(time, |average| average.mul_f64(1.0 - NEWEST) + time.mul_f64(NEWEST));
        self.answer_time = Some(average);
    }
}

/// Sums since an engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were accepted.
    pub accepted: u64,
    /// Answers that ended by themselves.
    pub finished: u64,
    /// Requests that ended because they were cancelled.
    pub cancelled: u64,
    /// Requests that ended because of their deadline.
    pub late: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Refusals by reason.
    pub refused: RefusedCounters,
    /// Prompt tokens that were read.
    pub prompt_tokens: u64,
    /// Prompt tokens that were known.
    pub cached_tokens: u64,
    /// Known prompt tokens that came from files.
    pub cached_tokens_from_disk: u64,
    /// Tokens that were generated.
    pub tokens: u64,
    /// Passes of the model.
    pub passes: u64,
    /// Passes that read a slice of a prompt while answers waited for their next token.
    pub slices: u64,
    /// Tokens that were drafted, by their place in a step.
    pub drafted: [u64; MOST_DRAFTS],
    /// Drafts that were accepted, by their place.
    pub accepted_drafts: [u64; MOST_DRAFTS],
}

impl Counters {
    pub(super) fn count_drafts(&mut self, Ended { drafted, accepted, .. }: Ended) {
        self.drafted.iter_mut().take(drafted).for_each(|count| *count += 1);
        self.accepted_drafts.iter_mut().take(accepted).for_each(|count| *count += 1);
    }
}

/// Refusals by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedCounters {
    /// The queue was full.
    pub queue_full: u64,
    /// The client's share was full.
    pub client_share: u64,
    /// The prompt was too long.
    pub too_long: u64,
    /// The request could not be followed.
    pub invalid: u64,
    /// The engine was draining.
    pub draining: u64,
}

impl RefusedCounters {
    /// All refusals.
    pub fn all(&self) -> u64 {
        self.queue_full + self.client_share + self.too_long + self.invalid + self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_from_the_duration_of_answers() {
        let mut status = Status { slots: 2, ..Status::default() };
        assert_eq!(status.wait(0), SHORTEST, "nothing was measured");
        status.record_answer(Duration::from_secs(20));
        assert_eq!(status.wait(0), Duration::from_secs(10));
        assert_eq!(status.wait(3), Duration::from_secs(40));
        status.record_answer(Duration::from_secs(40));
        assert_eq!(status.answer_time, Some(Duration::from_secs(24)));
        assert_eq!(status.wait(10_000), LONGEST);
    }
}
