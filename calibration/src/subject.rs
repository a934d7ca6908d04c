//! A model under evaluation.

use std::sync::Arc;

use vaquita_runtime::model::Model;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::{Session, SessionError, SessionOptions};
use vaquita_runtime::threads::Pool;

use crate::EvalError;

/// A model with its prompter and session options.
#[derive(Clone)]
pub struct Subject {
    /// The model.
    pub model: Arc<Model>,
    /// Renders and tokenizes prompts.
    pub prompter: Prompter,
    /// Session options.
    pub options: SessionOptions,
}

impl Subject {
    /// A session on one thread, since documents run in parallel.
    pub(crate) fn session(&self) -> Session {
        Session::new(self.model.clone(), Arc::new(Pool::new(1)), self.options.clone())
    }

    /// Tokenizes texts: see [`tokenize`].
    pub(crate) fn tokenize(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EvalError> {
        tokenize(&self.prompter, self.session().context(), texts)
    }

    /// Checksum of the vocabulary: in subjects with equal fingerprints, tokens have the same
    /// meaning.
    pub(crate) fn tokenizer_fingerprint(&self) -> u32 {
        let tokenizer = self.prompter.tokenizer();
        let mut hasher = crc32fast::Hasher::new();
        for id in 0..u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX) {
            let piece = tokenizer.piece(id).unwrap_or_default();
            hasher.update(&(piece.len() as u64).to_le_bytes());
            hasher.update(&piece);
        }
        hasher.finalize()
    }

    /// The logits after each token except the last, `[tokens, vocab_size]` for a few tokens at a
    /// time, with the tokens that follow.
    pub(crate) fn chunks<'a>(
        &'a self,
        document: &'a [u32],
    ) -> impl Iterator<Item = Result<(Vec<f32>, &'a [u32]), SessionError>> + 'a {
        let mut session = self.session();
        let inputs = document[..document.len() - 1].chunks(CHUNK);
        inputs
            .zip(document[1..].chunks(CHUNK))
            .map(move |(inputs, targets)| Ok((session.feed_all(inputs)?, targets)))
    }
}

/// Number of tokens whose logits are in memory together.
pub(crate) const CHUNK: usize = 64;

/// Tokenizes texts, each after the begin-of-sentence token, truncated to the context. Texts of
/// fewer than two tokens predict nothing and are omitted.
pub(crate) fn tokenize(
    prompter: &Prompter,
    context: usize,
    texts: &[String],
) -> Result<Vec<Vec<u32>>, EvalError> {
    let mut documents = Vec::with_capacity(texts.len());
    for text in texts {
        let tokens = prompter.document_within(text, context)?;
        if tokens.len() > 1 {
            documents.push(tokens);
        }
    }
    match documents.is_empty() {
        true => Err(EvalError::Nothing { what: "a document of two tokens or more" }),
        false => Ok(documents),
    }
}
