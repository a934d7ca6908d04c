//! Options that protocols share.

use std::num::NonZero;
use std::path::PathBuf;

use clap::Args;

use crate::model_argument::ModelArgument;
use crate::template::Template;

/// Options of protocols that ask questions.
#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub model: ModelArgument,
    /// Questions: JSON lines with the fields of the published data set
    #[arg(long, value_name = "FILE")]
    pub questions: PathBuf,
    /// Use only the first N
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZero<usize>>,
    /// Text of a prompt, with the places {question}, {choices} and {subject} [default: the
    /// protocol's own]
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Keep answers in this file; the same command goes on from it
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Options of answers.
#[derive(Args)]
pub(super) struct Draws {
    /// Number of answers per question [default: 16 for AIME, 4 for MATH, else 1]
    #[arg(long, value_name = "K")]
    pub samples: Option<NonZero<usize>>,
    /// Sampling temperature; 0 is greedy decoding [default: 0.6; 0 for GSM8K and MMLU]
    #[arg(long, visible_alias = "temperature", value_name = "X")]
    pub temp: Option<f32>,
    /// Top-p (nucleus) sampling
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub top_p: f32,
    /// Random seed of the first answer; those of others follow from it
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Maximum number of tokens of an answer, including reasoning [default: until the context is
    /// full; 256 for GSM8K without --chat]
    #[arg(short = 'n', long, value_name = "N")]
    pub max_tokens: Option<NonZero<usize>>,
    #[command(flatten)]
    pub template: Template,
}

/// Options of examples.
#[derive(Args)]
pub(super) struct Shots {
    /// Examples with answers before each question: JSON lines like the questions; for MMLU those
    /// of the same subject
    #[arg(long, value_name = "FILE")]
    pub examples: Option<PathBuf>,
    /// Number of examples
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub shots: usize,
}
