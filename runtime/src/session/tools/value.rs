//! Converts arguments between tags to JSON, typed by the tool's schema.

use serde_json::Value;

use super::cursor::{Cursor, Read, Stop, TOKEN};
use crate::session::stop::partial_suffix;

/// Allowed types of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Always text.
    Text,
    /// JSON, or text if it is not valid JSON.
    Json,
    /// JSON of one of these types, or otherwise text.
    OneOf(Vec<String>),
}

impl Kind {
    /// Determines the types from the schema of the argument; without a schema, JSON if the text is
    /// valid JSON.
    pub fn of(schema: Option<&Value>) -> Self {
        let Some(schema) = schema else { return Self::Json };
        let mut types = Vec::new();
        collect(schema, &mut types, 0);
        let only_text = types.iter().all(|kind| kind == "string");
        match (types.is_empty(), only_text, types.iter().any(|kind| kind == "string")) {
            (false, true, _) => Self::Text,
            (false, false, true) => Self::OneOf(types),
            _ => Self::Json,
        }
    }

    /// Converts a text to its value.
    fn value(&self, text: &str) -> Value {
        let parsed = || serde_json::from_str::<Value>(text.trim()).ok();
        let as_text = || Value::String(text.into());
        match self {
            Self::Text => as_text(),
            Self::Json => parsed().unwrap_or_else(as_text),
            Self::OneOf(types) => {
                let fits = |value: &Value| match value {
                    Value::Null => types.iter().any(|t| t == "null"),
                    Value::Bool(_) => types.iter().any(|t| t == "boolean"),
                    Value::Number(n) => {
                        types.iter().any(|t| t == "number" || (t == "integer" && !n.is_f64()))
                    }
                    Value::String(_) => false,
                    Value::Array(_) => types.iter().any(|t| t == "array"),
                    Value::Object(_) => types.iter().any(|t| t == "object"),
                };
                parsed().filter(fits).unwrap_or_else(as_text)
            }
        }
    }
}

/// Collects the types that a schema names, including those in alternatives.
fn collect(schema: &Value, types: &mut Vec<String>, depth: usize) {
    match &schema["type"] {
        Value::String(kind) => types.push(kind.clone()),
        Value::Array(kinds) => {
            types.extend(kinds.iter().filter_map(Value::as_str).map(String::from))
        }
        _ => {}
    }
    let values =
        schema["enum"].as_array().map_or(&[][..], Vec::as_slice).iter().chain(schema.get("const"));
    if schema.get("type").is_none() {
        types.extend(values.map(|value| type_of(value).into()));
    }
    for alternatives in
        ["anyOf", "oneOf", "allOf"].map(|key| schema[key].as_array()).into_iter().flatten()
    {
        alternatives.iter().filter(|_| depth < 8).for_each(|one| collect(one, types, depth + 1));
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Closes an object.
pub(super) fn close(out: &mut String) {
    out.push_str(if out.is_empty() { "{}" } else { "}" });
}

/// Opens an object, or continues it, with a key.
pub(super) fn key(out: &mut String, key: &str) {
    out.push(if out.is_empty() { '{' } else { ',' });
    out.push_str(&Value::from(key).to_string());
    out.push(':');
}

/// Reads a value up to `end`, after which `follows` must hold, and appends its key and value to
/// `out`: text as it arrives, anything else when it is complete. With `own_lines`, a line break
/// before the end belongs to the end.
pub(super) fn read(
    text: &mut Cursor,
    name: &str,
    kind: &Kind,
    (end, own_lines): (&str, bool),
    follows: impl Fn(&mut Cursor) -> Read<bool>,
    out: &mut String,
) -> Read<()> {
    let rest = text.rest();
    let mut from = 0;
    let (certain, complete) = loop {
        let Some(at) = rest[from..].find(end).map(|at| from + at) else {
            break (rest.len() - partial_suffix(rest, end), false);
        };
        let mut after = *text;
        after.at += at + end.len();
        match follows(&mut after) {
            Ok(true) => break (at, true),
            // The value contains the end marker itself.
            Ok(false) => from = at + end.len(),
            Err(Stop::More) => break (at, false),
            Err(stop) => return Err(stop),
        }
    };
    let content = &rest[..certain];
    let content = if own_lines { content.strip_suffix('\n').unwrap_or(content) } else { content };
    let content: String = content.chars().filter(|c| *c != TOKEN).collect();
    if *kind == Kind::Text {
        key(out, name);
        let quoted = Value::from(content).to_string();
        out.push_str(&quoted[..quoted.len() - usize::from(!complete)]);
    } else if complete {
        key(out, name);
        out.push_str(&kind.value(&content).to_string());
    }
    if !complete {
        return Err(Stop::More);
    }
    text.at += certain + end.len();
    Ok(())
}
