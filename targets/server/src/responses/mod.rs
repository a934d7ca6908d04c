//! OpenAI's Responses: `POST /v1/responses`, without stored state.

mod answer;
mod events;
mod request;

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::answering::Answering;
use crate::error::{ApiError, Dialect, Result};
use crate::http::body;
use crate::http::record::Record;
use crate::http::sse::{self, Stream};
use crate::openai::answer::Envelope;
use crate::openai::settings::SettingsBody;
use crate::state::State;
use answer::Asked;
use events::Events;
use request::ResponsesBody;

/// Answers an input.
pub(crate) async fn create(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    json: body::Json,
) -> Result<Response> {
    let model = state.model()?.clone();
    let (body, settings) = json.read_both::<ResponsesBody, SettingsBody>(&state)?;
    let stream = body.stream.unwrap_or(false);
    let of_text = model.clone();
    let prepare = move || {
        let mut asked = body.asked();
        let prepared = body.request(settings, &of_text)?.prepare(&of_text)?;
        asked.set(&prepared.options);
        Ok((prepared, asked))
    };
    let (prepared, asked): (_, Asked) = state.text.run(prepare).await?;
    let answering = Answering::submit(&state, record, prepared)?;
    let envelope = Envelope::new(&model, "resp_");
    if stream {
        return Ok(Stream::new(answering, Box::new(Events::new(envelope, asked))).into_response());
    }
    let render = move |outcomes: Vec<_>| answer::whole(&envelope, &asked, &outcomes);
    sse::whole(answering, Dialect::OpenAi, render).await
}

/// Counts the tokens of an input.
pub(crate) async fn input_tokens(
    Shared(state): Shared<State>,
    json: body::Json,
) -> Result<Json<Value>> {
    let model = state.model()?.clone();
    let (body, settings) = json.read_both::<ResponsesBody, SettingsBody>(&state)?;
    let work = move || {
        let prepared = body.request(settings, &model)?.prepare(&model)?;
        let tokens = prepared.prompt.tokens.len();
        Ok(json!({"object": "response.input_tokens", "input_tokens": tokens}))
    };
    Ok(Json(state.text.run(work).await?))
}

/// Nothing is stored.
pub(crate) async fn stored() -> ApiError {
    ApiError::not_found("responses are not stored: send the whole input again")
}
