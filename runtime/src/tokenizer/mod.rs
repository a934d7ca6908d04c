//! Tokenization and detokenization.
//!
//! A [`Tokenizer`] is read from a checkpoint's tokenizer.json ([`Tokenizer::from_folder`]) or from
//! GGUF metadata ([`Tokenizer::from_metadata`]). The `tokenizers` crate implements Unicode
//! normalization and added tokens. It trusts files and regexes, so files are checked before they
//! are passed to it, and regexes run under our own limits. BPE is ours.

mod added;
mod alphabet;
mod bpe;
mod definition;
mod ends;
mod error;
mod folder;
pub mod limits;
mod metadata;
mod normalizer;
mod pre_tokenizer;
mod pre_tokenizers;
mod ranked;
mod sentencepiece;
mod sentencepiece_model;
mod split;
mod vocabulary;
mod windows;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use tokenizers::{AddedToken, NormalizerWrapper, OffsetReferential, OffsetType};

use crate::gguf::Metadata;
use added::AddedTokens;
use alphabet::Alphabet;
use bpe::Bpe;
use definition::{Added, Definition, Merge, Model, Steps, Tokens};
pub use error::TokenizerError;
use pre_tokenizer::PreTokenizer;

/// A BPE tokenizer: byte-level, or SentencePiece BPE with byte fallback.
pub struct Tokenizer {
    model: Bpe,
    added: AddedTokens,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: PreTokenizer,
    alphabet: Alphabet,
    /// Characters of the byte-level alphabet without a token, with their bytes.
    missing: Vec<(char, u8)>,
    /// Steps as in tokenizer.json, kept for writing.
    steps: Steps,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    /// Tokens that end a turn besides `eos`: known by name, or named by the checkpoint.
    ends: Vec<u32>,
    /// The subset of `ends` that the checkpoint names.
    named_ends: Vec<u32>,
    chat_template: Option<String>,
    note: Option<String>,
    /// Length of the longest token, in bytes.
    longest: usize,
    /// Whether long texts are split into parts.
    cut: bool,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("add_bos", &self.add_bos)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the bytes of a tokenizer.json, which names neither BOS and EOS nor a chat template.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        if json.len() as u64 > limits::JSON_BYTES {
            let allowed = format!("at most {}", limits::JSON_BYTES);
            return Err(TokenizerError::value(
                "tokenizer.json's bytes",
                json.len().to_string(),
                allowed,
            ));
        }
        Self::from_definition(serde_json::from_slice(json)?)
    }

    /// Reads a checkpoint folder: `tokenizer.json`, `tiktoken.model` (Kimi, Moonlight) or
    /// `tokenizer.model` (SentencePiece), and those of `tokenizer_config.json`,
    /// `special_tokens_map.json`, `added_tokens.json`, `generation_config.json` and
    /// `chat_template.jinja` that exist.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        folder::read(folder)
    }

    /// Whether a folder contains any tokenizer that [`from_folder`](Self::from_folder) can read.
    pub fn is_in(folder: &Path) -> bool {
        folder::exists(folder)
    }

    /// Reads GGUF metadata: `tokenizer.huggingface.json` if it is present, otherwise llama.cpp's
    /// keys.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        metadata::read(metadata)
    }

    /// Writes llama.cpp's keys and `tokenizer.huggingface.json`.
    pub fn write_metadata(&self, metadata: &mut Metadata) {
        metadata::write(self, metadata);
    }

    fn from_definition(definition: Definition<'_>) -> Result<Self, TokenizerError> {
        definition.check()?;
        let model = Bpe::new(&definition.model)?;
        let ids = definition.added_ids(&model.vocabulary)?;
        let normalizer = normalizer::load(definition.steps.normalizer.as_ref())?;
        let pre_tokenizer = PreTokenizer::load(definition.steps.pre_tokenizer.as_ref())?;
        let (alphabet, missing) = definition.alphabet(&model.vocabulary, &ids, &pre_tokenizer)?;
        let added = AddedTokens::new(&definition, &ids, normalizer.as_ref())?;
        let longest = ids.keys().map(String::len).chain([1, model.vocabulary.longest()]).max();
        let vocab_size = ids.values().map(|id| id + 1).chain([model.vocabulary.size()]).max();
        let mut tokenizer = Self {
            added,
            normalizer,
            pre_tokenizer,
            alphabet,
            missing,
            steps: definition.steps,
            vocab_size: vocab_size.unwrap_or(0) as usize,
            model,
            bos: None,
            eos: None,
            add_bos: false,
            ends: Vec::new(),
            named_ends: Vec::new(),
            chat_template: None,
            note: None,
            longest: longest.unwrap_or(1),
            cut: false,
        };
        tokenizer.ends = ends::by_name(&tokenizer);
        tokenizer.cut = tokenizer.can_be_cut();
        Ok(tokenizer)
    }

    /// Adds end-of-turn tokens.
    fn end_with(&mut self, ids: Vec<u32>) {
        self.ends.extend(&ids);
        self.named_ends = ids;
    }

    /// Returns the merges by rank; `None` if more follow from scores than a tokenizer.json may have.
    fn merges(&self) -> Option<Vec<Merge<'_>>> {
        let text = |id| self.model.vocabulary.text(id).map(Cow::Borrowed);
        let merge = |(a, b)| Some(Merge(text(a)?, text(b)?));
        Some(self.model.merges()?.into_iter().filter_map(merge).collect())
    }

    /// Returns the tokenizer.json of this tokenizer with its merges.
    fn definition<'a>(&'a self, merges: Vec<Merge<'a>>) -> Definition<'a> {
        let model = &self.model;
        let added = |(id, token): (u32, &AddedToken)| Added { id, token: token.clone() };
        let vocab = model.vocabulary.iter().map(|(text, id)| (text.into(), id));
        Definition {
            version: "1.0".into(),
            added_tokens: self.added.iter().map(added).collect(),
            steps: self.steps.clone(),
            model: Model {
                kind: Some("BPE".into()),
                unk_token: model.unknown_text().map(String::from),
                fuse_unk: model.fuse_unk,
                byte_fallback: model.byte_fallback,
                ignore_merges: model.ignore_merges,
                vocab: Tokens(vocab.collect()),
                merges,
                ..Model::default()
            },
        }
    }

    /// Returns the tokens of a text. Control tokens are matched only if `special` is set, so that
    /// text typed by a user cannot inject them; other added tokens, such as `<think>`, are always
    /// matched. Never adds BOS.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        self.encode_beginning(text, special, usize::MAX)
    }

    /// Returns the tokens of a text. A text of more than `most` tokens is refused before memory is
    /// allocated for it.
    pub fn encode_within(
        &self,
        text: &str,
        special: bool,
        most: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        let too_long = || TokenizerError::TooLong { most };
        // Normalizers can shorten a text, but not by more than this factor.
        let shrinks = if self.normalizer.is_some() { 4 } else { 1 };
        let bytes = self.longest.saturating_mul(most).saturating_mul(shrinks);
        if text.len() > if self.cut { bytes } else { bytes.min(limits::UNCUT_BYTES) } {
            return Err(too_long());
        }
        let ids = self.encode_beginning(text, special, most)?;
        if ids.len() <= most { Ok(ids) } else { Err(too_long()) }
    }

    /// Returns the first tokens of a text: at least `most`, if it has that many. The rest is not
    /// processed.
    pub fn encode_beginning(
        &self,
        text: &str,
        special: bool,
        most: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        if !self.cut {
            return self.encode_whole(text, special);
        }
        let mut ids = Vec::new();
        for part in windows::parts(text) {
            ids.extend(self.encode_whole(part, special)?);
            if ids.len() > most {
                break;
            }
        }
        Ok(ids)
    }

    fn encode_whole(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let recogniser = self.added.recogniser(special);
        let mut pieces = recogniser.extract_and_normalize(self.normalizer.as_ref(), text);
        self.pre_tokenizer.apply(&mut pieces, text.len()).map_err(TokenizerError::from_crate)?;
        let mut ids = Vec::new();
        for (word, _, added) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match added {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => self.encode_word(word, &mut ids)?,
            }
        }
        Ok(ids)
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        // The model would silently drop such a character.
        if !self.missing.is_empty()
            && let Some(&(_, byte)) = self.missing.iter().find(|(char, _)| word.contains(*char))
        {
            return Err(TokenizerError::Byte { byte });
        }
        self.model.encode(word, ids);
        Ok(())
    }

    /// Returns the text of tokens, including special ones. Bytes that are not UTF-8 become U+FFFD;
    /// unknown ids are skipped.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|id| self.piece(*id)).flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the bytes of one token, which may contain partial characters.
    pub fn piece(&self, id: u32) -> Option<Vec<u8>> {
        match self.added.get(id) {
            Some(added) => Some(added.content.clone().into_bytes()),
            None => self.model.vocabulary.text(id).map(|token| self.alphabet.bytes(token)),
        }
    }

    /// Returns the id of a token in the notation of the vocabulary (`Ġthe` for ` the`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.model.vocabulary.id(token.as_bytes()))
    }

    /// Highest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether an id is a control token, which is never part of a text.
    pub fn is_special(&self, id: u32) -> bool {
        self.added.get(id).is_some_and(|token| token.special)
    }

    /// Whether a token ends a turn: it is [`eos`](Self::eos), has the name that a family uses, or
    /// is named by `generation_config.json`.
    pub fn ends_turn(&self, id: u32) -> bool {
        self.eos == Some(id) || self.ends.contains(&id)
    }

    /// Note for the user about how the tokenizer was read.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the model expects [`bos`](Self::bos) before a text.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Jinja template for conversations.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}
