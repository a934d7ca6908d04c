//! `POST /v1/completions`: continues texts and tokens without a template.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State as Shared;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vaquita_runtime::session::prompt::Prompt;
use vaquita_runtime::session::sampler::logprobs::Logprobs;

use super::answer::{Envelope, close, usage};
use super::chat::StreamOptions;
use super::settings::{SettingsBody, whole};
use super::structure;
use super::texts::TextChunks;
use crate::answering::{Answering, Outcome};
use crate::chat::{Prepared, Settings, refusal, token_prompt};
use crate::error::{ApiError, Dialect, Result};
use crate::fim;
use crate::http::body::Json;
use crate::http::record::Record;
use crate::http::sse::{self, Stream};
use crate::score::score;
use crate::served::Served;
use crate::state::State;

/// Most prompts in a request.
const PROMPTS: usize = 128;
/// Most log probabilities per token.
const TOP_LOGPROBS: i64 = 20;

/// The body, but for [`SettingsBody`].
#[derive(Deserialize)]
pub(crate) struct CompletionBody {
    prompt: PromptBody,
    #[serde(default, rename = "model")]
    _model: Option<String>,
    suffix: Option<String>,
    echo: Option<bool>,
    logprobs: Option<LogprobsBody>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    grammar: Option<String>,
    json_schema: Option<Value>,
    response_format: Option<Value>,
    user: Option<String>,
}

/// One or several prompts, as text or tokens.
#[derive(Deserialize)]
#[serde(untagged)]
enum PromptBody {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

/// A number of tokens, or llama.cpp's switch.
#[derive(Deserialize)]
#[serde(untagged)]
enum LogprobsBody {
    Switch(bool),
    Count(i64),
}

/// A prompt and, for an echo, its text and log probabilities.
struct Read {
    prompt: Prompt,
    text: String,
}

/// What is sent before an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    pub text: String,
    /// The tokens of the prompt with their log probabilities; the first has none.
    pub logprobs: Vec<(u32, Option<Logprobs>)>,
}

impl CompletionBody {
    fn top(&self) -> Result<Option<usize>> {
        match self.logprobs {
            None | Some(LogprobsBody::Switch(false)) => Ok(None),
            Some(LogprobsBody::Switch(true)) => Ok(Some(0)),
            Some(LogprobsBody::Count(count)) => whole("logprobs", Some(count), 0..=TOP_LOGPROBS),
        }
    }

    /// The prompts.
    fn read(&mut self, model: &Served) -> Result<Vec<Read>> {
        let prompter = model.prompter();
        let of_text = |text: String, suffix: Option<&String>| {
            let whole = match suffix.filter(|suffix| !suffix.is_empty()) {
                None => &text,
                Some(suffix) => &fim::text(model, &text, suffix)?,
            };
            let named = |error: ApiError| ApiError { param: Some("prompt".into()), ..error };
            let prompt = prompter.raw(whole).map_err(|e| named(refusal(model, whole, e)))?;
            Ok(Read { prompt: Prompt { reasoning_open: false, ..prompt }, text })
        };
        let of_tokens = |tokens: Vec<u32>| {
            let text = prompter.tokenizer().decode(&tokens);
            let prompt = token_prompt(model, tokens)
                .map_err(|error| ApiError { param: Some("prompt".into()), ..error })?;
            Ok(Read { prompt, text })
        };
        let suffix = self.suffix.as_ref();
        let prompt = std::mem::replace(&mut self.prompt, PromptBody::Tokens(Vec::new()));
        let reads: Vec<Read> = match prompt {
            PromptBody::Text(text) => vec![of_text(text, suffix)?],
            PromptBody::Texts(texts) => {
                texts.into_iter().map(|text| of_text(text, suffix)).collect::<Result<_>>()?
            }
            PromptBody::Tokens(tokens) => vec![of_tokens(tokens)?],
            PromptBody::TokenLists(lists) => {
                lists.into_iter().map(of_tokens).collect::<Result<_>>()?
            }
        };
        if reads.is_empty() || reads.len() > PROMPTS {
            let message = format!("prompt: {} prompts; allowed: 1 to {PROMPTS}", reads.len());
            return Err(ApiError::value("prompt", message));
        }
        if reads.iter().any(|read| read.prompt.tokens.is_empty()) {
            return Err(ApiError::field("prompt", "prompt: there is nothing to continue"));
        }
        Ok(reads)
    }

    fn prepare(
        &mut self,
        mut settings: Settings,
        model: &Served,
    ) -> Result<Vec<(Prepared, String)>> {
        settings.logprobs = self.top()?;
        let rule = structure::rule(
            self.response_format.as_ref(),
            self.grammar.take(),
            self.json_schema.take(),
        )?;
        let compile = |rule| Ok::<_, ApiError>(model.compiler()?.compile(&rule)?);
        let grammar = rule.map(compile).transpose()?;
        let user = self.user.clone().unwrap_or_default();
        let reads = self.read(model)?;
        let prepare = |Read { prompt, text }: Read| {
            let mut options = settings.options(&prompt, grammar.clone(), None);
            options.keep_tags = true;
            let (n, user, warnings) = (settings.n, user.clone(), Vec::new());
            let (uncached, slot) = (settings.uncached, settings.slot);
            (Prepared { prompt, options, n, user, uncached, slot, warnings }, text)
        };
        Ok(reads.into_iter().map(prepare).collect())
    }
}

