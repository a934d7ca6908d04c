//! The tokens of a `tokenizer.json`, with their bytes.

use serde_json::Value as Json;

use super::{TokenizerError, byte_level};

/// Tokens a vocabulary may have.
pub(super) const MAX_TOKENS: usize = 1 << 20;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Text,
    /// Recognised whole in a text, and part of it, like `<think>`.
    Added,
    /// Recognised whole in a text, and not part of it.
    Special,
}

#[derive(Clone, Debug)]
struct Token {
    /// As the vocabulary writes it.
    text: String,
    bytes: Vec<u8>,
    kind: Kind,
}

/// Tokens by id; ids may be missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Vocabulary {
    tokens: Vec<Option<Token>>,
}

impl Vocabulary {
    /// Reads and checks it.
    pub fn read(json: &Json) -> Result<Self, TokenizerError> {
        let model = json.get("model").ok_or_else(|| TokenizerError::missing("`model`"))?;
        let kind = model.get("type").and_then(Json::as_str);
        // Old files leave the type out; what has merges is BPE.
        if kind.unwrap_or(if model.get("merges").is_some() { "BPE" } else { "" }) != "BPE" {
            return Err(TokenizerError::value("the model's type", kind.unwrap_or("absent"), "BPE"));
        }
        if !is_byte_level(json) {
            let allowed = "ByteLevel as decoder or pre-tokenizer";
            return Err(TokenizerError::value("the decoder", "another", allowed));
        }
        let vocab = model.get("vocab").and_then(Json::as_object);
        let vocab = vocab.ok_or_else(|| TokenizerError::missing("`model.vocab`"))?;
        let mut vocabulary = Self::default();
        for (text, id) in vocab {
            vocabulary.insert(text, id, Kind::Text)?;
        }
        for added in json.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let text = added.get("content").and_then(Json::as_str);
            let text =
                text.ok_or_else(|| TokenizerError::missing("`content` of an added token"))?;
            let id =
                added.get("id").ok_or_else(|| TokenizerError::missing("`id` of an added token"))?;
            let special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
            vocabulary.insert(text, id, if special { Kind::Special } else { Kind::Added })?;
        }
        Ok(vocabulary)
    }

    fn insert(&mut self, text: &str, id: &Json, kind: Kind) -> Result<(), TokenizerError> {
        let what = || format!("the id of token {:?}", text.chars().take(40).collect::<String>());
        let index = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let index = index.filter(|index| *index < MAX_TOKENS);
        let index = index
            .ok_or_else(|| TokenizerError::value(what(), id, format!("0 to {}", MAX_TOKENS - 1)))?;
        if index >= self.tokens.len() {
            self.tokens.resize(index + 1, None);
        }
        if let Some(other) = &self.tokens[index]
            && other.text != text
        {
            let allowed = format!("one token per id; {:?} has it too", other.text);
            return Err(TokenizerError::value(what(), id, allowed));
        }
        let bytes = match kind {
            Kind::Text => byte_level::decode(text),
            Kind::Added | Kind::Special => text.as_bytes().to_vec(),
        };
        self.tokens[index] = Some(Token { text: text.to_string(), bytes, kind });
        Ok(())
    }

    fn get(&self, id: u32) -> Option<&Token> {
        self.tokens.get(id as usize)?.as_ref()
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.get(id).map(|token| &token.bytes[..])
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.get(id).is_some_and(|token| token.kind == Kind::Special)
    }

    /// Text and kind of each id.
    pub fn iter(&self) -> impl Iterator<Item = Option<(&str, Kind)>> {
        self.tokens.iter().map(|token| token.as_ref().map(|token| (&token.text[..], token.kind)))
    }

    /// Tokens that are recognised whole, with their ids.
    pub fn added(&self) -> impl Iterator<Item = (&str, u32)> {
        let ids = self.iter().zip(0u32..);
        ids.filter_map(|(token, id)| Some((token.filter(|(_, kind)| *kind != Kind::Text)?.0, id)))
    }
}

/// Whether bytes, and not characters, are what the vocabulary is made of.
fn is_byte_level(json: &Json) -> bool {
    fn names(json: &Json) -> bool {
        let parts =
            ["decoders", "pretokenizers"].into_iter().filter_map(|key| json.get(key)?.as_array());
        json.get("type").and_then(Json::as_str) == Some("ByteLevel")
            || parts
                .flatten()
                .any(|part| part.get("type").and_then(Json::as_str) == Some("ByteLevel"))
    }
    ["decoder", "pre_tokenizer"].into_iter().filter_map(|key| json.get(key)).any(names)
}
