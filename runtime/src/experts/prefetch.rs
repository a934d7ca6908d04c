//! Adaptive prefetch: predicts the next layer's experts, and turns itself off where that does not
//! pay.
//!
//! The prediction is the next layer's router applied to the hidden state at the input of the
//! current layer. It costs the router's product and, where it is wrong, a read; where it is right
//! and a lane was idle, it saves a wait. Whether it pays depends on the model and the storage, so
//! [`PrefetchMode::Auto`] measures: it times some steps without prefetch and some with it, keeps
//! the faster setting, and repeats the trial later. A layer with a low recall pauses. Within a
//! token, experts are read only at those ranks of the prediction that are mostly right: the first
//! ranks are the most reliable.

use std::time::{Duration, Instant};

use crate::checkpoint::{ExpertId, LayerId};

/// Steps timed for each setting of a trial.
const TRIAL_STEPS: usize = 24;
/// Steps between trials.
const SETTLED_STEPS: usize = 1000;
/// Least relative reduction of the time per token for which prefetch is kept.
const LEAST_GAIN: f64 = 0.01;
/// Experts needed by a layer after which its recall is judged.
const JUDGED: u64 = 64;
/// Recall below which a layer pauses.
const LEAST_RECALL: f64 = 0.4;
/// Least precision, among predicted experts that were not resident, for a rank to be read.
const LEAST_PRECISION: f32 = 0.4;
/// Length of a pause, in visits of the layer.
const PAUSE: u64 = 1000;

/// When to prefetch experts of the next layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrefetchMode {
    /// Never.
    Off,
    /// Whenever a lane is idle.
    On,
    /// Where a measurement shows that it pays.
    #[default]
    Auto,
}

impl PrefetchMode {
    /// Parses `off`, `on` or `auto`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "on" => Self::On,
            "auto" => Self::Auto,
            _ => return None,
        })
    }
}

/// How many of the experts that a layer needed had been predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recall {
    /// Experts needed by visits that had a prediction.
    pub needed: u64,
    /// Needed experts that had been predicted.
    pub right: u64,
}

impl Recall {
    /// `right / needed`; `None` without predictions.
    pub fn share(&self) -> Option<f64> {
        (self.needed > 0).then(|| self.right as f64 / self.needed as f64)
    }
}

/// Decides what to prefetch, from the predictions made for each layer.
pub(super) struct Prefetcher {
    mode: PrefetchMode,
    layers: Vec<Layer>,
    /// Precision of predicted experts that were not resident, by rank in a token's prediction.
    ranks: Vec<Precision>,
    trial: Trial,
}

/// Exponentially decayed counts of predictions and of correct ones.
#[derive(Clone)]
struct Precision {
    made: f32,
    right: f32,
}

impl Default for Precision {
    fn default() -> Self {
        Self { made: 10.0, right: 7.0 }
    }
}

impl Precision {
    fn note(&mut self, right: bool) {
        const KEPT: f32 = 0.99;
        self.made = self.made * KEPT + 1.0;
        self.right = self.right * KEPT + f32::from(u8::from(right));
    }

    fn pays(&self) -> bool {
        self.right >= LEAST_PRECISION * self.made
    }
}

/// A predicted expert.
#[derive(Clone, Copy, Debug)]
pub(super) struct Predicted {
    /// The expert.
    pub expert: ExpertId,
    /// Its rank in the prediction of a token, the best of those of several tokens.
    pub rank: usize,
    /// Whether it is missing from memory.
    pub missing: bool,
}

#[derive(Clone, Default)]
struct Layer {
    /// Pending prediction.
    pending: Option<Vec<Predicted>>,
    /// Recall over all predictions.
    recall: Recall,
    /// Recall since it was last judged.
    recent: Recall,
    /// Remaining visits without a prediction.
    pause: u64,
}

impl Prefetcher {
    pub fn new(mode: PrefetchMode, layers: usize) -> Self {
        let (layers, ranks) = (vec![Layer::default(); layers], Vec::new());
        Self { mode, layers, ranks, trial: Trial::default() }
    }

