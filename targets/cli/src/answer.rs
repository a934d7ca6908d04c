//! Streams an answer to the terminal.

use std::io::{self, Write, stdout};
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use vaquita_runtime::app::Conversation;
use vaquita_runtime::measure::memory::{self, Faults};
use vaquita_runtime::model::Stats;
use vaquita_runtime::opening::budget::MemoryPlan;
use vaquita_runtime::session::generate::{Event, Generation};
use vaquita_runtime::session::sampler::logprobs::{Logprob, Logprobs};

use crate::bundle::Bundle;
use crate::failure::{Failure, Result};
use crate::sampling::Settled;
use crate::streamed::Streamed;
use crate::terminal::{self, Bar};

/// Flag that is set by Ctrl-C and ends the current answer.
pub fn interrupted() -> Result<&'static AtomicBool> {
    static FLAG: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let installed = HANDLER.get_or_init(|| {
        ctrlc::set_handler(|| FLAG.store(true, Ordering::Relaxed))
            .map_err(|error| error.to_string())
    });
    installed.clone().map_err(Failure::Error)?;
    Ok(&FLAG)
}

/// A generated answer and its cost.
pub struct Answer {
    /// The answer.
    pub generation: Generation,
    /// Joules used by the part of the machine that the meter covers; `None` without a meter.
    pub joules: Option<f64>,
    /// Statistics of the expert store; `None` unless experts are streamed.
    pub streaming: Option<Stats>,
    /// Division of the memory budget, if there is one.
    pub plan: Option<MemoryPlan>,
    /// Page faults during the answer.
    pub faults: Option<Faults>,
    /// Description of the lossy options in effect.
    pub lossy: Option<String>,
    /// Seed of the random numbers, where any were drawn.
    pub seed: Option<u64>,
    /// Values of the sampling options and their sources, for `--json`.
    pub sampling: Value,
}

