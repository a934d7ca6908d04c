//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::{Path, State as Shared};
use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::served::Served;
use crate::state::State;

fn entry(model: &Served, id: &str) -> Value {
    let config = model.app.loaded().model.config();
    let names: Vec<&String> = [&model.info.id].into_iter().chain(&model.info.aliases).collect();
    json!({
        "id": id,
        "object": "model",
        "created": model.created,
        "owned_by": "vaquita",
        "aliases": names,
        "tags": model.info.tags,
        "meta": {
            "n_ctx": model.context(),
            "n_ctx_train": config.max_position_embeddings,
            "n_vocab": config.vocab_size,
            "n_embd": config.hidden_size,
        },
    })
}

/// The one model.
pub(crate) async fn list(Shared(state): Shared<State>) -> Result<Json<Value>> {
    let model = state.model()?;
    Ok(Json(json!({"object": "list", "data": [entry(model, &model.info.id)]})))
}

/// A model by its name or an alias.
pub(crate) async fn one(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let model = state.model()?;
    match id == model.info.id || model.info.aliases.contains(&id) {
        true => Ok(Json(entry(model, &id))),
        false => {
            let id: String = id.chars().take(80).collect();
            let message = format!("there is no model {id:?}; this server has {:?}", model.info.id);
            let error = ApiError::not_found(message);
            Err(ApiError { code: Some("model_not_found"), param: Some("model".into()), ..error })
        }
    }
}
