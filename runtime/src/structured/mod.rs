//! Structured output: answers held to a JSON schema, a grammar, a regular expression or a list of choices.
//!
//! [`Compiler`] belongs to one tokenizer. It turns a [`Rule`] into a [`Grammar`](crate::session::constraint::Grammar) that
//! [`GenerationOptions`](crate::session::generate::GenerationOptions) take, or refuses it before a token is computed:
//! what cannot be enforced is never ignored. [`schema`] reduces JSON schemas to the keywords that can be, [`gbnf`] translates
//! llama.cpp's grammars, [`limits`] bounds all of them; the `llguidance` crate matches. [`vocabulary`] is what it sees of
//! a tokenizer: control tokens have no text there, so that no grammar can produce one.

mod compiler;
pub mod gbnf;
mod lark;
pub mod limits;
mod matcher;
pub mod schema;
mod tools;
mod vocabulary;

pub use compiler::Compiler;
pub use tools::CallRule;

use serde_json::Value;

/// What an answer is held to.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under a schema.
    JsonSchema {
        /// The schema, draft 4 to 2020-12.
        schema: Value,
        /// Only OpenAI's strict subset: all properties required, no others.
        strict: bool,
    },
    /// llama.cpp's grammar language.
    Gbnf(String),
    /// Lark, as llguidance extends it.
    Lark(String),
    /// A regular expression in the syntax of Rust's `regex` crate, over the whole answer.
    Regex(String),
    /// One of some texts.
    Choice(Vec<String>),
}

/// Why an answer cannot be held to a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StructuredError {
    /// A keyword of a JSON schema cannot be enforced.
    #[error("{path}: {problem}")]
    Schema {
        /// Where it is, as a JSON pointer after `#`.
        path: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A grammar is wrong or cannot be translated.
    #[error("line {line} of the grammar: {problem}")]
    Grammar {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Something is too large.
    #[error("{what} is {found}; allowed: {allowed}")]
    Limit {
        /// Name and unit.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The largest size.
        allowed: usize,
    },
    /// The rule could not be compiled.
    #[error("the {kind} cannot be enforced: {problem}")]
    Compile {
        /// What was compiled.
        kind: &'static str,
        /// Why not.
        problem: String,
    },
    /// Compiling took too long.
    #[error("the {kind} takes more than {} ms to compile; simplify it", limits::COMPILE_TIME.as_millis())]
    Slow {
        /// What was compiled.
        kind: &'static str,
    },
    /// Too many are still being compiled.
    #[error("{} grammars are being compiled; try again later", limits::COMPILERS)]
    Busy,
    /// The tokenizer has no token that ends an answer.
    #[error("the tokenizer names no token that ends an answer, so that none could end")]
    NoEnd,
}