    pub fn recall(&self) -> Vec<Recall> {
        self.layers.iter().map(|layer| layer.recall).collect()
    }

    /// Whether to predict the experts of `layer` now.
    pub fn wanted(&self, layer: LayerId) -> bool {
        let Some(layer) = self.layers.get(layer.0) else { return false };
        match self.mode {
            PrefetchMode::Off => false,
            PrefetchMode::On => true,
            PrefetchMode::Auto => layer.pause == 0 && self.trial.prefetches(),
        }
    }

    /// Records a prediction, the most likely experts first, and returns the experts to read.
    pub fn predicted(&mut self, layer: LayerId, experts: Vec<Predicted>) -> Vec<ExpertId> {
        let Some(layer) = self.layers.get_mut(layer.0) else { return Vec::new() };
        let ranks = experts.iter().map(|predicted| predicted.rank + 1).max().unwrap_or(0);
        self.ranks.resize(self.ranks.len().max(ranks), Precision::default());
        let all = self.mode == PrefetchMode::On;
        let worth = |it: &&Predicted| it.missing && (all || self.ranks[it.rank].pays());
        let read = experts.iter().filter(worth).map(|predicted| predicted.expert).collect();
        layer.pending = Some(experts);
        read
    }

    /// Compares a layer's pending prediction with the experts that it needed.
    pub fn judge(&mut self, id: LayerId, needed: &[ExpertId]) {
        let Some(layer) = self.layers.get_mut(id.0) else { return };
        layer.pause = layer.pause.saturating_sub(1);
        let Some(prediction) = layer.pending.take() else { return };
        let is_right = |predicted: &&Predicted| needed.contains(&predicted.expert);
        for predicted in prediction.iter().filter(|predicted| predicted.missing) {
            self.ranks[predicted.rank].note(is_right(&predicted));
        }
        let right = prediction.iter().filter(is_right).count() as u64;
        for recall in [&mut layer.recall, &mut layer.recent] {
            recall.needed += needed.len() as u64;
            recall.right += right;
        }
        if layer.recent.needed >= JUDGED {
            if layer.recent.share().is_some_and(|share| share < LEAST_RECALL) {
                layer.pause = PAUSE;
                #[cfg(feature = "tracing")]
                tracing::debug!(layer = id.0, visits = PAUSE, "prefetch paused: low recall");
            }
            layer.recent = Recall::default();
        }
    }

    /// Records the start of a step, and the number of tokens that it decodes; `None` if it contains
    /// a part of a prompt.
    pub fn step(&mut self, now: Option<(Instant, usize)>) {
        if self.mode == PrefetchMode::Auto {
            self.trial.step(now);
        }
    }
}

/// Compares the time per step with and without prefetch.
#[derive(Default)]
struct Trial {
    last: Option<Instant>,
    /// Tokens per step; times of other steps are not comparable.
    width: usize,
    /// Times of steps without prefetch, and with it below.
    without: Vec<Duration>,
    with: Vec<Duration>,
    /// Whether prefetch pays, and the number of steps for which that result still holds.
    settled: Option<(bool, usize)>,
}

impl Trial {
    fn prefetches(&self) -> bool {
        match self.settled {
            Some((pays, _)) => pays,
            None => self.without.len() >= TRIAL_STEPS,
        }
    }

    fn step(&mut self, now: Option<(Instant, usize)>) {
        let last = std::mem::replace(&mut self.last, now.map(|(now, _)| now));
        let (Some((now, width)), Some(last)) = (now, last) else { return };
        if width != self.width {
            self.width = width;
            self.without.clear();
            self.with.clear();
            return;
        }
        if let Some((_, left)) = &mut self.settled {
            *left -= 1;
            if *left == 0 {
                self.settled = None;
            }
            return;
        }
        let side = if self.prefetches() { &mut self.with } else { &mut self.without };
        side.push(now.duration_since(last));
        if self.with.len() >= TRIAL_STEPS {
            let [without, with] = [&mut self.without, &mut self.with].map(|times| median(times));
            let pays = with < without * (1.0 - LEAST_GAIN);
            #[cfg(feature = "tracing")]
            if !pays {
                tracing::debug!(without, with, tokens = SETTLED_STEPS, "prefetch turned off");
            }
            self.settled = Some((pays, SETTLED_STEPS));
            self.without.clear();
            self.with.clear();
        }
    }
}

