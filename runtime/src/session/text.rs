//! Decodes streamed tokens to characters: a token may end in the middle of a character.

/// Collects bytes and emits whole characters.
///
/// Bytes that can never become a character turn into U+FFFD, as [`String::from_utf8_lossy`] does
/// for the whole text; bytes that may still become one are held back.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    pending: Vec<u8>,
}

impl TextStream {
    /// Returns the characters that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut at = 0;
        loop {
            let rest = &self.pending[at..];
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    at = self.pending.len();
                    break;
                }
                Err(error) => error,
            };
            let valid = &rest[..error.valid_up_to()];
            text.push_str(&String::from_utf8_lossy(valid));
            at += valid.len();
            match error.error_len() {
                Some(bad) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    at += bad;
                }
                None => break,
            }
        }
        self.pending.drain(..at);
        text
    }

    /// Returns the rest at the end: U+FFFD for an incomplete character.
    pub fn flush(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn streamed(pieces: &[&[u8]]) -> Vec<String> {
        let mut stream = TextStream::default();
        let mut out: Vec<String> = pieces.iter().map(|piece| stream.push(piece)).collect();
        out.push(stream.flush());
        out
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let whale = "🐋".as_bytes();
        assert_eq!(streamed(&[&whale[..1], &whale[1..3], &whale[3..]]), ["", "", "🐋", ""]);
    }

    #[test]
    fn a_character_that_breaks_off_is_replaced() {
        assert_eq!(streamed(&[b"a\xf0\x9f", b"b"]), ["a", "\u{fffd}b", ""]);
        assert_eq!(streamed(&[b"a\xf0\x9f"]), ["a", "\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_is_that_of_the_whole(
            bytes in prop::collection::vec(prop_oneof![Just(b'a'), 0x80u8..=0xff], 0..40),
            cut in 0usize..40,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(streamed(&[head, tail]).concat(), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_half_character_is_ever_given_out(text in "\\PC{0,12}", cut in 0usize..40) {
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            for piece in streamed(&[head, tail]) {
                prop_assert!(!piece.contains(char::REPLACEMENT_CHARACTER) || text.contains(char::REPLACEMENT_CHARACTER));
            }
        }
    }
}
