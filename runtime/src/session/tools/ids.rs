//! Unguessable identifiers of calls.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::format::Format;

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Generates identifiers, keyed by the system's random numbers (SipHash of a counter).
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    keys: [RandomState; 2],
    made: u64,
}

impl Ids {
    /// Returns `call_` and 24 characters, or the nine characters that Mistral's templates require.
    pub fn next(&mut self, format: Format) -> String {
        let (prefix, len) = match format {
            Format::MistralNemo | Format::Mistral => ("", 9),
            _ => ("call_", 24),
        };
        let mut id = prefix.to_string();
        for at in 0..len {
            let mut hasher = self.keys[at % 2].build_hasher();
            hasher.write_u64(self.made);
            hasher.write_usize(at);
            id.push(LETTERS[(hasher.finish() % 62) as usize].into());
        }
        self.made += 1;
        id
    }
}
