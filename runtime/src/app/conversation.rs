//! One dialogue: its messages and the session that holds it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::model::Places;
use super::{AppError, AppModel};
use crate::engine::Seat;
use crate::model::Stats;
use crate::session::Session;
use crate::session::chat::Message;
use crate::session::generate::{Calls, Event, Generation, GenerationOptions, StopReason, generate};
use crate::session::prompt::{Prompt, Prompter};
use crate::session::save::SaveError;
use crate::session::tools::offer::Tools;
use crate::session::tools::{Call, Replay};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// An answer and what it cost.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The answer.
    pub generation: Generation,
    /// Time from the call to the first token; `None` if there was no token.
    pub first_token: Option<Duration>,
    /// Energy of the whole answer, in joules; `None` without a meter.
    pub joules: Option<f64>,
    /// Energy until the first token, in joules; `None` without a meter.
    pub prompt_joules: Option<f64>,
    /// Energy per token after the first, in joules; `None` without a meter or further tokens.
    pub joules_per_token: Option<f64>,
    /// Statistics of the expert store during the answer, for all conversations; `None` if no
    /// experts are streamed.
    pub streaming: Option<Stats>,
}

/// Cancels a conversation's generation, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<Cancel>);

#[derive(Debug, Default)]
struct Cancel {
    /// Flag that the session polls.
    flag: Arc<AtomicBool>,
    /// Number of calls that generate or are about to.
    calls: Mutex<usize>,
}

impl Canceller {
    /// Cancels the answer that is being generated, before the next layer is computed; a no-op if
    /// none is.
    pub fn cancel(&self) {
        if *self.calls() > 0 {
            self.0.flag.store(true, Ordering::Relaxed);
        }
    }

    /// Announces that an answer is about to be generated: cancellations count from here on until
    /// the returned guard is dropped. Callers that do other work before [`Conversation::answer`]
    /// call this first, so that no cancellation is lost during that work.
    pub fn enter(&self) -> Generating {
        *self.calls() += 1;
        Generating(self.clone())
    }

    fn calls(&self) -> MutexGuard<'_, usize> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of a call that generates.
#[derive(Debug)]
#[must_use = "cancels count until this is dropped"]
pub struct Generating(Canceller);

impl Drop for Generating {
    fn drop(&mut self) {
        let mut calls = self.0.calls();
        *calls -= 1;
        if *calls == 0 {
            self.0.0.flag.store(false, Ordering::Relaxed);
        }
    }
}

/// One dialogue with a model.
pub struct Conversation {
    model: Arc<AppModel>,
    session: Session,
    /// Its place among the conversations that share passes.
    seat: Seat,
    said: Said,
    canceller: Canceller,
    _place: Places,
}

/// Inputs of the prompt, saved with the session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Said {
    messages: Vec<Message>,
    tools: Option<Value>,
    /// Variables of the template.
    #[serde(default)]
    variables: Map<String, Value>,
    /// Answers with calls as the model wrote them.
    #[serde(default)]
    replay: Replay,
}

impl Conversation {
    pub(super) fn new(model: Arc<AppModel>, seat: Seat, place: Places) -> Self {
        let (canceller, said) = (Canceller::default(), Said::default());
        let session = new_session(&model, &seat, &canceller);
        Self { model, session, seat, said, canceller, _place: place }
    }

    /// Handle that cancels the conversation's answers from other threads.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Context length, prompt and answer together, in tokens.
    pub fn context(&self) -> usize {
        self.session.context()
    }

    /// Messages so far; answers are without their reasoning.
    pub fn messages(&self) -> &[Message] {
        &self.said.messages
    }

    /// Replaces all messages, for example by those of another conversation or without the oldest.
    pub fn set_messages(&mut self, messages: Vec<Message>) -> Result<(), AppError> {
        if let Some(message) = messages.iter().find(|one| !ROLES.contains(&one.role.as_str())) {
            return Err(AppError::Role { found: message.role.clone() });
        }
        self.said.messages = messages;
        Ok(())
    }

    /// Tokens of the prompt that asks for an answer to `user`, or to the messages so far if it is
    /// `None`. They may be more than the context has.
    pub fn prompt_tokens(&mut self, user: Option<&str>) -> Result<usize, AppError> {
        let before = self.said.messages.len();
        self.said.messages.extend(user.map(|text| Message::new("user", text)));
        let prompt = self.said.prompt(&self.model.prompter.clone().within(usize::MAX));
        self.said.messages.truncate(before);
        Ok(prompt?.tokens.len())
    }

