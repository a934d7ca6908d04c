//! `POST /infill`: fills in the middle, with other files as context.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State as Shared;
use axum::response::Response;
use serde::Deserialize;

use super::completion;
use super::prompts::{self, Prompts};
use crate::error::Result;
use crate::fim;
use crate::http::body::Json;
use crate::http::record::Record;
use crate::state::State;

/// Separates files for models that have no token for it, as llama.cpp does.
const SNIPPET: &str = "\n\n--- snippet ---\n\n";
/// Tokens before the name of a file, by model.
const SEPARATORS: [&str; 2] = ["<|file_sep|>", "<file_sep>"];

#[derive(Deserialize)]
struct Body {
    input_prefix: String,
    input_suffix: String,
    #[serde(default)]
    input_extra: Vec<Extra>,
    /// Text after the prefix that is continued.
    #[serde(default)]
    prompt: String,
}

/// Another file.
#[derive(Deserialize)]
struct Extra {
    text: String,
    filename: Option<String>,
}

/// Fills in the middle.
pub(crate) async fn complete(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    json: Json,
) -> Result<Response> {
    let (body, options, settings) = json.read_three::<Body, _, _>(&state)?;
    let Body { input_prefix, input_suffix, input_extra, prompt } = body;
    completion::answer(state, record, options, settings, move |model| {
        let tokenizer = model.prompter().tokenizer();
        let separator = SEPARATORS.into_iter().find(|one| tokenizer.token_to_id(one).is_some());
        let extra = input_extra.iter().map(|Extra { text, filename }| match separator {
            Some(separator) => {
                format!("{separator}{}\n{text}", filename.as_deref().unwrap_or("tmp"))
            }
            None => format!("{SNIPPET}{text}"),
        });
        let extra: String = extra.collect();
        let text = extra + &fim::text(model, &(input_prefix + &prompt), &input_suffix)?;
        Ok(Prompts { prompts: vec![prompts::text(model, &text)?], is_list: false })
    })
    .await
}
