//! `POST /tokenize`, `/detokenize` and `/apply-template`, as llama.cpp has them.

use axum::Json;
use axum::extract::State as Shared;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chat::token_prompt;
use crate::error::{ApiError, Result};
use crate::http::body;
use crate::openai::chat::ChatBody;
use crate::openai::settings::SettingsBody;
use crate::state::State;

#[derive(Deserialize)]
struct Tokenize {
    content: String,
    #[serde(default)]
    add_special: Option<bool>,
    #[serde(default)]
    parse_special: Option<bool>,
    #[serde(default)]
    with_pieces: Option<bool>,
}

/// The tokens of a text.
pub(crate) async fn tokenize(
    Shared(state): Shared<State>,
    json: body::Json,
) -> Result<Json<Value>> {
    let model = state.model()?.clone();
    let body: Tokenize = json.read(&state)?;
    let work = move || {
        let tokenizer = model.prompter().tokenizer();
        let special = body.parse_special.unwrap_or(true);
        // Texts longer than the context are counted, too: a client asks how long they are.
        let tokens = tokenizer.encode(&body.content, special);
        let mut tokens = tokens.map_err(|error| ApiError::field("content", error.to_string()))?;
        if let Some(bos) = tokenizer.bos().filter(|_| body.add_special == Some(true)) {
            tokens.insert(0, bos);
        }
        if body.with_pieces != Some(true) {
            return Ok(json!({ "tokens": tokens }));
        }
        let piece = |token: &u32| {
            let bytes = tokenizer.piece(*token).unwrap_or_default();
            let piece = String::from_utf8(bytes)
                .map_or_else(|error| json!(error.into_bytes()), Value::from);
            json!({"id": token, "piece": piece})
        };
        Ok(json!({"tokens": tokens.iter().map(piece).collect::<Vec<_>>()}))
    };
    Ok(Json(state.text.run(work).await?))
}

#[derive(Deserialize)]
struct Detokenize {
    tokens: Vec<u32>,
}

/// The text of tokens.
pub(crate) async fn detokenize(
    Shared(state): Shared<State>,
    json: body::Json,
) -> Result<Json<Value>> {
    let model = state.model()?.clone();
    let Detokenize { tokens } = json.read(&state)?;
    let work = move || {
        let prompt = token_prompt(&model, tokens)
            .map_err(|error| ApiError { param: Some("tokens".into()), ..error })?;
        Ok(json!({"content": model.prompter().tokenizer().decode(&prompt.tokens)}))
    };
    Ok(Json(state.text.run(work).await?))
}

/// The prompt of a conversation.
pub(crate) async fn apply_template(
    Shared(state): Shared<State>,
    json: body::Json,
) -> Result<Json<Value>> {
    let model = state.model()?.clone();
    let (body, settings) = json.read_both::<ChatBody, SettingsBody>(&state)?;
    let work = move || {
        let request = body.request(settings, &model)?;
        let mut prompt = request.render(&model, &mut Vec::new())?;
        if let Some(begun) = request.messages.last().filter(|_| request.continues) {
            prompt = model.prompter().continue_text(&prompt, begun).0;
        }
        Ok(json!({ "prompt": prompt }))
    };
    Ok(Json(state.text.run(work).await?))
}

/// The number of tokens of a conversation's prompt.
pub(crate) async fn input_tokens(
    Shared(state): Shared<State>,
    json: body::Json,
) -> Result<Json<Value>> {
    let model = state.model()?.clone();
    let (body, settings) = json.read_both::<ChatBody, SettingsBody>(&state)?;
    let work = move || {
        let prepared = body.request(settings, &model)?.prepare(&model)?;
        Ok(json!({"object": "response.input_tokens", "input_tokens": prepared.prompt.tokens.len()}))
    };
    Ok(Json(state.text.run(work).await?))
}