    /// Bytes of the session's cache.
    pub fn cache_bytes(&self) -> usize {
        self.session.cache_bytes()
    }

    /// Sets the system prompt; an empty one removes it.
    pub fn set_system(&mut self, text: &str) {
        self.said.messages.retain(|message| message.role != "system");
        if !text.is_empty() {
            self.said.messages.insert(0, Message::new("system", text));
        }
    }

    /// Sets the tools that the model may call: a JSON list in the format of OpenAI's interface. An
    /// empty text or list removes them. Calls appear in the answer, in the syntax that the model
    /// was trained on.
    pub fn set_tools(&mut self, json: &str) -> Result<(), AppError> {
        if json.trim().is_empty() {
            self.said.tools = None;
            return Ok(());
        }
        let tools: Value = serde_json::from_str(json)
            .map_err(|error| AppError::Tools { problem: error.to_string() })?;
        let list = tools.as_array().ok_or(AppError::Tools { problem: "it is none".into() })?;
        self.said.tools = (!list.is_empty()).then_some(tools);
        Ok(())
    }

    /// Replaces the variables of the model's template, for example by `{"enable_thinking": false}`;
    /// an empty text or object removes them.
    pub fn set_template_variables(&mut self, json: &str) -> Result<(), AppError> {
        let none = json.trim().is_empty();
        let json = if none { "{}" } else { json };
        let variables = serde_json::from_str(json)
            .map_err(|error| AppError::Variables { problem: error.to_string() })?;
        self.set_variables(variables);
        Ok(())
    }

    /// Replaces the variables of the model's template.
    pub fn set_variables(&mut self, variables: Map<String, Value>) {
        self.said.variables = variables;
    }

    /// How tool calls are parsed from answers, for [`GenerationOptions::calls`]. Answers with calls
    /// then enter the conversation as calls, and [`add_tool_result`](Self::add_tool_result) answers
    /// them. Without it, calls stay in the text of the answer.
    pub fn calls(&self) -> Result<Calls, AppError> {
        let tools = self.said.tools.as_ref().map_or(Ok(Tools::default()), Tools::from_json);
        let tools = tools.map_err(|error| AppError::Tools { problem: error.to_string() })?;
        Ok(Calls { format: self.model.prompter.call_format(), tools })
    }

    /// Adds the result of a call. `id` is the call's identifier.
    pub fn add_tool_result(&mut self, id: &str, content: &str) -> Result<(), AppError> {
        let mut calls =
            self.said.messages.iter().rev().filter_map(|m| m.tool_calls.as_ref()?.as_array());
        let call = calls.find_map(|calls| calls.iter().find(|call| call["id"] == id));
        let call = call.ok_or_else(|| AppError::Call { found: id.into() })?;
        let message = Message {
            tool_call_id: Some(id.into()),
            name: call["function"]["name"].as_str().map(String::from),
            ..Message::new("tool", content)
        };
        self.said.messages.push(message);
        Ok(())
    }

    /// Adds a message without an answer: earlier turns, or what a tool returned.
    pub fn add_message(&mut self, role: &str, content: &str) -> Result<(), AppError> {
        if !ROLES.contains(&role) {
            return Err(AppError::Role { found: role.into() });
        }
        self.said.messages.push(Message::new(role, content));
        Ok(())
    }

    /// Removes all messages except the system prompt; the tools stay.
    pub fn reset(&mut self) {
        self.said.messages.retain(|message| message.role == "system");
        self.session.truncate(0);
    }

