//! A request in Anthropic's form.

use serde::Deserialize;
use serde_json::{Value, json};
use vaquita_runtime::session::chat::Message;
use vaquita_runtime::session::tools::offer::ToolChoice;

use crate::chat::ChatRequest;
use crate::error::{ApiError, Result};
use crate::openai::chat::functions;
use crate::openai::messages::Content;
use crate::openai::settings::SettingsBody;
use crate::openai::thinking::{self, Thinking};
use crate::served::Served;

/// The body, but for [`SettingsBody`].
#[derive(Deserialize)]
pub(super) struct MessagesBody {
    messages: Vec<MessageBody>,
    #[serde(default, rename = "model")]
    _model: Option<String>,
    system: Option<Content>,
    pub stream: Option<bool>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    thinking: Option<Thinking>,
    output_config: Option<OutputConfig>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct OutputConfig {
    effort: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct MessageBody {
    role: String,
    content: ContentBody,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ContentBody {
    Text(String),
    Blocks(Vec<Value>),
}

impl MessagesBody {
    /// Translates the body.
    pub fn request(self, settings: SettingsBody, model: &Served) -> Result<ChatRequest> {
        let mut messages = Vec::new();
        if let Some(system) = self.system {
            messages.push(Message::new("system", system.text("system")?));
        }
        for (at, message) in self.messages.into_iter().enumerate() {
            let path = format!("messages[{at}]");
            match message.role.as_str() {
                "user" => user(message.content, &path, &mut messages)?,
                "assistant" => messages.push(assistant(message.content, &path)?),
                "system" => {
                    let mut own = Vec::new();
                    user(message.content, &path, &mut own)?;
                    let system = own.into_iter().map(|m| Message { role: "system".into(), ..m });
                    messages.extend(system);
                }
                _ => {
                    let path = format!("{path}.role");
                    let message = format!("{path}: allowed: user, assistant");
                    return Err(ApiError::field(path, message));
                }
            }
        }
        let choice = self.tool_choice.filter(|choice| !choice.is_null());
        let single = choice.as_ref().is_some_and(|c| c["disable_parallel_tool_use"] == true);
        let choice = choice.map_or(Ok(ToolChoice::Auto), |choice| ToolChoice::from_json(&choice));
        let choice = choice.map_err(|error| ApiError::field("tool_choice", error.to_string()))?;
        let effort = self.output_config.and_then(|config| config.effort);
        let continues =
            messages.last().is_some_and(|m| m.role == "assistant" && m.tool_calls.is_none());
        Ok(ChatRequest {
            messages,
            tools: tools(self.tools.unwrap_or_default())?,
            choice,
            parallel: !single,
            think: thinking::think(self.thinking.as_ref(), effort.as_deref())?,
            continues,
            settings: settings.settings(model)?,
            user: self.metadata.and_then(|metadata| metadata.user_id).unwrap_or_default(),
            ..ChatRequest::default()
        })
    }
}

/// Tools in OpenAI's form. Those that run on Anthropic's servers are left out.
fn tools(tools: Vec<Value>) -> Result<Option<Value>> {
    let own = tools.into_iter().filter(|tool| tool.get("input_schema").is_some());
    let function = |tool: Value| {
        let mut function = json!({"name": tool["name"], "parameters": tool["input_schema"]});
        for member in ["description", "strict"] {
            if let Some(value) = tool.get(member) {
                function[member] = value.clone();
            }
        }
        json!({"type": "function", "function": function})
    };
    functions(Some(own.map(function).collect()))
}

/// A block of a kind that this model cannot read.
fn refuse(path: &str, kind: &str) -> ApiError {
    let kind: String = kind.chars().take(40).collect();
    ApiError::field(path, format!("{path}: a block of type {kind:?}; this model reads text alone"))
}

/// A user's message: results of tools become messages of their own, in their place.
fn user(content: ContentBody, path: &str, messages: &mut Vec<Message>) -> Result<()> {
    let blocks = match content {
        ContentBody::Text(text) => {
            messages.push(Message::new("user", text));
            return Ok(());
        }
        ContentBody::Blocks(blocks) => blocks,
    };
    let mut texts = Vec::new();
    for (at, block) in blocks.into_iter().enumerate() {
        let path = format!("{path}.content[{at}]");
        match block["type"].as_str().unwrap_or_default() {
            "text" => texts.push(block["text"].as_str().unwrap_or_default().to_string()),
            "tool_result" => {
                let id = block["tool_use_id"].as_str().unwrap_or_default().to_string();
                let content = match block.get("content") {
                    None | Some(Value::Null) => String::new(),
                    Some(content) => {
                        let content = serde_json::from_value::<Content>(content.clone());
                        let content = content.map_err(|_| refuse(&path, "tool_result"))?;
                        content.text(&format!("{path}.content"))?
                    }
                };
                if !texts.is_empty() {
                    messages.push(Message::new("user", std::mem::take(&mut texts).join("\n")));
                }
                let result = Message::new("tool", content);
                messages.push(Message { tool_call_id: Some(id), ..result });
            }
            kind => return Err(refuse(&path, kind)),
        }
    }
    if !texts.is_empty() {
        messages.push(Message::new("user", texts.join("\n")));
    }
    Ok(())
}

fn assistant(content: ContentBody, path: &str) -> Result<Message> {
    let blocks = match content {
        ContentBody::Text(text) => return Ok(Message::new("assistant", text)),
        ContentBody::Blocks(blocks) => blocks,
    };
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (at, block) in blocks.iter().enumerate() {
        let path = format!("{path}.content[{at}]");
        let text = |member: &str| block[member].as_str().unwrap_or_default();
        match text("type") {
            "text" => texts.push(text("text")),
            "thinking" => thoughts.push(text("thinking")),
            "redacted_thinking" => {}
            "tool_use" => calls.push(json!({
                "id": block["id"],
                "type": "function",
                "function": {"name": text("name"), "arguments": block["input"].to_string()},
            })),
            kind => return Err(refuse(&path, kind)),
        }
    }
    Ok(Message {
        reasoning_content: (!thoughts.is_empty()).then(|| thoughts.join("\n")),
        tool_calls: (!calls.is_empty()).then_some(Value::Array(calls)),
        ..Message::new("assistant", texts.join("\n"))
    })
}
