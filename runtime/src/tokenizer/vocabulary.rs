//! The vocabulary of a model: the texts of tokens by id, and ids by text.

use std::borrow::Cow;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::definition::shown;
use super::{TokenizerError, limits};

/// Tokens with unique texts and ids. All texts are in one string: a vocabulary of 262,144 tokens is
/// read in a tenth of the time that strings of their own take.
pub(super) struct Vocabulary {
    texts: String,
    /// Start and length of each id's text; length 0 for ids without a token.
    places: Vec<(usize, usize)>,
    /// Ids, by the hash of their text. Keyed at random: texts come from strangers.
    ids: HashTable<u32>,
    hasher: RandomState,
}

impl Vocabulary {
    /// Collects tokens.
    ///
    /// # Errors
    /// If a text is empty or too long, an id too large, or either occurs twice.
    pub(super) fn new(tokens: &[(Cow<'_, str>, u32)]) -> Result<Self, TokenizerError> {
        let mut this = Self {
            texts: String::with_capacity(tokens.iter().map(|(text, _)| text.len()).sum()),
            places: Vec::with_capacity(tokens.len()),
            ids: HashTable::with_capacity(tokens.len()),
            hasher: RandomState::new(),
        };
        for (text, id) in tokens {
            check(text, *id)?;
            this.insert(text, *id)?;
        }
        Ok(this)
    }

    fn insert(&mut self, text: &str, id: u32) -> Result<(), TokenizerError> {
        let index = id as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, (0, 0));
        }
        if self.places[index].1 > 0 {
            return Err(duplicate(format!("the id of token {}", shown(text)), id));
        }
        let Self { texts, places, ids, hasher } = self;
        let hash_of = |text: &str| hasher.hash_one(text.as_bytes());
        let text_of = |id: u32| {
            let (start, len) = places[id as usize];
            &texts[start..start + len]
        };
        let same = |other: &u32| text_of(*other) == text;
        match ids.entry(hash_of(text), same, |id| hash_of(text_of(*id))) {
            Entry::Occupied(_) => return Err(duplicate(format!("token {}", shown(text)), id)),
            Entry::Vacant(free) => free.insert(id),
        };
        places[index] = (texts.len(), text.len());
        texts.push_str(text);
        Ok(())
    }

    /// Returns the text of a token.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        let &(start, len) = self.places.get(id as usize)?;
        (len > 0).then(|| &self.texts[start..start + len])
    }

    /// Returns the token with a text. No token has bytes that are not UTF-8.
    pub(super) fn id(&self, text: &[u8]) -> Option<u32> {
        let same = |id: &u32| {
            let (start, len) = self.places[*id as usize];
            &self.texts.as_bytes()[start..start + len] == text
        };
        self.ids.find(self.hasher.hash_one(text), same).copied()
    }

    /// Iterates over all tokens by ascending id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.size()).filter_map(|id| Some((self.text(id)?, id)))
    }

    /// Highest id plus one.
    pub(super) fn size(&self) -> u32 {
        // Ids are below `limits::TOKENS`.
        self.places.len() as u32
    }

    /// Length of the longest text, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.places.iter().map(|(_, len)| *len).max().unwrap_or(0)
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
            ([("a", 0), ("b", 0)], "the id of token \"b\""),
            ([("a", 0), ("a", 1)], "token \"a\""),
            ([("a", 0), ("", 1)], "0 bytes"),
            ([("a", 0), ("b", 1 << 20)], "below"),
        ] {
            let error = vocabulary(&tokens).err().unwrap().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
