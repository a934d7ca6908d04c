//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use vaquita_runtime::session::tools::offer::{ToolChoice, Tools};

use super::answer::{self, Envelope};
use super::chunks::Chunks;
use super::messages::{self, MessageBody};
use super::settings::{SettingsBody, whole};
use super::structure;
use super::thinking::{self, Thinking};
use crate::answering::Answering;
use crate::chat::ChatRequest;
use crate::error::{ApiError, Dialect, Result};
use crate::http::body::Json;
use crate::http::record::Record;
use crate::http::sse::{self, Stream};
use crate::resume;
use crate::served::Served;
use crate::state::State;

/// Most log probabilities per token.
const TOP_LOGPROBS: i64 = 20;
/// Longest `user_id` in bytes.
const USER: usize = 512;

/// Options of a stream.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// The body, but for [`SettingsBody`].
#[derive(Deserialize)]
pub(crate) struct ChatBody {
    messages: Vec<MessageBody>,
    /// Any name is served by the one model.
    #[serde(default, rename = "model")]
    _model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    /// llama.cpp's name for log probabilities.
    n_probs: Option<i64>,
    tools: Option<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Value>,
    grammar: Option<String>,
    json_schema: Option<Value>,
    thinking: Option<Thinking>,
    reasoning_effort: Option<String>,
    chat_template_kwargs: Option<Map<String, Value>>,
    /// vLLM's name for a message that the model continues.
    continue_final_message: Option<bool>,
    add_generation_prompt: Option<bool>,
    user: Option<String>,
    user_id: Option<String>,
    return_progress: Option<bool>,
    timings_per_token: Option<bool>,
    /// llama.cpp: tells the prompt.
    verbose: Option<bool>,
}

impl ChatBody {
    /// Translates the body.
    pub fn request(self, settings: SettingsBody, model: &Served) -> Result<ChatRequest> {
        let mut settings = settings.settings(model)?;
        settings.logprobs = self.top()?;
        let (messages, prefix) = messages::messages(self.messages)?;
        let ends_open = messages.last().is_some_and(|message| message.role == "assistant");
        let asked = self.continue_final_message == Some(true);
        if asked && !ends_open {
            let message = "continue_final_message: the last message is not an assistant's";
            return Err(ApiError::field("continue_final_message", message));
        }
        if asked && self.add_generation_prompt == Some(true) {
            let message = "add_generation_prompt contradicts continue_final_message";
            return Err(ApiError::field("add_generation_prompt", message));
        }
        // llama.cpp: the model continues an assistant's message at the end, unless it has calls.
        let has_calls = messages.last().is_some_and(|message| message.tool_calls.is_some());
        let continues = prefix || asked || (ends_open && !has_calls);
        if continues && messages.iter().rev().nth(1).is_some_and(|one| one.role == "assistant") {
            let message =
                "messages: the last two are the assistant's, and only one can be continued";
            return Err(ApiError::field("messages", message));
        }
        let tools = functions(self.tools)?;
        let choice = self.tool_choice.filter(|choice| !choice.is_null());
        let choice = choice.map_or(Ok(ToolChoice::Auto), |choice| ToolChoice::from_json(&choice));
        let choice = choice.map_err(|error| ApiError::field("tool_choice", error.to_string()))?;
        let user = self.user_id.or(self.user).unwrap_or_default();
        if user.len() > USER {
            let message = format!("user_id: {} bytes; allowed: {USER}", user.len());
            return Err(ApiError::value("user_id", message));
        }
        Ok(ChatRequest {
            messages,
            tools,
            choice,
            parallel: self.parallel_tool_calls.unwrap_or(true),
            rule: structure::rule(self.response_format.as_ref(), self.grammar, self.json_schema)?,
            think: thinking::think(self.thinking.as_ref(), self.reasoning_effort.as_deref())?,
            variables: thinking::variables(self.chat_template_kwargs)?,
            continues,
            stays_closed: !continues && self.add_generation_prompt == Some(false),
            settings,
            user,
        })
    }

    /// Number of log probabilities per token; `None` for none at all.
    fn top(&self) -> Result<Option<usize>> {
        let top = whole("top_logprobs", self.top_logprobs, 0..=TOP_LOGPROBS)?;
        if top.is_some_and(|top| top > 0) && self.logprobs != Some(true) {
            let message = "top_logprobs: send logprobs: true with it";
            return Err(ApiError::field("top_logprobs", message));
        }
        let n_probs = whole("n_probs", self.n_probs, 0..=TOP_LOGPROBS)?.filter(|n| *n > 0);
        Ok(if self.logprobs == Some(true) { Some(top.unwrap_or(0)) } else { n_probs })
    }
}

/// The functions of a list of tools; `None` if there are none. Tools that run on a provider's
/// servers are left out.
pub(crate) fn functions(tools: Option<Value>) -> Result<Option<Value>> {
    let Some(tools) = tools.filter(|tools| !tools.is_null()) else { return Ok(None) };
    Tools::from_json(&tools)?;
    let Value::Array(mut list) = tools else { return Ok(None) };
    list.retain(|tool| tool["type"].as_str().is_none_or(|kind| kind == "function"));
    Ok((!list.is_empty()).then_some(Value::Array(list)))
}

/// Answers a conversation.
pub(crate) async fn complete(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    headers: HeaderMap,
    json: Json,
) -> Result<Response> {
    let model = state.model()?.clone();
    let (body, settings) = json.read_both::<ChatBody, SettingsBody>(&state)?;
    let conversation = headers.get("x-conversation-id").map(|id| id.to_str().unwrap_or_default());
    conversation.map_or(Ok(()), resume::check_id)?;
    let conversation = conversation.map(String::from);
    let stream = body.stream.unwrap_or(false);
    let usage = body.stream_options.unwrap_or_default().include_usage.unwrap_or(false);
    let (progress, each) =
        (body.return_progress.unwrap_or(false), body.timings_per_token.unwrap_or(false));
    let (of_text, has_logprobs) = (model.clone(), body.top()?.is_some());
    let verbose = body.verbose.unwrap_or(state.options.verbose);
    let prepare = move || body.request(settings, &of_text)?.prepare(&of_text);
    let prepared = state.text.run(prepare).await?;
    let tokenizer = model.prompter().tokenizer();
    let prompt = verbose.then(|| tokenizer.decode(&prepared.prompt.tokens));
    let client = record.client.clone();
    let answering = Answering::submit(&state, record, prepared)?;
    let envelope = Envelope { prompt, ..Envelope::new(&model, "chatcmpl-") };
    if stream {
        answering.control_as(&envelope.id);
        let chunks =
            Chunks::new(envelope, answering.choices(), usage, progress, each, has_logprobs);
        let stream = Stream::new(answering, Box::new(chunks));
        return match conversation {
            Some(id) => state.streams.begin(&client, &id, stream),
            None => Ok(stream.into_response()),
        };
    }
    sse::whole(answering, Dialect::OpenAi, move |outcomes| answer::whole(&envelope, outcomes)).await
}
