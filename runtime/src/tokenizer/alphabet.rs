//! Representation of bytes in the texts of tokens.
//!
//! Byte-level BPE (GPT-2 and later) writes each byte as one printable character. SentencePiece BPE
//! writes text, with `▁` for a space and `<0x0A>` for a byte that is not in any other token.

use std::sync::LazyLock;

/// Notation of the tokens in a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// One character per byte.
    ByteLevel,
    /// Text with `▁` for spaces, and `<0xNN>`.
    ByteFallback,
}

/// Character of each byte: the byte itself if it is printable, otherwise the next unused one from
/// U+0100 on.
static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut chars = ['\0'; 256];
    let mut next = 0x100u32;
    for (byte, slot) in (0..=255u8).zip(&mut chars) {
        *slot = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => byte.into(),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or_default()
            }
        };
    }
    chars
});

/// Byte of each character below U+0144.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, &char) in (0..=255u8).zip(CHARS.iter()) {
        bytes[char as usize] = Some(byte);
    }
    bytes
});

/// Returns the character for a byte in byte-level BPE.
pub(super) fn byte_to_char(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

fn char_to_byte(char: char) -> Option<u8> {
    BYTES.get(char as usize).copied().flatten()
}

/// Returns the token for a byte in BPE with byte fallback.
pub(super) fn fallback_token(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

impl Alphabet {
    /// Returns the bytes of a token.
    pub(super) fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            // A token with characters outside the alphabet is literal text.
            Self::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(char_to_byte).collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::ByteFallback => match fallback_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
        }
    }
}
