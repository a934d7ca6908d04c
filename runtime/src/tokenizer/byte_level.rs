//! The alphabet of byte-level BPE: every byte has a printable character (GPT-2's `bytes_to_unicode`).

/// The bytes that stand for themselves, in order.
fn printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The byte of a character; `None` for one that is not in the alphabet.
fn byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => Some(code as u8).filter(|byte| printable(*byte)),
        // The others follow from 256 on, in order.
        code => {
            let index = usize::try_from(code.checked_sub(256)?).ok()?;
            (0..=255u8).filter(|byte| !printable(*byte)).nth(index)
        }
    }
}

/// The bytes that a token of the vocabulary stands for. One with other characters stands for itself.
pub(super) fn decode(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let all = (0..0x200).filter_map(|code| byte(char::from_u32(code)?));
        let mut bytes: Vec<u8> = all.collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn known_tokens_have_their_bytes() {
        assert_eq!(decode("Ġwhale"), b" whale");
        assert_eq!(decode("ĊĊ"), b"\n\n");
        assert_eq!(decode("ðŁĲ"), [0xf0, 0x9f, 0x90]);
        assert_eq!(decode("<｜User｜>"), "<｜User｜>".as_bytes());
    }
}
