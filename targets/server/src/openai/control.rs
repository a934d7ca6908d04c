//! `POST /v1/chat/completions/control`: ends the reasoning of an answer, so that the model answers
//! now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;

use axum::Json;
use axum::extract::State as Shared;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::http::body;
use crate::state::State;

/// A wish to end the reasoning.
#[derive(Debug, Default)]
pub(crate) struct Control {
    wished: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Control {
    /// Whether the reasoning is to end; `waker` is woken when that changes.
    pub fn is_wished(&self, waker: &Waker) -> bool {
        let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(waker.clone());
        self.wished.load(Ordering::Relaxed)
    }

    fn wish(&self) {
        self.wished.store(true, Ordering::Relaxed);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Answers in progress by the identifier of their chunks, which nobody else can guess.
#[derive(Default)]
pub(crate) struct Controls(Mutex<HashMap<String, Weak<Control>>>);

impl Controls {
    /// Makes an answer controllable.
    pub fn insert(&self, id: &str, control: &Arc<Control>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, control| control.strong_count() > 0);
        all.insert(id.into(), Arc::downgrade(control));
    }

    fn get(&self, id: &str) -> Option<Arc<Control>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id)?.upgrade()
    }
}

#[derive(Deserialize)]
struct ControlBody {
    id: String,
    action: String,
}

/// Controls an answer.
pub(crate) async fn control(Shared(state): Shared<State>, json: body::Json) -> Result<Json<Value>> {
    let ControlBody { id, action } = json.read(&state)?;
    if action != "reasoning_end" {
        return Err(ApiError::field("action", "action: allowed: reasoning_end"));
    }
    let control = state.controls.get(&id);
    let control =
        control.ok_or_else(|| ApiError::not_found("no answer of this id is in progress"))?;
    control.wish();
    Ok(Json(json!({"id": id, "action": action, "success": true})))
}
