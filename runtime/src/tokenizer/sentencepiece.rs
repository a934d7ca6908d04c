//! SentencePiece BPE as stored in GGUF: tokens with scores, without merges; or, for Gemma 4, with
//! merges.
//!
//! A token may be formed from any two others that concatenate to it, and the token with the best
//! score is formed first. `transformers` converts such a vocabulary to merges in this way, and its
//! tokenization is the reference here.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::TokenizerError;
use super::definition::{Added, Definition, Merge, Model, Steps, Tokens};
use super::limits;
use super::vocabulary::Vocabulary;

/// Values of the metadata keys.
pub(super) struct Keys<'a> {
    /// Normal and byte tokens, with their ids.
    pub vocab: Vec<(Cow<'a, str>, u32)>,
    /// Tokens that are matched in the text itself.
    pub added: Vec<Added>,
    /// Scores, one per id, or merges.
    pub order: Order<'a>,
    /// Token for text that no other token represents.
    pub unknown: Option<(Cow<'a, str>, u32)>,
    /// Whether a space is added before a text and after a matched token.
    pub prefix_space: bool,
}

/// Order in which tokens are formed.
pub(super) enum Order<'a> {
    /// Scores, one per id.
    Scores(Cow<'a, [f32]>),
    /// Merges, best first.
    Merges(Vec<Merge<'a>>),
}

/// Returns the tokenizer.json equivalent to the keys.
pub(super) fn definition(keys: Keys<'_>) -> Result<Definition<'_>, TokenizerError> {
    let Keys { mut vocab, added, order, unknown, prefix_space } = keys;
    let (merges, scores) = match order {
        Order::Scores(scores) => {
            vocab.iter().try_for_each(|(token, id)| check(token, *id, &scores))?;
            (Vec::new(), Some(scores))
        }
        Order::Merges(merges) => (merges, None),
    };
    let unk_token = unknown.as_ref().map(|(token, _)| token.to_string());
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
            unk_token,
            fuse_unk: true,
            byte_fallback: true,
            vocab: Tokens(vocab),
            merges,
            scores,
            ..Model::default()
        },
    })
}

/// Checks a token that is formed by its score.
fn check(token: &str, id: u32, scores: &[f32]) -> Result<(), TokenizerError> {
    if token.len() > limits::PIECE_BYTES {
        let found = format!("a token of {} bytes", token.len());
        let allowed = format!("at most {} where merges follow from scores", limits::PIECE_BYTES);
        return Err(TokenizerError::value(format!("id {id}"), found, allowed));
    }
    // A number that is none has no place in an order.
    if score(scores, id).is_nan() {
        let what = format!("the score of id {id}");
        return Err(TokenizerError::value(what, "NaN", "a number"));
    }
    Ok(())
}

fn score(scores: &[f32], id: u32) -> f32 {
    scores.get(id as usize).copied().unwrap_or_default()
}

/// Rank of forming a token from two halves: best scores first; among equal scores, those with the
/// longer first half first, then those with the longer second half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    score: Reverse<i32>,
    chars: Reverse<[usize; 2]>,
    id: u32,
    halves: [u32; 2],
}

impl Rank {
    /// Rank of the token `id` with the ids and texts of its halves.
    pub(super) fn new(scores: &[f32], id: u32, halves: [u32; 2], texts: [&str; 2]) -> Self {
        // No NaN, and zero has one form: the order of the bits is that of the numbers.
        let bits = (score(scores, id) + 0.0).to_bits() as i32;
        let ordered = bits ^ ((bits >> 31) & i32::MAX);
        let chars = texts.map(|text| text.chars().count());
        Self { score: Reverse(ordered), chars: Reverse(chars), id, halves }
    }
}

/// Returns every pair of tokens that concatenates to a third, by rank; `None` if they are more than
/// [`limits::MERGES`]. Nothing forms the unknown token.
pub(super) fn merges(
    vocabulary: &Vocabulary,
    scores: &[f32],
    unknown: Option<u32>,
) -> Option<Vec<(u32, u32)>> {
    let mut made: Vec<Rank> = Vec::new();
    for (token, id) in vocabulary.iter().filter(|(_, id)| Some(*id) != unknown) {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        made.extend(cuts.filter_map(|(a, b)| {
            let known =
                |half: &str| vocabulary.id(half.as_bytes()).filter(|id| Some(*id) != unknown);
            Some(Rank::new(scores, id, [known(a)?, known(b)?], [a, b]))
        }));
        if made.len() > limits::MERGES {
            return None;
        }
    }
    made.sort_unstable();
    Some(made.into_iter().map(|rank| rank.halves.into()).collect())
}

/// Returns scores from which the same merges can be derived, provided that every way to form a
/// token was a merge: the negative rank of a token's first merge. Tokens without a merge come last.
pub(super) fn scores(tokens: &[String], merges: &[Merge<'_>]) -> Vec<f32> {
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
