//! Reads `tokenizer.model`, SentencePiece's own format: a protocol buffer
//! (`sentencepiece_model.proto` of google/sentencepiece).

use tokenizers::AddedToken;

use super::definition::{Added, Definition};
use super::sentencepiece::{self, Keys, Order};
use super::{TokenizerError, limits};

/// Values of `SentencePiece.Type`.
mod kind {
    pub const NORMAL: u64 = 1;
    pub const UNKNOWN: u64 = 2;
    pub const CONTROL: u64 = 3;
    pub const USER_DEFINED: u64 = 4;
    pub const UNUSED: u64 = 5;
    pub const BYTE: u64 = 6;
}

/// `TrainerSpec.ModelType` for BPE.
const BPE: u64 = 2;

/// Contents of the file: the equivalent tokenizer.json, and the tokens that begin and end a text.
pub(super) struct SentencePieceModel {
    pub definition: Definition<'static>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
}

/// Reads the file. `more` contains the tokens that the folder adds.
pub(super) fn read(file: &[u8], more: Vec<Added>) -> Result<SentencePieceModel, TokenizerError> {
    let (mut vocab, mut added, mut unknown, mut scores) =
        (Vec::new(), Vec::new(), None, Vec::new());
    let (mut trainer, mut normalizer): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(file) {
        match field? {
            (1, Wire::Bytes(piece)) => {
                let id = scores.len() as u32;
                if scores.len() >= limits::TOKENS {
                    let allowed = format!("at most {}", limits::TOKENS);
                    return Err(TokenizerError::value("the number of tokens", "more", allowed));
                }
                let (mut text, mut score, mut kind) = (String::new(), 0.0, kind::NORMAL);
                for field in Fields(piece) {
                    match field? {
                        (1, Wire::Bytes(bytes)) => text = String::from_utf8_lossy(bytes).into(),
                        (2, Wire::Fixed32(bits)) => score = f32::from_bits(bits),
                        (3, Wire::Varint(value)) => kind = value,
                        _ => {}
                    }
                }
                scores.push(score);
                match kind {
                    kind::UNKNOWN | kind::CONTROL | kind::USER_DEFINED => {
                        if kind == kind::UNKNOWN {
                            unknown.get_or_insert_with(|| (text.clone().into(), id));
                        }
                        let token = AddedToken::from(text, kind != kind::USER_DEFINED);
                        added.push(Added { id, token: token.normalized(false) });
                    }
                    kind::NORMAL | kind::UNUSED | kind::BYTE => vocab.push((text.into(), id)),
                    other => {
                        let what = format!("the type of token {id}");
                        return Err(TokenizerError::value(what, other.to_string(), "1 to 6"));
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => trainer = bytes,
            (3, Wire::Bytes(bytes)) => normalizer = bytes,
            _ => {}
        }
    }
    if scores.is_empty() {
        return Err(malformed("it holds no tokens"));
    }
    let trained = Trainer::read(trainer)?;
    let prefix_space = prefix_space(normalizer)?;
    let count = scores.len() as u32;
    let known: Vec<String> = added.iter().map(|added| added.token.content.clone()).collect();
    added.extend(more.into_iter().filter(|added| !known.contains(&added.token.content)));
    let order = Order::Scores(scores.into());
    let keys = Keys { vocab, added, order, unknown, prefix_space };
    let id = |id: i64| u32::try_from(id).ok().filter(|id| *id < count);
    let (bos, eos) = (id(trained.bos), id(trained.eos));
    Ok(SentencePieceModel { definition: sentencepiece::definition(keys)?, bos, eos })
}

/// The fields of `TrainerSpec` that are used.
struct Trainer {
    bos: i64,
    eos: i64,
}

impl Trainer {
    fn read(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let (mut this, mut model, mut byte_fallback) = (Self { bos: 1, eos: 2 }, 1, false);
        for field in Fields(bytes) {
            match field? {
                (3, Wire::Varint(value)) => model = value,
                (35, Wire::Varint(value)) => byte_fallback = value != 0,
                (41, Wire::Varint(value)) => this.bos = value as i64,
                (42, Wire::Varint(value)) => this.eos = value as i64,
                _ => {}
            }
        }
        if model != BPE {
            let names = ["", "unigram", "bpe", "word", "char"];
            let name = usize::try_from(model).ok().and_then(|model| names.get(model));
            let found = name.map_or(model.to_string(), |name| name.to_string());
            return Err(TokenizerError::value("the model type of tokenizer.model", found, "bpe"));
        }
        match byte_fallback {
            true => Ok(this),
            false => {
                Err(TokenizerError::value("byte_fallback of tokenizer.model", "false", "true"))
            }
        }
    }
}

/// Whether `NormalizerSpec` adds a space before a text. Character replacement tables are refused.
fn prefix_space(bytes: &[u8]) -> Result<bool, TokenizerError> {
    let mut prefix = true;
    for field in Fields(bytes) {
        match field? {
            (2, Wire::Bytes(table)) if !table.is_empty() => {
                let found = format!("a table of {} bytes", table.len());
                let what = "the normalizer of tokenizer.model";
                return Err(TokenizerError::value(what, found, "identity"));
            }
            (3, Wire::Varint(value)) => prefix = value != 0,
            _ => {}
        }
    }
    Ok(prefix)
}

fn malformed(what: &str) -> TokenizerError {
    TokenizerError::value("tokenizer.model", what, "SentencePiece's protocol buffer")
}

/// Value of a field.
enum Wire<'a> {
    Varint(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// A 64-bit value; no field used here has one.
    Other,
}

/// Iterator over the fields of a message, with their numbers.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Other)?,
            2 => {
                let len = self.varint()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), TokenizerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| malformed("it ends within a field"));
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
