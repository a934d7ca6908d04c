//! DRY, "don't repeat yourself": a penalty on tokens that would continue a repetition.
//!
//! If the last `n` tokens have occurred before and `t` came after them, then `t` is penalized by
//! `multiplier * base^(n - allowed_length)`, for the longest such `n` that is at least
//! `allowed_length`. A sequence breaker ends a repetition: only tokens after the last breaker
//! count. Introduced by p-e-w in text-generation-webui (pull request 5677); this is llama.cpp's
//! variant, in which breakers are sequences of tokens.

use std::collections::{BTreeMap, HashMap};

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Largest exponent for which e^x is a finite float.
const MAX_EXPONENT: f32 = 88.722_84;
/// Maximum number of bytes used of a breaker.
const MAX_BREAKER: usize = 40;
/// Maximum number of tokens of a breaker after its first token.
const MAX_TAIL: usize = 20;

/// Options of the penalty on continuing a repetition.
#[derive(Clone, Debug, PartialEq)]
pub struct DryOptions {
    /// Scale of the penalty; 0 disables it.
    pub multiplier: f32,
    /// Growth factor of the penalty for each further repeated token.
    pub base: f32,
    /// Length in tokens of the shortest repetition that is penalized.
    pub allowed_length: usize,
    /// Number of tokens to search, including the prompt's; `None` searches all.
    pub window: Option<usize>,
    /// Tokens that end a repetition.
    pub breakers: Breakers,
}

impl Default for DryOptions {
    /// llama.cpp's defaults, which disable the penalty.
    fn default() -> Self {
        let breakers = Breakers::default();
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, window: None, breakers }
    }
}

/// Texts that end a repetition, as tokens: maps the first token of a breaker to its possible
/// remaining tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breakers(HashMap<u32, Vec<Vec<u32>>>);

impl Breakers {
    /// llama.cpp's default texts.
    pub const DEFAULT: [&str; 4] = ["\n", ":", "\"", "*"];

    /// Finds every token that contains one of `texts`, or that ends with the start of one; in the
    /// latter case, the tokens of the rest must follow.
    pub fn new<'a>(
        tokenizer: &Tokenizer,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, TokenizerError> {
        let mut heads: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        let texts: Vec<&str> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let texts: Vec<&str> =
            texts.iter().map(|t| &t[..t.floor_char_boundary(MAX_BREAKER)]).collect();
        for token in 0..tokenizer.vocab_size() as u32 {
            let Some(piece) = tokenizer.piece(token) else { continue };
            for text in &texts {
                if contains(&piece, text.as_bytes()) {
                    heads.entry(token).or_default().push(Vec::new());
                    continue;
                }
                for split in text.char_indices().map(|(at, _)| at).skip(1) {
                    if piece.ends_with(&text.as_bytes()[..split]) {
                        let mut tail = tokenizer.encode(&text[split..], false)?;
                        tail.truncate(MAX_TAIL);
                        heads.entry(token).or_default().push(tail);
                    }
                }
            }
        }
        Ok(Self(heads))
    }

