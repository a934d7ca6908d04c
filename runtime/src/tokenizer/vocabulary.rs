//! The vocabulary of a model: the texts of tokens by id, and ids by text.

use std::borrow::Cow;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::definition::shown;
use super::{TokenizerError, limits};

/// Tokens with unique texts and ids. All texts are in one string, so that a large vocabulary is read
/// without an allocation per token.
pub(super) struct Vocabulary {
    texts: String,
    /// Tokens by ascending id. Mostly ids have no gaps; where they do, memory is for tokens alone.
    tokens: Vec<Token>,
    /// Indices of `tokens`, by the hash of their text. Keyed at random: texts come from strangers.
    indices: HashTable<u32>,
    hasher: RandomState,
}

struct Token {
    id: u32,
    /// Start and length of the text.
    text: (usize, usize),
}

impl Vocabulary {
    /// Collects tokens.
    ///
    /// # Errors
    /// If a text is empty or too long, an id too large, or either occurs twice.
    pub(super) fn new(tokens: &[(Cow<'_, str>, u32)]) -> Result<Self, TokenizerError> {
        let mut this = Self {
            texts: String::with_capacity(tokens.iter().map(|(text, _)| text.len()).sum()),
            tokens: Vec::with_capacity(tokens.len()),
            indices: HashTable::with_capacity(tokens.len()),
            hasher: RandomState::new(),
        };
        let mut by_id: Vec<_> = tokens.iter().collect();
        by_id.sort_by_key(|(_, id)| *id);
        for (text, id) in by_id {
            check(text, *id)?;
            this.push(text, *id)?;
        }
        Ok(this)
    }

    fn push(&mut self, text: &str, id: u32) -> Result<(), TokenizerError> {
        let Self { texts, tokens, indices, hasher } = self;
        if tokens.last().is_some_and(|last| last.id == id) {
            return Err(duplicate(format!("the id of token {}", shown(text)), id));
        }
        let hash_of = |text: &str| hasher.hash_one(text.as_bytes());
        let text_of = |index: u32| {
            let (start, len) = tokens[index as usize].text;
            &texts[start..start + len]
        };
        let same = |index: &u32| text_of(*index) == text;
        match indices.entry(hash_of(text), same, |index| hash_of(text_of(*index))) {
            Entry::Occupied(_) => return Err(duplicate(format!("token {}", shown(text)), id)),
            // At most as many as ids.
            Entry::Vacant(free) => free.insert(tokens.len() as u32),
        };
        tokens.push(Token { id, text: (texts.len(), text.len()) });
        texts.push_str(text);
        Ok(())
    }

    fn text_of(&self, token: &Token) -> &str {
        let (start, len) = token.text;
        &self.texts[start..start + len]
    }

    /// Returns the text of a token.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        let without_gaps = self.tokens.get(id as usize).filter(|token| token.id == id);
        let token = without_gaps.or_else(|| {
            let index = self.tokens.binary_search_by_key(&id, |token| token.id).ok()?;
            self.tokens.get(index)
        });
        token.map(|token| self.text_of(token))
    }

    /// Returns the token with a text. No token has bytes that are not UTF-8.
    pub(super) fn id(&self, text: &[u8]) -> Option<u32> {
        let token = |index: &u32| &self.tokens[*index as usize];
        let same = |index: &u32| self.text_of(token(index)).as_bytes() == text;
        let index = self.indices.find(self.hasher.hash_one(text), same)?;
        Some(token(index).id)
    }

    /// Iterates over all tokens by ascending id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.tokens.iter().map(|token| (self.text_of(token), token.id))
    }

    /// Highest id plus one.
    pub(super) fn size(&self) -> u32 {
        self.tokens.last().map_or(0, |token| token.id + 1)
    }

    /// Length of the longest text, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.tokens.iter().map(|token| token.text.1).max().unwrap_or(0)
    }
}

/// Checks the length of a token's text and its id.
pub(super) fn check(text: &str, id: u32) -> Result<(), TokenizerError> {
    if text.is_empty() || text.len() > limits::TOKEN_BYTES {
        let found = format!("a token of {} bytes", text.len());
        let allowed = format!("1 to {} bytes", limits::TOKEN_BYTES);
        return Err(TokenizerError::value(format!("id {id}"), found, allowed));
    }
    if id as usize >= limits::TOKENS {
        let allowed = format!("below {}", limits::TOKENS);
        return Err(TokenizerError::value(
            format!("the id of token {}", shown(text)),
            id.to_string(),
            allowed,
        ));
    }
    Ok(())
}

/// Error for a token or an id that occurs twice.
pub(super) fn duplicate(what: String, id: u32) -> TokenizerError {
    TokenizerError::value(what, format!("{id}, a second time"), "each token and each id once")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(tokens: &[(&str, u32)]) -> Result<Vocabulary, TokenizerError> {
        let tokens: Vec<_> = tokens.iter().map(|(text, id)| (Cow::Borrowed(*text), *id)).collect();
        Vocabulary::new(&tokens)
    }

    #[test]
    fn texts_and_ids_lead_to_each_other() {
        let found = vocabulary(&[("b", 7), ("ab", 0), ("é", 3)]).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [("ab", 0), ("é", 3), ("b", 7)]);
        assert!(found.iter().all(|(text, id)| found.id(text.as_bytes()) == Some(id)));
        assert_eq!(
            (found.text(1), found.text(8), found.id(b"a"), found.id(b"")),
            (None, None, None, None)
        );
        assert_eq!(found.id(&"é".as_bytes()[..1]), None, "half a character");
        assert_eq!((found.size(), found.longest()), (8, 2));
    }

    #[test]
    fn a_text_and_an_id_occur_once() {
        for (tokens, what) in [
            ([("a", 5), ("b", 5)], "the id of token \"b\""),
            ([("a", 0), ("a", 1)], "token \"a\""),
            ([("a", 0), ("", 1)], "0 bytes"),
            ([("a", 0), ("b", 1 << 20)], "below"),
        ] {
            let error = vocabulary(&tokens).err().unwrap().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
