//! Structured output: answers constrained to a JSON schema, a grammar, a regular expression or a
//! list of choices.
//!
//! [`Compiler`] belongs to one tokenizer. It compiles a [`Rule`] to a
//! [`Grammar`](crate::session::constraint::Grammar) for
//! [`GenerationOptions`](crate::session::generate::GenerationOptions), or rejects it before any
//! token is computed: unenforceable rules are never ignored. [`schema`] reduces JSON schemas to the
//! enforceable keywords, [`gbnf`] translates llama.cpp's grammars, [`limits`] limits the size of
//! all rules; the `llguidance` crate does the matching. [`vocabulary`] is the matcher's view of a
//! tokenizer: control tokens have no text in it, so that no grammar can produce one.

mod compiler;
pub mod gbnf;
mod gemma;
mod lark;
pub mod limits;
mod matcher;
pub mod schema;
mod tools;
mod vocabulary;

pub use compiler::Compiler;
pub use tools::CallRule;

use serde_json::Value;

/// Rule that constrains an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under a schema.
    JsonSchema {
        /// The schema, draft 4 to 2020-12.
        schema: Value,
        /// Whether to allow only OpenAI's strict subset: all properties required, no others.
        strict: bool,
    },
    /// A grammar in llama.cpp's grammar language.
    Gbnf(String),
    /// A Lark grammar with llguidance's extensions.
    Lark(String),
    /// A regular expression in the syntax of Rust's `regex` crate, which must match the whole
    /// answer.
    Regex(String),
    /// One of several texts.
    Choice(Vec<String>),
}

/// Reason why an answer cannot be constrained by a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StructuredError {
    /// A keyword of a JSON schema cannot be enforced.
    #[error("{path}: {problem}")]
    Schema {
        /// Location of the keyword, as a JSON pointer after `#`.
        path: String,
        /// Description of the problem, and what to do.
        problem: String,
    },
    /// A grammar is invalid or cannot be translated.
    #[error("line {line} of the grammar: {problem}")]
    Grammar {
        /// Line number, from 1.
        line: usize,
        /// Description of the problem.
        problem: String,
    },
    /// A rule exceeds a limit.
    #[error("{what} is {found}; allowed: {allowed}")]
    Limit {
        /// Name and unit of the quantity.
        what: &'static str,
        /// Value found.
        found: usize,
        /// Maximum value.
        allowed: usize,
    },
    /// The rule could not be compiled.
    #[error("the {kind} cannot be enforced: {problem}")]
    Compile {
        /// Kind of rule.
        kind: &'static str,
        /// Reason for the failure.
        problem: String,
    },
    /// Compiling took too long.
    #[error("the {kind} takes more than {} ms to compile; simplify it", limits::COMPILE_TIME.as_millis())]
    Slow {
        /// Kind of rule.
        kind: &'static str,
    },
    /// Too many grammars are still being compiled.
    #[error("{} grammars are being compiled; try again later", limits::COMPILERS)]
    Busy,
    /// The tokenizer has no token that ends an answer.
    #[error("the tokenizer names no token that ends an answer, so that none could end")]
    NoEnd,
}
