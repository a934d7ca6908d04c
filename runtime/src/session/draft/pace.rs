//! How many tokens to draft in a pass: as many as bring the most tokens per second, by measurement.
//!
//! A pass over `k` sequences with `m` drafts in all takes a time `t(k, m)`, which includes the
//! drafting, and brings
//!
//! ```text
//! e(m) = k + sum over the drafts of a_1 ... a_j      tokens
//! ```
//!
//! where `a_j` is the chance that draft `j` of its sequence is accepted once those before it were.
//! Both are measured as they happen: times for all sequences together, chances for each. The `m`
//! drafts are those that are likeliest to be accepted, and the `m` with the largest `e(m) / t(k, m)`
//! is used, if it is clearly better than none.
//!
//! A number of sequences that was not measured yet takes a few passes of every depth first, but none
//! of the deeper ones where even accepted drafts would not pay. Now and then, ever more rarely while
//! the choice stays the same, one pass tries another depth.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Clock, MOST_DRAFTS};

/// Passes of each depth before the first choice.
const FIRST_STEPS: usize = 2;
/// Times that are kept of each number of drafts.
const KEPT_TIMES: usize = 9;
/// Least relative gain for which tokens are drafted.
const LEAST_GAIN: f64 = 0.03;
/// Passes after the choice of no drafts until it is made again.
const REST: usize = 16;
/// Passes until another depth is tried, and the most that they grow to.
const TRY_AFTER: [usize; 2] = [64, 1024];
/// Share of the past that remains in a chance after another step.
const KEPT: f64 = 0.985;
/// Drafts that a chance remembers at least, however long ago they were.
const LEAST_MADE: f64 = 2.0;
/// Drafts that a new sequence's chance takes over from earlier sequences.
const MOST_INHERITED: f64 = 4.0;

/// Chance that a draft is accepted.
#[derive(Clone, Copy, Debug)]
struct Chance {
    made: f64,
    right: f64,
}

/// Chance of each draft of a sequence, given that all before it were accepted.
#[derive(Clone, Debug)]
pub struct Chances([Chance; MOST_DRAFTS]);

impl Default for Chances {
    fn default() -> Self {
        Self([Chance { made: 2.0, right: 1.5 }; MOST_DRAFTS])
    }
}

impl Chances {
    /// The chances of a further sequence, of which nothing else is known.
    fn inherited(&self) -> Self {
        Self(self.0.map(|Chance { made, right }| {
            let kept = made.min(MOST_INHERITED);
            Chance { made: kept, right: right * kept / made }
        }))
    }

    /// Records a step: of `drafted` tokens the first `accepted` were accepted.
    pub fn note(&mut self, drafted: usize, accepted: usize) {
        for chance in self.0.iter_mut().filter(|chance| chance.made > LEAST_MADE) {
            chance.made *= KEPT;
            chance.right *= KEPT;
        }
        for (at, chance) in self.0.iter_mut().take(drafted.min(accepted + 1)).enumerate() {
            chance.made += 1.0;
            chance.right += f64::from(u8::from(at < accepted));
        }
    }

    /// For each draft, the chance that it and all before it are accepted.
    fn reached(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().scan(1.0, |reached, chance| {
            *reached *= chance.right / chance.made;
            Some(*reached)
        })
    }
}

/// Sequences of a pass that may draft.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its chances.
    pub chances: &'a Chances,
    /// Most drafts for which it has room.
    pub most: usize,
}

/// Chooses the numbers of drafts of each pass.
pub struct Pace {
    /// Most drafts of one sequence.
    most: usize,
    /// What passes over 1, 2, 3, ... sequences took.
    widths: Vec<Width>,
    /// Chances of all sequences so far.
    typical: Chances,
    clock: Clock,
    begun: Duration,
    /// Sequences of the pass that has begun.
    sequences: usize,
}

