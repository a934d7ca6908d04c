//! Compiles rules in a worker with a bounded time, and keeps those that were compiled last.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::{fmt, thread};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::matcher::Compiled;
use super::vocabulary::Vocabulary;
use super::{Rule, StructuredError, gbnf, lark, limits, schema};
use crate::session::constraint::Grammar;
use crate::tokenizer::Tokenizer;

/// Turns rules into grammars over the tokens of one model.
pub struct Compiler {
    vocabulary: Arc<Vocabulary>,
    factory: Arc<ParserFactory>,
    running: Arc<AtomicUsize>,
    compiled: Mutex<VecDeque<(Source, Arc<Compiled>)>>,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

/// What the matcher compiles.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    Schema(Value),
    Lark(String),
    Regex(String),
    /// Lark of our own, which may hold control tokens.
    Trusted(String),
}

/// Counts a worker until it ends.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Compiler {
    /// For a tokenizer and the tokens that end an answer
    /// ([`end_tokens`](crate::session::constraint::end_tokens)). Takes about a second for 128,000 tokens.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self, StructuredError> {
        let vocabulary = Arc::new(Vocabulary::new(tokenizer, ends)?);
        let failed =
            |error| StructuredError::Compile { kind: "vocabulary", problem: first_line(&error) };
        let mut factory = ParserFactory::new_simple(&vocabulary.env).map_err(failed)?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_lexer_states = limits::LEXER_STATES;
        limits.verbose_errors = false;
        Ok(Self {
            vocabulary,
            factory: Arc::new(factory),
            running: Arc::default(),
            compiled: Mutex::default(),
        })
    }

    /// The grammar of a rule, or why it cannot be enforced.
    pub fn compile(&self, rule: &Rule) -> Result<Arc<dyn Grammar>, StructuredError> {
        let (kind, source) = match rule {
            Rule::JsonObject => {
                ("schema", Source::Schema(schema::reduce(&json!({"type": "object"}), false)?))
            }
            Rule::JsonSchema { schema, strict } => {
                ("schema", Source::Schema(schema::reduce(schema, *strict)?))
            }
            Rule::Gbnf(text) => ("grammar", Source::Lark(gbnf::to_lark(text)?)),
            Rule::Lark(text) => {
                lark::check(text)?;
                ("grammar", Source::Lark(text.clone()))
            }
            Rule::Regex(regex) => {
                limits::check_regex(regex)?;
                ("regular expression", Source::Regex(regex.clone()))
            }
            Rule::Choice(choices) => ("list of choices", Source::Regex(choice(choices)?)),
        };
        Ok(self.compile_source(kind, source)?)
    }

    /// The grammar of Lark that may hold control tokens: not from users.
    pub(crate) fn compile_trusted(
        &self,
        lark: String,
    ) -> Result<Arc<dyn Grammar>, StructuredError> {
        Ok(self.compile_source("grammar of the tools", Source::Trusted(lark))?)
    }

    fn compile_source(
        &self,
        kind: &'static str,
        source: Source,
    ) -> Result<Arc<Compiled>, StructuredError> {
        let lock = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = lock();
        if let Some(at) = kept.iter().position(|(one, _)| *one == source)
            && let Some(entry) = kept.remove(at)
        {
            let found = entry.1.clone();
            kept.push_front(entry);
            return Ok(found);
        }
        drop(kept);
        let (factory, vocabulary) = (self.factory.clone(), self.vocabulary.clone());
        let of = source.clone();
        let compiled = Arc::new(self.guarded(kind, move || build(&factory, vocabulary, of))?);
        let mut kept = lock();
        kept.push_front((source, compiled.clone()));
        kept.truncate(limits::CACHED);
        Ok(compiled)
    }

    /// Runs `build` on a thread with a large stack, and leaves it behind where it takes too long: the matcher's own limits
    /// end it.
    fn guarded<T: Send + 'static>(
        &self,
        kind: &'static str,
        build: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, StructuredError> {
        let running = Running(self.running.clone());
        if running.0.fetch_add(1, Ordering::AcqRel) >= limits::COMPILERS {
            return Err(StructuredError::Busy);
        }
        let (send, receive) = mpsc::channel();
        let work = move || {
            let built = catch_unwind(AssertUnwindSafe(build));
            drop(running);
            let _ = send.send(built.unwrap_or_else(|_| Err("the compiler failed".into()))); // nobody may wait any more
        };
        let worker = thread::Builder::new().name("grammar".into()).stack_size(limits::STACK);
        let failed = |problem: String| StructuredError::Compile { kind, problem };
        worker.spawn(work).map_err(|error| failed(error.to_string()))?;
        match receive.recv_timeout(limits::COMPILE_TIME) {
            Ok(built) => built.map_err(failed),
            Err(_) => Err(StructuredError::Slow { kind }),
        }
    }
}

fn build(
    factory: &ParserFactory,
    vocabulary: Arc<Vocabulary>,
    source: Source,
) -> Result<Compiled, String> {
    let trusted = matches!(source, Source::Trusted(_));
    let grammar = match source {
        Source::Schema(schema) => TopLevelGrammar::from_json_schema(schema),
        Source::Lark(lark) | Source::Trusted(lark) => TopLevelGrammar::from_lark(lark),
        Source::Regex(regex) => TopLevelGrammar::from_regex(&regex),
    };
    let parser = factory.create_parser(grammar).map_err(|error| first_line(&error))?;
    let mut matcher = Matcher::new(Ok(parser));
    // What is too complex shows at the first token.
    let mut mask = matcher.compute_mask_or_eos().map_err(|error| first_line(&error))?;
    if !trusted {
        vocabulary.without_control(&mut mask);
    }
    match mask.is_zero() {
        true => Err("no token can begin it".into()),
        false => Ok(Compiled { vocabulary, matcher, trusted }),
    }
}

/// A regular expression of some texts.
fn choice(choices: &[String]) -> Result<String, StructuredError> {
    let refuse = |problem: &str| StructuredError::Compile {
        kind: "list of choices",
        problem: problem.into(),
    };
    limits::at_most("the number of choices", choices.len(), limits::CHOICES)?;
    limits::at_most(
        "the length of the choices in bytes",
        choices.iter().map(String::len).sum(),
        limits::BYTES,
    )?;
    if choices.is_empty() || choices.iter().any(String::is_empty) {
        return Err(refuse("it needs at least one choice, and none without text"));
    }
    let escaped = |char: char| match char {
        c if c.is_alphanumeric() || c == ' ' => c.to_string(),
        c => format!("\\u{{{:X}}}", u32::from(c)),
    };
    let texts: Vec<String> =
        choices.iter().map(|text| text.chars().map(escaped).collect()).collect();
    Ok(texts.join("|"))
}

/// The matcher's errors go on with its inner state.
fn first_line(error: &dyn fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().trim().to_string()
}
