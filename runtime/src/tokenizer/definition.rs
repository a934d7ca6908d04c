//! Tokenizer definition in the format of tokenizer.json, and its validation.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tokenizers::AddedToken;

use super::TokenizerError;
use super::alphabet::{Alphabet, fallback_token};
use super::limits;
use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::{self, Vocabulary};

/// Contents of a tokenizer.json. Tokens are borrowed from the file where it has them as they are.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Definition<'a> {
    #[serde(default = "version")]
    pub version: String,
    #[serde(default)]
    pub added_tokens: Vec<Added>,
    #[serde(flatten)]
    pub steps: Steps,
    #[serde(borrow)]
    pub model: Model<'a>,
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
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Model<'a> {
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
    #[serde(borrow)]
    pub vocab: Tokens<'a>,
    #[serde(borrow, default)]
    pub merges: Vec<Merge<'a>>,
    /// Scores by id, from which merges follow; no tokenizer.json has them.
    #[serde(skip)]
    pub scores: Option<Cow<'a, [f32]>>,
}

/// Tokens and ids in file order; duplicates are kept.
#[derive(Debug, Default)]
pub(super) struct Tokens<'a>(pub Vec<(Cow<'a, str>, u32)>);

/// A string, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Tokens<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Tokens<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with their ids (a BPE vocabulary)")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tokens<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(token), id)) = map.next_entry()? {
                    entries.push((token, id));
                }
                Ok(Tokens(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for Tokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, id) in &self.0 {
            map.serialize_entry(token, id)?;
        }
        map.end()
    }
}

/// Two tokens that merge into one: `["a", "b"]`, or `"a b"` in older files and in GGUF.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Merge<'a>(pub Cow<'a, str>, pub Cow<'a, str>);

impl<'a> Merge<'a> {
    /// Parses two tokens separated by a space.
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenizerError> {
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

    fn into_owned(self) -> Merge<'static> {
        Merge(self.0.into_owned().into(), self.1.into_owned().into())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two tokens")
            }

            fn visit_borrowed_str<E: serde::de::Error>(
                self,
                text: &'de str,
            ) -> Result<Merge<'de>, E> {
                Merge::parse(text).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge<'de>, E> {
                Merge::parse(text).map(Merge::into_owned).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Merge<'de>, A::Error> {
                let mut half = || match pair.next_element()? {
                    Some(Text(half)) => Ok(half),
                    None => Err(A::Error::custom("a merge has two tokens")),
                };
                // A third is refused by the deserializer.
                Ok(Merge(half()?, half()?))
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

/// Formats a token for a message.
pub(super) fn shown(token: &str) -> String {
    format!("{:?}", token.chars().take(80).collect::<String>())
}

/// Ids of added tokens.
pub(super) type AddedIds = HashMap<String, u32>;

impl Definition<'_> {
    /// Checks everything except the vocabulary, merges and regexes.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        self.check_model()?;
        self.check_added()?;
        let count = self.model.vocab.0.len() + self.added_tokens.len();
        if count > limits::TOKENS {
            let allowed = format!("at most {}", limits::TOKENS);
            return Err(TokenizerError::value("the vocabulary's size", count.to_string(), allowed));
        }
        Ok(())
    }

    /// Returns the ids of added tokens. A token may also be in the vocabulary, with the same id.
    pub(super) fn added_ids(&self, vocabulary: &Vocabulary) -> Result<AddedIds, TokenizerError> {
        let mut ids = AddedIds::with_capacity(self.added_tokens.len());
        let mut taken = HashSet::with_capacity(self.added_tokens.len());
        for Added { id, token } in &self.added_tokens {
            let (id, text) = (*id, &token.content);
            let what = || format!("the added token {}", shown(text));
            vocabulary::check(text, id)?;
            let in_model = vocabulary.id(text.as_bytes());
            if let Some(other) = in_model.filter(|other| *other != id) {
                let allowed = format!("id {other}, which the model has for it");
                return Err(TokenizerError::value(what(), format!("id {id}"), allowed));
            }
            let is_free = in_model.is_some() || vocabulary.text(id).is_none();
            if !is_free || !taken.insert(id) || ids.insert(text.clone(), id).is_some() {
                return Err(vocabulary::duplicate(what(), id));
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
        vocabulary: &Vocabulary,
        added: &AddedIds,
        pre_tokenizer: &PreTokenizer,
    ) -> Result<(Alphabet, Vec<(char, u8)>), TokenizerError> {
        let unk = self.model.unk_token.as_ref();
        let in_model = |text: &str| vocabulary.id(text.as_bytes()).is_some();
        if let Some(unk) = unk.filter(|unk| !in_model(unk)) {
            let allowed = "a token of the vocabulary, or none";
            return Err(TokenizerError::value("model.unk_token", shown(unk), allowed));
        }
        if pre_tokenizer.is_byte_level() {
            let mut missing: Vec<_> = (0..=255u8)
                .map(|byte| (super::alphabet::byte_to_char(byte), byte))
                .filter(|(char, _)| !in_model(char.encode_utf8(&mut [0; 4])))
                .collect();
            if unk.is_some() {
                missing.clear();
            }
            return Ok((Alphabet::ByteLevel, missing));
        }
        let is_token = |text: &str| in_model(text) || added.contains_key(text);
        let whole = (0..=255u8).all(|byte| is_token(&fallback_token(byte)));
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
