//! A request in the form of Responses.

use serde::Deserialize;
use serde_json::{Value, json};
use vaquita_runtime::session::chat::Message;
use vaquita_runtime::session::tools::offer::ToolChoice;

use super::answer::Asked;
use crate::chat::ChatRequest;
use crate::error::{ApiError, Result};
use crate::openai::chat::functions;
use crate::openai::messages::Content;
use crate::openai::settings::SettingsBody;
use crate::openai::{structure, thinking};
use crate::served::Served;

/// The body, but for [`SettingsBody`].
#[derive(Deserialize)]
pub(super) struct ResponsesBody {
    input: Input,
    #[serde(default, rename = "model")]
    _model: Option<String>,
    instructions: Option<String>,
    pub stream: Option<bool>,
    tools: Option<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    text: Option<Text>,
    reasoning: Option<Reasoning>,
    previous_response_id: Option<String>,
    conversation: Option<Value>,
    background: Option<bool>,
    #[serde(default, rename = "store")]
    _store: Option<bool>,
    metadata: Option<Value>,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Items(Vec<Value>),
}

#[derive(Deserialize)]
struct Text {
    format: Option<Value>,
}

#[derive(Deserialize)]
struct Reasoning {
    effort: Option<String>,
}

impl ResponsesBody {
    /// What the response repeats of the request.
    pub fn asked(&self) -> Asked {
        Asked {
            instructions: self.instructions.clone(),
            tools: self.tools.clone().unwrap_or_else(|| json!([])),
            tool_choice: self.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            parallel: self.parallel_tool_calls.unwrap_or(true),
            format: self.text.as_ref().and_then(|text| text.format.clone()),
            effort: self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.clone()),
            metadata: self.metadata.clone().unwrap_or_else(|| json!({})),
            ..Asked::default()
        }
    }

    /// Translates the body.
    pub fn request(self, settings: SettingsBody, model: &Served) -> Result<ChatRequest> {
        for (field, given) in [
            ("previous_response_id", self.previous_response_id.is_some()),
            ("conversation", self.conversation.is_some_and(|value| !value.is_null())),
            ("background", self.background == Some(true)),
        ] {
            if given {
                let message =
                    format!("{field}: responses are not stored: send the whole input again");
                return Err(ApiError::field(field, message));
            }
        }
        let mut messages = Vec::new();
        if let Some(instructions) = self.instructions {
            messages.push(Message::new("system", instructions));
        }
        match self.input {
            Input::Text(text) => messages.push(Message::new("user", text)),
            Input::Items(items) => read_items(&items, &mut messages)?,
        }
        let choice = self.tool_choice.filter(|choice| !choice.is_null());
        let choice = choice.map_or(Ok(ToolChoice::Auto), |choice| ToolChoice::from_json(&choice));
        let choice = choice.map_err(|error| ApiError::field("tool_choice", error.to_string()))?;
        let format = self.text.and_then(|text| text.format);
        let effort = self.reasoning.and_then(|reasoning| reasoning.effort);
        Ok(ChatRequest {
            messages,
            tools: functions(self.tools)?.map(nested),
            choice,
            parallel: self.parallel_tool_calls.unwrap_or(true),
            rule: structure::rule(format.as_ref(), None, None)?,
            think: thinking::think(None, effort.as_deref())?,
            settings: settings.settings(model)?,
            user: self.user.unwrap_or_default(),
            ..ChatRequest::default()
        })
    }
}

/// Functions in the form of chat completions, which templates know.
fn nested(tools: Value) -> Value {
    let nest = |tool: &Value| match tool.get("function") {
        Some(_) => tool.clone(),
        None => {
            let mut function = tool.clone();
            if let Value::Object(members) = &mut function {
                members.remove("type");
            }
            json!({"type": "function", "function": function})
        }
    };
    tools.as_array().map_or(tools.clone(), |list| list.iter().map(nest).collect())
}

/// Reads items. Reasoning, text and calls of one turn are one message of the assistant.
fn read_items(items: &[Value], messages: &mut Vec<Message>) -> Result<()> {
    let mut open = false;
    for (at, item) in items.iter().enumerate() {
        let path = format!("input[{at}]");
        let text = |member: &str| item[member].as_str().unwrap_or_default().to_string();
        let content = |member: &str| -> Result<String> {
            let value = item.get(member).cloned().unwrap_or_else(|| "".into());
            let content = serde_json::from_value::<Content>(value).map_err(|_| {
                let path = format!("{path}.{member}");
                ApiError::field(path.clone(), format!("{path}: neither a text nor its parts"))
            })?;
            content.text(&format!("{path}.{member}"))
        };
        let kind = item["type"].as_str().unwrap_or("message");
        if matches!(kind, "reasoning" | "function_call")
            || (kind == "message" && item["role"] == "assistant")
        {
            if !open {
                messages.push(Message::new("assistant", ""));
            }
            open = true;
            let Some(turn) = messages.last_mut() else { continue };
            match kind {
                "reasoning" => {
                    let member = match item["content"].as_array().is_some_and(|c| !c.is_empty()) {
                        true => "content",
                        false => "summary",
                    };
                    let list = item[member].as_array().map_or(&[][..], Vec::as_slice);
                    let thoughts: Vec<_> = list.iter().filter_map(|p| p["text"].as_str()).collect();
                    turn.reasoning_content =
                        Some(thoughts.join("\n")).filter(|thoughts| !thoughts.is_empty());
                }
                "function_call" => {
                    let call = json!({
                        "id": text("call_id"),
                        "type": "function",
                        "function": {"name": text("name"), "arguments": text("arguments")},
                    });
                    let calls = turn.tool_calls.get_or_insert_with(|| json!([]));
                    if let Value::Array(calls) = calls {
                        calls.push(call);
                    }
                }
                _ => turn.content.push_str(&content("content")?),
            }
            continue;
        }
        open = false;
        match kind {
            "message" => {
                let role = match item["role"].as_str().unwrap_or_default() {
                    "user" => "user",
                    "system" | "developer" => "system",
                    _ => {
                        let path = format!("{path}.role");
                        let message =
                            format!("{path}: allowed: user, assistant, system, developer");
                        return Err(ApiError::field(path, message));
                    }
                };
                messages.push(Message::new(role, content("content")?));
            }
            "function_call_output" => {
                let result = Message::new("tool", content("output")?);
                messages.push(Message { tool_call_id: Some(text("call_id")), ..result });
            }
            "item_reference" => {
                let message = format!("{path}: items are not stored: send the whole input again");
                return Err(ApiError::field(path, message));
            }
            // What a provider's own tools did is of no use to this model.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_of_several_items_is_one_message() {
        let items = json!([
            {"role": "user", "content": "q"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "x"},
            {"type": "web_search_call"},
        ]);
        let mut messages = Vec::new();
        read_items(items.as_array().unwrap(), &mut messages).unwrap();
        assert_eq!(messages.len(), 3);
        assert_eq!(messages[1].reasoning_content.as_deref(), Some("r"));
        assert_eq!(messages[1].tool_calls.as_ref().unwrap().as_array().unwrap().len(), 2);
        assert_eq!(messages[2].tool_call_id.as_deref(), Some("1"));
    }

    #[test]
    fn functions_are_nested_for_templates() {
        let tools = nested(json!([{"type": "function", "name": "f", "parameters": {}}]));
        assert_eq!(tools[0]["function"], json!({"name": "f", "parameters": {}}));
    }
}