/// Continues texts.
pub(crate) async fn complete(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    json: Json,
) -> Result<Response> {
    let model = state.model()?.clone();
    let (mut body, settings) = json.read_both::<CompletionBody, SettingsBody>(&state)?;
    let stream = body.stream.unwrap_or(false);
    let include_usage = body.stream_options.unwrap_or_default().include_usage.unwrap_or(false);
    let (echo, top) = (body.echo.unwrap_or(false), body.top()?);
    let of_text = model.clone();
    let prepare = move || {
        let mut settings = settings.settings(&of_text)?;
        // OpenAI's default, since texts without a template rarely end by themselves.
        settings.max_tokens = settings.max_tokens.or(Some(16));
        body.prepare(settings, &of_text)
    };
    let prepared = state.text.run(prepare).await?;
    let mut echoes = Vec::new();
    for (prepared, text) in &prepared {
        let logprobs = match (echo, top) {
            (true, Some(top)) => score(&model, &prepared.prompt.tokens, top).await?,
            _ => Vec::new(),
        };
        let echo = Echo { text: if echo { text.clone() } else { String::new() }, logprobs };
        echoes.extend(vec![echo; prepared.n]);
    }
    let requests: Vec<Prepared> = prepared.into_iter().map(|(prepared, _)| prepared).collect();
    let answering = Answering::submit_all(&state, record, requests)?;
    let envelope = Envelope::new(&model, "cmpl-");
    if stream {
        let chunks = TextChunks::new(envelope, echoes, include_usage, top.is_some());
        return Ok(Stream::new(answering, Box::new(chunks)).into_response());
    }
    let render = move |outcomes: Vec<Outcome>| render(&envelope, &echoes, outcomes);
    sse::whole(answering, Dialect::OpenAi, render).await
}

/// The response to a request that is not streamed.
fn render(envelope: &Envelope, echoes: &[Echo], outcomes: Vec<Outcome>) -> Value {
    let choice = |(index, (outcome, echo)): (usize, (&Outcome, &Echo))| {
        let mut list = LogprobList::new(&echo.logprobs, envelope);
        for at in &outcome.generation.logprobs {
            list.push(at.picked.token, Some(at), envelope);
        }
        json!({
            "index": index,
            "text": echo.text.clone() + &outcome.generation.answer,
            "logprobs": list.json(),
            "finish_reason": outcome.finish_reason(),
        })
    };
    let choices = outcomes.iter().zip(echoes).enumerate().map(choice).collect();
    let mut json = envelope.wrap("text_completion", choices);
    json["usage"] = usage(&outcomes);
    close(&mut json, envelope, &outcomes);
    json
}

/// Log probabilities in the form of completions: parallel lists.
#[derive(Default)]
pub(crate) struct LogprobList {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<usize>,
    offset: usize,
}

impl LogprobList {
    /// The list of the tokens of a prompt.
    pub fn new(prompt: &[(u32, Option<Logprobs>)], envelope: &Envelope) -> Self {
        let mut list = Self::default();
        for (token, at) in prompt {
            list.push(*token, at.as_ref(), envelope);
        }
        list
    }

    /// Adds a token.
    pub fn push(&mut self, token: u32, at: Option<&Logprobs>, envelope: &Envelope) {
        let tokenizer = envelope.model.prompter().tokenizer();
        let text = |token: u32| {
            let bytes = tokenizer.piece(token).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let finite = |logprob: f32| f64::from(logprob).max(-9999.0);
        let own = text(token);
        self.text_offset.push(self.offset);
        self.offset += own.chars().count();
        self.tokens.push(own.into());
        self.token_logprobs.push(at.map(|at| finite(at.picked.logprob)).into());
        let top = at.map(|at| {
            let pairs = at.top.iter().map(|one| (text(one.token), finite(one.logprob).into()));
            pairs.collect::<Map<String, Value>>()
        });
        self.top_logprobs.push(top.map_or(Value::Null, Value::Object));
    }

    /// The list so far, which continues after it; null if it is empty.
    pub fn json(&mut self) -> Value {
        if self.tokens.is_empty() {
            return Value::Null;
        }
        json!({
            "tokens": std::mem::take(&mut self.tokens),
            "token_logprobs": std::mem::take(&mut self.token_logprobs),
            "top_logprobs": std::mem::take(&mut self.top_logprobs),
            "text_offset": std::mem::take(&mut self.text_offset),
        })
    }
}
