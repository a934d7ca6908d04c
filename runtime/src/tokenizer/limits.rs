//! Limits on the resources of a tokenizer, far above real ones.

/// Number of tokens, and thus of ids.
pub const TOKENS: usize = 1 << 20;
/// Number of merges.
pub const MERGES: usize = 1 << 21;
/// Bytes of one token.
pub const TOKEN_BYTES: usize = 4096;
/// Bytes of one token if merges are derived from scores; SentencePiece's own limit is far lower.
pub const PIECE_BYTES: usize = 256;
/// Bytes of a tokenizer.json.
pub const JSON_BYTES: u64 = 256 << 20;
/// Bytes of a tokenizer_config.json.
pub const CONFIG_BYTES: u64 = 16 << 20;
/// Bytes of a chat template.
pub const TEMPLATE_BYTES: u64 = 1 << 20;
/// Number of normalizers, with sequences flattened.
pub const NORMALIZERS: usize = 4;
/// Number of pre-tokenizers, with sequences flattened.
pub const PRE_TOKENIZERS: usize = 16;
/// Nesting depth of sequences.
pub const SEQUENCE_DEPTH: usize = 4;
/// Bytes of a regex.
pub const REGEX_BYTES: usize = 4096;
/// Bytes of a compiled regex from the registry.
pub const KNOWN_COMPILED_BYTES: usize = 4 << 20;
/// Bytes of a compiled unknown regex. Those of the registry take half as much.
pub const COMPILED_BYTES: usize = 512 << 10;
/// Parts of unknown regexes, over all regexes of a tokenizer: classes, and what counts such as `{3}`
/// add. Published tokenizers have about 20.
pub const REGEX_PARTS: usize = 48;
/// Backtracking steps per match of an unknown regex; a reasonable one takes a handful.
pub const BACKTRACKS: usize = 10_000;
/// Backtracking steps per match of a regex from the registry.
pub const KNOWN_BACKTRACKS: usize = 1_000_000;
/// Bytes of text that an unknown regex may process at once.
pub const REGEX_TEXT_BYTES: usize = 1 << 20;
/// Bytes of a text that cannot be split into parts, if the number of its tokens is limited.
pub const UNCUT_BYTES: usize = 2 << 20;
/// Number of words whose tokens are cached.
pub const CACHED_WORDS: usize = 2048;
