//! `GET /health`: whether the server answers requests.

use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};

use crate::error::Result;
use crate::state::State;

/// 200 once the model is open, 503 before and while the server ends.
pub(crate) async fn health(Shared(state): Shared<State>) -> Result<Json<Value>> {
    state.model()?;
    Ok(Json(json!({"status": "ok"})))
}
