//! One dialogue: what was said, and the session that holds it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AppError, AppModel};
use crate::model::Stats;
use crate::session::Session;
use crate::session::chat::Message;
use crate::session::generate::{Calls, Event, Generation, GenerationOptions, StopReason, generate};
use crate::session::prompt::Prompt;
use crate::session::save::SaveError;
use crate::session::tools::offer::Tools;
use crate::session::tools::{Call, Replay};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// An answer and what it cost.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The answer.
    pub generation: Generation,
    /// From the call to the first token; `None` where there was none.
    pub first_token: Option<Duration>,
    /// Joules of the whole answer; `None` where there is no meter.
    pub joules: Option<f64>,
    /// Joules until the first token; `None` where there is no meter.
    pub prompt_joules: Option<f64>,
    /// Joules per token after that; `None` where there is no meter, or no further token.
    pub joules_per_token: Option<f64>,
    /// What the expert store did meanwhile, for all conversations, where experts are streamed.
    pub streaming: Option<Stats>,
}

/// Ends what a conversation generates, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<Cancel>);

#[derive(Debug, Default)]
struct Cancel {
    /// What the session looks at.
    flag: Arc<AtomicBool>,
    /// Calls that generate, or are about to.
    calls: Mutex<usize>,
}

impl Canceller {
    /// Ends the answer that is being generated before the next layer is computed; where none is, nothing happens.
    pub fn cancel(&self) {
        if *self.calls() > 0 {
            self.0.flag.store(true, Ordering::Relaxed);
        }
    }

    /// Says that an answer is about to be generated: from here on, until what this gives is dropped, a cancel counts.
    /// Callers that do something before [`Conversation::answer`] say so first, so that no cancel is lost meanwhile.
    pub fn enter(&self) -> Generating {
        *self.calls() += 1;
        Generating(self.clone())
    }

    fn calls(&self) -> MutexGuard<'_, usize> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that generates.
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
    said: Said,
    canceller: Canceller,
}

/// What makes the prompt; saved beside the session.
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
    pub(super) fn new(model: Arc<AppModel>, mut session: Session) -> Self {
        let canceller = Canceller::default();
        session.cancel_with(canceller.0.flag.clone());
        Self { model, session, said: Said::default(), canceller }
    }

    /// What ends its answers from other threads.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// The context: prompt and answer together, in tokens.
    pub fn context(&self) -> usize {
        self.session.context()
    }

    /// What was said so far; answers without their reasoning.
    pub fn messages(&self) -> &[Message] {
        &self.said.messages
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

    /// Sets the tools that the model may call: a list in JSON, as OpenAI's interface writes them; an empty text or list
    /// removes them. Calls come in the answer, in the words that the model was taught.
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

    /// Sets variables of the model's template, such as `{"enable_thinking": false}`, in place of those that were set; an
    /// empty text or object removes them.
    pub fn set_template_variables(&mut self, json: &str) -> Result<(), AppError> {
        let none = json.trim().is_empty();
        let json = if none { "{}" } else { json };
        let variables = serde_json::from_str(json)
            .map_err(|error| AppError::Variables { problem: error.to_string() })?;
        self.set_variables(variables);
        Ok(())
    }

    /// Sets variables of the model's template in place of those that were set.
    pub fn set_variables(&mut self, variables: Map<String, Value>) {
        self.said.variables = variables;
    }

    /// How calls of the tools are read from answers, for [`GenerationOptions::calls`]. Answers with calls then go into the
    /// conversation as such, and [`add_tool_result`](Self::add_tool_result) answers them. Without it, calls stay in the
    /// answer's text.
    pub fn calls(&self) -> Result<Calls, AppError> {
        let tools = self.said.tools.as_ref().map_or(Ok(Tools::default()), Tools::from_json);
        let tools = tools.map_err(|error| AppError::Tools { problem: error.to_string() })?;
        Ok(Calls { format: self.model.prompter.call_format(), tools })
    }

    /// Adds what a call returned. `id` is the call's identifier.
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

    /// Forgets what was said, but for the system prompt and the tools.
    pub fn reset(&mut self) {
        self.said.messages.retain(|message| message.role == "system");
        self.session.truncate(0);
    }

    /// Answers `user`, or what was said so far where it is `None`. `on_event` may end the answer at any event.
    /// [`GenerationOptions::reasoning_open`] comes from the template, whatever it is here.
    ///
    /// An answer goes into the conversation without its reasoning, also one that was cut short. Where it fails, or was
    /// cancelled before the model answered anything, the conversation is as it was.
    pub fn answer(
        &mut self,
        user: Option<&str>,
        options: &GenerationOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Turn, AppError> {
        let _generating = self.canceller.enter();
        let before = self.said.messages.len();
        self.said.messages.extend(user.map(|text| Message::new("user", text)));
        let turn = self.prompt().and_then(|prompt| self.generate(&prompt, options, on_event));
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

    /// The conversation so far, with the assistant to speak next.
    fn prompt(&self) -> Result<Prompt, AppError> {
        let Said { messages, tools, variables, replay } = &self.said;
        if messages.is_empty() {
            return Err(AppError::Nothing);
        }
        let prompter = &self.model.prompter;
        Ok(prompter.chat_replaying(messages, tools.as_ref(), variables, replay)?)
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        options: &GenerationOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Turn, AppError> {
        let start = Instant::now();
        let _binding = self.model.loaded.pool.bind_caller();
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
        let joules = energy.joules();
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

    /// Writes the conversation to a file, so that it goes on later without being read again.
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

    /// Goes on with a saved conversation in place of this one. Where it fails, this one is as it was.
    pub fn restore(&mut self, path: &Path) -> Result<(), AppError> {
        let mut read = self.model.loaded.session();
        let note = read.restore(path, self.fingerprint(path)?)?;
        let said = serde_json::from_slice(&note).map_err(|error| SaveError::Damaged {
            path: path.into(),
            problem: error.to_string(),
        })?;
        read.cancel_with(self.canceller.0.flag.clone());
        (self.session, self.said) = (read, said);
        Ok(())
    }
}

impl Said {
    /// An answer as a message. One that breaks off within a call is text.
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

/// Nothing came of it: it was cancelled before the model answered.
fn is_void(generation: &Generation) -> bool {
    generation.stop == StopReason::Cancelled
        && generation.raw.is_empty()
        && generation.answer.is_empty()
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.model.leave();
    }
}
