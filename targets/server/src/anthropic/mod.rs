//! Anthropic's Messages: `POST /v1/messages` and `/v1/messages/count_tokens`.

mod answer;
mod request;

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::answering::Answering;
use crate::error::{Dialect, Result};
use crate::http::body;
use crate::http::record::Record;
use crate::http::sse::{self, Stream};
use crate::openai::answer::Envelope;
use crate::openai::settings::SettingsBody;
use crate::state::State;
use answer::Events;
use request::MessagesBody;

/// Answers a conversation.
pub(crate) async fn messages(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    json: body::Json,
) -> Result<Response> {
    let model = state.model()?.clone();
    let (body, settings) = json.read_both::<MessagesBody, SettingsBody>(&state)?;
    let stream = body.stream.unwrap_or(false);
    let of_text = model.clone();
    let prepare = move || body.request(settings, &of_text)?.prepare(&of_text);
    let prepared = state.text.run(prepare).await?;
    let stops = prepared.options.stop.clone();
    let answering = Answering::submit(&state, record, prepared)?;
    let envelope = Envelope::new(&model, "msg_");
    if stream {
        return Ok(Stream::new(answering, Box::new(Events::new(envelope, stops))).into_response());
    }
    let render = move |outcomes: Vec<_>| answer::whole(&envelope, &stops, &outcomes);
    sse::whole(answering, Dialect::Anthropic, render).await
}

/// Counts the tokens of a conversation.
pub(crate) async fn count_tokens(
    Shared(state): Shared<State>,
    json: body::Json,
) -> Result<Json<Value>> {
    let model = state.model()?.clone();
    let (body, settings) = json.read_both::<MessagesBody, SettingsBody>(&state)?;
    let work = move || {
        let prepared = body.request(settings, &model)?.prepare(&model)?;
        Ok(json!({"input_tokens": prepared.prompt.tokens.len()}))
    };
    Ok(Json(state.text.run(work).await?))
}
