//! Sampling options, validated once.

use super::SamplerError;
use super::dry::DryOptions;

/// Maximum number of tokens in [`SamplingOptions::logit_bias`].
pub const MAX_BIASES: usize = 65_536;

/// Sampling options.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Flattens or sharpens the distribution; 0 always picks the most likely token.
    pub temperature: f32,
    /// Number of most likely tokens to keep; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this likely relative to the most likely token; 0 keeps all.
    pub min_p: f32,
    /// Probability of excluding the top choices at a token (XTC); 0 disables XTC.
    pub xtc_probability: f32,
    /// Minimum probability of a top choice; XTC keeps the least likely top choice. Above 0.5, there
    /// are never two top choices.
    pub xtc_threshold: f32,
    /// Divides the logits of recent tokens (multiplies negative ones); 1 disables the penalty.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of recent tokens, once per token; -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted from the logits of recent tokens, once per occurrence; -2 to 2.
    pub frequency_penalty: f32,
    /// Number of recent tokens for the three penalties above, including the prompt's tokens.
    pub repetition_window: usize,
    /// Penalty on continuing a repetition ("don't repeat yourself").
    pub dry: DryOptions,
    /// Added to the logits of tokens before all other steps; negative infinity bans a token. Each
    /// token may appear once.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers.
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
    /// Always picks the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Rejects values out of range.
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
