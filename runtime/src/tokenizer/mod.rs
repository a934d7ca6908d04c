//! Text to tokens and back: byte-level BPE, from a checkpoint's `tokenizer.json` or from GGUF metadata.
//!
//! The `tokenizers` crate does the cutting. What is read here besides is what it hides or does not check: the bytes
//! of each token, so that text can be streamed; limits; and the names of begin and end.

use std::path::{Path, PathBuf};

use crate::gguf::GgufError;

mod byte_level;
mod folder;
mod metadata;
pub mod pre_tokenizers;
mod vocabulary;

use vocabulary::Vocabulary;

/// Bytes a `tokenizer.json` may have.
const MAX_JSON: usize = 128 << 20;

/// Why there is no tokenizer, or no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in a tokenizer is not what it may be.
    #[error("tokenizer: {what} is {found}; allowed: {allowed}")]
    Value {
        /// What.
        what: String,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: String,
    },
    /// Something is absent.
    #[error("tokenizer: {what} is missing")]
    Missing {
        /// What.
        what: String,
    },
    /// It is not JSON.
    #[error("tokenizer: {0}")]
    Json(#[from] serde_json::Error),
    /// Metadata of the wrong type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The library refuses it.
    #[error("tokenizer: {0}")]
    Library(String),
}

impl TokenizerError {
    fn value(what: impl Into<String>, found: impl ToString, allowed: impl ToString) -> Self {
        // What is found comes from the file, and may be as long as it.
        let found: String = found.to_string().chars().take(60).collect();
        Self::Value { what: what.into(), found, allowed: allowed.to_string() }
    }

    fn missing(what: impl Into<String>) -> Self {
        Self::Missing { what: what.into() }
    }
}

/// A tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The `tokenizer.json` it was made from.
    json: Vec<u8>,
    vocabulary: Vocabulary,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    chat_template: Option<String>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Begin and end of sentence are not in it.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        if json.len() > MAX_JSON {
            let found = format!("{} bytes", json.len());
            return Err(TokenizerError::value(
                "tokenizer.json",
                found,
                format!("{MAX_JSON} bytes"),
            ));
        }
        let value = serde_json::from_slice(json)?;
        let vocabulary = Vocabulary::read(&value)?;
        let inner = tokenizers::Tokenizer::from_bytes(json);
        let inner = inner.map_err(|error| TokenizerError::Library(error.to_string()))?;
        for (text, id) in vocabulary.added() {
            let found = inner.token_to_id(text);
            if found != Some(id) {
                let what = format!("the id of the added token {text:?}");
                return Err(TokenizerError::value(
                    what,
                    id,
                    format!("{found:?}, the next free one"),
                ));
            }
        }
        Ok(Self {
            inner,
            json: json.to_vec(),
            vocabulary,
            bos: None,
            eos: None,
            add_bos: false,
            chat_template: None,
        })
    }

    /// Reads a checkpoint folder: `tokenizer.json`, and `tokenizer_config.json` for what is not in it.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        folder::read(folder)
    }

    /// Reads GGUF metadata: a whole `tokenizer.json` where the file carries one, else ggml's own keys.
    pub fn from_metadata(metadata: &crate::gguf::Metadata) -> Result<Self, TokenizerError> {
        metadata::read(metadata)
    }

    /// Writes both kinds of GGUF metadata.
    pub fn write_metadata(&self, metadata: &mut crate::gguf::Metadata) {
        metadata::write(self, metadata);
    }

    /// The tokens of a text. Special tokens in it are recognised; none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|error| TokenizerError::Library(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, special ones among them; U+FFFD where bytes are no text.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().filter_map(|id| self.vocabulary.piece(*id)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of one token, which need not be whole characters.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.piece(id)
    }

    /// The token of that text, as the vocabulary writes it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The highest token and one.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether a token is one of control, not of text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.is_special(id)
    }

    /// The begin-of-sentence token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sentence token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether texts begin with the begin-of-sentence token.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The Jinja template for conversations.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}