impl Pace {
    /// A pace of at most `most` drafts per sequence that has measured nothing.
    pub fn new(most: usize) -> Self {
        let start = Instant::now();
        Self::with_clock(most, Box::new(move || start.elapsed()))
    }

    /// The same with another clock.
    pub fn with_clock(most: usize, clock: Clock) -> Self {
        let (widths, typical) = (Vec::new(), Chances::default());
        let (most, begun, sequences) = (most.min(MOST_DRAFTS), Duration::ZERO, 0);
        Self { most, widths, typical, clock, begun, sequences }
    }

    /// Chances of a new sequence.
    pub fn chances(&self) -> Chances {
        self.typical.inherited()
    }

    /// Begins a pass over `candidates` and `others` that do not draft. Returns the number of tokens
    /// to draft for each candidate, `room` in all at most.
    pub fn begin(&mut self, candidates: &[Candidate], others: usize, room: usize) -> Vec<usize> {
        self.begun = (self.clock)();
        self.sequences = candidates.len() + others;
        let most = self.most;
        let width = self.width();
        let likeliest = |candidates: &[Candidate]| {
            let mut drafts: Vec<(f64, usize)> = Vec::new();
            for (at, Candidate { chances, most: own }) in candidates.iter().enumerate() {
                drafts.extend(chances.reached().take(most.min(*own)).map(|chance| (chance, at)));
            }
            // Stable, so that the drafts of a sequence stay in their order.
            drafts.sort_by(|a, b| b.0.total_cmp(&a.0));
            drafts
        };
        let mut depths = vec![0; candidates.len()];
        if let Some(depth) = width.trial() {
            let mut left = room;
            for (depth_of, Candidate { most, .. }) in depths.iter_mut().zip(candidates) {
                *depth_of = depth.min(*most).min(left);
                left -= *depth_of;
            }
            return depths;
        }
        if width.rests() {
            return depths;
        }
        let mut drafts = likeliest(candidates);
        drafts.truncate(room);
        drafts.truncate(width.choose(&drafts));
        drafts.iter().for_each(|(_, at)| depths[*at] += 1);
        depths
    }

    /// Takes the end of the pass that has begun, with the number of drafts that it had in all.
    pub fn end(&mut self, drafted: usize) {
        let time = (self.clock)().saturating_sub(self.begun);
        self.width().note(drafted, time);
    }

    /// Records how many of a sequence's drafts were accepted.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        self.typical.note(drafted, accepted);
    }

    fn width(&mut self) -> &mut Width {
        let (at, most) = (self.sequences.max(1) - 1, self.most);
        while self.widths.len() <= at {
            self.widths.push(Width::new(self.widths.len() + 1, most));
        }
        &mut self.widths[at]
    }
}

/// Passes over a number of sequences.
#[derive(Clone, Debug)]
struct Width {
    sequences: usize,
    /// Times of the last passes, by the number of drafts, in seconds.
    times: Vec<VecDeque<f64>>,
    /// Passes of each depth that are to come before the first choice.
    first: Vec<usize>,
    /// Depth that the last choice came to, on average.
    choice: usize,
    /// Passes for which the choice of no drafts stands.
    rest: usize,
    /// Passes until another depth is tried, now and after the next trial.
    until_trial: usize,
    interval: usize,
    /// Depth of the next trial.
    trial: usize,
}

impl Width {
    fn new(sequences: usize, most: usize) -> Self {
        Self {
            sequences,
            times: vec![VecDeque::new(); sequences * most + 1],
            first: vec![FIRST_STEPS; most + 1],
            choice: most,
            rest: 0,
            until_trial: TRY_AFTER[0],
            interval: TRY_AFTER[0],
            trial: 0,
        }
    }

    /// A depth that the next pass is to measure.
    fn trial(&self) -> Option<usize> {
        self.unmeasured().or((self.until_trial == 0).then_some(self.trial))
    }

