//! Byte pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword
//! Units", 2016, section 3.2): a word begins as one token per character, and the two neighbours
//! that merge with the best rank become one token, until no neighbours merge.
//!
//! Ids are those of the `tokenizers` crate, whose model keeps each text twice, each merge as two
//! strings, and takes a second to build for 262,144 tokens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ahash::AHashMap;

use super::TokenizerError;
use super::alphabet::fallback_token;
use super::definition::{self, Merge};
use super::sentencepiece;
use super::vocabulary::Vocabulary;

/// A BPE model.
pub(super) struct Bpe {
    pub vocabulary: Vocabulary,
    pub ranking: Ranking,
    /// Token for characters that no other token represents; without one they are dropped.
    pub unknown: Option<u32>,
    /// Whether neighbouring unknown characters become one token.
    pub fuse_unk: bool,
    /// Whether a character without a token becomes the tokens of its bytes.
    pub byte_fallback: bool,
    /// Whether a word that is a token becomes that token, whatever its merges.
    pub ignore_merges: bool,
    /// Token of each byte, for `byte_fallback`.
    bytes: [Option<u32>; 256],
}

/// Rank and result of pairs of tokens.
type Ranks = AHashMap<(u32, u32), (u32, u32)>;

/// Which tokens merge, and in which order.
pub(super) enum Ranking {
    /// Rank and result of each pair that merges.
    Merges(Ranks),
    /// Scores by id: any two tokens that concatenate to a third merge to it, best scores first
    /// ([`sentencepiece::Rank`]).
    Scores(Vec<f32>),
}

impl Bpe {
    /// Reads the model of a tokenizer.json.
    ///
    /// # Errors
    /// If tokens are not unique, or a merge is not of tokens.
    pub(super) fn new(model: &definition::Model<'_>) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::new(&model.vocab.0)?;
        let ranking = match &model.scores {
            Some(scores) => Ranking::Scores(scores.to_vec()),
            None => Ranking::Merges(ranks(&model.merges, &vocabulary)?),
        };
        let id = |text: &str| vocabulary.id(text.as_bytes());
        let bytes = std::array::from_fn(|byte| id(&fallback_token(byte as u8)));
        Ok(Self {
            unknown: model.unk_token.as_deref().and_then(id),
            fuse_unk: model.fuse_unk,
            byte_fallback: model.byte_fallback,
            ignore_merges: model.ignore_merges,
            bytes,
            ranking,
            vocabulary,
        })
    }

    /// Returns the pairs of tokens that merge, by rank; `None` if a tokenizer.json cannot have as
    /// many as follow from scores.
    pub(super) fn merges(&self) -> Option<Vec<(u32, u32)>> {
        match &self.ranking {
            Ranking::Merges(ranks) => {
                let mut pairs: Vec<_> =
                    ranks.iter().map(|(pair, (rank, _))| (rank, *pair)).collect();
                pairs.sort_unstable();
                Some(pairs.into_iter().map(|(_, pair)| pair).collect())
            }
            Ranking::Scores(scores) => {
                sentencepiece::merges(&self.vocabulary, scores, self.unknown)
            }
        }
    }

    /// Text of the unknown token.
    pub(super) fn unknown_text(&self) -> Option<&str> {
        self.vocabulary.text(self.unknown?)
    }

