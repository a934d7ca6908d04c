//! What an answer is held to: `response_format` in the spellings of OpenAI and llama.cpp, and
//! `grammar` and `json_schema` beside it.

use serde_json::Value;
use vaquita_runtime::structured::Rule;

use crate::error::{ApiError, Result};

/// Reads the three fields.
pub(crate) fn rule(
    format: Option<&Value>,
    grammar: Option<String>,
    json_schema: Option<Value>,
) -> Result<Option<Rule>> {
    let json_schema = json_schema.filter(|schema| !schema.is_null());
    let grammar = grammar.filter(|grammar| !grammar.is_empty());
    if json_schema.is_some() && grammar.is_some() {
        let message = "grammar and json_schema contradict each other: send one of them";
        return Err(ApiError::field("grammar", message));
    }
    let beside = match (grammar, json_schema) {
        (Some(grammar), _) => Some(Rule::Gbnf(grammar)),
        (None, Some(schema)) => Some(Rule::JsonSchema { schema, strict: false }),
        (None, None) => None,
    };
    match (of_format(format)?, beside) {
        (Some(_), Some(_)) => {
            let message = "response_format comes with a grammar or json_schema: send one of them";
            Err(ApiError::field("response_format", message))
        }
        (one, other) => Ok(one.or(other)),
    }
}

fn of_format(format: Option<&Value>) -> Result<Option<Rule>> {
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    let wrong = |message: &str| ApiError::field("response_format", message);
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(match format.get("schema") {
            // llama.cpp's and Together's.
            Some(schema) if !schema.is_null() => {
                Rule::JsonSchema { schema: schema.clone(), strict: false }
            }
            _ => Rule::JsonObject,
        })),
        Some("json_schema") => {
            // OpenAI's chat, OpenAI's responses, llama.cpp's.
            let inner = format.get("json_schema").unwrap_or(format);
            let schema = inner.get("schema").filter(|schema| schema.is_object());
            let schema = schema.ok_or_else(|| {
                wrong("response_format.json_schema.schema: it is missing or not an object")
            })?;
            let strict = inner["strict"].as_bool().unwrap_or(false);
            Ok(Some(Rule::JsonSchema { schema: schema.clone(), strict }))
        }
        _ => Err(wrong("response_format.type: allowed: text, json_object, json_schema")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_spelling_of_a_schema_is_read() {
        let schema = json!({"type": "object"});
        for format in [
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
            json!({"type": "json_schema", "name": "x", "schema": schema}),
            json!({"type": "json_object", "schema": schema}),
        ] {
            let expected = Rule::JsonSchema { schema: schema.clone(), strict: false };
            assert_eq!(rule(Some(&format), None, None).unwrap(), Some(expected));
        }
        assert_eq!(rule(Some(&json!({"type": "text"})), None, None).unwrap(), None);
        assert_eq!(
            rule(Some(&json!({"type": "json_object"})), None, None).unwrap(),
            Some(Rule::JsonObject)
        );
    }

    #[test]
    fn contradictions_and_unknown_forms_are_refused() {
        let object = json!({"type": "json_object"});
        assert!(rule(Some(&object), Some("root ::= \"a\"".into()), None).is_err());
        assert!(rule(None, Some("root ::= \"a\"".into()), Some(json!({}))).is_err());
        assert!(rule(Some(&json!({"type": "xml"})), None, None).is_err());
        assert!(rule(Some(&json!({"type": "json_schema"})), None, None).is_err());
        assert!(rule(Some(&json!("json")), None, None).is_err());
    }
}
