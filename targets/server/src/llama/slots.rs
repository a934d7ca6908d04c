//! `GET /slots` and its actions.

use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::options::Part;
use crate::state::State;

/// What runs, without whose it is.
pub(crate) async fn slots(Shared(state): Shared<State>) -> Result<Json<Value>> {
    if state.options.without.contains(&Part::Slots) {
        return Err(ApiError::left_out(Part::Slots));
    }
    let model = state.model()?;
    let running = model.engine.status().running;
    let slot =
        |id: usize| json!({"id": id, "n_ctx": model.context(), "is_processing": id < running});
    Ok(Json((0..model.slots).map(slot).collect()))
}

/// Prompts belong to clients, not to slots, and are kept by themselves.
pub(crate) async fn action() -> ApiError {
    ApiError::unsupported(
        "slots are neither saved, restored nor erased here: prompts are kept by themselves, on disk with --cache-dir",
    )
}
