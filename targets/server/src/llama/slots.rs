//! `GET /slots`, and what can be done with a slot: `POST /slots/{id}?action=save`, `restore` or
//! `erase`.
//!
//! A slot belongs to the client that names it, as its prompts do. With one slot, it is all that the
//! client sends.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, RawQuery, State as Shared};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::slot_files::SlotFile;
use crate::answering::engine_client;
use crate::error::{ApiError, Result};
use crate::http::body;
use crate::http::record::Record;
use crate::openai::settings::whole;
use crate::options::Part;
use crate::served::Served;
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

/// The engine's slot of a request with `id_slot`: none with -1, or where there is one slot for all.
pub(crate) fn of_request(model: &Served, id: Option<i64>) -> Result<Option<usize>> {
    let slot = whole("id_slot", id, -1..=model.slots as i64 - 1)?;
    Ok(slot.filter(|_| model.slots > 1))
}

/// An action on a slot.
#[derive(Clone, Copy)]
enum Action {
    Save,
    Restore,
    Erase,
}

const ACTIONS: [Action; 3] = [Action::Save, Action::Restore, Action::Erase];

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Restore => "restore",
            Self::Erase => "erase",
        }
    }
}

/// Body of an action.
#[derive(Default, Deserialize)]
struct Body {
    filename: Option<String>,
    /// The user whose slot it is, where requests name one.
    user: Option<String>,
}

/// Saves, restores or erases a slot.
pub(crate) async fn action(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    body: body::Json,
) -> Result<Json<Value>> {
    if state.options.without.contains(&Part::Slots) {
        return Err(ApiError::left_out(Part::Slots));
    }
    let model = state.model()?.clone();
    let body: Body = if body.is_empty() { Body::default() } else { body.read(&state)? };
    let number = id.parse::<i64>().ok().filter(|id| (0..model.slots as i64).contains(id));
    let number = number.ok_or_else(|| {
        let message = format!("id_slot: there is no such slot; allowed: 0 to {}", model.slots - 1);
        ApiError::field("id_slot", message)
    })?;
    let slot = of_request(&model, Some(number))?;
    let client = engine_client(&record.client, &body.user.unwrap_or_default());
    let query = query.unwrap_or_default();
    let action = query.split('&').find_map(|part| part.strip_prefix("action="));
    let action = action.and_then(|name| ACTIONS.into_iter().find(|action| action.name() == name));
    let action =
        action.ok_or_else(|| ApiError::field("action", "action: allowed: save, restore, erase"))?;
    if matches!(action, Action::Erase) {
        let erased = blocking(move || Ok(model.engine.erase_slot(&client, slot)?)).await?;
        return Ok(Json(json!({"id_slot": number, "n_erased": erased})));
    }
    let name = body.filename.unwrap_or_default();
    let file = SlotFile::new(state.options.slot_save_path.as_deref(), &name, client)?;
    let start = Instant::now();
    let work = move || {
        let tokens = match action {
            Action::Save => file.save(&model.engine, slot),
            _ => file.restore(&model.engine, slot),
        };
        Ok((tokens?, file.bytes()))
    };
    let (tokens, bytes) = blocking(work).await?;
    let milliseconds = start.elapsed().as_secs_f64() * 1000.0;
    let [count, size, time] = match action {
        Action::Save => ["n_saved", "n_written", "save_ms"],
        _ => ["n_restored", "n_read", "restore_ms"],
    };
    let timings = json!({time: milliseconds});
    Ok(Json(json!({
        "id_slot": number, "filename": name, count: tokens, size: bytes, "timings": timings,
    })))
}

/// Runs what waits for the engine or for a disk, on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("a bug")))
}