/// What is to be answered.
pub enum Input<'a> {
    /// The conversation's next turn.
    Turn(&'a str),
    /// The messages so far, which end with the user's.
    Next,
    /// Text to continue, without the template.
    Raw(&'a str),
}

/// Generates an answer and, unless `quiet`, prints it as it is generated. Ctrl-C ends it.
pub fn stream(
    conversation: &mut Conversation,
    bundle: &Bundle,
    input: Input,
    sampling: &Settled,
    quiet: bool,
) -> Result<Answer> {
    let faults = memory::faults();
    let interrupted = interrupted()?;
    interrupted.store(false, Ordering::Relaxed);
    let mut bar = Some(Bar::new("reading"));
    let mut printer = Printer::new(sampling.hide_thinking);
    let mut failed = None;
    let options = &sampling.generation;
    let mut on_event = |event: Event| {
        match event {
            Event::Prompt { done, total } => {
                if let Some(bar) = &mut bar {
                    bar.set(done as u64, total as u64);
                }
            }
            Event::Token(_) => bar = None,
            Event::Logprobs(_) | Event::Call(_) => {}
            Event::Reasoning(_) | Event::Answer(_) | Event::WasReasoning if quiet => {}
            Event::WasReasoning => printer.was_reasoning(),
            Event::Reasoning(text) => failed = printer.reasoning(text).err(),
            Event::Answer(text) => failed = printer.answer(text).err(),
        }
        match failed.is_some() || interrupted.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let turn = match input {
        Input::Turn(text) => conversation.answer(Some(text), options, &mut on_event),
        Input::Next => conversation.answer(None, options, &mut on_event),
        Input::Raw(text) => conversation.complete(text, options, &mut on_event),
    };
    let ended = printer.end();
    if let Some(error) = failed {
        return Err(error.into());
    }
    ended?;
    let turn = turn?;
    Ok(Answer {
        generation: turn.generation,
        joules: turn.joules,
        streaming: turn.streaming,
        plan: bundle.loaded().memory.plan(),
        faults: memory::faults().zip(faults).map(|(after, before)| after.since(&before)),
        lossy: bundle.loaded().lossy.clone(),
        seed: sampling.seed(),
        sampling: sampling.json(),
    })
}

/// Prints reasoning dimmed, if the terminal supports it, and the answer after an empty line.
struct Printer {
    hide: bool,
    style: bool,
    dimmed: bool,
    thought: bool,
    answered: bool,
}

impl Printer {
    fn new(hide: bool) -> Self {
        let style = terminal::has_style();
        Self { hide, style, dimmed: false, thought: false, answered: false }
    }

    fn reasoning(&mut self, text: &str) -> io::Result<()> {
        if self.hide {
            return Ok(());
        }
        let mut out = stdout().lock();
        if self.style && !self.dimmed {
            out.write_all(b"\x1b[2m")?;
            self.dimmed = true;
        }
        self.thought = true;
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Handles the event that all text printed as the answer so far was reasoning.
    fn was_reasoning(&mut self) {
        (self.thought, self.answered) = (self.thought || self.answered, false);
    }

    fn answer(&mut self, text: &str) -> io::Result<()> {
        let mut out = stdout().lock();
        if self.dimmed {
            out.write_all(b"\x1b[0m")?;
            self.dimmed = false;
        }
        if self.thought && !self.answered {
            out.write_all(b"\n\n")?;
        }
        self.answered = true;
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Ends the current line, if any.
    fn end(&mut self) -> io::Result<()> {
        if !self.thought && !self.answered {
            return Ok(());
        }
        let mut out = stdout().lock();
        if self.dimmed {
            out.write_all(b"\x1b[0m")?;
        }
        out.write_all(b"\n")?;
        out.flush()
    }
}

/// Logarithms of probabilities at each token.
fn logprobs_json(logprobs: &[Logprobs]) -> Value {
    // JSON has no infinity: a token that cannot be has null.
    let one = |found: &Logprob| json!({"token": found.token, "logprob": found.logprob});
    let at = |found: &Logprobs| {
        let mut json = one(&found.picked);
        json["top"] = found.top.iter().map(one).collect();
        json
    };
    logprobs.iter().map(at).collect()
}

/// The division of a memory budget as JSON, in bytes.
fn memory_json(plan: MemoryPlan) -> Value {
    let footprint = plan.footprint;
    json!({
        "budget_bytes": plan.budget,
        "process_bytes": footprint.process,
        "dense_bytes": footprint.dense,
        "cache_bytes": footprint.cache,
        "scratch_bytes": footprint.scratch,
        "experts_bytes": plan.experts, // null where the file is mapped
    })
}

impl Answer {
    /// The output of `--json`.
    pub fn json(&self) -> Value {
        let generation = &self.generation;
        let generated = generation.tokens.len();
        json!({
            "text": generation.answer,
            "reasoning": generation.reasoning,
            "stop": generation.stop.name(),
            "prompt_tokens": generation.prompt_tokens,
            "cached_tokens": generation.cached_tokens,
            "tokens": generated,
            "token_ids": generation.tokens,
            "logprobs": (!generation.logprobs.is_empty()).then(|| logprobs_json(&generation.logprobs)),
            "prefill_seconds": generation.prefill.as_secs_f64(),
            "decode_seconds": generation.decode.as_secs_f64(),
            "prefill_tokens_per_second": generation.prefill_rate(),
            "decode_tokens_per_second": generation.decode_rate(),
            "peak_rss_bytes": memory::current().map(|memory| memory.peak),
            "energy_joules": self.joules,
            "joules_per_token": self.joules.filter(|_| generated > 0).map(|j| j / generated as f64),
            "memory": self.plan.map(memory_json),
            "major_page_faults": self.faults.map(|faults| faults.major),
            "minor_page_faults": self.faults.map(|faults| faults.minor),
            "streaming": self.streamed(),
            "drafts": (generation.drafts.all_drafted() > 0).then(|| json!({
                "drafted": generation.drafts.drafted, // by place in a step
                "accepted": generation.drafts.accepted,
            })),
            "lossy": self.lossy,
            "sampling": self.sampling,
        })
    }

    /// Cost of streaming; `None` if all experts are mapped.
    fn streamed(&self) -> Option<Streamed> {
        let generation = &self.generation;
        let tokens = generation.prompt_tokens - generation.cached_tokens + generation.tokens.len();
        let elapsed = generation.prefill + generation.decode;
        self.streaming.map(|stats| Streamed::new(&stats, tokens, elapsed))
    }

    /// One line for people with speed, memory and energy.
    pub fn summary(&self) -> String {
        let generation = &self.generation;
        let rate = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{rate:.1}"));
        let memory =
            memory::current().map_or("unmeasured".into(), |memory| crate::size::show(memory.peak));
        let tokens = generation.tokens.len();
        let energy = match self.joules {
            Some(joules) if tokens > 0 => format!("{:.3} J/token", joules / tokens as f64),
            _ => "unmeasured".into(),
        };
        let mut text = format!(
            "prompt {} tokens at {}/s, answer {} tokens at {}/s, peak memory {memory}, energy {energy}",
            generation.prompt_tokens,
            rate(generation.prefill_rate()),
            tokens,
            rate(generation.decode_rate()),
        );
        if let Some(seed) = self.seed {
            text.push_str(&format!(", seed {seed}"));
        }
        if let Some(streamed) = self.streamed() {
            text.push_str(&format!(", {}", streamed.summary()));
            if let Some(faults) = self.faults {
                text.push_str(&format!(", {} major page faults", faults.major));
            }
        }
        if generation.drafts.all_drafted() > 0 {
            text.push_str(&format!(", {}", generation.drafts));
        }
        if let Some(lossy) = &self.lossy {
            text.push_str(&format!(", {lossy}"));
        }
        text
    }
}
