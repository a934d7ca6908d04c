//! Long texts in parts, so that memory does not grow with the text: what the `tokenizers` crate keeps of a text is a
//! hundred times its size.
//!
//! A part ends between a letter and a single space or line break before another letter. No pre-tokenizer of the registry
//! joins those, and none looks beyond, so that the tokens are those of the whole text.

use super::alphabet::Alphabet;
use super::{Tokenizer, pre_tokenizers};

/// Bytes of a part, unless no place to cut comes.
const PART: usize = 64 << 10;

impl Tokenizer {
    /// Whether texts can be cut so.
    pub(super) fn can_be_cut(&self) -> bool {
        let known = |regexes: Vec<&str>| regexes.iter().all(|r| pre_tokenizers::is_known_regex(r));
        let normalizer = self.steps.normalizer.as_ref().filter(|normalizer| !normalizer.is_null());
        // A token that is recognised in the text must not reach over a cut.
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

/// The parts of a text.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (part, after) = rest.split_at(cut(rest).unwrap_or(rest.len()));
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// Where the first part of a text ends.
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

/// Letters of which every pre-tokenizer knows that they are.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || ('\u{4e00}'..='\u{9fa5}').contains(&c)
}