    /// Adds the tokens of a word.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        if self.ignore_merges
            && let Some(id) = self.vocabulary.id(word.as_bytes())
        {
            ids.push(id);
            return;
        }
        let mut symbols = self.symbols(word);
        match &self.ranking {
            Ranking::Merges(ranks) => {
                merge(&mut symbols, |left, right| ranks.get(&(left.id, right.id)).copied());
            }
            Ranking::Scores(scores) => merge(&mut symbols, |left, right| {
                // Bytes and unknown characters are not the text that they stand for.
                if !(left.is_text && right.is_text) {
                    return None;
                }
                let end = right.start + right.len;
                let id = self.vocabulary.id(&word.as_bytes()[left.start..end])?;
                let texts = [&word[left.start..right.start], &word[right.start..end]];
                let rank = sentencepiece::Rank::new(scores, id, [left.id, right.id], texts);
                (Some(id) != self.unknown).then_some((rank, id))
            }),
        }
        ids.extend(symbols.iter().filter(|symbol| symbol.len > 0).map(|symbol| symbol.id));
    }

    /// Splits a word into the tokens of its characters.
    fn symbols(&self, word: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len());
        let mut add = |id, start, len, is_text| {
            let at = symbols.len();
            symbols.push(Symbol {
                id,
                start,
                len,
                previous: at.wrapping_sub(1),
                next: at + 1,
                is_text,
            });
        };
        let mut after_unknown = false;
        for (start, char) in word.char_indices() {
            let text = &word.as_bytes()[start..start + char.len_utf8()];
            let was_unknown = std::mem::take(&mut after_unknown);
            if let Some(id) = self.vocabulary.id(text) {
                add(id, start, text.len(), Some(id) != self.unknown);
            } else if self.byte_fallback && text.iter().all(|byte| self.byte(*byte).is_some()) {
                let bytes = text.iter().filter_map(|byte| self.byte(*byte));
                bytes.enumerate().for_each(|(i, id)| add(id, start + i, 1, false));
            } else if let Some(id) = self.unknown {
                after_unknown = true;
                if !(was_unknown && self.fuse_unk) {
                    add(id, start, text.len(), false);
                }
            }
        }
        symbols
    }

    fn byte(&self, byte: u8) -> Option<u32> {
        self.bytes[usize::from(byte)]
    }
}

/// Returns the rank and the result of each merge. Of equal pairs the last one counts.
fn ranks(merges: &[Merge<'_>], vocabulary: &Vocabulary) -> Result<Ranks, TokenizerError> {
    let mut ranks = AHashMap::with_capacity(merges.len());
    let mut joined = Vec::new();
    for (rank, Merge(left, right)) in (0u32..).zip(merges) {
        joined.clear();
        joined.extend_from_slice(left.as_bytes());
        joined.extend_from_slice(right.as_bytes());
        let id = |text: &[u8]| {
            vocabulary.id(text).ok_or_else(|| {
                let found = definition::shown(&String::from_utf8_lossy(text));
                let what = format!("a token of merge {rank}");
                TokenizerError::value(what, found, "tokens of the vocabulary")
            })
        };
        ranks.insert((id(left.as_bytes())?, id(right.as_bytes())?), (rank, id(&joined)?));
    }
    Ok(ranks)
}

/// A token within a word, in a list linked by indices.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    start: usize,
    /// Bytes of the word that it covers; 0 once it is part of the symbol before it.
    len: usize,
    previous: usize,
    next: usize,
    /// Whether the token's text is the part of the word that it covers.
    is_text: bool,
}