    /// A depth that is to be measured before the first choice; the deeper ones are not where one
    /// draft per sequence cannot pay.
    fn unmeasured(&self) -> Option<usize> {
        let depth = self.first.iter().position(|left| *left > 0)?;
        (depth < 2 || !self.is_hopeless()).then_some(depth)
    }

    /// Whether one draft per sequence would not pay even if all were accepted.
    fn is_hopeless(&self) -> bool {
        let measured =
            |drafts: usize| self.times.get(drafts).is_some_and(|times| !times.is_empty());
        let drafts = self.sequences;
        let pays = || 2.0 / self.time(drafts) > (1.0 + LEAST_GAIN) / self.time(0);
        measured(0) && measured(drafts) && !pays()
    }

    /// Whether the choice of no drafts stands for the next pass.
    fn rests(&mut self) -> bool {
        let rests = self.rest > 0;
        self.rest = self.rest.saturating_sub(1);
        rests
    }

    /// Records a pass.
    fn note(&mut self, drafted: usize, time: Duration) {
        if let Some(times) = self.times.get_mut(drafted) {
            times.push_back(time.as_secs_f64());
            if times.len() > KEPT_TIMES {
                times.pop_front();
            }
        }
        if drafted > 0 {
            self.rest = 0;
        }
        match self.unmeasured() {
            Some(depth) => self.first[depth] -= 1,
            None if self.until_trial > 0 => self.until_trial -= 1,
            None => {
                let depths = self.first.len();
                self.trial = (self.trial + 1) % depths;
                if self.trial == self.choice {
                    self.trial = (self.trial + 1) % depths;
                }
                if self.is_hopeless() {
                    self.trial = 1; // the cheapest, since times may change
                }
                self.interval = (2 * self.interval).min(TRY_AFTER[1]);
                self.until_trial = self.interval;
            }
        }
    }

    /// How many of `drafts`, by falling chance, bring the most tokens per second.
    fn choose(&mut self, drafts: &[(f64, usize)]) -> usize {
        let mut emitted = self.sequences as f64;
        let mut rate = emitted / self.time(0) * (1.0 + LEAST_GAIN);
        let mut best = 0;
        for (at, (chance, _)) in drafts.iter().enumerate() {
            emitted += chance;
            let found = emitted / self.time(at + 1);
            if found > rate {
                (best, rate) = (at + 1, found);
            }
        }
        let depth = (best + self.sequences / 2) / self.sequences;
        if best == 0 {
            self.rest = REST;
        }
        if depth != self.choice {
            self.choice = depth;
            self.interval = TRY_AFTER[usize::from(self.is_hopeless())];
            self.until_trial = self.interval;
        }
        best
    }

    /// Median time of a pass with that many drafts, in seconds; between those that were measured,
    /// on the line through them, and beyond them the nearest.
    fn time(&self, drafts: usize) -> f64 {
        let measured = |at: &usize| !self.times[*at].is_empty();
        let below = (0..=drafts).rev().find(measured);
        let above = (drafts..self.times.len()).find(measured);
        match (below, above) {
            (Some(below), Some(above)) if below < above => {
                let (from, to) = (self.median(below), self.median(above));
                from + (to - from) * (drafts - below) as f64 / (above - below) as f64
            }
            (Some(at), _) | (None, Some(at)) => self.median(at),
            (None, None) => 1.0,
        }
    }

