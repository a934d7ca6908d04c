//! Ollama's API, for clients that know no other: `/api/chat`, `/api/generate`, `/api/tags`,
//! `/api/ps`, `/api/show` and `/api/version`. Models are not fetched, made or deleted through it.

mod answer;
mod models;
mod request;

pub(crate) use models::{ps, show, tags, version};

use std::sync::Arc;

use axum::Extension;
use axum::extract::State as Shared;
use axum::response::Response;

use crate::answering::Answering;
use crate::chat::Prepared;
use crate::error::{Dialect, Result};
use crate::http::body::Json;
use crate::http::record::Record;
use crate::http::sse::{self, Stream};
use crate::served::Served;
use crate::state::State;
use answer::{Form, Lines};
use request::{ChatBody, GenerateBody};

/// Answers a conversation.
pub(crate) async fn chat(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    json: Json,
) -> Result<Response> {
    let body: ChatBody = json.read(&state)?;
    let (stream, name) = (body.stream.unwrap_or(true), body.model.clone());
    respond(state, record, Form::Chat, stream, name, move |model| {
        body.request(model)?.prepare(model)
    })
    .await
}

/// Answers a prompt, or continues it.
pub(crate) async fn generate(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    json: Json,
) -> Result<Response> {
    let body: GenerateBody = json.read(&state)?;
    let (stream, name) = (body.stream.unwrap_or(true), body.model.clone());
    if body.is_empty() {
        // Clients load a model so; it is.
        return Ok(answer::loaded(state.model()?, name.as_deref()));
    }
    respond(state, record, Form::Generate, stream, name, move |model| body.prepare(model)).await
}

async fn respond(
    state: State,
    record: Arc<Record>,
    form: Form,
    stream: bool,
    name: Option<String>,
    prepare: impl FnOnce(&Served) -> Result<Prepared> + Send + 'static,
) -> Result<Response> {
    let model = state.model()?.clone();
    let of_text = model.clone();
    let prepared = state.text.run(move || prepare(&of_text)).await?;
    let answering = Answering::submit(&state, record, prepared)?;
    let name = name.unwrap_or_else(|| model.info.id.clone());
    if stream {
        return Ok(Stream::new(answering, Box::new(Lines::new(form, name))).into_response());
    }
    let render = move |outcomes: Vec<_>| answer::whole(form, &name, &outcomes);
    sse::whole(answering, Dialect::Ollama, render).await
}
