//! `POST /completion` and `/completions`: continues texts and tokens without a template, in
//! llama.cpp's own form.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State as Shared;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::answer::Asked;
use super::events::{Choice, Events};
use super::prompts::{self, Prompts};
use crate::answering::{Answering, Outcome};
use crate::chat::{Prepared, Settings};
use crate::error::{ApiError, Dialect, Result};
use crate::http::body::Json;
use crate::http::record::Record;
use crate::http::sse::{self, Stream};
use crate::openai::settings::{SettingsBody, whole};
use crate::openai::structure;
use crate::served::Served;
use crate::state::State;

/// Most log probabilities per token.
const TOP_LOGPROBS: i64 = 100;
/// Most members that an answer can be reduced to.
const FIELDS: usize = 64;

/// The body, but for [`Body`] and [`SettingsBody`].
#[derive(Deserialize)]
pub(super) struct Options {
    stream: Option<bool>,
    n_probs: Option<i64>,
    /// Probabilities of the draw instead of the model's.
    post_sampling_probs: Option<bool>,
    return_tokens: Option<bool>,
    response_fields: Option<Vec<String>>,
    return_progress: Option<bool>,
    timings_per_token: Option<bool>,
    grammar: Option<String>,
    json_schema: Option<Value>,
    response_format: Option<Value>,
    user: Option<String>,
}

/// The prompt.
#[derive(Deserialize)]
struct Body {
    prompt: Value,
}

/// A request that is ready to be answered.
struct Work {
    asked: Asked,
    is_list: bool,
    prepared: Vec<Prepared>,
}

/// Continues texts.
pub(crate) async fn complete(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    json: Json,
) -> Result<Response> {
    let (Body { prompt }, options, settings) = json.read_three(&state)?;
    answer(state, record, options, settings, move |model| prompts::read(model, &prompt)).await
}

/// Answers the prompts that `read` makes.
pub(super) async fn answer(
    state: State,
    record: Arc<Record>,
    options: Options,
    settings: SettingsBody,
    read: impl FnOnce(&Served) -> Result<Prompts> + Send + 'static,
) -> Result<Response> {
    let model = state.model()?.clone();
    let (progress, each) =
        (options.return_progress.unwrap_or(false), options.timings_per_token.unwrap_or(false));
    let of_text = model.clone();
    let work = move || {
        let prompts = read(&of_text)?;
        options.prepare(settings.settings(&of_text)?, &of_text, prompts)
    };
    let Work { asked, is_list, prepared } = state.text.run(work).await?;
    let answering = Answering::submit_all(&state, record, prepared)?;
    if asked.stream {
        let choices = (0..answering.choices()).map(|_| Choice::default()).collect();
        let events = Events { model, asked, progress, each, choices };
        return Ok(Stream::new(answering, Box::new(events)).into_response());
    }
    let render = move |outcomes: Vec<Outcome>| {
        let several = is_list || outcomes.len() > 1;
        let answers = outcomes.iter().enumerate();
        let mut answers = answers.map(|(index, outcome)| asked.answer(&model, index, outcome));
        match several {
            true => answers.collect(),
            false => answers.next().unwrap_or_default(),
        }
    };
    sse::whole(answering, Dialect::OpenAi, render).await
}

impl Options {
    fn prepare(self, mut settings: Settings, model: &Served, prompts: Prompts) -> Result<Work> {
        let top = whole("n_probs", self.n_probs, 0..=TOP_LOGPROBS)?;
        settings.logprobs = top.filter(|top| *top > 0);
        settings.odds = self.post_sampling_probs.unwrap_or(false);
        let fields = self.response_fields.unwrap_or_default();
        if fields.len() > FIELDS {
            let message = format!("response_fields: {}; allowed: {FIELDS}", fields.len());
            return Err(ApiError::value("response_fields", message));
        }
        let rule = structure::rule(self.response_format.as_ref(), self.grammar, self.json_schema)?;
        let compile = |rule| Ok::<_, ApiError>(model.compiler()?.compile(&rule)?);
        let grammar = rule.map(compile).transpose()?;
        let user = self.user.unwrap_or_default();
        let Prompts { prompts, is_list } = prompts;
        let tokenizer = model.prompter().tokenizer();
        let texts = prompts.iter().map(|prompt| tokenizer.decode(&prompt.tokens)).collect();
        let prepare = |prompt| {
            let mut options = settings.options(&prompt, grammar.clone(), None);
            options.keep_tags = true;
            let (n, user, warnings) = (settings.n, user.clone(), Vec::new());
            let (uncached, slot) = (settings.uncached, settings.slot);
            Prepared { prompt, options, n, user, uncached, slot, warnings }
        };
        let prepared = prompts.into_iter().map(prepare).collect();
        let asked = Asked {
            stream: self.stream.unwrap_or(false),
            return_tokens: self.return_tokens.unwrap_or(false),
            fields,
            prompts: texts,
            settings,
        };
        Ok(Work { asked, is_list, prepared })
    }
}
