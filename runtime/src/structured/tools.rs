//! Grammars of tool calls: the calls that a model of each format may write for the offered tools.
//!
//! With a free choice, text is unconstrained until the format's trigger; from there, the grammar
//! applies until the end of the call. If a call is required, the answer begins with one.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Compiler, StructuredError, schema};
use crate::session::constraint::{Constraint, ConstraintError, Grammar};
use crate::session::tools::offer::{Tool, ToolChoice, Tools};
use crate::session::tools::{Format, markers, opening};
use crate::tokenizer::Tokenizer;

/// Constraint on tool calls.
#[derive(Clone, Copy, Debug)]
pub struct CallRule<'a> {
    /// Format in which the model writes calls.
    pub format: Format,
    /// Tools offered to the model.
    pub tools: &'a Tools,
    /// Whether the model must call a tool.
    pub choice: &'a ToolChoice,
    /// Whether several calls are allowed.
    pub parallel: bool,
}

impl Compiler {
    /// Compiles the grammar of answers with calls; `None` if no calls are possible, so that nothing
    /// is enforced.
    ///
    /// An unenforceable schema is rejected if its tool is strict, and otherwise replaced by that of
    /// any object.
    pub fn compile_calls(
        &self,
        rule: &CallRule,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Arc<dyn Grammar>>, StructuredError> {
        let offer = |error: crate::session::tools::offer::OfferError| StructuredError::Compile {
            kind: "choice of tools",
            problem: error.to_string(),
        };
        let tools = rule.tools.chosen(rule.choice).map_err(offer)?;
        let required = rule.choice.is_required();
        if tools.is_empty() || (rule.format == Format::Generic && !required) {
            return Ok(None);
        }
        let writer = Writer { format: rule.format, tokenizer, rules: String::new() };
        let lark = writer.grammar(&tools, rule.parallel)?;
        let calls = self.compile_trusted(lark)?;
        Ok(Some(match required {
            true => calls,
            false => Arc::new(Lazy::new(calls, rule.format, tokenizer)),
        }))
    }
}

/// Writes the Lark grammar.
pub(super) struct Writer<'a> {
    format: Format,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) rules: String,
}

