//! Splits long texts into parts, so that memory does not grow with the text: the `tokenizers` crate
//! uses a hundred times the size of a text.
//!
//! A part ends after a letter, before a single space or line break that is followed by another
//! letter. No pre-tokenizer of the registry joins them or looks further ahead, so the tokens are
//! the same as for the whole text.

use super::alphabet::Alphabet;
use super::{Tokenizer, pre_tokenizers};

/// Target length of a part, in bytes; a part extends to the next possible cut.
const PART: usize = 64 << 10;

impl Tokenizer {
    /// Whether texts can be split this way.
    pub(super) fn can_be_cut(&self) -> bool {
        let known = |regexes: Vec<&str>| regexes.iter().all(|r| pre_tokenizers::is_known_regex(r));
        let normalizer = self.steps.normalizer.as_ref().filter(|normalizer| !normalizer.is_null());
        // An added token must not match across a cut.
        let added = |(_, token): (u32, &tokenizers::AddedToken)| {
            let ends_with_letter = token.content.ends_with(char::is_alphabetic);
            let joins = token.single_word || token.rstrip && ends_with_letter;
            !joins && !token.content.contains(char::is_whitespace)
        };
        self.alphabet == Alphabet::ByteLevel
            && self.pre_tokenizer.regexes().is_some_and(known)
            && normalizer.is_none_or(|normalizer| normalizer["type"] == "NFC")
            && self.added.iter().all(added)
    }
}

/// Iterates over the parts of a text.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (part, after) = rest.split_at(cut(rest).unwrap_or(rest.len()));
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// Returns the end of the first part of a text; `None` if there is no cut.
fn cut(text: &str) -> Option<usize> {
    let from = text.floor_char_boundary(PART);
    let mut chars = text[from..].char_indices();
    let (mut a, mut b) = (chars.next()?, chars.next()?);
    for c in chars {
        if is_letter(a.1) && matches!(b.1, ' ' | '\n') && is_letter(c.1) {
            return Some(from + b.0);
        }
        (a, b) = (b, c);
    }
    None
}

/// Whether a character is one that every pre-tokenizer treats as a letter.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || ('\u{4e00}'..='\u{9fa5}').contains(&c)
}