    fn median(&self, drafts: usize) -> f64 {
        let mut times: Vec<f64> = self.times[drafts].iter().copied().collect();
        times.sort_unstable_by(f64::total_cmp);
        times.get(times.len() / 2).map_or(1e-9, |time| time.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use vaquita_lcg::Lcg;

    use super::*;

    /// A machine on which a pass with `m` drafts takes `1 + cost * m`, and sequences whose drafts
    /// are accepted with a chance.
    struct Machine {
        pace: Pace,
        now: Arc<Mutex<f64>>,
        sequences: Vec<Chances>,
        random: Lcg,
    }

    impl Machine {
        fn new(sequences: usize, seed: u64) -> Self {
            let now = Arc::new(Mutex::new(0.0));
            let shown = now.clone();
            let clock = Box::new(move || Duration::from_secs_f64(*shown.lock().unwrap()));
            let pace = Pace::with_clock(2, clock);
            let sequences = vec![Chances::default(); sequences];
            Self { pace, now, sequences, random: Lcg(seed) }
        }

        /// Generates tokens; returns the time per token relative to passes without drafts, and the
        /// drafts of the last pass that was no trial.
        fn generate(&mut self, tokens: usize, chances: &[f32], cost: f64) -> (f64, Vec<usize>) {
            let (mut emitted, mut time, mut chosen) = (0, 0.0, Vec::new());
            while emitted < tokens {
                let candidates: Vec<Candidate> =
                    self.sequences.iter().map(|chances| Candidate { chances, most: 8 }).collect();
                let width = self.pace.widths.get(chances.len() - 1);
                let tries = width.is_none_or(|width| width.trial().is_some());
                let depths = self.pace.begin(&candidates, 0, 100);
                let noise = 1.0 + 0.05 * f64::from(self.random.unit());
                let step = 1.0 + cost * depths.iter().sum::<usize>() as f64;
                *self.now.lock().unwrap() += step * noise;
                self.pace.end(depths.iter().sum());
                for ((depth, chance), chances) in
                    depths.iter().zip(chances).zip(&mut self.sequences)
                {
                    let accepted = (0..*depth).take_while(|_| self.random.unit() < *chance).count();
                    chances.note(*depth, accepted);
                    self.pace.learn(*depth, accepted);
                    emitted += 1 + accepted;
                }
                time += step;
                if !tries {
                    chosen = depths;
                }
            }
            (time / emitted as f64 * chances.len() as f64, chosen)
        }
    }

    #[test]
    fn drafts_that_pay_are_kept_and_others_are_not() {
        for (chance, cost, depth) in [(0.9, 0.1, 2), (0.0, 0.1, 0), (0.5, 0.8, 0), (0.5, 0.3, 1)] {
            let (_, found) = Machine::new(1, 3).generate(2000, &[chance], cost);
            assert_eq!(found, [depth], "{chance} {cost}");
        }
    }

    #[test]
    fn what_does_not_pay_costs_little() {
        for (chance, cost) in [(0.0, 0.2), (0.3, 0.5), (0.6, 0.9), (0.9, 1.5), (0.1, 0.05)] {
            for tokens in [200, 2000] {
                let (time, _) = Machine::new(1, 5).generate(tokens, &[chance], cost);
                assert!(time < 1.0 / 0.97, "{chance} {cost} {tokens}: {time}");
                let four = [chance; 4];
                let (time, _) = Machine::new(4, 5).generate(8 * tokens, &four, cost);
                assert!(time < 1.0 / 0.97, "{chance} {cost} {tokens}: {time} beside others");
            }
        }
    }

    #[test]
    fn it_opens_and_closes_as_the_text_changes() {
        let mut machine = Machine::new(1, 7);
        for (chance, depth) in [(0.9, 2), (0.0, 0), (0.95, 2), (0.0, 0)] {
            let (_, found) = machine.generate(6000, &[chance], 0.2);
            assert_eq!(found, [depth], "{chance}");
        }
    }

    #[test]
    fn of_several_sequences_those_draft_whose_drafts_are_accepted() {
        let mut machine = Machine::new(3, 9);
        let (time, found) = machine.generate(6000, &[0.95, 0.0, 0.95], 0.15);
        assert_eq!(found, [2, 0, 2]);
        assert!(time < 0.9, "{time}");
        // A further sequence is expected to be like those before.
        let few = Chances::default().reached().nth(1).unwrap();
        assert!(machine.pace.chances().reached().nth(1).unwrap() > few);
    }
}
