//! Whether to guess what the next layer will need, and how good the guesses are.
//!
//! A guess is the next layer's router applied to the hidden state that the current layer begins with. It costs
//! the router's product and, where it is wrong, a read; it saves a wait where it is right and a lane was idle.
//! What comes out differs between models and disks, so with [`Guessing::Auto`] it is measured: some tokens with
//! guesses, some without, then whichever was faster, until the next trial. A layer whose guesses are mostly
//! wrong takes a pause, and of a token's experts only those ranks are read that are mostly right: the first are
//! surer than the last.

use std::time::{Duration, Instant};

use crate::checkpoint::{ExpertId, LayerId};

/// Tokens on each side of a trial.
const TRIAL_TOKENS: usize = 24;
/// Tokens between trials.
const SETTLED_TOKENS: usize = 1000;
/// Guesses must save at least this share of a token's time.
const LEAST_GAIN: f64 = 0.01;
/// Guesses of a layer that are judged together.
const JUDGED: u64 = 64;
/// Below this share of right ones, a layer takes a pause.
const LEAST_RECALL: f64 = 0.4;
/// Guesses of a rank are read where at least this share of the missing ones is right.
const LEAST_PRECISION: f32 = 0.4;
/// Visits that a pause lasts.
const PAUSE: u64 = 1000;

/// When to guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guessing {
    /// Never.
    Off,
    /// Whenever a lane is idle.
    On,
    /// Where measurement shows that it pays.
    #[default]
    Auto,
}

impl Guessing {
    /// The setting of that name: `off`, `on` or `auto`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "on" => Self::On,
            "auto" => Self::Auto,
            _ => return None,
        })
    }
}

/// How many of the experts that a layer needed had been guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recall {
    /// Experts needed by visits that a guess was made for.
    pub needed: u64,
    /// Those that were guessed.
    pub right: u64,
}

impl Recall {
    /// The share; `None` where no guess was made.
    pub fn share(&self) -> Option<f64> {
        (self.needed > 0).then(|| self.right as f64 / self.needed as f64)
    }
}

/// Guesses of all layers.
pub(super) struct Guesses {
    guessing: Guessing,
    layers: Vec<Layer>,
    /// Of guesses that would have to be read, by their rank among a token's.
    ranks: Vec<Precision>,
    trial: Trial,
}

/// How often guesses were right, the latest counting most.
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

#[derive(Clone, Default)]
struct Layer {
    /// The last guess, until it is judged: experts, and whether they were missing.
    open: Option<Vec<(ExpertId, bool)>>,
    /// Of all guesses.
    recall: Recall,
    /// Of those since the last judgement.
    recent: Recall,
    /// Visits for which no guess is made.
    pause: u64,
}

impl Guesses {
    pub fn new(guessing: Guessing, layers: usize) -> Self {
        let (layers, ranks) = (vec![Layer::default(); layers], Vec::new());
        Self { guessing, layers, ranks, trial: Trial::default() }
    }

    pub fn recall(&self) -> Vec<Recall> {
        self.layers.iter().map(|layer| layer.recall).collect()
    }

    /// Whether a guess about a layer is worth making now.
    pub fn wanted(&self, layer: LayerId) -> bool {
        let Some(layer) = self.layers.get(layer.0) else { return false };
        match self.guessing {
            Guessing::Off => false,
            Guessing::On => true,
            Guessing::Auto => layer.pause == 0 && self.trial.guesses(),
        }
    }

    /// Notes a guess, the likeliest expert first, each with whether it is missing. Gives those to be read.
    pub fn made(&mut self, layer: LayerId, experts: Vec<(ExpertId, bool)>) -> Vec<ExpertId> {
        let Some(layer) = self.layers.get_mut(layer.0) else { return Vec::new() };
        self.ranks.resize(self.ranks.len().max(experts.len()), Precision::default());
        let all = self.guessing == Guessing::On;
        let worth = |((_, missing), rank): &(&(ExpertId, bool), &Precision)| {
            *missing && (all || rank.pays())
        };
        let read = experts.iter().zip(&self.ranks).filter(worth).map(|((id, _), _)| *id).collect();
        layer.open = Some(experts);
        read
    }

    /// Compares the guess about a layer with what it needed.
    pub fn judge(&mut self, layer: LayerId, needed: &[ExpertId]) {
        let Some(layer) = self.layers.get_mut(layer.0) else { return };
        layer.pause = layer.pause.saturating_sub(1);
        let Some(guess) = layer.open.take() else { return };
        for (rank, (expert, missing)) in self.ranks.iter_mut().zip(&guess) {
            if *missing {
                rank.note(needed.contains(expert));
            }
        }
        let right = guess.iter().filter(|(expert, _)| needed.contains(expert)).count() as u64;
        for recall in [&mut layer.recall, &mut layer.recent] {
            recall.needed += needed.len() as u64;
            recall.right += right;
        }
        if layer.recent.needed >= JUDGED {
            if layer.recent.share().is_some_and(|share| share < LEAST_RECALL) {
                layer.pause = PAUSE;
            }
            layer.recent = Recall::default();
        }
    }

