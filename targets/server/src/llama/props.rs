//! `GET /props`: the model and the defaults of requests.

use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};

use super::answer;
use crate::error::Result;
use crate::options::Part;
use crate::state::State;

/// The model and its defaults, in llama.cpp's form. The file is named without its folder.
pub(crate) async fn props(Shared(state): Shared<State>) -> Result<Json<Value>> {
    let model = state.model()?;
    let prompter = model.prompter();
    let tokenizer = prompter.tokenizer();
    let text = |token: Option<u32>| token.map(|token| tokenizer.decode(&[token]));
    let defaults = &model.info.defaults;
    let mut params = answer::sampling(&model.defaults());
    params["seed"] = defaults.seed.map_or(json!(-1), Value::from);
    params["n_predict"] = defaults.max_tokens.map_or(json!(-1), Value::from);
    let has = |part| !state.options.without.contains(&part);
    Ok(Json(json!({
        "default_generation_settings": {"n_ctx": model.context(), "params": params},
        "n_ctx": model.context(),
        "total_slots": model.slots,
        "model_alias": model.info.id,
        "model_path": model.info.file,
        "chat_template": prompter.template().map(|template| template.source()),
        "bos_token": text(tokenizer.bos()),
        "eos_token": text(tokenizer.eos()),
        "thinking": model.can_think,
        "modalities": {"vision": false, "audio": false},
        "endpoint_slots": has(Part::Slots),
        "endpoint_props": false,
        "endpoint_metrics": has(Part::Metrics),
        "is_sleeping": false,
        "build_info": concat!("vaquita ", env!("CARGO_PKG_VERSION")),
    })))
}
