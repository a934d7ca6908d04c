//! What Ollama's clients ask about models.

use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::rfc3339;
use crate::error::Result;
use crate::http::body;
use crate::served::Served;
use crate::state::State;

/// The version of Ollama's API that is followed. Clients refuse older ones.
const VERSION: &str = "0.12.0";

/// Name of the architecture in GGUF files.
fn family(model: &Served) -> &'static str {
    model.app.loaded().model.config().family.architecture()
}

fn details(model: &Served) -> Value {
    let family = family(model);
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    })
}

fn entry(model: &Served) -> Value {
    json!({
        "name": model.info.id,
        "model": model.info.id,
        "modified_at": rfc3339(Duration::from_secs(model.created)),
        "size": model.info.bytes,
        "digest": model.fingerprint(),
        "details": details(model),
    })
}

/// The one model.
pub(crate) async fn tags(Shared(state): Shared<State>) -> Result<Json<Value>> {
    Ok(Json(json!({"models": [entry(state.model()?)]})))
}

/// The one model, which is always loaded.
pub(crate) async fn ps(Shared(state): Shared<State>) -> Result<Json<Value>> {
    let model = state.model()?;
    let mut entry = entry(model);
    // It stays as long as the server: the last second of the calendar that clients can read.
    entry["expires_at"] = rfc3339(Duration::from_secs(253_402_300_799)).into();
    entry["size_vram"] = 0.into();
    entry["context_length"] = model.context().into();
    Ok(Json(json!({ "models": [entry] })))
}

#[derive(Deserialize)]
pub(crate) struct Show {
    #[serde(default, rename = "model", alias = "name")]
    _model: Option<String>,
    #[serde(default, rename = "verbose")]
    _verbose: Option<bool>,
}

/// Details of the model, whatever its name.
pub(crate) async fn show(Shared(state): Shared<State>, json: body::Json) -> Result<Json<Value>> {
    let model = state.model()?;
    let _: Show = json.read(&state)?;
    let config = model.app.loaded().model.config();
    let family = family(model);
    let mut info = json!({"general.architecture": family});
    info[format!("{family}.context_length")] = model.context().into();
    info[format!("{family}.embedding_length")] = config.hidden_size.into();
    let mut capabilities = vec!["completion", "tools"];
    if model.can_think {
        capabilities.push("thinking");
    }
    if crate::fim::text(model, "", "").is_ok() {
        capabilities.push("insert");
    }
    Ok(Json(json!({
        "modelfile": "",
        "parameters": "",
        "template": model.prompter().template().map(|template| template.source()),
        "details": details(model),
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": rfc3339(Duration::from_secs(model.created)),
    })))
}

/// The version of the API.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": VERSION}))
}
