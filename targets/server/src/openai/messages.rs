//! Messages in OpenAI's form.

use serde::Deserialize;
use serde_json::Value;
use vaquita_runtime::session::chat::Message;

use crate::error::{ApiError, Result};

/// A message.
#[derive(Deserialize)]
pub(crate) struct MessageBody {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default, alias = "reasoning", alias = "thinking")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Value>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default, alias = "tool_name")]
    name: Option<String>,
    /// DeepSeek: the model continues this message.
    #[serde(default)]
    prefix: Option<bool>,
    #[serde(default)]
    refusal: Option<String>,
}

/// Text, or parts of it.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Value>),
}

impl Content {
    /// The text; parts of other kinds are refused by their place.
    pub fn text(self, path: &str) -> Result<String> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        let mut all = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let kind = part["type"].as_str().unwrap_or(if part.is_string() { "text" } else { "" });
            let text = match kind {
                "text" | "input_text" | "output_text" => part["text"].as_str().or(part.as_str()),
                "refusal" => part["refusal"].as_str(),
                _ => None,
            };
            let place = format!("{path}[{at}]");
            all.push(text.ok_or_else(|| {
                let kind: String = kind.chars().take(40).collect();
                let message =
                    format!("{place}: a part of type {kind:?}; this model reads text alone");
                ApiError::field(place.clone(), message)
            })?);
        }
        Ok(all.join("\n"))
    }
}

/// Converts messages, and says whether the model is to continue the last one.
pub(crate) fn messages(bodies: Vec<MessageBody>) -> Result<(Vec<Message>, bool)> {
    if bodies.is_empty() {
        return Err(ApiError::field("messages", "messages: there is nothing to answer"));
    }
    let last = bodies.len() - 1;
    let mut continues = false;
    let mut messages = Vec::with_capacity(bodies.len());
    for (at, body) in bodies.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let role = match body.role.as_str() {
            "system" | "developer" => "system",
            "user" => "user",
            "assistant" => "assistant",
            "tool" | "function" => "tool",
            role => {
                let role: String = role.chars().take(40).collect();
                let message = format!(
                    "{path}.role: {role:?}; allowed: system, developer, user, assistant, tool"
                );
                return Err(ApiError::field(format!("{path}.role"), message));
            }
        };
        if body.prefix == Some(true) {
            if role != "assistant" || at != last {
                let message =
                    format!("{path}.prefix: only the last message, of an assistant, is continued");
                return Err(ApiError::field(format!("{path}.prefix"), message));
            }
            continues = true;
        }
        let content_is_null = body.content.is_none();
        let content =
            body.content.map_or(Ok(String::new()), |c| c.text(&format!("{path}.content")))?;
        let tool_calls = body.tool_calls.filter(|calls| *calls != Value::Null);
        if let Some(calls) = &tool_calls {
            check_calls(calls, &format!("{path}.tool_calls"))?;
        }
        let has_calls = tool_calls.as_ref().is_some_and(|calls| calls != &Value::Array(Vec::new()));
        if content_is_null && !has_calls && body.refusal.is_none() && role != "assistant" {
            let message = format!("{path}.content: it is missing");
            return Err(ApiError::field(format!("{path}.content"), message));
        }
        messages.push(Message {
            role: role.into(),
            content: if content_is_null { body.refusal.unwrap_or_default() } else { content },
            content_is_null: content_is_null && has_calls,
            reasoning_content: body.reasoning_content.filter(|_| role == "assistant"),
            tool_calls: tool_calls.filter(|_| has_calls),
            tool_call_id: body.tool_call_id,
            name: body.name,
        });
    }
    Ok((messages, continues))
}

fn check_calls(calls: &Value, path: &str) -> Result<()> {
    let wrong = |path: String, problem: &str| {
        let message = format!("{path}: {problem}");
        ApiError::field(path, message)
    };
    let list = calls.as_array().ok_or_else(|| wrong(path.into(), "it is not a list"))?;
    for (at, call) in list.iter().enumerate() {
        let path = format!("{path}[{at}].function");
        if !call["function"]["name"].is_string() {
            return Err(wrong(format!("{path}.name"), "it is missing"));
        }
        match &call["function"]["arguments"] {
            Value::String(_) | Value::Object(_) | Value::Null => {}
            _ => return Err(wrong(format!("{path}.arguments"), "it is not an object or its text")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> Result<(Vec<Message>, bool)> {
        messages(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn roles_parts_and_reasoning_are_read() {
        let (all, continues) = read(json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "reasoning_content": "r",
             "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "assistant", "content": "The", "prefix": true},
        ]))
        .unwrap();
        assert_eq!((all[0].role.as_str(), all[0].content.as_str()), ("system", "a\nb"));
        assert!(all[2].content_is_null);
        assert_eq!(all[2].reasoning_content.as_deref(), Some("r"));
        assert!(continues);
    }

    #[test]
    fn wrong_messages_are_refused_by_their_place() {
        for (json, place) in [
            (json!([]), "messages"),
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
                "messages[0].content[0]",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {}}]}]),
                "messages[0].tool_calls[0].function.name",
            ),
            (json!([{"role": "user", "content": "x", "prefix": true}]), "messages[0].prefix"),
        ] {
            assert_eq!(read(json).unwrap_err().param.as_deref(), Some(place));
        }
    }
}
