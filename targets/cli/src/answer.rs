//! Streams an answer to the terminal.

use std::io::{self, Write, stdout};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::Args;
use serde_json::{Value, json};
use vaquita_runtime::app::Conversation;
use vaquita_runtime::measure::memory::{self, Faults};
use vaquita_runtime::model::Stats;
use vaquita_runtime::opening::budget::MemoryPlan;
use vaquita_runtime::session::constraint::Grammar;
use vaquita_runtime::session::generate::{Event, Generation, GenerationOptions};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::sampler::logprobs::{Logprob, Logprobs};
use vaquita_runtime::tokenizer::Tokenizer;

use crate::bundle::Bundle;
use crate::failure::{Failure, Result};
use crate::penalties::Penalties;
use crate::streamed::Streamed;
use crate::terminal::{self, Bar};

/// Sampling options.
#[derive(Args, Clone, Debug)]
pub struct Sampling {
    /// Maximum number of tokens to generate, including reasoning [default: until the context is
    /// full]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy decoding
    #[arg(long, value_name = "X", default_value_t = 0.6)]
    temp: f32,
    /// Top-k sampling: keep the K most probable tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Top-p (nucleus) sampling: keep the most probable tokens up to this cumulative probability
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// Min-p sampling: keep tokens with at least this fraction of the highest probability
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Repetition penalty on recent tokens; 1 disables it
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// Random seed: the same seed gives the same answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Stop string: end the answer before this text; repeatable
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Do not print the model's reasoning
    #[arg(long)]
    pub hide_thinking: bool,
    #[command(flatten)]
    penalties: Penalties,
    /// Report the log-probability of each token and of its N most probable alternatives (with
    /// --json)
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// What the answer is held to.
    #[arg(skip)]
    pub grammar: Option<Arc<dyn Grammar>>,
}

impl Sampling {
    /// Greedy decoding, for the demo.
    pub fn greedy(max_tokens: usize) -> Self {
        Self {
            max_tokens: Some(max_tokens),
            temp: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            seed: 0,
            stop: Vec::new(),
            hide_thinking: false,
            penalties: Penalties::default(),
            logprobs: None,
            grammar: None,
        }
    }

    fn options(&self, tokenizer: &Tokenizer) -> Result<GenerationOptions> {
        let sampling = SamplingOptions {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            seed: self.seed,
            ..SamplingOptions::default()
        };
        Ok(GenerationOptions {
            sampling: self.penalties.options(sampling, tokenizer)?,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            grammar: self.grammar.clone(),
            logprobs: self.logprobs,
            ..GenerationOptions::default()
        })
    }
}

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
}

/// What is to be answered.
pub enum Input<'a> {
    /// The conversation's next turn.
    Turn(&'a str),
    /// Text to continue, without the template.
    Raw(&'a str),
}

/// Generates an answer and, unless `quiet`, prints it as it is generated. Ctrl-C ends it.
pub fn stream(
    conversation: &mut Conversation,
    bundle: &Bundle,
    input: Input,
    sampling: &Sampling,
    quiet: bool,
) -> Result<Answer> {
    let faults = memory::faults();
    let interrupted = interrupted()?;
    interrupted.store(false, Ordering::Relaxed);
    let mut bar = Some(Bar::new("reading"));
    let mut printer = Printer::new(sampling.hide_thinking);
    let mut failed = None;
    let options = sampling.options(bundle.prompter().tokenizer())?;
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
        Input::Turn(text) => conversation.answer(Some(text), &options, &mut on_event),
        Input::Raw(text) => conversation.complete(text, &options, &mut on_event),
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
            "lossy": self.lossy,
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
        if let Some(streamed) = self.streamed() {
            text.push_str(&format!(", {}", streamed.summary()));
            if let Some(faults) = self.faults {
                text.push_str(&format!(", {} major page faults", faults.major));
            }
        }
        if let Some(lossy) = &self.lossy {
            text.push_str(&format!(", {lossy}"));
        }
        text
    }
}