    /// Notes that a token begins; `None` where it does not follow another one (a prompt came between).
    pub fn token(&mut self, now: Option<Instant>) {
        if self.guessing == Guessing::Auto {
            self.trial.token(now);
        }
    }
}

/// Measures tokens with guesses and without.
#[derive(Default)]
struct Trial {
    last: Option<Instant>,
    /// Times of tokens without guesses and with them.
    without: Vec<Duration>,
    with: Vec<Duration>,
    /// The outcome and the tokens that it still holds for.
    settled: Option<(bool, usize)>,
}

impl Trial {
    fn guesses(&self) -> bool {
        match self.settled {
            Some((pays, _)) => pays,
            None => self.without.len() >= TRIAL_TOKENS,
        }
    }

    fn token(&mut self, now: Option<Instant>) {
        let last = std::mem::replace(&mut self.last, now);
        let (Some(now), Some(last)) = (now, last) else { return };
        if let Some((_, left)) = &mut self.settled {
            *left -= 1;
            if *left == 0 {
                self.settled = None;
            }
            return;
        }
        let side = if self.guesses() { &mut self.with } else { &mut self.without };
        side.push(now.duration_since(last));
        if self.with.len() >= TRIAL_TOKENS {
            let [without, with] = [&mut self.without, &mut self.with].map(|times| median(times));
            self.settled = Some((with < without * (1.0 - LEAST_GAIN), SETTLED_TOKENS));
            self.without.clear();
            self.with.clear();
        }
    }
}

/// In seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds tokens of the given lengths and says whether guesses are made in the end.
    fn settles(without: u64, with: u64) -> bool {
        let mut guesses = Guesses::new(Guessing::Auto, 2);
        let mut now = Instant::now();
        for _ in 0..3 * TRIAL_TOKENS {
            guesses.token(Some(now));
            let length = if guesses.wanted(LayerId(1)) { with } else { without };
            now += Duration::from_micros(length);
        }
        guesses.wanted(LayerId(1))
    }

    #[test]
    fn guesses_are_kept_where_tokens_become_faster_and_dropped_where_they_do_not() {
        assert!(settles(1000, 900));
        assert!(!settles(1000, 1000));
        assert!(!settles(900, 1000));
    }

    #[test]
    fn a_prompt_between_tokens_is_not_timed() {
        let mut trial = Trial::default();
        let now = Instant::now();
        for at in [Some(now), None, Some(now + Duration::from_secs(9))] {
            trial.token(at);
        }
        assert!(trial.without.is_empty());
    }

    #[test]
    fn a_layer_whose_guesses_are_wrong_takes_a_pause_and_tries_again() {
        let mut guesses = Guesses::new(Guessing::Auto, 1);
        guesses.trial.settled = Some((true, usize::MAX));
        let layer = LayerId(0);
        let mut judged = 0;
        while guesses.wanted(layer) {
            guesses.made(layer, vec![(ExpertId(1), true), (ExpertId(2), true)]);
            guesses.judge(layer, &[ExpertId(3), ExpertId(4)]);
            judged += 1;
        }
        assert_eq!(judged, JUDGED / 2);
        assert_eq!(guesses.recall(), [Recall { needed: JUDGED, right: 0 }]);
        (0..PAUSE).for_each(|_| guesses.judge(layer, &[ExpertId(3)]));
        assert!(guesses.wanted(layer));
    }

    #[test]
    fn ranks_that_are_mostly_wrong_are_not_read() {
        let mut guesses = Guesses::new(Guessing::Auto, 1);
        let layer = LayerId(0);
        let both = || vec![(ExpertId(1), true), (ExpertId(2), true)];
        assert_eq!(guesses.made(layer, both()), [ExpertId(1), ExpertId(2)]);
        for _ in 0..30 {
            guesses.made(layer, both());
            guesses.judge(layer, &[ExpertId(1), ExpertId(3)]);
        }
        assert_eq!(guesses.made(layer, both()), [ExpertId(1)]);
        assert_eq!(guesses.made(layer, vec![(ExpertId(1), false), (ExpertId(2), false)]), []);
        for _ in 0..60 {
            guesses.made(layer, both());
            guesses.judge(layer, &[ExpertId(2)]);
        }
        assert_eq!(guesses.made(layer, both()), [ExpertId(2)]);
    }
}
