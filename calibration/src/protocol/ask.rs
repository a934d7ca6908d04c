//! Asks a model questions, some of them several times.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vaquita_runtime::session::chat::Message;
use vaquita_runtime::session::generate::{GenerationOptions, StopReason, generate};
use vaquita_runtime::session::sampler::SamplingOptions;

use super::journal::Journal;
use crate::{EvalError, OnProgress, Subject};

/// Factor between the seeds of two questions, so that samples of one do not share seeds with
/// another.
const STRIDE: u64 = 1_000_003;

/// How questions are asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// Whether a question is a message of a conversation; otherwise the model continues it.
    pub chat: bool,
    /// Variables of the chat template.
    pub variables: Map<String, Value>,
    /// Number of answers per question.
    pub samples: usize,
    /// Sampling; the seeds of answers follow from the seed here.
    pub sampling: SamplingOptions,
    /// Maximum number of tokens of an answer, including reasoning; `None` is the context.
    pub max_tokens: Option<usize>,
    /// Strings that end an answer.
    pub stop: Vec<String>,
}

/// A model's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The text after the reasoning.
    pub answer: String,
    /// The reasoning.
    pub reasoning: String,
    /// Number of generated tokens.
    pub tokens: usize,
    /// Whether the answer was cut short by the maximum number of tokens or the context.
    pub cut: bool,
}

/// The answers to each of the prompts, [`Asking::samples`] per prompt.
pub fn ask(
    subject: &Subject,
    prompts: &[String],
    asking: &Asking,
    journal: &Journal<Answered>,
    on_progress: OnProgress,
) -> Result<Vec<Vec<Answered>>, EvalError> {
    let (done, total) = (AtomicUsize::new(0), prompts.len() * asking.samples);
    let all: Vec<Answered> = (0..total)
        .into_par_iter()
        .map(|at| {
            let (question, sample) = (at / asking.samples, at % asking.samples);
            let answer = match journal.known(question, sample) {
                Some(known) => known.clone(),
                None => {
                    let seed = STRIDE.wrapping_mul(question as u64).wrapping_add(sample as u64);
                    let seed = asking.sampling.seed.wrapping_add(seed);
                    let answer = answer(subject, &prompts[question], asking, seed)?;
                    journal.keep(question, sample, &answer)?;
                    answer
                }
            };
            on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(answer)
        })
        .collect::<Result<_, EvalError>>()?;
    Ok(all.chunks(asking.samples.max(1)).map(<[Answered]>::to_vec).collect())
}

fn answer(
    subject: &Subject,
    text: &str,
    asking: &Asking,
    seed: u64,
) -> Result<Answered, EvalError> {
    let prompter = &subject.prompter;
    let prompt = match asking.chat {
        true => prompter.chat_with(&[Message::new("user", text)], None, &asking.variables)?,
        false => prompter.raw(text)?,
    };
    let options = GenerationOptions {
        sampling: SamplingOptions { seed, ..asking.sampling.clone() },
        max_tokens: asking.max_tokens,
        stop: asking.stop.clone(),
        reasoning_open: prompt.reasoning_open,
        keep_tags: !asking.chat,
        ..GenerationOptions::default()
    };
    let mut session = subject.session();
    let generation =
        generate(&mut session, prompter.tokenizer(), &prompt.tokens, &options, &mut |_| {
            ControlFlow::Continue(())
        })?;
    Ok(Answered {
        cut: matches!(generation.stop, StopReason::Length | StopReason::ContextFull),
        tokens: generation.tokens.len(),
        reasoning: generation.reasoning,
        answer: generation.answer,
    })
}
