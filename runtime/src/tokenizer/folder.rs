//! A checkpoint folder's tokenizer.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value as Json;

use super::{Tokenizer, TokenizerError};

pub(super) fn read(folder: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = folder.join("tokenizer.json");
    let json = fs::read(&path).map_err(|source| TokenizerError::Io { path, source })?;
    let mut tokenizer = Tokenizer::from_json(&json)?;
    let config = read_config(folder)?;
    let token = |key: &str| -> Result<Option<u32>, TokenizerError> {
        let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        // A string, or an object with `content`.
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        let id = text.and_then(|text| tokenizer.token_to_id(text));
        let unknown = || {
            let what = format!("{key} of tokenizer_config.json");
            TokenizerError::value(what, value, "a token of the vocabulary")
        };
        id.map(Some).ok_or_else(unknown)
    };
    let (bos, eos) = (token("bos_token")?, token("eos_token")?);
    // Newer checkpoints leave it to the post-processor of tokenizer.json.
    let first = first_special(&json)?.and_then(|text| tokenizer.token_to_id(&text));
    let add_bos = config.get("add_bos_token").and_then(Json::as_bool);
    tokenizer.bos = bos.or(first);
    tokenizer.eos = eos;
    tokenizer.add_bos = add_bos.unwrap_or(first.is_some());
    tokenizer.chat_template = match chat_template(&config) {
        Some(template) => Some(template),
        None => optional(&folder.join("chat_template.jinja"))?
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    };
    Ok(tokenizer)
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io { path: path.into(), source }),
    }
}

fn read_config(folder: &Path) -> Result<Json, TokenizerError> {
    let bytes = optional(&folder.join("tokenizer_config.json"))?;
    bytes.map_or(Ok(Json::Null), |bytes| Ok(serde_json::from_slice(&bytes)?))
}

/// A string, or a list of named ones, of which `default` counts.
fn chat_template(config: &Json) -> Option<String> {
    let value = config.get("chat_template")?;
    let is_default = |one: &&Json| one.get("name").and_then(Json::as_str) == Some("default");
    let template = match value.as_array() {
        Some(list) => list.iter().find(is_default).or(list.first())?.get("template")?,
        None => value,
    };
    template.as_str().map(String::from)
}

/// The special token that a template of the post-processor puts first.
fn first_special(json: &[u8]) -> Result<Option<String>, TokenizerError> {
    let json: Json = serde_json::from_slice(json)?;
    fn find(processor: &Json) -> Option<String> {
        if let Some(parts) = processor.get("processors").and_then(Json::as_array) {
            return parts.iter().find_map(find);
        }
        let first = processor.get("single")?.as_array()?.first()?;
        Some(first.get("SpecialToken")?.get("id")?.as_str()?.to_string())
    }
    Ok(json.get("post_processor").and_then(find))
}