    /// Number of tokens after the last breaker.
    fn tokens_after(&self, tokens: &[u32]) -> Option<usize> {
        (0..tokens.len()).rev().find_map(|at| {
            let after = &tokens[at + 1..];
            let tails = self.0.get(&tokens[at])?;
            let longest =
                tails.iter().filter(|tail| after.starts_with(tail)).map(Vec::len).max()?;
            Some(after.len() - longest)
        })
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Penalizes tokens that would continue a repetition in `history`.
pub(super) fn penalize(logits: &mut [f32], history: &[u32], options: &DryOptions) {
    if options.multiplier == 0.0 {
        return;
    }
    let window = options.window.unwrap_or(history.len()).min(history.len());
    let tokens = &history[history.len() - window..];
    let limit = options.breakers.tokens_after(tokens).unwrap_or(tokens.len());
    let allowed = options.allowed_length.max(1);
    if tokens.len() <= allowed || limit < allowed {
        return;
    }
    let mut longest = BTreeMap::new();
    for (last, length) in repetitions(tokens).into_iter().enumerate() {
        let length = length.min(limit);
        if length >= allowed {
            let entry = longest.entry(tokens[last + 1]).or_insert(length);
            *entry = length.max(*entry);
        }
    }
    let most = match options.base > 1.000_001 {
        true => (MAX_EXPONENT / libm::logf(options.base)).floor(),
        false => f32::INFINITY,
    };
    for (token, length) in longest {
        if let Some(logit) = logits.get_mut(token as usize) {
            let exponent = ((length - allowed) as f32).min(most);
            *logit -= options.multiplier * libm::powf(options.base, exponent);
        }
    }
}

/// Returns, for each position except the last, the length of the longest common suffix of the
/// tokens up to that position and all tokens. This is the Z function of the reversed sequence, in
/// linear time (Gusfield, "Algorithms on Strings, Trees and Sequences", 1.4).
fn repetitions(tokens: &[u32]) -> Vec<usize> {
    let n = tokens.len();
    let back = |i: usize| tokens[n - 1 - i];
    let mut z = vec![0; n];
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        if i < right {
            z[i] = z[i - left].min(right - i);
        }
        while i + z[i] < n && back(z[i]) == back(i + z[i]) {
            z[i] += 1;
        }
        if i + z[i] > right {
            (left, right) = (i, i + z[i]);
        }
    }
    z.reverse();
    z.pop();
    z
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn penalties(history: &[u32], options: &DryOptions) -> Vec<f32> {
        let mut logits = vec![0.0; 8];
        penalize(&mut logits, history, options);
        logits.iter().map(|logit| -logit).collect()
    }

    fn on() -> DryOptions {
        DryOptions { multiplier: 0.8, ..DryOptions::default() }
    }

    #[test]
    fn a_longer_repetition_is_penalized_more() {
        // "1 2 3" came before 4, and "2 3" alone before 5: lengths 3 and 2.
        let found = penalties(&[1, 2, 3, 4, 0, 2, 3, 5, 1, 2, 3], &on());
        assert_eq!(found, [0.0, 0.0, 0.0, 0.0, 0.8 * 1.75, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn a_short_repetition_is_allowed() {
        assert_eq!(penalties(&[3, 4, 0, 3], &on()), [0.0; 8]);
        let options = DryOptions { allowed_length: 1, ..on() };
        assert_eq!(penalties(&[3, 4, 0, 3], &options)[4], 0.8);
    }

    #[test]
    fn repetitions_outside_the_window_are_not_seen() {
        let history = [1, 2, 3, 4, 0, 1, 2, 3];
        assert_eq!(penalties(&history, &DryOptions { window: Some(7), ..on() })[4], 0.8);
        assert_eq!(penalties(&history, &DryOptions { window: Some(6), ..on() }), [0.0; 8]);
    }

    #[test]
    fn a_breaker_limits_a_repetition() {
        let breakers = |head, tail: &[u32]| Breakers(HashMap::from([(head, vec![tail.to_vec()])]));
        let history = [1, 2, 3, 4, 0, 1, 2, 3];
        let with = |breakers| penalties(&history, &DryOptions { breakers, ..on() })[4];
        assert_eq!(with(Breakers::default()), 0.8 * 1.75);
        assert_eq!(with(breakers(1, &[])), 0.8);
        assert_eq!(with(breakers(1, &[2])), 0.0);
        assert_eq!(with(breakers(0, &[])), 0.8 * 1.75);
        assert_eq!(with(breakers(3, &[7])), 0.8 * 1.75);
    }

    #[test]
    fn a_long_repetition_stays_finite_and_takes_linear_time() {
        let found = penalties(&vec![1; 200_000], &on());
        assert!(found[1].is_finite() && found[1] > 1e30, "{}", found[1]);
    }

    proptest! {
        #[test]
        fn repetitions_are_common_suffixes(tokens in prop::collection::vec(0u32..3, 0..24)) {
            let expected: Vec<usize> = (0..tokens.len().saturating_sub(1))
                .map(|last| {
                    let pairs = tokens[..=last].iter().rev().zip(tokens.iter().rev());
                    pairs.take_while(|(a, b)| a == b).count()
                })
                .collect();
            prop_assert_eq!(repetitions(&tokens), expected);
        }
    }
}
