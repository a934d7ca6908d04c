//! A tokenizer in GGUF metadata: ggml's keys, and the whole `tokenizer.json` beside them, which says more.

use serde_json::{Map, Value as Json, json};

use super::vocabulary::{Kind, MAX_TOKENS};
use super::{Tokenizer, TokenizerError, pre_tokenizers};
use crate::gguf::Metadata;

const WHOLE: &str = "tokenizer.huggingface.json";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const TEMPLATE: &str = "tokenizer.chat_template";

/// ggml's numbers for what a token is.
const NORMAL: u32 = 1;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;
const UNUSED: u32 = 5;

pub(super) fn read(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
    let mut tokenizer = match metadata.str(WHOLE)? {
        Some(json) => Tokenizer::from_json(json.as_bytes())?,
        None => Tokenizer::from_json(&serde_json::to_vec(&from_ggml(metadata)?)?)?,
    };
    let token = |key| {
        let id = metadata.u32(key)?;
        match id.filter(|id| tokenizer.piece(*id).is_none()) {
            Some(id) => Err(TokenizerError::value(key, id, "a token of the vocabulary")),
            None => Ok(id),
        }
    };
    let (bos, eos) = (token(BOS)?, token(EOS)?);
    tokenizer.bos = bos;
    tokenizer.eos = eos;
    // llama.cpp adds it for these where the file does not say.
    let pre = metadata.str(PRE)?.and_then(pre_tokenizers::find);
    tokenizer.add_bos =
        metadata.bool(ADD_BOS)?.unwrap_or(bos.is_some() && pre.is_some_and(|pre| pre.adds_bos));
    tokenizer.chat_template = metadata.str(TEMPLATE)?.map(String::from);
    Ok(tokenizer)
}

/// A `tokenizer.json` from ggml's keys.
fn from_ggml(metadata: &Metadata) -> Result<Json, TokenizerError> {
    let missing = |key: &str| TokenizerError::missing(format!("metadata key {key}"));
    match metadata.str(MODEL)?.ok_or_else(|| missing(MODEL))? {
        "gpt2" => {}
        other => return Err(TokenizerError::value(MODEL, other, "gpt2, byte-level BPE")),
    }
    let pre = metadata.str(PRE)?.unwrap_or("default");
    let pre = pre_tokenizers::find(pre)
        .ok_or_else(|| TokenizerError::value(PRE, pre, pre_tokenizers::names()))?;
    let tokens = metadata.strings(TOKENS)?.ok_or_else(|| missing(TOKENS))?;
    if tokens.len() > MAX_TOKENS {
        return Err(TokenizerError::value(TOKENS, tokens.len(), format!("at most {MAX_TOKENS}")));
    }
    let types = metadata.u32s(TYPES)?.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
    if types.len() != tokens.len() {
        let allowed = format!("{}, as many as tokens", tokens.len());
        return Err(TokenizerError::value(TYPES, types.len(), allowed));
    }
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, (text, ty)) in tokens.iter().zip(types).enumerate() {
        if vocab.insert(text.clone(), id.into()).is_some() {
            return Err(TokenizerError::value(
                TOKENS,
                format!("{text:?} twice"),
                "each token once",
            ));
        }
        if matches!(ty, CONTROL | USER_DEFINED) {
            added.push(json!({
                "id": id, "content": text, "special": ty == CONTROL,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
    }
    let mut merges = Vec::new();
    for merge in metadata.strings(MERGES)?.ok_or_else(|| missing(MERGES))? {
        // A token may begin with a space's character, never with a space.
        let pair = merge.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty());
        let (a, b) = pair.ok_or_else(|| {
            TokenizerError::value(MERGES, merge, "two tokens with a space between")
        })?;
        merges.push(json!([a, b]));
    }
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre.json(),
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.ignores_merges, "vocab": vocab, "merges": merges,
        },
    }))
}

pub(super) fn write(tokenizer: &Tokenizer, metadata: &mut Metadata) {
    let json: Json = serde_json::from_slice(&tokenizer.json).unwrap_or_default();
    metadata.insert(MODEL, "gpt2");
    metadata.insert(PRE, pre_tokenizers::recognise(&json));
    let (mut tokens, mut types) = (Vec::new(), Vec::new());
    for (id, token) in tokenizer.vocabulary.iter().enumerate() {
        let (text, ty) = match token {
            Some((text, Kind::Text)) => (text.to_string(), NORMAL),
            Some((text, Kind::Added)) => (text.to_string(), USER_DEFINED),
            Some((text, Kind::Special)) => (text.to_string(), CONTROL),
            None => (format!("[PAD{id}]"), UNUSED),
        };
        tokens.push(text);
        types.push(ty as i32);
    }
    metadata.insert(TOKENS, tokens);
    metadata.insert(TYPES, types);
    metadata.insert(MERGES, merges(&json));
    if let Some(bos) = tokenizer.bos {
        metadata.insert(BOS, bos);
    }
    if let Some(eos) = tokenizer.eos {
        metadata.insert(EOS, eos);
    }
    metadata.insert(ADD_BOS, tokenizer.add_bos);
    if let Some(template) = &tokenizer.chat_template {
        metadata.insert(TEMPLATE, template.as_str());
    }
    metadata.insert(WHOLE, String::from_utf8_lossy(&tokenizer.json).into_owned());
}

/// Merges as ggml writes them; a `tokenizer.json` has pairs, or the same.
fn merges(json: &Json) -> Vec<String> {
    let merges = json.pointer("/model/merges").and_then(Json::as_array);
    let text = |merge: &Json| match merge {
        Json::String(text) => text.clone(),
        pair => {
            let parts = pair.as_array().into_iter().flatten().filter_map(Json::as_str);
            parts.collect::<Vec<_>>().join(" ")
        }
    };
    merges.into_iter().flatten().map(text).collect()
}
