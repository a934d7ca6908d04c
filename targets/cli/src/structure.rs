//! What an answer is held to: a JSON schema, a grammar, a regular expression or choices.

use std::fs;
use std::sync::Arc;

use clap::Args;
use vaquita_runtime::session::constraint::{Grammar, end_tokens};
use vaquita_runtime::structured::{Compiler, Rule};

use crate::bundle::Bundle;
use crate::failure::{Failure, Result};

/// One of several rules. docs/structured-output.md says what each can hold.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Structured output")]
#[group(multiple = false)]
pub struct Structure {
    /// Answer with JSON that is valid under this schema, a file or JSON itself
    #[arg(long, value_name = "FILE|JSON")]
    json_schema: Option<String>,
    /// Answer with a JSON object
    #[arg(long)]
    json_object: bool,
    /// Answer with a sentence of this GBNF grammar (llama.cpp's)
    #[arg(long, value_name = "FILE")]
    grammar: Option<String>,
    /// Answer with a sentence of this Lark grammar
    #[arg(long, value_name = "FILE")]
    lark: Option<String>,
    /// Answer with text that matches this regular expression as a whole
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// Answer with one of these texts; repeat for each
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
}

fn read(option: &str, path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::Error(format!("{option}: {path}: {error}")))
}

impl Structure {
    fn rule(&self) -> Result<Option<Rule>> {
        if let Some(given) = &self.json_schema {
            let is_json =
                given.trim_start().starts_with(['{', 't', 'f']) && fs::metadata(given).is_err();
            let text = if is_json { given.clone() } else { read("--json-schema", given)? };
            let schema = serde_json::from_str(&text)
                .map_err(|error| Failure::Usage(format!("--json-schema is not JSON: {error}")))?;
            return Ok(Some(Rule::JsonSchema { schema, strict: false }));
        }
        if let Some(path) = &self.grammar {
            return Ok(Some(Rule::Gbnf(read("--grammar", path)?)));
        }
        if let Some(path) = &self.lark {
            return Ok(Some(Rule::Lark(read("--lark", path)?)));
        }
        if let Some(regex) = &self.regex {
            return Ok(Some(Rule::Regex(regex.clone())));
        }
        if !self.choice.is_empty() {
            return Ok(Some(Rule::Choice(self.choice.clone())));
        }
        Ok(self.json_object.then_some(Rule::JsonObject))
    }

    /// The grammar, where a rule is given; refused before anything is computed where it cannot be
    /// enforced.
    pub fn grammar(&self, bundle: &Bundle) -> Result<Option<Arc<dyn Grammar>>> {
        let Some(rule) = self.rule()? else { return Ok(None) };
        let tokenizer = bundle.prompter().tokenizer();
        let ends = end_tokens(tokenizer, &bundle.loaded().model.config().eos_token_ids);
        let compiled = Compiler::new(tokenizer, &ends).and_then(|compiler| compiler.compile(&rule));
        compiled.map(Some).map_err(|error| Failure::Usage(error.to_string()))
    }
}
