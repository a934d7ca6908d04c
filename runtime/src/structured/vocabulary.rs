//! The matcher's view of a tokenizer: a trie of the bytes of its tokens.

use std::collections::HashMap;
use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};

use super::StructuredError;
use crate::tokenizer::Tokenizer;

/// Byte that does not occur in text. The matcher treats tokens that begin with it as control
/// tokens.
const CONTROL: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// Tokens and their bytes.
pub(super) struct Vocabulary {
    pub env: TokEnv,
    /// Control tokens that do not end an answer.
    control: Vec<u32>,
}

impl Vocabulary {
    /// Creates the vocabulary of a tokenizer, in which `ends` are the tokens that end an answer.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self, StructuredError> {
        let size = tokenizer.vocab_size() as u32;
        let ends: Vec<u32> = ends.iter().copied().filter(|token| *token < size).collect();
        let first = *ends.first().ok_or(StructuredError::NoEnd)?;
        let mut words = vec![Vec::new(); size as usize];
        let mut control = Vec::new();
        let mut by_bytes: HashMap<Vec<u8>, u32> = HashMap::new();
        for token in 0..size {
            let Some(piece) = tokenizer.piece(token) else { continue };
            if tokenizer.is_special(token) || ends.contains(&token) {
                words[token as usize] = [&[CONTROL], &piece[..]].concat();
                control.extend((!ends.contains(&token)).then_some(token));
                continue;
            }
            if piece.is_empty() || piece.contains(&CONTROL) {
                continue;
            }
            // SentencePiece vocabularies have some bytes twice, as text and as a byte fallback: use
            // the text token.
            let is_fallback = |token| {
                let [byte] = piece[..] else { return false };
                tokenizer.token_to_id(&format!("<0x{byte:02X}>")) == Some(token)
            };
            match by_bytes.get(&piece).copied() {
                Some(_) if is_fallback(token) => continue,
                Some(other) if is_fallback(other) => words[other as usize].clear(),
                _ => {}
            }
            by_bytes.insert(piece.clone(), token);
            words[token as usize] = piece;
        }
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&ends);
        Ok(Self { env: Arc::new(ApproximateTokEnv::new(trie)), control })
    }

    /// Bans control tokens, even if a grammar allows them.
    pub fn without_control(&self, mask: &mut SimpleVob) {
        self.control.iter().for_each(|token| mask.disallow_token(*token));
    }
}
