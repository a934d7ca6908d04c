//! SentencePiece BPE as stored in GGUF: tokens with scores, without merges; or, for Gemma 4, with
//! merges.
//!
//! A token may be formed from any two others that concatenate to it, and the token with the best
//! score is formed first. `transformers` converts such a vocabulary to merges in this way, and its
//! tokenization is the reference here.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::TokenizerError;
use super::definition::{Added, Definition, Merge, Model, Steps, Vocabulary};
use super::limits;

/// Values of the metadata keys.
pub(super) struct Keys {
    /// Normal and byte tokens, with their ids.
    pub vocab: Vec<(String, u32)>,
    /// Tokens that are matched in the text itself.
    pub added: Vec<Added>,
    /// Scores, one per id, or merges.
    pub ranking: Ranking,
    /// Token for text that no other token represents.
    pub unknown: Option<(String, u32)>,
    /// Whether a space is added before a text and after a matched token.
    pub prefix_space: bool,
}

/// Order in which tokens are formed.
pub(super) enum Ranking {
    /// Scores, one per id.
    Scores(Vec<f32>),
    /// Merges, best first.
    Merges(Vec<Merge>),
}

/// Returns the tokenizer.json equivalent to the keys.
pub(super) fn definition(keys: Keys) -> Result<Definition, TokenizerError> {
    let Keys { mut vocab, added, ranking, unknown, prefix_space } = keys;
    let merges = match ranking {
        Ranking::Scores(scores) => merges(&vocab, &scores)?,
        Ranking::Merges(merges) => merges,
    };
    let unk_token = unknown.as_ref().map(|(token, _)| token.clone());
    vocab.extend(unknown);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match prefix_space {
        true => {
            let prefix = json!({"type": "Prepend", "prepend": "▁"});
            json!({"type": "Sequence", "normalizers": [prefix, spaces]})
        }
        false => spaces,
    };
    Ok(Definition {
        version: "1.0".into(),
        added_tokens: added,
        steps: Steps { normalizer: Some(normalizer), ..Steps::default() },
        model: Model {
            kind: Some("BPE".into()),
            dropout: None,
            unk_token,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: true,
            byte_fallback: true,
            ignore_merges: false,
            vocab: Vocabulary(vocab),
            merges,
        },
    })
}

/// Returns every pair of tokens that concatenates to a third: best scores first; among equal
/// scores, those with the longer first half first.
fn merges(vocab: &[(String, u32)], scores: &[f32]) -> Result<Vec<Merge>, TokenizerError> {
    let ids: HashMap<&str, u32> = vocab.iter().map(|(token, id)| (token.as_str(), *id)).collect();
    let mut made: Vec<(f32, &str, &str)> = Vec::new();
    for (token, id) in vocab {
        if token.len() > limits::PIECE_BYTES {
            let found = format!("a token of {} bytes", token.len());
            let allowed =
                format!("at most {} where merges follow from scores", limits::PIECE_BYTES);
            return Err(TokenizerError::value(format!("id {id}"), found, allowed));
        }
        let score = scores.get(*id as usize).copied().unwrap_or_default();
        // There is no order of numbers that are none, and a sort without one may panic.
        if score.is_nan() {
            let what = format!("the score of id {id}");
            return Err(TokenizerError::value(what, "NaN", "a number"));
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let halves = cuts.filter_map(|(a, b)| Some(((*ids.get(a)?, *ids.get(b)?), a, b)));
        let mut halves: Vec<_> = halves.collect();
        halves.sort_unstable();
        made.extend(halves.into_iter().map(|(_, a, b)| (score, a, b)));
        if made.len() > limits::MERGES {
            let (found, limit) = (made.len(), limits::MERGES);
            let (found, allowed) = (format!("{found} or more"), format!("at most {limit}"));
            return Err(TokenizerError::value("the number of merges", found, allowed));
        }
    }
    let chars = |text: &str| text.chars().count();
    made.sort_by(|(score, a, b), (other, c, d)| {
        let best = other.partial_cmp(score).unwrap_or(Ordering::Equal);
        best.then_with(|| (chars(c), chars(d)).cmp(&(chars(a), chars(b))))
    });
    Ok(made.into_iter().map(|(_, a, b)| Merge(a.into(), b.into())).collect())
}

/// Returns scores from which the same merges can be derived, provided that every way to form a
/// token was a merge: the negative rank of a token's first merge. Tokens without a merge come last.
pub(super) fn scores(tokens: &[String], merges: &[Merge]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, Merge(a, b)) in merges.iter().enumerate() {
        ranks.entry(format!("{a}{b}")).or_insert(rank);
    }
    tokens.iter().map(|token| -(*ranks.get(token).unwrap_or(&merges.len()) as f32)).collect()
}

/// Whether a tokenizer.json adds a space before a text.
pub(super) fn has_prefix_space(steps: &Steps) -> bool {
    fn any(step: &Value) -> bool {
        match step["type"].as_str() {
            Some("Prepend") => true,
            Some("Metaspace") => step["prepend_scheme"].as_str() != Some("never"),
            Some("Sequence") => ["normalizers", "pretokenizers"]
                .iter()
                .any(|key| step[key].as_array().is_some_and(|steps| steps.iter().any(any))),
            _ => false,
        }
    }
    [&steps.normalizer, &steps.pre_tokenizer].into_iter().flatten().any(any)
}