/// Median in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Experts 1 and 2, in this order.
    fn predictions(missing: bool) -> Vec<Predicted> {
        let predicted = |rank| Predicted { expert: ExpertId(rank + 1), rank, missing };
        (0..2).map(predicted).collect()
    }

    /// Runs tokens of the given durations and returns whether prefetch is on at the end.
    fn settles(without: u64, with: u64) -> bool {
        let mut prefetcher = Prefetcher::new(PrefetchMode::Auto, 2);
        let mut now = Instant::now();
        for _ in 0..3 * TRIAL_STEPS {
            prefetcher.step(Some((now, 1)));
            let length = if prefetcher.wanted(LayerId(1)) { with } else { without };
            now += Duration::from_micros(length);
        }
        prefetcher.wanted(LayerId(1))
    }

    #[test]
    fn prefetch_stays_on_only_if_tokens_become_faster() {
        assert!(settles(1000, 900));
        assert!(!settles(1000, 1000));
        assert!(!settles(900, 1000));
    }

    #[test]
    fn a_prompt_between_tokens_is_not_timed() {
        let mut trial = Trial::default();
        let now = Instant::now();
        for at in [Some(now), None, Some(now + Duration::from_secs(9))] {
            trial.step(at.map(|at| (at, 1)));
        }
        assert!(trial.without.is_empty());
    }

    #[test]
    fn only_steps_of_as_many_tokens_are_compared() {
        let (mut trial, mut now) = (Trial::default(), Instant::now());
        for step in 0..10 * TRIAL_STEPS {
            now += Duration::from_micros(1000);
            trial.step(Some((now, 1 + step / TRIAL_STEPS % 2)));
        }
        assert!(trial.settled.is_none() && !trial.prefetches());
    }

    #[test]
    fn a_layer_with_low_recall_pauses_and_tries_again() {
        let mut prefetcher = Prefetcher::new(PrefetchMode::Auto, 1);
        prefetcher.trial.settled = Some((true, usize::MAX));
        let layer = LayerId(0);
        let mut judged = 0;
        while prefetcher.wanted(layer) {
            prefetcher.predicted(layer, predictions(true));
            prefetcher.judge(layer, &[ExpertId(3), ExpertId(4)]);
            judged += 1;
        }
        assert_eq!(judged, JUDGED / 2);
        assert_eq!(prefetcher.recall(), [Recall { needed: JUDGED, right: 0 }]);
        (0..PAUSE).for_each(|_| prefetcher.judge(layer, &[ExpertId(3)]));
        assert!(prefetcher.wanted(layer));
    }

    #[test]
    fn ranks_that_are_mostly_wrong_are_not_read() {
        let mut prefetcher = Prefetcher::new(PrefetchMode::Auto, 1);
        let layer = LayerId(0);
        let both = || predictions(true);
        assert_eq!(prefetcher.predicted(layer, both()), [ExpertId(1), ExpertId(2)]);
        for _ in 0..30 {
            prefetcher.predicted(layer, both());
            prefetcher.judge(layer, &[ExpertId(1), ExpertId(3)]);
        }
        assert_eq!(prefetcher.predicted(layer, both()), [ExpertId(1)]);
        assert_eq!(prefetcher.predicted(layer, predictions(false)), []);
        for _ in 0..60 {
            prefetcher.predicted(layer, both());
            prefetcher.judge(layer, &[ExpertId(2)]);
        }
        assert_eq!(prefetcher.predicted(layer, both()), [ExpertId(2)]);
    }
}
