//! Options of sampling beyond temperature and filters: penalties, biases, XTC.

use clap::Args;
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::sampler::dry::{Breakers, DryOptions};
use vaquita_runtime::tokenizer::Tokenizer;

use crate::failure::{Failure, Result};

/// What changes the probabilities of tokens. docs/sampling.md has the definitions.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Penalties")]
pub struct Penalties {
    /// Subtracted from the logits of recent tokens, -2 to 2 [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtracted from the logits of recent tokens for each occurrence, -2 to 2 [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Number of tokens that are recent for repeat, presence and frequency penalty [default: 256]
    #[arg(long, value_name = "N")]
    repeat_last_n: Option<usize>,
    /// DRY penalty on continuing a repetition; 0 disables it [default: 0]
    #[arg(long, value_name = "X")]
    dry_multiplier: Option<f32>,
    /// Growth of the DRY penalty with each repeated token [default: 1.75]
    #[arg(long, value_name = "X")]
    dry_base: Option<f32>,
    /// Shortest repetition, in tokens, with a DRY penalty [default: 2]
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<usize>,
    /// Probability of excluding the top choices at a token (XTC); 0 disables it [default: 0]
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,
    /// Probability from which a token is a top choice for XTC [default: 0.1]
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,
    /// Added to the logit of a token; `-inf` bans it; repeatable
    #[arg(long, value_name = "ID=BIAS")]
    logit_bias: Vec<String>,
}

impl Penalties {
    /// `base` with these options.
    pub fn options(&self, base: SamplingOptions, tokenizer: &Tokenizer) -> Result<SamplingOptions> {
        let dry = DryOptions::default();
        let multiplier = self.dry_multiplier.unwrap_or(dry.multiplier);
        let breakers = match multiplier > 0.0 {
            true => Breakers::new(tokenizer, Breakers::DEFAULT)?,
            false => dry.breakers,
        };
        Ok(SamplingOptions {
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            repetition_window: self.repeat_last_n.unwrap_or(base.repetition_window),
            dry: DryOptions {
                multiplier,
                base: self.dry_base.unwrap_or(dry.base),
                allowed_length: self.dry_allowed_length.unwrap_or(dry.allowed_length),
                breakers,
                ..dry
            },
            xtc_probability: self.xtc_probability.unwrap_or(base.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(base.xtc_threshold),
            logit_bias: self.logit_bias.iter().map(|one| bias(one)).collect::<Result<_>>()?,
            ..base
        })
    }
}

fn bias(text: &str) -> Result<(u32, f32)> {
    let parsed = text
        .split_once('=')
        .and_then(|(token, bias)| Some((token.trim().parse().ok()?, bias.trim().parse().ok()?)));
    let message =
        || format!("--logit-bias is {text}; it takes a token's number and a bias, as in 42=-1.5");
    parsed.ok_or_else(|| Failure::Usage(message()))
}
