//! Requests in Ollama's form.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use vaquita_runtime::session::generate::GenerationOptions;
use vaquita_runtime::session::prompt::Prompt;
use vaquita_runtime::structured::Rule;

use crate::chat::{ChatRequest, Prepared, Settings};
use crate::error::{ApiError, Result};
use crate::fim;
use crate::openai::chat::functions;
use crate::openai::messages::{self, MessageBody};
use crate::openai::settings::SettingsBody;
use crate::openai::thinking;
use crate::served::Served;

/// The body of `/api/chat`.
#[derive(Deserialize)]
pub(super) struct ChatBody {
    pub model: Option<String>,
    messages: Vec<Value>,
    pub stream: Option<bool>,
    tools: Option<Value>,
    format: Option<Value>,
    options: Option<Map<String, Value>>,
    think: Option<Value>,
    #[serde(default, rename = "keep_alive")]
    _keep_alive: Option<Value>,
}

/// The body of `/api/generate`.
#[derive(Deserialize)]
pub(super) struct GenerateBody {
    pub model: Option<String>,
    prompt: Option<String>,
    suffix: Option<String>,
    system: Option<String>,
    raw: Option<bool>,
    images: Option<Vec<Value>>,
    pub stream: Option<bool>,
    format: Option<Value>,
    options: Option<Map<String, Value>>,
    think: Option<Value>,
    #[serde(default, rename = "keep_alive")]
    _keep_alive: Option<Value>,
}

fn no_images(path: &str) -> ApiError {
    ApiError::field(path, format!("{path}: this model reads text alone"))
}

/// Options under OpenAI's names. The context is the server's: a shorter one would cut prompts.
fn settings(options: Option<Map<String, Value>>, model: &Served) -> Result<Settings> {
    let mut options = options.unwrap_or_default();
    // Ollama: -1 and -2 are no limit.
    let most = options.remove("num_predict").filter(|n| n.as_i64().is_none_or(|n| n >= 0));
    options.extend(most.map(|most| ("max_tokens".to_string(), most)));
    options.retain(|name, _| name != "n");
    let body = serde_json::from_value::<SettingsBody>(Value::Object(options))
        .map_err(|error| ApiError::field("options", format!("options: {error}")))?;
    body.settings(model)
}

fn rule(format: Option<Value>) -> Result<Option<Rule>> {
    match format {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text == "json" => Ok(Some(Rule::JsonObject)),
        Some(schema @ Value::Object(_)) => Ok(Some(Rule::JsonSchema { schema, strict: false })),
        Some(_) => Err(ApiError::field("format", "format: allowed: json, or a schema")),
    }
}

/// `think` as an effort.
fn effort(think: Option<Value>) -> Result<Option<&'static str>> {
    match think {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some("medium")),
        Some(Value::Bool(false)) => Ok(Some("none")),
        Some(Value::String(level)) => match level.as_str() {
            "low" => Ok(Some("low")),
            "medium" => Ok(Some("medium")),
            "high" | "max" => Ok(Some("high")),
            _ => Err(ApiError::field("think", "think: allowed: true, false, low, medium, high")),
        },
        Some(_) => Err(ApiError::field("think", "think: allowed: true, false, low, medium, high")),
    }
}

impl ChatBody {
    /// Translates the body.
    pub fn request(self, model: &Served) -> Result<ChatRequest> {
        let mut bodies = Vec::with_capacity(self.messages.len());
        for (at, mut message) in self.messages.into_iter().enumerate() {
            if message["images"].as_array().is_some_and(|images| !images.is_empty()) {
                return Err(no_images(&format!("messages[{at}].images")));
            }
            // Ollama's calls have no identifiers and no type.
            for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
                if let Value::Object(call) = call {
                    call.entry("type").or_insert_with(|| "function".into());
                    call.entry("id").or_insert_with(|| format!("call_{at}").into());
                }
            }
            if message.get("tool_calls").is_some_and(Value::is_null) {
                message.as_object_mut().map(|members| members.remove("tool_calls"));
            }
            let body = serde_json::from_value::<MessageBody>(message).map_err(|error| {
                let path = format!("messages[{at}]");
                ApiError::field(path.clone(), format!("{path}: {error}"))
            })?;
            bodies.push(body);
        }
        let (messages, _) = messages::messages(bodies)?;
        let ends_open =
            messages.last().is_some_and(|m| m.role == "assistant" && m.tool_calls.is_none());
        Ok(ChatRequest {
            messages,
            tools: functions(self.tools)?,
            parallel: true,
            rule: rule(self.format)?,
            think: thinking::think(None, effort(self.think)?)?,
            continues: ends_open,
            settings: settings(self.options, model)?,
            ..ChatRequest::default()
        })
    }
}

impl GenerateBody {
    /// Whether there is nothing to answer.
    pub fn is_empty(&self) -> bool {
        self.prompt.as_ref().is_none_or(String::is_empty)
    }

    /// Makes a prompt: of the template, or raw, or with a gap.
    pub fn prepare(self, model: &Served) -> Result<Prepared> {
        if self.images.is_some_and(|images| !images.is_empty()) {
            return Err(no_images("images"));
        }
        let prompt = self.prompt.unwrap_or_default();
        let suffix = self.suffix.filter(|suffix| !suffix.is_empty());
        let settings = settings(self.options, model)?;
        let rule = rule(self.format)?;
        if self.raw != Some(true) && suffix.is_none() {
            let mut list = Vec::new();
            if let Some(system) = self.system.filter(|system| !system.is_empty()) {
                list.push(json!({"role": "system", "content": system}));
            }
            list.push(json!({"role": "user", "content": prompt}));
            let bodies = serde_json::from_value(Value::Array(list));
            let bodies = bodies.map_err(|error| ApiError::internal(error.to_string()))?;
            let (messages, _) = messages::messages(bodies)?;
            let think = thinking::think(None, effort(self.think)?)?;
            let request = ChatRequest { messages, rule, think, settings, ..ChatRequest::default() };
            return request.prepare(model);
        }
        let text = match suffix {
            Some(suffix) => fim::text(model, &prompt, &suffix)?,
            None => prompt,
        };
        let prompt = Prompt { reasoning_open: false, ..model.prompter().raw(&text)? };
        let compile = |rule| Ok::<_, ApiError>(model.compiler()?.compile(&rule)?);
        let grammar = rule.map(compile).transpose()?;
        let options =
            GenerationOptions { keep_tags: true, ..settings.options(&prompt, grammar, None) };
        let (user, uncached, warnings) = (String::new(), settings.uncached, Vec::new());
        Ok(Prepared { prompt, options, n: 1, user, uncached, slot: None, warnings })
    }
}