    /// Answers `user`, or the messages so far if it is `None`. `on_event` may end the answer at any
    /// event. [`GenerationOptions::reasoning_open`] comes from the template; its value in `options`
    /// is ignored.
    ///
    /// The answer enters the conversation without its reasoning, even if it was cut short. If
    /// generation fails, or is cancelled before the model answered anything, the conversation is
    /// unchanged.
    pub fn answer(
        &mut self,
        user: Option<&str>,
        options: &GenerationOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Turn, AppError> {
        let _generating = self.canceller.enter();
        let before = self.said.messages.len();
        self.said.messages.extend(user.map(|text| Message::new("user", text)));
        let turn = self
            .said
            .prompt(&self.model.prompter)
            .and_then(|prompt| self.generate(&prompt, options, on_event));
        match &turn {
            Ok(Turn { generation, .. }) if !is_void(generation) => {
                // DeepSeek's usage notes: a turn goes into the history without its reasoning.
                let message = self.said.message(generation);
                self.said.messages.push(message);
            }
            _ => self.said.messages.truncate(before),
        }
        turn
    }

    /// Continues `text` as it is, without the template. Neither text nor answer goes into the
    /// conversation.
    pub fn complete(
        &mut self,
        text: &str,
        options: &GenerationOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Turn, AppError> {
        let _generating = self.canceller.enter();
        let prompt = self.model.prompter.raw(text)?;
        self.generate(&prompt, options, on_event)
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        options: &GenerationOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Turn, AppError> {
        let start = Instant::now();
        let _binding = self.model.loaded.pool.bind_caller();
        let _present = self.seat.enter();
        let streaming = self.model.streaming();
        let energy = self.model.sampler();
        let options =
            GenerationOptions { reasoning_open: prompt.reasoning_open, ..options.clone() };
        let (mut first_token, mut prompt_joules) = (None, None);
        let tokenizer = self.model.prompter.tokenizer();
        let generation =
            generate(&mut self.session, tokenizer, &prompt.tokens, &options, &mut |event| {
                if matches!(event, Event::Token(_)) && first_token.is_none() {
                    first_token = Some(start.elapsed());
                    prompt_joules = energy.joules();
                }
                on_event(event)
            })
            .map_err(AppError::from)?;
        let further = generation.tokens.len().saturating_sub(1) as f64;
        let joules = energy.finish().joules;
        let decode_joules = joules.zip(prompt_joules).map(|(all, prompt)| all - prompt);
        let after = self.model.streaming();
        Ok(Turn {
            generation,
            first_token,
            joules,
            prompt_joules,
            joules_per_token: decode_joules
                .filter(|_| further > 0.0)
                .map(|joules| joules / further),
            streaming: after.zip(streaming).map(|(after, before)| after.since(&before)),
        })
    }

    /// Writes the conversation to a file, so that it can be resumed later without being read again.
    pub fn save(&mut self, path: &Path) -> Result<(), AppError> {
        let note = serde_json::to_vec(&self.said)
            .map_err(|error| AppError::Tools { problem: error.to_string() })?;
        Ok(self.session.save(path, self.fingerprint(path)?, &note)?)
    }

    fn fingerprint(&self, path: &Path) -> Result<u64, AppError> {
        let identity = self.model.identity.as_ref().ok_or(AppError::NoFile)?;
        let fingerprint = identity.fingerprint();
        Ok(fingerprint.map_err(|source| SaveError::Model { path: path.into(), source })?)
    }

    /// Replaces this conversation by a saved one. On an error this conversation is unchanged.
    pub fn restore(&mut self, path: &Path) -> Result<(), AppError> {
        let mut read = new_session(&self.model, &self.seat, &self.canceller);
        let note = read.restore(path, self.fingerprint(path)?)?;
        let said = serde_json::from_slice(&note).map_err(|error| SaveError::Damaged {
            path: path.into(),
            problem: error.to_string(),
        })?;
        (self.session, self.said) = (read, said);
        Ok(())
    }
}

/// An empty session that shares passes with other conversations.
fn new_session(model: &AppModel, seat: &Seat, canceller: &Canceller) -> Session {
    let mut session = model.loaded.session();
    session.cancel_with(canceller.0.flag.clone());
    session.share(Box::new(seat.same()));
    if let Some(prompts) = model.prompts.get() {
        session.recall_with(Box::new(prompts.clone()));
    }
    session
}

impl Said {
    /// The conversation so far, with the assistant to speak next.
    fn prompt(&self, prompter: &Prompter) -> Result<Prompt, AppError> {
        let Self { messages, tools, variables, replay } = self;
        if messages.is_empty() {
            return Err(AppError::Nothing);
        }
        Ok(prompter.chat_replaying(messages, tools.as_ref(), variables, replay)?)
    }

    /// Converts an answer into a message. An answer that breaks off within a call becomes text.
    fn message(&mut self, generation: &Generation) -> Message {
        let calls = &generation.calls;
        if calls.is_empty() {
            return Message::new("assistant", generation.answer.clone());
        }
        if calls.iter().any(|call| !call.complete) {
            return Message::new("assistant", generation.raw.clone());
        }
        self.replay.remember(&generation.answer, calls, &generation.raw);
        Message {
            tool_calls: Some(calls.iter().map(Call::to_json).collect()),
            ..Message::new("assistant", generation.answer.clone())
        }
    }
}

/// Whether generation was cancelled before any answer text.
fn is_void(generation: &Generation) -> bool {
    generation.stop == StopReason::Cancelled
        && generation.raw.is_empty()
        && generation.answer.is_empty()
}
