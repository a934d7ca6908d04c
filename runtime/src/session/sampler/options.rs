//! How tokens are picked, checked once.

use super::SamplerError;
use super::dry::DryOptions;

/// Most tokens that [`SamplingOptions::logit_bias`] may name.
pub const MAX_BIASES: usize = 65_536;

/// How tokens are picked.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Flattens or sharpens the distribution; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Only so many of the likeliest; 0 takes all.
    pub top_k: usize,
    /// The likeliest tokens that together reach this probability; 1 takes all.
    pub top_p: f32,
    /// Tokens at least this likely relative to the likeliest; 0 takes all.
    pub min_p: f32,
    /// Probability of excluding top choices at a token (XTC); 0 never does.
    pub xtc_probability: f32,
    /// Tokens at least this likely are top choices; XTC keeps the least likely of them. Above 0.5 there are never two.
    pub xtc_threshold: f32,
    /// Divides the logits of recent tokens (multiplies negative ones); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of recent tokens, once per token; -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted from the logits of recent tokens, once per occurrence; -2 to 2.
    pub frequency_penalty: f32,
    /// Number of tokens that are recent for the three penalties above, the prompt's among them.
    pub repetition_window: usize,
    /// Penalty on continuing a repetition ("don't repeat yourself").
    pub dry: DryOptions,
    /// Added to the logits of tokens before all else; negative infinity bans a token. A token may be named once.
    pub logit_bias: Vec<(u32, f32)>,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for SamplingOptions {
    /// DeepSeek's recommendation for R1: temperature 0.6, top-p 0.95.
    fn default() -> Self {
        Self {
            temperature: 0.6,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_window: 256,
            dry: DryOptions::default(),
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Refuses values out of range.
    pub(super) fn check(&self) -> Result<(), SamplerError> {
        let check = |option, found: f32, good: bool, allowed| match good && found.is_finite() {
            true => Ok(()),
            false => Err(SamplerError::Option { option, found, allowed }),
        };
        let share = |x: f32| (0.0..=1.0).contains(&x);
        check("temperature", self.temperature, self.temperature >= 0.0, "0 or more")?;
        check("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, to 1")?;
        check("min-p", self.min_p, share(self.min_p), "0 to 1")?;
        check("XTC probability", self.xtc_probability, share(self.xtc_probability), "0 to 1")?;
        check("XTC threshold", self.xtc_threshold, share(self.xtc_threshold), "0 to 1")?;
        let repetition = self.repetition_penalty;
        check("repetition penalty", repetition, repetition > 0.0, "above 0")?;
        for (option, penalty) in [
            ("presence penalty", self.presence_penalty),
            ("frequency penalty", self.frequency_penalty),
        ] {
            check(option, penalty, (-2.0..=2.0).contains(&penalty), "-2 to 2")?;
        }
        check("DRY multiplier", self.dry.multiplier, self.dry.multiplier >= 0.0, "0 or more")?;
        check("DRY base", self.dry.base, self.dry.base >= 1.0, "1 or more")?;
        self.check_biases()
    }

    fn check_biases(&self) -> Result<(), SamplerError> {
        if self.logit_bias.len() > MAX_BIASES {
            return Err(SamplerError::Biases { found: self.logit_bias.len() });
        }
        let bad = |bias: f32| bias.is_nan() || bias == f32::INFINITY;
        match self.logit_bias.iter().find(|(_, bias)| bad(*bias)) {
            Some(&(token, bias)) => Err(SamplerError::Bias { token, bias }),
            None => Ok(()),
        }
    }
}
