//! Keys of clients, compared in constant time.

use std::fmt;

use constant_time_eq::constant_time_eq;

/// Shortest key.
const SHORTEST: usize = 8;

/// Keys with the names of their holders.
#[derive(Clone, Default)]
pub struct Keys {
    keys: Vec<(String, String)>,
}

/// Reason why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key is too short or has blanks.
    #[error("the key in line {line} needs {SHORTEST} visible ASCII characters or more")]
    Weak {
        /// Line of the key, from 1.
        line: usize,
    },
    /// There is no key.
    #[error("there is no key in it: write one in a line, or NAME:KEY")]
    Empty,
}

impl Keys {
    /// Parses one key per line, as `KEY` or `NAME:KEY`; blank lines and lines that start with `#`
    /// are skipped.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = keys.len() + 1;
            let (name, key) = match line.split_once(':') {
                Some((name, key)) => (name.trim().to_string(), key.trim()),
                None => (format!("key{number}"), line),
            };
            if key.len() < SHORTEST || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(KeyError::Weak { line: at + 1 });
            }
            keys.push((name, key.to_string()));
        }
        match keys.is_empty() {
            true => Err(KeyError::Empty),
            false => Ok(Self { keys }),
        }
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Name of the holder of a key. The time depends on the lengths only.
    pub(crate) fn holder(&self, given: &str) -> Option<&str> {
        let mut found = None;
        for (name, key) in &self.keys {
            if constant_time_eq(key.as_bytes(), given.as_bytes()) {
                found = Some(name.as_str());
            }
        }
        found
    }
}

/// Shows names, never keys.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_names_and_are_not_shown() {
        let keys = Keys::parse("# ours\n\nalice: 0123456789\nabcdefghij\n").unwrap();
        assert_eq!(keys.holder("0123456789"), Some("alice"));
        assert_eq!(keys.holder("abcdefghij"), Some("key2"));
        assert_eq!(keys.holder("abcdefghi"), None);
        assert_eq!(format!("{keys:?}"), r#"["alice", "key2"]"#);
    }

    #[test]
    fn weak_keys_are_refused() {
        assert_eq!(Keys::parse("\nshort").err(), Some(KeyError::Weak { line: 2 }));
        assert_eq!(Keys::parse("has a blank").err(), Some(KeyError::Weak { line: 1 }));
        assert_eq!(Keys::parse("# none").err(), Some(KeyError::Empty));
    }
}
