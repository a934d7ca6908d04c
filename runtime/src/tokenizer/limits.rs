//! Ceilings on what a tokenizer may ask for. Real ones come nowhere near.

/// Tokens, and so also ids.
pub const TOKENS: usize = 1 << 20;
/// Merges.
pub const MERGES: usize = 1 << 21;
/// Bytes of one token.
pub const TOKEN_BYTES: usize = 4096;
/// Bytes of one token where merges follow from scores; SentencePiece's own are far shorter.
pub const PIECE_BYTES: usize = 256;
/// Bytes of a tokenizer.json.
pub const JSON_BYTES: u64 = 256 << 20;
/// Bytes of a tokenizer_config.json.
pub const CONFIG_BYTES: u64 = 16 << 20;
/// Bytes of a chat template.
pub const TEMPLATE_BYTES: u64 = 1 << 20;
/// Normalizers, sequences flattened.
pub const NORMALIZERS: usize = 4;
/// Pre-tokenizers, sequences flattened.
pub const PRE_TOKENIZERS: usize = 16;
/// Sequences within sequences.
pub const SEQUENCE_DEPTH: usize = 4;
/// Bytes of a regex.
pub const REGEX_BYTES: usize = 4096;
/// Bytes of a compiled regex of the registry.
pub const KNOWN_COMPILED_BYTES: usize = 4 << 20;
/// Bytes of an unknown one. The registry's take half as much.
pub const COMPILED_BYTES: usize = 512 << 10;
/// Parts that counts such as `{3}` add to unknown regexes with a look-ahead, all of a tokenizer together.
pub const REGEX_EXPANDED: usize = 40;
/// Steps back that one match of an unknown regex may take; a sane one takes a handful.
pub const BACKTRACKS: usize = 10_000;
/// Steps back that one match of a regex of the registry may take.
pub const KNOWN_BACKTRACKS: usize = 1_000_000;
/// Bytes of text that an unknown regex may see at once.
pub const REGEX_TEXT_BYTES: usize = 1 << 20;
/// Bytes of a text that cannot be cut into parts, where its tokens have a limit.
pub const UNCUT_BYTES: usize = 2 << 20;
/// Words whose tokens are remembered.
pub const CACHED_WORDS: usize = 2048;