/// Merges neighbours, the best rank first and among equal ranks the leftmost, until `merged` knows
/// no rank and result for any of them.
fn merge<R: Ord>(symbols: &mut [Symbol], merged: impl Fn(&Symbol, &Symbol) -> Option<(R, u32)>) {
    let candidate = |symbols: &[Symbol], left: usize, right: usize| {
        let (rank, id) = merged(symbols.get(left)?, symbols.get(right)?)?;
        Some(Reverse((rank, left, id)))
    };
    let pairs = (1..symbols.len()).filter_map(|right| candidate(symbols, right - 1, right));
    let mut queue: BinaryHeap<_> = pairs.collect();
    while let Some(Reverse((_, at, id))) = queue.pop() {
        let left = &symbols[at];
        // Merges since then may have changed either neighbour.
        let right = symbols.get(left.next).filter(|_| left.len > 0);
        let Some(right) = right.filter(|right| merged(left, right).is_some_and(|m| m.1 == id))
        else {
            continue;
        };
        let (right_at, after, len) = (left.next, right.next, left.len + right.len);
        symbols[right_at].len = 0;
        symbols[at] = Symbol { id, len, next: after, ..symbols[at] };
        if let Some(after) = symbols.get_mut(after) {
            after.previous = at;
        }
        queue.extend(candidate(symbols, symbols[at].previous, at));
        queue.extend(candidate(symbols, at, after));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Model as _;
    use tokenizers::models::bpe::BPE;

    use super::definition::{Model, Tokens};
    use super::*;

    fn model<'a>(tokens: &'a [String], merges: &'a [(String, String)]) -> Model<'a> {
        let merge = |(a, b): &'a (String, String)| Merge(a.into(), b.into());
        Model {
            vocab: Tokens(tokens.iter().map(Into::into).zip(0..).collect()),
            merges: merges.iter().map(merge).collect(),
            ..Model::default()
        }
    }

    fn encode(model: &Model<'_>, word: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        Bpe::new(model).unwrap().encode(word, &mut ids);
        ids
    }

    /// Characters, and tokens that are made of two earlier ones, with these merges in any order.
    fn vocabulary() -> impl Strategy<Value = (Vec<String>, Vec<(String, String)>)> {
        let pairs = prop::collection::vec(any::<[prop::sample::Index; 2]>(), 0..24);
        pairs.prop_flat_map(|pairs| {
            let mut tokens: Vec<String> = ["a", "b", "é", "▁", "?"].map(String::from).to_vec();
            let mut merges = Vec::new();
            for halves in pairs {
                let [a, b] = halves.map(|half| half.get(&tokens).clone());
                if !tokens.contains(&format!("{a}{b}")) {
                    tokens.push(format!("{a}{b}"));
                }
                merges.push((a, b));
            }
            (Just(tokens), Just(merges).prop_shuffle())
        })
    }

    proptest! {
        #[test]
        fn ids_are_those_of_the_tokenizers_crate(
            (mut tokens, merges) in vocabulary(),
            [unknown, fuse_unk, byte_fallback, ignore_merges] in any::<[bool; 4]>(),
            word in "[abé▁?xü\u{1f600}]{0,24}",
        ) {
            if byte_fallback {
                tokens.extend((0..=255).map(fallback_token));
            }
            let ids: AHashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
            let mut theirs = BPE::builder()
                .vocab_and_merges(ids, merges.clone())
                .fuse_unk(fuse_unk)
                .byte_fallback(byte_fallback)
                .ignore_merges(ignore_merges);
            if unknown {
                theirs = theirs.unk_token("?".into());
            }
            let expected = theirs.build().unwrap().tokenize(&word).unwrap();
            let expected: Vec<u32> = expected.iter().map(|token| token.id).collect();
            let unk_token = unknown.then(|| "?".into());
            let ours = Model {
                unk_token, fuse_unk, byte_fallback, ignore_merges, ..model(&tokens, &merges)
            };
            prop_assert_eq!(encode(&ours, &word), expected);
        }

        #[test]
        fn scores_give_the_ids_of_the_merges_that_follow_from_them(
            (mut tokens, _) in vocabulary(),
            scores in prop::collection::vec(prop::sample::select(vec![-2.5, -0.0, 0.0, 1e-9, 7.0]), 300),
            word in "[abé▁?xü]{0,24}",
        ) {
            tokens.extend((0..=255).map(fallback_token));
            let all = Model {
                unk_token: Some("?".into()), byte_fallback: true, ..model(&tokens, &[])
            };
            let by_score = Model { scores: Some((&scores).into()), ..all };
            let merges = Bpe::new(&by_score).unwrap().merges().unwrap();
            let text = |id: u32| tokens[id as usize].clone();
            let merges: Vec<_> = merges.iter().map(|(a, b)| (text(*a), text(*b))).collect();
            let by_merges = Model {
                unk_token: Some("?".into()), byte_fallback: true, ..model(&tokens, &merges)
            };
            prop_assert_eq!(encode(&by_score, &word), encode(&by_merges, &word));
        }
    }

    #[test]
    fn a_merge_is_of_tokens_and_makes_one() {
        let tokens = ["a", "b", "ab"].map(String::from);
        for (merge, found) in [(("a", "c"), "\"c\""), (("c", "b"), "\"c\""), (("b", "a"), "\"ba\"")]
        {
            let merges = [(merge.0.to_string(), merge.1.to_string())];
            let error = Bpe::new(&model(&tokens, &merges)).err().unwrap().to_string();
            assert!(error.contains(found) && error.contains("merge 0"), "{error}");
        }
    }
}
