//! How many tokens of a prompt are read between two tokens of running answers.
//!
//! A pass is one decode step of the running answers and one slice of a prompt. Its duration is the
//! gap in their streams, and is to stay below a bound: by default twice the duration of a step
//! without a slice, which depends on how many answers run. The slice is adjusted by what passes
//! took, and a number of answers that was not measured yet is measured without a slice first.

use std::time::Duration;

/// Weight of a new measurement in the average.
const NEWEST: f64 = 0.25;
/// Factor by which a slice grows at most from one pass to the next.
const GROWTH: f64 = 1.5;
/// Part of the bound to aim at, since passes vary.
const AIM: f64 = 0.85;
/// Passes with a slice after which a step is measured without one.
const MEASURE_AFTER: u32 = 32;

/// Sizes slices by the durations of passes.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Bound on the duration of a pass that answers wait for; `None` is twice their step.
    max_gap: Option<Duration>,
    /// Largest slice, in tokens.
    most: usize,
    /// Slice beside a number of answers, and the average step of that many, in seconds.
    widths: Vec<Width>,
}

#[derive(Clone, Copy, Debug)]
struct Width {
    step: Option<f64>,
    slice: f64,
    since_measured: u32,
}

impl Pace {
    pub fn new(max_gap: Option<Duration>, most: usize) -> Self {
        Self { max_gap, most: most.max(1), widths: Vec::new() }
    }

    /// Tokens to read beside a step of `answers` answers.
    pub fn slice(&mut self, answers: usize) -> usize {
        if answers == 0 {
            return self.most;
        }
        let most = self.most as f64;
        let width = self.width(answers);
        if width.step.is_none() || width.since_measured >= MEASURE_AFTER {
            return 0;
        }
        width.slice.clamp(1.0, most) as usize
    }

    /// Average step of `answers` answers without a slice; `None` before one was measured.
    pub fn step(&self, answers: usize) -> Option<Duration> {
        let width = answers.checked_sub(1).and_then(|at| self.widths.get(at))?;
        width.step.map(Duration::from_secs_f64)
    }

    /// Takes the duration of a pass with a step of `answers` answers and a slice of `tokens`.
    pub fn record(&mut self, answers: usize, tokens: usize, duration: Duration) {
        if answers == 0 {
            return;
        }
        let (max_gap, most) = (self.max_gap, self.most as f64);
        let width = self.width(answers);
        let seconds = duration.as_secs_f64();
        if tokens == 0 {
            let average = width.step.map_or(seconds, |step| step + (seconds - step) * NEWEST);
            (width.step, width.since_measured) = (Some(average), 0);
            return;
        }
        width.since_measured += 1;
        let Some(step) = width.step else { return };
        let bound = max_gap.map_or(2.0 * step, |gap| gap.as_secs_f64());
        let (allowed, took) = ((bound * AIM - step).max(0.0), (seconds - step).max(1e-9));
        // What a token takes beside others falls with their number, so that this is cautious
        // upwards and needs a few passes downwards.
        let fits = tokens as f64 * allowed / took;
        width.slice = fits.min(tokens as f64 * GROWTH + 1.0).clamp(1.0, most);
    }

    fn width(&mut self, answers: usize) -> &mut Width {
        let new = Width { step: None, slice: 1.0, since_measured: 0 };
        if self.widths.len() < answers {
            self.widths.resize(answers, new);
        }
        &mut self.widths[answers - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durations of a made-up machine, in seconds: a step takes 50 ms and 5 ms per answer, a token
    /// of a slice `per_token`, and all vary by a tenth.
    fn machine(answers: usize, slice: usize, per_token: f64, pass: u32) -> f64 {
        let variation = 1.0 + 0.1 * f64::from(pass).sin();
        (0.05 + 0.005 * answers as f64 + per_token * slice as f64) * variation
    }

    /// Runs passes until `prompt` tokens are read; returns gaps and passes.
    fn read(pace: &mut Pace, answers: usize, prompt: usize, per_token: f64) -> (Vec<f64>, usize) {
        let (mut left, mut gaps) = (prompt, Vec::new());
        for pass in 0.. {
            let slice = pace.slice(answers).min(left);
            let seconds = machine(answers, slice, per_token, pass);
            pace.record(answers, slice, Duration::from_secs_f64(seconds));
            gaps.push(seconds);
            left -= slice;
            if left == 0 {
                break;
            }
        }
        let passes = gaps.len();
        (gaps, passes)
    }

    #[test]
    fn gaps_stay_below_twice_the_step_and_the_prompt_gets_the_rest() {
        for per_token in [0.0005, 0.004, 0.02] {
            for answers in [1, 2, 4] {
                let mut pace = Pace::new(None, 128);
                let (gaps, passes) = read(&mut pace, answers, 1000, per_token);
                let step = machine(answers, 0, per_token, 0);
                let longest = gaps.iter().copied().fold(0.0, f64::max);
                assert!(longest < 2.2 * step, "{longest} s beside steps of {step} s");
                let best = 1000.0 * per_token / step;
                assert!((passes as f64) < 2.0 * best.max(8.0) + 12.0, "{passes} passes, {best}");
            }
        }
    }

    #[test]
    fn a_bound_in_seconds_holds_and_without_answers_slices_are_whole() {
        let mut pace = Pace::new(Some(Duration::from_millis(400)), 512);
        let (gaps, _) = read(&mut pace, 2, 4000, 0.004);
        assert!(gaps.iter().all(|gap| *gap < 0.42), "{gaps:?}");
        assert_eq!(pace.slice(0), 512);
    }

    #[test]
    fn a_machine_that_becomes_slow_gets_small_slices_and_one_token_is_the_least() {
        let mut pace = Pace::new(Some(Duration::from_millis(200)), 128);
        read(&mut pace, 1, 500, 0.001);
        assert!(pace.slice(1) > 60, "{}", pace.slice(1));
        read(&mut pace, 1, 200, 0.05);
        assert!(pace.slice(1) <= 3, "{}", pace.slice(1));
        let mut pace = Pace::new(Some(Duration::from_millis(1)), 128);
        let (_, passes) = read(&mut pace, 1, 50, 0.01);
        assert!(passes < 60, "a prompt is read even if no slice fits the bound");
    }

    #[test]
    fn a_step_is_measured_before_and_while_a_prompt_is_read() {
        let mut pace = Pace::new(None, 128);
        assert_eq!(pace.slice(3), 0, "nothing is known of three answers");
        assert_eq!(pace.step(3), None);
        pace.record(3, 0, Duration::from_millis(10));
        assert_eq!(pace.step(3), Some(Duration::from_millis(10)));
        let sizes: Vec<usize> = (0..40)
            .map(|_| {
                let slice = pace.slice(3);
                pace.record(3, slice, Duration::from_millis(15));
                slice
            })
            .collect();
        assert_eq!(sizes.iter().filter(|slice| **slice == 0).count(), 1, "{sizes:?}");
    }
}
