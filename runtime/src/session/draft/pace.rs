//! How many tokens to draft: as many as bring the most tokens per second, by measurement.
//!
//! A step with `d` drafts takes a time `t(d)`, which includes the drafting, and brings
//!
//! ```text
//! e(d) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_d      tokens
//! ```
//!
//! where `a_j` is the chance that draft `j` is accepted once those before it were. Both are measured
//! as they happen. After a few steps of every depth, the depth with the largest `e(d) / t(d)` is
//! used, if it is clearly better than none. Now and then, ever more rarely while the choice stays
//! the same, one step tries another depth.

use std::collections::VecDeque;
use std::time::Duration;

/// Steps of each depth before the first choice.
const FIRST_STEPS: usize = 2;
/// Times that are kept of each depth.
const KEPT_TIMES: usize = 9;
/// Least relative gain for which tokens are drafted.
const LEAST_GAIN: f64 = 0.03;
/// Steps until another depth is tried, and the most that they grow to.
const TRY_AFTER: [usize; 2] = [64, 1024];
/// Share of the past that remains in a chance after another step.
const KEPT: f64 = 0.985;
/// Drafts that a chance remembers at least, however long ago they were.
const LEAST_MADE: f64 = 2.0;

/// Chance that a draft is accepted.
#[derive(Clone, Copy, Debug)]
struct Chance {
    made: f64,
    right: f64,
}

/// Chooses the number of drafts of each step of a sequence.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Times of the last steps, by the number of drafts, in seconds.
    times: Vec<VecDeque<f64>>,
    /// Chance of each draft, given that all before it were accepted.
    chances: Vec<Chance>,
    choice: usize,
    /// Steps until another depth is tried, now and after the next trial.
    until_trial: usize,
    interval: usize,
    /// Depth of the next trial.
    trial: usize,
}

impl Pace {
    /// A pace of at most `most` drafts per step that has measured nothing.
    pub fn new(most: usize) -> Self {
        Self {
            times: vec![VecDeque::new(); most + 1],
            chances: vec![Chance { made: 2.0, right: 1.5 }; most],
            choice: most,
            until_trial: TRY_AFTER[0],
            interval: TRY_AFTER[0],
            trial: 0,
        }
    }

    /// Number of tokens to draft in the next step.
    pub fn depth(&self) -> usize {
        if let Some(depth) = self.unmeasured() {
            return depth;
        }
        if self.until_trial == 0 { self.trial } else { self.choice }
    }

    /// Records a step: of `drafted` tokens the first `accepted` were accepted.
    pub fn note(&mut self, drafted: usize, accepted: usize, time: Duration) {
        let measured = self.unmeasured().is_none();
        let Some(times) = self.times.get_mut(drafted) else { return };
        times.push_back(time.as_secs_f64());
        if times.len() > KEPT_TIMES {
            times.pop_front();
        }
        for chance in self.chances.iter_mut().filter(|chance| chance.made > LEAST_MADE) {
            chance.made *= KEPT;
            chance.right *= KEPT;
        }
        for (at, chance) in self.chances.iter_mut().take(drafted.min(accepted + 1)).enumerate() {
            chance.made += 1.0;
            chance.right += f64::from(u8::from(at < accepted));
        }
        if measured {
            self.after_step();
        }
        self.choose();
    }

    /// A depth that too few steps have had; the deepest first, since a deep step also tells the
    /// chances of the drafts before.
    fn unmeasured(&self) -> Option<usize> {
        let depths = (0..self.times.len()).rev();
        depths.into_iter().find(|depth| self.times[*depth].len() < FIRST_STEPS)
    }

    fn after_step(&mut self) {
        if self.until_trial > 0 {
            self.until_trial -= 1;
            return;
        }
        self.trial = (self.trial + 1) % self.times.len();
        if self.trial == self.choice {
            self.trial = (self.trial + 1) % self.times.len();
        }
        self.interval = (2 * self.interval).min(TRY_AFTER[1]);
        self.until_trial = self.interval;
    }

    fn choose(&mut self) {
        if self.unmeasured().is_some() {
            return;
        }
        let mut emitted = 1.0;
        let mut reached = 1.0;
        let plain = 1.0 / self.time(0);
        let (mut best, mut rate) = (0, plain * (1.0 + LEAST_GAIN));
        for (at, chance) in self.chances.iter().enumerate() {
            reached *= chance.right / chance.made;
            emitted += reached;
            let found = emitted / self.time(at + 1);
            if found > rate {
                (best, rate) = (at + 1, found);
            }
        }
        if best != self.choice {
            self.choice = best;
            self.interval = TRY_AFTER[0];
            self.until_trial = self.interval;
        }
    }

    /// Median time of a step with that many drafts, in seconds.
    fn time(&self, drafts: usize) -> f64 {
        let mut times: Vec<f64> = self.times[drafts].iter().copied().collect();
        times.sort_unstable_by(f64::total_cmp);
        times.get(times.len() / 2).map_or(0.0, |time| time.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use vaquita_lcg::Lcg;

    use super::*;

    /// Generates tokens where draft `j` is accepted with a chance and a step of `d` drafts takes
    /// `1 + cost * d`; returns the time per token, and the depth at the end.
    fn generate(pace: &mut Pace, tokens: usize, chance: f32, cost: f64, seed: u64) -> (f64, usize) {
        let mut random = Lcg(seed);
        let (mut emitted, mut time) = (0, 0.0);
        while emitted < tokens {
            let depth = pace.depth();
            let accepted = (0..depth).take_while(|_| random.unit() < chance).count();
            let noise = 1.0 + 0.05 * f64::from(random.unit());
            let step = (1.0 + cost * depth as f64) * noise;
            pace.note(depth, accepted, Duration::from_secs_f64(step));
            (emitted, time) = (emitted + 1 + accepted, time + step / noise);
        }
        (time / emitted as f64, pace.choice)
    }

    #[test]
    fn drafts_that_pay_are_kept_and_others_are_not() {
        for (chance, cost, depth) in [(0.9, 0.1, 2), (0.0, 0.1, 0), (0.5, 0.8, 0), (0.5, 0.35, 1)] {
            let mut pace = Pace::new(2);
            let (_, found) = generate(&mut pace, 2000, chance, cost, 3);
            assert_eq!(found, depth, "{chance} {cost}");
        }
    }

    #[test]
    fn what_does_not_pay_costs_little() {
        for (chance, cost) in [(0.0, 0.2), (0.3, 0.5), (0.6, 0.9), (0.9, 1.5), (0.1, 0.05)] {
            for tokens in [200, 2000] {
                let (time, _) = generate(&mut Pace::new(2), tokens, chance, cost, 5);
                assert!(time < 1.0 / 0.97, "{chance} {cost} {tokens}: {time}");
            }
        }
    }

    #[test]
    fn it_opens_and_closes_as_the_text_changes() {
        let mut pace = Pace::new(2);
        for (chance, depth) in [(0.9, 2), (0.0, 0), (0.95, 2), (0.0, 0)] {
            let (_, found) = generate(&mut pace, 6000, chance, 0.2, 7);
            assert_eq!(found, depth, "{chance}");
        }
    }
}
