//! Reads a tokenizer from a checkpoint folder.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use super::definition::{Added, shown};
use super::{Tokenizer, TokenizerError, limits, pre_tokenizers, ranked, sentencepiece_model};
use crate::bytes::file;

pub(super) fn read(folder: &Path) -> Result<Tokenizer, TokenizerError> {
    let config = optional(folder, "tokenizer_config.json")?.unwrap_or_default();
    let mut tokenizer = model(folder, &config)?;

    let map = optional(folder, "special_tokens_map.json")?.unwrap_or_default();
    configure(&mut tokenizer, &config, &map)
        .map_err(|e| e.of_file(folder.join("tokenizer_config.json")))?;
    if let Some(generation) = optional(folder, "generation_config.json")? {
        let path = folder.join("generation_config.json");
        tokenizer.end_with(ends(&generation, &tokenizer).map_err(|e| e.of_file(path))?);
    }

    // Newer checkpoints store the template in a separate file, which takes precedence.
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

/// Whether a folder contains any of the files from which [`read`] reads a tokenizer.
pub(super) fn exists(folder: &Path) -> bool {
    FILES.iter().any(|file| folder.join(file).exists())
}

/// Files that define a tokenizer, by precedence.
const FILES: [&str; 3] = ["tokenizer.json", "tiktoken.model", "tokenizer.model"];

/// Reads the vocabulary, and the tokens that begin and end a text if the file states them.
fn model(folder: &Path, config: &Value) -> Result<Tokenizer, TokenizerError> {
    let Some(file) = FILES.into_iter().find(|file| folder.join(file).exists()) else {
        return Err(TokenizerError::NoTokenizer { folder: folder.into() });
    };
    let path = folder.join(file);
    let read = |bytes: &[u8]| {
        if file == FILES[0] {
            return Tokenizer::from_json(bytes);
        }
        let added = added(folder, config)?;
        if file == FILES[1] {
            let definition = ranked::definition(bytes, added, pre_tokenizers::KIMI)?;
            return Tokenizer::from_definition(definition);
        }
        let read = sentencepiece_model::read(bytes, added)?;
        let tokenizer = Tokenizer::from_definition(read.definition)?;
        // tokenizers of this kind in transformers add BOS by default
        Ok(Tokenizer { bos: read.bos, eos: read.eos, add_bos: read.bos.is_some(), ..tokenizer })
    };
    read(&bytes(&path, limits::JSON_BYTES)?).map_err(|e| e.of_file(&path))
}

/// Reads tokens outside the vocabulary file: `added_tokens_decoder` of tokenizer_config.json, and
/// added_tokens.json.
fn added(folder: &Path, config: &Value) -> Result<Vec<Added>, TokenizerError> {
    let mut tokens = Vec::new();
    for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
        let what = || format!("added_tokens_decoder.{id}");
        let wrong = |_| TokenizerError::value(what(), shown(id), "an id");
        let token = AddedToken::deserialize(token)?;
        tokens.push(Added { id: id.parse().map_err(wrong)?, token });
    }
    let more = optional(folder, "added_tokens.json")?.unwrap_or_default();
    for (content, id) in more.as_object().into_iter().flatten() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| {
            TokenizerError::value(format!("added_tokens.json: {content}"), "no number", "an id")
        })?;
        if tokens.iter().all(|added| added.id != id) {
            let token = AddedToken::from(content.clone(), false).normalized(false);
            tokens.push(Added { id, token });
        }
    }
    Ok(tokens)
}

/// Reads a JSON file, if it exists.
fn optional(folder: &Path, name: &str) -> Result<Option<Value>, TokenizerError> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let json = bytes(&path, limits::CONFIG_BYTES)?;
    let value =
        serde_json::from_slice(&json).map_err(|e| TokenizerError::from(e).of_file(&path))?;
    Ok(Some(value))
}

/// Reads `eos_token_id` of generation_config.json, one number or several.
fn ends(generation: &Value, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let ids = match &generation["eos_token_id"] {
        Value::Array(ids) => ids.as_slice(),
        Value::Null => &[],
        id => std::slice::from_ref(id),
    };
    let allowed = || format!("numbers below {}", tokenizer.vocab_size);
    let id = |id: &Value| {
        let wrong = || TokenizerError::value("eos_token_id", shown(&id.to_string()), allowed());
        id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)
    };
    ids.iter().map(id).collect()
}

fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, TokenizerError> {
    file::read(path, limit).map_err(|source| TokenizerError::Io { path: path.into(), source })
}

fn configure(tokenizer: &mut Tokenizer, config: &Value, map: &Value) -> Result<(), TokenizerError> {
    // tokenizer_config.json takes precedence over special_tokens_map.json, and both over the
    // vocabulary.
    for source in [map, config] {
        tokenizer.bos = token(tokenizer, source, "bos_token")?.or(tokenizer.bos);
        tokenizer.eos = token(tokenizer, source, "eos_token")?.or(tokenizer.eos);
    }
    tokenizer.add_bos = tokenizer.bos.is_some()
        && match config["add_bos_token"].as_bool() {
            Some(add) => add,
            None => tokenizer.add_bos || template_begins_with_bos(tokenizer),
        };
    tokenizer.chat_template = template(config)?;
    Ok(())
}

/// Returns the id of a token that is given as a string, or as an object with a `content`.
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

/// Whether the post-processor of tokenizer.json adds BOS, which decides if `add_bos_token` is
/// absent.
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

/// Returns the template; if there are several, the one named `default`, otherwise the first.
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