impl Writer<'_> {
    /// Writes a literal, in which the format's markers become tokens if the vocabulary contains
    /// them.
    pub(super) fn lit(&self, text: &str) -> String {
        let mut out = Vec::new();
        let mut rest = text;
        let is_token = |marker: &&&str| self.tokenizer.token_to_id(marker).is_some();
        while !rest.is_empty() {
            let next = markers(self.format)
                .iter()
                .filter(is_token)
                .filter_map(|marker| Some((rest.find(marker)?, *marker)))
                .min();
            let (at, marker) = next.unwrap_or((rest.len(), ""));
            if at > 0 {
                out.push(Value::from(&rest[..at]).to_string());
            }
            // Tokens are given by number: their names need not be valid names in Lark, and plain
            // text would not match the marker.
            if let Some(token) = self.tokenizer.token_to_id(marker).filter(|_| !marker.is_empty()) {
                out.push(format!("<[{token}]>"));
            }
            rest = &rest[at + marker.len()..];
        }
        out.join(" ")
    }

    fn grammar(mut self, tools: &Tools, parallel: bool) -> Result<String, StructuredError> {
        let mut calls = Vec::new();
        for (number, tool) in tools.iter().enumerate() {
            let call = self.call(number, tool)?;
            let _ = writeln!(self.rules, "call{number}: {call}"); // a String takes all
            calls.push(format!("call{number}"));
        }
        let (open, between, close) = match self.format {
            Format::DeepSeekV3 => ("<｜tool▁calls▁begin｜>", "\n", "<｜tool▁calls▁end｜>"),
            Format::DeepSeekV31 => ("<｜tool▁calls▁begin｜>", "", "<｜tool▁calls▁end｜>"),
            Format::DeepSeekV32 => ("<｜DSML｜function_calls>\n", "", "</｜DSML｜function_calls>"),
            Format::DeepSeekV4 => ("<｜DSML｜tool_calls>\n", "", "</｜DSML｜tool_calls>"),
            Format::MiniMax => ("<minimax:tool_call>\n", "", "</minimax:tool_call>"),
            Format::Kimi => ("<|tool_calls_section_begin|>", "", "<|tool_calls_section_end|>"),
            Format::Lfm2 => ("<|tool_call_start|>[", ", ", "]<|tool_call_end|>"),
            Format::MistralNemo => ("[TOOL_CALLS][", ", ", "]"),
            Format::Hermes | Format::QwenCoder | Format::Glm => ("", "\n", ""),
            Format::Llama3 | Format::Generic => ("", "; ", ""),
            Format::Mistral | Format::Harmony | Format::Gemma4 => ("", "", ""),
        };
        // gpt-oss ends its turn with each call.
        let parallel = parallel && self.format != Format::Harmony;
        let more = match (parallel, between) {
            (false, _) => String::new(),
            (true, "") => "call*".into(),
            (true, between) => format!("({} call)*", self.lit(between)),
        };
        let start = format!("{} call {more} {}", self.lit(open), self.lit(close));
        Ok(format!("start: {start}\ncall: {}\n{}", calls.join(" | "), self.rules))
    }

    /// Writes one call of a tool.
    fn call(&mut self, number: usize, tool: &Tool) -> Result<String, StructuredError> {
        let name = &tool.name;
        let (before, after) = match self.format {
            Format::DeepSeekV3 => (
                format!("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n"),
                "\n```<｜tool▁call▁end｜>",
            ),
            Format::DeepSeekV31 => {
                (format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>"), "<｜tool▁call▁end｜>")
            }
            Format::Hermes => {
                (format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": "), "}\n</tool_call>")
            }
            Format::Llama3 => (format!("{{\"name\": \"{name}\", \"parameters\": "), "}"),
            Format::Generic | Format::MistralNemo => {
                (format!("{{\"name\": \"{name}\", \"arguments\": "), "}")
            }
            Format::Mistral => (format!("[TOOL_CALLS]{name}[ARGS]"), ""),
            Format::Harmony => (
                format!("<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"),
                "",
            ),
            Format::Kimi => {
                let before = self.lit(&format!("<|tool_call_begin|>functions.{name}:"));
                let (sep, after) =
                    (self.lit("<|tool_call_argument_begin|>"), self.lit("<|tool_call_end|>"));
                let arguments = self.arguments(number, tool)?;
                return Ok(format!("{before} /[0-9]{{1,4}}/ {sep} {arguments} {after}"));
            }
            Format::DeepSeekV32 | Format::DeepSeekV4 => {
                let before = self.lit(&format!("<｜DSML｜invoke name=\"{name}\">\n"));
                let after = self.lit("</｜DSML｜invoke>\n");
                let parameters = self.parameters(number, tool)?;
                let parameters = if parameters.is_empty() { "\"\\n\"?".into() } else { parameters };
                return Ok(format!("{before} {parameters} {after}"));
            }
            Format::MiniMax => {
                let before = self.lit(&format!("<invoke name=\"{name}\">\n"));
                let after = self.lit("</invoke>\n");
                return Ok(format!("{before} {} {after}", self.parameters(number, tool)?));
            }
            Format::QwenCoder => {
                let before = self.lit(&format!("<tool_call>\n<function={name}>\n"));
                let after = self.lit("</function>\n</tool_call>");
                return Ok(format!("{before} {} {after}", self.parameters(number, tool)?));
            }
            Format::Glm => {
                let before = self.lit(&format!("<tool_call>{name}\n"));
                let after = self.lit("</tool_call>");
                return Ok(format!("{before} {} {after}", self.parameters(number, tool)?));
            }
            Format::Gemma4 => {
                let before = self.lit(&format!("<|tool_call>call:{name}"));
                let after = self.lit("<tool_call|>");
                return Ok(format!("{before} {} {after}", self.gemma(number, tool)?));
            }
            Format::Lfm2 => {
                let parameters = self.parameters(number, tool)?;
                return Ok(format!("\"{name}(\" {parameters} \")\""));
            }
        };
        let (before, after) = (self.lit(&before), self.lit(after));
        Ok(format!("{before} {} {after}", self.arguments(number, tool)?))
    }

    /// Writes a rule for all arguments as one object.
    fn arguments(&mut self, number: usize, tool: &Tool) -> Result<String, StructuredError> {
        let name = format!("arguments{number}");
        let schema = object(tool)?;
        let _ = writeln!(self.rules, "{name}: %json {schema}"); // a String takes all
        Ok(name)
    }

    /// Writes the parameters one by one in the schema's order; those that are not required are
    /// optional.
    fn parameters(&mut self, number: usize, tool: &Tool) -> Result<String, StructuredError> {
        let none = serde_json::Map::new();
        let properties =
            tool.parameters.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required = tool.parameters.get("required").and_then(Value::as_array);
        let is_required = |key: &str| required.is_some_and(|all| all.iter().any(|one| one == key));
        let mut parts = Vec::new();
        for (at, (key, schema)) in properties.iter().enumerate() {
            let value = format!("value{number}_{at}");
            let is_text = schema["type"] == "string" && schema.get("enum").is_none();
            let rule = self.value(&value, is_text, key, schema, tool)?;
            let _ = writeln!(self.rules, "{value}: {rule}"); // a String takes all
            parts.push((value, is_required(key)));
        }
        if self.format != Format::Lfm2 {
            let all = parts
                .iter()
                .map(|(name, required)| format!("{name}{}", if *required { "" } else { "?" }));
            return Ok(all.collect::<Vec<_>>().join(" "));
        }
        Ok(self.separated(number, &parts))
    }

    /// Writes Python's arguments, separated by commas. `rest{n}_{i}` is the text that follows an
    /// argument before the i-th.
    fn separated(&mut self, number: usize, parts: &[(String, bool)]) -> String {
        let count = parts.len();
        for (at, (name, required)) in parts.iter().enumerate() {
            let (first, rest) =
                (format!("first{number}_{}", at + 1), format!("rest{number}_{}", at + 1));
            let skip = |other: &str| if *required { String::new() } else { format!(" | {other}") };
            let _ = writeln!(self.rules, "first{number}_{at}: {name} {rest}{}", skip(&first));
            let _ = writeln!(self.rules, "rest{number}_{at}: \", \" {name} {rest}{}", skip(&rest));
        }
        let _ = writeln!(self.rules, "first{number}_{count}: \"\"\nrest{number}_{count}: \"\"");
        format!("first{number}_0")
    }

    /// Writes one parameter with its tags.
    fn value(
        &mut self,
        rule: &str,
        is_text: bool,
        key: &str,
        schema: &Value,
        tool: &Tool,
    ) -> Result<String, StructuredError> {
        let (before, after) = match self.format {
            Format::QwenCoder => (format!("<parameter={key}>\n"), "\n</parameter>\n"),
            Format::MiniMax => (format!("<parameter name=\"{key}\">"), "</parameter>\n"),
            Format::Glm => (format!("<arg_key>{key}</arg_key>\n<arg_value>"), "</arg_value>\n"),
            Format::Lfm2 => (format!("{key}="), ""),
            _ => (
                format!("<｜DSML｜parameter name=\"{key}\" string=\"{is_text}\">"),
                "</｜DSML｜parameter>\n",
            ),
        };
        let (before, after) = (self.lit(&before), self.lit(after));
        if is_text && self.format != Format::Lfm2 {
            const ENFORCED: [&str; 3] = ["type", "description", "title"];
            let beyond =
                schema.as_object().and_then(|s| s.keys().find(|k| !ENFORCED.contains(&k.as_str())));
            if let Some(keyword) = beyond.filter(|_| tool.strict) {
                let path = format!("#/properties/{key}/{keyword}");
                let problem =
                    "cannot be enforced in this model's format, which writes texts without quotes";
                return Err(StructuredError::Schema { path, problem: problem.into() });
            }
            // Any text that does not contain the start of an end tag.
            return Ok(format!("{before} /([^<]|<[^\\/])*/ {after}"));
        }
        let text_choices = schema["enum"].as_array().filter(|all| all.iter().all(Value::is_string));
        if let (Some(choices), false) = (text_choices, self.format == Format::Lfm2) {
            let texts =
                choices.iter().filter_map(Value::as_str).map(|text| Value::from(text).to_string());
            return Ok(format!("{before} ({}) {after}", texts.collect::<Vec<_>>().join(" | ")));
        }
        let definitions = ["$defs", "definitions", "components"];
        let mut schema = schema.clone();
        if let Some(schema) = schema.as_object_mut() {
            for name in definitions {
                if let Some(found) = tool.parameters.get(name) {
                    schema.insert(name.into(), found.clone());
                }
            }
        }
        let reduced = match schema::reduce(&schema, tool.strict) {
            Err(error) if tool.strict => return Err(error),
            reduced => reduced.unwrap_or_else(|_| json!({})),
        };
        let _ = writeln!(self.rules, "{rule}_json: %json {reduced}"); // a String takes all
        Ok(format!("{before} {rule}_json {after}"))
    }
}

