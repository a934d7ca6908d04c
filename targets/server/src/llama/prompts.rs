//! Prompts as llama.cpp's server takes them: a text, tokens, texts and tokens mixed in one list, an
//! object with a text, or a list of several of these.

use serde_json::Value;
use vaquita_runtime::session::prompt::Prompt;

use crate::chat::{refusal, token_prompt};
use crate::error::{ApiError, Result};
use crate::served::Served;

/// Most prompts in a request.
const PROMPTS: usize = 128;

/// Prompts of a request.
pub(super) struct Prompts {
    pub prompts: Vec<Prompt>,
    /// Whether they came as a list, so that the answers are one, too.
    pub is_list: bool,
}

/// Reads the field `prompt`.
pub(super) fn read(model: &Served, json: &Value) -> Result<Prompts> {
    let prompts = match json {
        Value::Array(list) if !is_sequence(list) => {
            if list.is_empty() || list.len() > PROMPTS {
                let message = format!("prompt: {} prompts; allowed: 1 to {PROMPTS}", list.len());
                return Err(ApiError::value("prompt", message));
            }
            let prompts = list.iter().map(|one| prompt(model, one)).collect::<Result<_>>()?;
            Prompts { prompts, is_list: list.len() > 1 }
        }
        one => Prompts { prompts: vec![prompt(model, one)?], is_list: false },
    };
    if prompts.prompts.iter().any(|prompt| prompt.tokens.is_empty()) {
        return Err(ApiError::field("prompt", "prompt: there is nothing to continue"));
    }
    Ok(prompts)
}

/// Whether a list is one prompt: tokens, and perhaps texts between them.
fn is_sequence(list: &[Value]) -> bool {
    list.iter().all(|item| item.is_u64() || item.is_string()) && list.iter().any(Value::is_u64)
}

fn prompt(model: &Served, json: &Value) -> Result<Prompt> {
    let wrong = |message: &str| ApiError::field("prompt", format!("prompt: {message}"));
    match json {
        Value::String(text) => self::text(model, text),
        Value::Array(list) if is_sequence(list) => sequence(model, list),
        Value::Object(object) => {
            let media = object.get("multimodal_data").filter(|media| !media.is_null());
            if media.is_some_and(|media| media.as_array().is_none_or(|list| !list.is_empty())) {
                return Err(wrong("this model reads text alone: send no multimodal_data"));
            }
            let text = object.get("prompt_string").and_then(Value::as_str);
            self::text(model, text.ok_or_else(|| wrong("prompt_string is missing"))?)
        }
        _ => Err(wrong("allowed: a text, tokens, {\"prompt_string\": ...}, or a list of these")),
    }
}

/// The prompt of a text, which begins as the tokenizer begins all texts.
pub(super) fn text(model: &Served, text: &str) -> Result<Prompt> {
    let prompt = model.prompter().raw(text);
    let named = |error: ApiError| ApiError { param: Some("prompt".into()), ..error };
    let prompt = prompt.map_err(|error| named(refusal(model, text, error)))?;
    Ok(Prompt { reasoning_open: false, ..prompt })
}

fn sequence(model: &Served, list: &[Value]) -> Result<Prompt> {
    let mut tokens: Vec<u32> = Vec::new();
    for item in list {
        match (item.as_str(), item.as_u64()) {
            (Some(text), _) if tokens.is_empty() => tokens = self::text(model, text)?.tokens,
            (Some(text), _) => {
                let most = model.context() + 1;
                let encoded = model.prompter().tokenizer().encode_within(text, true, most);
                tokens.extend(encoded.map_err(|e| ApiError::field("prompt", e.to_string()))?);
            }
            (None, token) => {
                let token = token.and_then(|token| u32::try_from(token).ok());
                tokens.push(token.unwrap_or(u32::MAX)); // which no model has
            }
        }
    }
    token_prompt(model, tokens).map_err(|error| ApiError { param: Some("prompt".into()), ..error })
}
