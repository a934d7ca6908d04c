//! A tokenizer from a checkpoint's folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::definition::shown;
use super::{Tokenizer, TokenizerError, limits};

pub(super) fn read(folder: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = folder.join("tokenizer.json");
    let mut tokenizer =
        Tokenizer::from_json(&bytes(&path, limits::JSON_BYTES)?).map_err(|e| e.of_file(&path))?;

    let path = folder.join("tokenizer_config.json");
    if path.exists() {
        let config = bytes(&path, limits::CONFIG_BYTES)?;
        configure(&mut tokenizer, &config).map_err(|e| e.of_file(&path))?;
    }

    // Newer checkpoints keep the template apart, and this file then wins.
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let template = bytes(&path, limits::TEMPLATE_BYTES)?;
        let template = String::from_utf8(template)
            .map_err(|_| TokenizerError::value("the chat template", "not UTF-8", "UTF-8"))
            .map_err(|e| e.of_file(&path))?;
        tokenizer.chat_template = Some(template);
    }
    Ok(tokenizer)
}

fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        let found = format!("more than {limit} bytes");
        let error = TokenizerError::value("the file", found, format!("at most {limit} bytes"));
        return Err(error.of_file(path));
    }
    Ok(bytes)
}

fn configure(tokenizer: &mut Tokenizer, json: &[u8]) -> Result<(), TokenizerError> {
    let config: Value = serde_json::from_slice(json)?;
    tokenizer.bos = token(tokenizer, &config, "bos_token")?;
    tokenizer.eos = token(tokenizer, &config, "eos_token")?;
    tokenizer.add_bos = tokenizer.bos.is_some()
        && match config["add_bos_token"].as_bool() {
            Some(add) => add,
            None => template_begins_with_bos(tokenizer),
        };
    tokenizer.chat_template = template(&config)?;
    Ok(())
}

/// The id of a token that is a string, or an object with its `content`.
fn token(tokenizer: &Tokenizer, config: &Value, key: &str) -> Result<Option<u32>, TokenizerError> {
    let text = match &config[key] {
        Value::Null => return Ok(None),
        Value::String(text) => Some(text.as_str()),
        value => value["content"].as_str(),
    };
    let Some(text) = text else {
        return Err(TokenizerError::value(key, "neither", "a string, or an object with content"));
    };
    match tokenizer.token_to_id(text) {
        Some(id) => Ok(Some(id)),
        None => Err(TokenizerError::value(key, shown(text), "a token of tokenizer.json")),
    }
}

/// Without `add_bos_token`, the post-processor of tokenizer.json says whether a text begins with BOS.
fn template_begins_with_bos(tokenizer: &Tokenizer) -> bool {
    fn first(processor: &Value) -> Option<&str> {
        match processor["type"].as_str()? {
            "TemplateProcessing" => processor["single"][0]["SpecialToken"]["id"].as_str(),
            "Sequence" => processor["processors"].as_array()?.iter().find_map(first),
            _ => None,
        }
    }
    let first = tokenizer.steps.post_processor.as_ref().and_then(first);
    first.and_then(|token| tokenizer.token_to_id(token)) == tokenizer.bos
}

/// The template, or of several the one named `default`, else the first.
fn template(config: &Value) -> Result<Option<String>, TokenizerError> {
    let template = match &config["chat_template"] {
        Value::Null => return Ok(None),
        Value::Array(list) => {
            let default = list.iter().find(|entry| entry["name"] == "default");
            default.or(list.first()).and_then(|entry| entry["template"].as_str())
        }
        value => value.as_str(),
    };
    let Some(template) = template else {
        let allowed = "a string, or a list of {name, template}";
        return Err(TokenizerError::value("chat_template", "neither", allowed));
    };
    if template.len() as u64 > limits::TEMPLATE_BYTES {
        let allowed = format!("at most {} bytes", limits::TEMPLATE_BYTES);
        let found = format!("{} bytes", template.len());
        return Err(TokenizerError::value("chat_template", found, allowed));
    }
    Ok(Some(template.into()))
}
