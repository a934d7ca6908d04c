//! Tokenizer definition in the format of tokenizer.json, and its validation.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tokenizers::AddedToken;

use super::TokenizerError;
use super::alphabet::{Alphabet, fallback_token};
use super::limits;
use super::pre_tokenizer::PreTokenizer;

/// Contents of a tokenizer.json.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Definition {
    #[serde(default = "version")]
    pub version: String,
    #[serde(default)]
    pub added_tokens: Vec<Added>,
    #[serde(flatten)]
    pub steps: Steps,
    pub model: Model,
}

fn version() -> String {
    "1.0".into()
}

/// Processing steps before and after the model.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Steps {
    #[serde(default)]
    pub normalizer: Option<Value>,
    #[serde(default)]
    pub pre_tokenizer: Option<Value>,
    #[serde(default)]
    pub post_processor: Option<Value>,
    #[serde(default)]
    pub decoder: Option<Value>,
}

/// A token that is matched in the text itself, before the text is split.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Added {
    pub id: u32,
    #[serde(flatten)]
    pub token: AddedToken,
}

/// BPE model.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Model {
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    #[serde(default)]
    pub dropout: Option<f32>,
    #[serde(default)]
    pub unk_token: Option<String>,
    #[serde(default)]
    pub continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub fuse_unk: bool,
    #[serde(default)]
    pub byte_fallback: bool,
    #[serde(default)]
    pub ignore_merges: bool,
    pub vocab: Vocabulary,
    #[serde(default)]
    pub merges: Vec<Merge>,
}

/// Tokens and ids in file order; duplicates are kept.
#[derive(Debug, Default)]
pub(super) struct Vocabulary(pub Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with their ids (a BPE vocabulary)")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Vocabulary(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for Vocabulary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, id) in &self.0 {
            map.serialize_entry(token, id)?;
        }
        map.end()
    }
}

/// Two tokens that merge into one: `["a", "b"]`, or `"a b"` in older files and in GGUF.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(try_from = "MergeJson")]
pub(super) struct Merge(pub String, pub String);

#[derive(Deserialize)]
#[serde(untagged)]
enum MergeJson {
    Pair(String, String),
    Joined(String),
}

impl TryFrom<MergeJson> for Merge {
    type Error = TokenizerError;

    fn try_from(json: MergeJson) -> Result<Self, TokenizerError> {
        match json {
            MergeJson::Pair(a, b) => Ok(Self(a, b)),
            MergeJson::Joined(text) => Self::parse(&text),
        }
    }
}

impl Merge {
    /// Parses two tokens separated by a space.
    pub(super) fn parse(text: &str) -> Result<Self, TokenizerError> {
        match text.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => {
                Ok(Self(a.into(), b.into()))
            }
            _ => Err(TokenizerError::value(
                "a merge",
                shown(text),
                "two tokens with one space between",
            )),
        }
    }
}

/// Formats a token for a message.
pub(super) fn shown(token: &str) -> String {
    format!("{:?}", token.chars().take(80).collect::<String>())
}

/// Ids of all tokens, from the model and added.
pub(super) type Ids = HashMap<String, u32>;

impl Definition {
    /// Checks everything except the regexes, and returns the ids of all tokens.
    pub(super) fn check(&self) -> Result<Ids, TokenizerError> {
        self.check_model()?;
        self.check_added()?;
        let count = self.model.vocab.0.len() + self.added_tokens.len();
        if count > limits::TOKENS {
            let allowed = format!("at most {}", limits::TOKENS);
            return Err(TokenizerError::value("the vocabulary's size", count.to_string(), allowed));
        }
        let mut ids = Ids::with_capacity(count);
        let mut taken = HashSet::with_capacity(count);
        for (token, id) in &self.model.vocab.0 {
            check_token(token, *id)?;
            if !taken.insert(*id) {
                return Err(duplicate(format!("the id of token {}", shown(token)), *id));
            }
            if ids.insert(token.clone(), *id).is_some() {
                return Err(duplicate(format!("token {}", shown(token)), *id));
            }
        }
        let mut added = HashSet::with_capacity(self.added_tokens.len());
        for Added { id, token } in &self.added_tokens {
            let what = || format!("the added token {}", shown(&token.content));
            check_token(&token.content, *id)?;
            if !added.insert(&token.content) {
                return Err(duplicate(what(), *id));
            }
            // The token may also be in the model's vocabulary, with the same id.
            match ids.insert(token.content.clone(), *id) {
                Some(other) if other != *id => {
                    let allowed = format!("id {other}, which the model has for it");
                    return Err(TokenizerError::value(what(), format!("id {id}"), allowed));
                }
                Some(_) => {}
                None if !taken.insert(*id) => return Err(duplicate(what(), *id)),
                None => {}
            }
        }
        Ok(ids)
    }

