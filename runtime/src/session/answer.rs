//! One answer as a state machine: it takes the logits after its last token, picks the next one and
//! says whether to feed it. [`generate`](super::generate::generate) drives one answer with one
//! session; the engine drives many side by side.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SessionError;
use super::answer_text::AnswerText;
use super::constraint::{Constraint, end_tokens};
use super::draft::DraftUse;
use super::generate::{Event, GenerateError, Generation, GenerationOptions, StopReason};
use super::sampler::Sampler;
use super::sampler::logprobs::Logprobs;
use crate::tokenizer::Tokenizer;

/// Next step after a token was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Feed this token, and pass on the logits after it.
    Feed(u32),
    /// End the answer.
    End(StopReason),
}

/// An answer that is being generated.
pub struct Answer {
    tokenizer: Arc<Tokenizer>,
    options: GenerationOptions,
    sampler: Sampler,
    constraint: Option<Box<dyn Constraint>>,
    ends: Vec<u32>,
    text: AnswerText,
    /// The prompt and the generated tokens.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    /// Maximum number of tokens, prompt included.
    limit: usize,
    logprobs: Vec<Logprobs>,
    begun: Instant,
    first_logits: Option<Instant>,
}

impl Answer {
    /// Prepares the answer to `prompt`, which may grow to `limit` tokens in all. `eos_token_ids`
    /// are the model's; those of the tokenizer end it too.
    ///
    /// # Errors
    /// If the prompt is empty or longer than `limit`, or the options cannot be followed.
    pub fn new(
        tokenizer: &Arc<Tokenizer>,
        eos_token_ids: &[u32],
        prompt: &[u32],
        options: GenerationOptions,
        limit: usize,
    ) -> Result<Self, GenerateError> {
        let sampler = Sampler::new(options.sampling.clone())?;
        let ends = end_tokens(tokenizer, eos_token_ids);
        let constraint = options.constraint(tokenizer, &ends, prompt)?;
        match prompt.len() {
            0 => return Err(SessionError::Empty.into()),
            needed if needed > limit => {
                return Err(SessionError::ContextFull { limit, needed }.into());
            }
            _ => {}
        }
        Ok(Self {
            text: AnswerText::new(&options, tokenizer),
            tokenizer: tokenizer.clone(),
            options,
            sampler,
            constraint,
            ends,
            tokens: prompt.to_vec(),
            prompt_tokens: prompt.len(),
            cached_tokens: 0,
            limit,
            logprobs: Vec::new(),
            begun: Instant::now(),
            first_logits: None,
        })
    }

    /// Starts the clock: from now on the prompt is read, of which `cached` tokens are known.
    pub fn begin(&mut self, cached: usize) {
        self.begun = Instant::now();
        self.set_cached(cached);
    }

    /// Sets the number of tokens of the prompt that are known.
    pub fn set_cached(&mut self, tokens: usize) {
        self.cached_tokens = tokens;
    }

    /// The prompt and the tokens generated so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens in the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Whether [`GenerationOptions::max_tokens`] were generated, so that the next
    /// [`take`](Self::take) would end the answer with any logits.
    pub fn is_full(&self) -> bool {
        let generated = self.tokens.len() - self.prompt_tokens;
        self.options.max_tokens.is_some_and(|most| generated >= most)
    }

    /// Picks the token that follows [`tokens`](Self::tokens) from the logits after them. `on_event`
    /// may end the answer at any event.
    pub fn take(
        &mut self,
        mut logits: Vec<f32>,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Next, GenerateError> {
        self.first_logits.get_or_insert_with(Instant::now);
        if self.is_full() {
            return Ok(Next::End(StopReason::Length));
        }
        let (token, logprobs) = self.pick(&mut logits)?;
        if self.ends.contains(&token) {
            return Ok(Next::End(StopReason::EndOfSentence));
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token)?;
            self.text.held = constraint.holds();
        }
        let fed = self.tokens.len();
        self.tokens.push(token);
        let flow = self.text.push(token, logprobs.as_ref(), &self.tokenizer, on_event);
        self.logprobs.extend(logprobs);
        Ok(match flow {
            ControlFlow::Break(stop) => Next::End(stop),
            ControlFlow::Continue(()) if fed >= self.limit => Next::End(StopReason::ContextFull),
            ControlFlow::Continue(()) => Next::Feed(token),
        })
    }

    /// Picks a token, with log probabilities if they are asked for.
    fn pick(&mut self, logits: &mut [f32]) -> Result<(u32, Option<Logprobs>), GenerateError> {
        let (sampler, constraint) = (&mut self.sampler, self.constraint.as_deref_mut());
        let Some(top) = self.options.logprobs else {
            return Ok((sampler.sample_with(logits, &self.tokens, constraint)?, None));
        };
        if self.options.odds {
            let (token, odds) = sampler.sample_with_odds(logits, &self.tokens, constraint, top)?;
            return Ok((token, Some(odds)));
        }
        let of_model = logits.to_vec();
        let token = sampler.sample_with(logits, &self.tokens, constraint)?;
        Ok((token, Some(Logprobs::new(&of_model, token, top))))
    }

    /// Ends the answer for the reason of [`Next::End`], or at any time for another. Emits the text
    /// that was held back; what `on_event` returns is ignored.
    pub fn end(
        mut self,
        stop: StopReason,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Generation {
        if self.first_logits.is_some() {
            self.text.finish(stop, on_event);
        }
        Generation {
            reasoning: self.text.reasoning,
            answer: self.text.answer,
            calls: self.text.called.calls,
            warnings: self.text.called.warnings,
            raw: self.text.raw,
            tokens: self.tokens.split_off(self.prompt_tokens),
            logprobs: self.logprobs,
            stop,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            drafts: DraftUse::default(),
            prefill: self.first_logits.map_or_else(|| self.begun.elapsed(), |at| at - self.begun),
            decode: self.first_logits.map_or(Duration::ZERO, |at| at.elapsed()),
        }
    }
}