/// Schema of a tool's arguments.
pub(super) fn object(tool: &Tool) -> Result<Value, StructuredError> {
    let mut parameters = tool.parameters.clone();
    if let Some(map) = parameters.as_object_mut() {
        map.entry("type").or_insert_with(|| "object".into());
    }
    match schema::reduce(&parameters, tool.strict) {
        Err(error) if tool.strict => Err(error),
        Err(_) => schema::reduce(&json!({"type": "object"}), false),
        reduced => reduced,
    }
}

/// Free text with a grammar that applies from its trigger on.
#[derive(Debug)]
struct Lazy {
    calls: Arc<dyn Grammar>,
    /// Tokens that begin a call, in sequence.
    trigger: Vec<u32>,
}

impl Lazy {
    fn new(calls: Arc<dyn Grammar>, format: Format, tokenizer: &Tokenizer) -> Self {
        // If the trigger is one token, the model cannot begin a call in any other way.
        let trigger = opening(format).and_then(|text| tokenizer.token_to_id(text));
        Self { calls, trigger: trigger.into_iter().collect() }
    }
}

impl Grammar for Lazy {
    fn begin(&self) -> Result<Box<dyn Constraint>, ConstraintError> {
        Ok(Box::new(Waiting {
            calls: self.calls.begin()?,
            trigger: self.trigger.clone(),
            inside: vec![false],
        }))
    }
}

/// State of one answer that may come to contain calls.
struct Waiting {
    calls: Box<dyn Constraint>,
    trigger: Vec<u32>,
    /// Whether the answer was inside calls before the first token, after it, and so on.
    inside: Vec<bool>,
}

impl Waiting {
    fn is_inside(&self) -> bool {
        self.inside.last() == Some(&true)
    }
}

impl Constraint for Waiting {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        match self.is_inside() {
            true => self.calls.mask(logits),
            false => Ok(()),
        }
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let inside = self.is_inside() || self.trigger.contains(&token);
        if inside {
            self.calls.accept(token)?;
        }
        self.inside.push(inside);
        Ok(())
    }

    fn holds(&self) -> bool {
        self.is_inside()
    }

    fn rollback(&mut self, tokens: usize) -> Result<(), ConstraintError> {
        let accepted = self.inside.len() - 1;
        let kept = accepted
            .checked_sub(tokens)
            .ok_or(ConstraintError::Rollback { asked: tokens, accepted })?;
        let inner = self.inside[kept + 1..].iter().filter(|inside| **inside).count();
        self.calls.rollback(inner)?;
        self.inside.truncate(kept + 1);
        Ok(())
    }
}