    fn check_model(&self) -> Result<(), TokenizerError> {
        let model = &self.model;
        let refuse = |what: &str, found: String, allowed: &str| {
            Err(TokenizerError::value(format!("model.{what}"), found, allowed))
        };
        // Older files omit the key; they contain BPE.
        if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
            return refuse("type", shown(kind), "BPE");
        }
        if model.dropout.is_some_and(|dropout| dropout != 0.0) {
            return refuse("dropout", format!("{:?}", model.dropout), "none");
        }
        for (what, text) in [
            ("continuing_subword_prefix", &model.continuing_subword_prefix),
            ("end_of_word_suffix", &model.end_of_word_suffix),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                return refuse(what, shown(text), "none");
            }
        }
        if model.merges.len() > limits::MERGES {
            let allowed = format!("at most {}", limits::MERGES);
            return refuse("merges", model.merges.len().to_string(), &allowed);
        }
        if let Some(Merge(a, b)) = model.merges.iter().find(|m| m.0.is_empty() || m.1.is_empty()) {
            return refuse("merges", format!("[{}, {}]", shown(a), shown(b)), "two tokens");
        }
        Ok(())
    }

    fn check_added(&self) -> Result<(), TokenizerError> {
        // A token that strips the spaces after it would overlap one that begins with spaces.
        let strips = self.added_tokens.iter().any(|added| added.token.rstrip);
        let spaced = self.added_tokens.iter().find(|added| {
            let content = &added.token.content;
            let blank = content.trim().is_empty() && added.token.lstrip;
            blank || strips && content.starts_with(char::is_whitespace)
        });
        match spaced {
            Some(added) => Err(TokenizerError::value(
                "an added token",
                shown(&added.token.content),
                "no white space at its start, next to tokens that strip white space",
            )),
            None => Ok(()),
        }
    }

    /// Returns the alphabet of the vocabulary, and the characters of that alphabet without a token.
    pub(super) fn alphabet(
        &self,
        ids: &Ids,
        pre_tokenizer: &PreTokenizer,
    ) -> Result<(Alphabet, Vec<(char, u8)>), TokenizerError> {
        let unk = self.model.unk_token.as_ref();
        let in_model: HashSet<&str> = self.model.vocab.0.iter().map(|(t, _)| t.as_str()).collect();
        if let Some(unk) = unk.filter(|unk| !in_model.contains(unk.as_str())) {
            let allowed = "a token of the vocabulary, or none";
            return Err(TokenizerError::value("model.unk_token", shown(unk), allowed));
        }
        if pre_tokenizer.is_byte_level() {
            let mut missing: Vec<_> = (0..=255u8)
                .map(|byte| (super::alphabet::byte_to_char(byte), byte))
                .filter(|(char, _)| !in_model.contains(char.encode_utf8(&mut [0; 4]) as &str))
                .collect();
            if unk.is_some() {
                missing.clear();
            }
            return Ok((Alphabet::ByteLevel, missing));
        }
        let whole = (0..=255u8).all(|byte| ids.contains_key(&fallback_token(byte)));
        if self.model.byte_fallback && (whole || unk.is_some()) {
            return Ok((Alphabet::ByteFallback, Vec::new()));
        }
        Err(TokenizerError::value(
            "the tokenizer",
            "neither byte-level nor one with all of <0x00> to <0xFF>",
            "BPE with a ByteLevel pre-tokenizer, or with byte_fallback",
        ))
    }
}

fn check_token(token: &str, id: u32) -> Result<(), TokenizerError> {
    if token.is_empty() || token.len() > limits::TOKEN_BYTES {
        let found = format!("a token of {} bytes", token.len());
        let allowed = format!("1 to {} bytes", limits::TOKEN_BYTES);
        return Err(TokenizerError::value(format!("id {id}"), found, allowed));
    }
    if id as usize >= limits::TOKENS {
        let allowed = format!("below {}", limits::TOKENS);
        return Err(TokenizerError::value(
            format!("the id of token {}", shown(token)),
            id.to_string(),
            allowed,
        ));
    }
    Ok(())
}

fn duplicate(what: String, id: u32) -> TokenizerError {
    TokenizerError::value(what, format!("{id}, a second time"), "each token and each id once")
}
