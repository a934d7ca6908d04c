//! Limits on user input, checked before the input is processed.

use std::time::Duration;

use super::StructuredError;

/// Maximum size of a schema, grammar or list of choices in bytes.
pub const BYTES: usize = 256 << 10;
/// Maximum depth of nested JSON.
pub const JSON_DEPTH: usize = 64;
/// Maximum length of one regular expression in bytes.
pub const REGEX_BYTES: usize = 4 << 10;
/// Maximum depth of nested groups in regular expressions and grammars.
pub const GROUP_DEPTH: usize = 100;
/// Maximum number of rules in a grammar.
pub const RULES: usize = 4096;
/// Maximum number in a repetition of a grammar, or number of items or properties in a schema.
pub const REPETITIONS: u64 = 10_000;
/// Maximum length of a string in a schema.
pub const STRING_LENGTH: u64 = 1_000_000;
/// Maximum number of choices in a list.
pub const CHOICES: usize = 4096;
/// Maximum time to compile.
pub const COMPILE_TIME: Duration = Duration::from_secs(1);
/// Maximum number of grammars compiled at the same time, including those that exceed the time
/// limit.
pub const COMPILERS: usize = 4;
/// Maximum number of compiled grammars in the cache.
pub const CACHED: usize = 32;
/// Maximum number of states of a lexer, 1 to 2 kB each.
pub(super) const LEXER_STATES: usize = 32_000;
/// Size in bytes of the stack on which grammars are compiled.
pub(super) const STACK: usize = 32 << 20;

/// Rejects values above `allowed`.
pub(super) fn at_most(
    what: &'static str,
    found: usize,
    allowed: usize,
) -> Result<(), StructuredError> {
    match found > allowed {
        true => Err(StructuredError::Limit { what, found, allowed }),
        false => Ok(()),
    }
}

/// Rejects regular expressions that are too long or too deeply nested.
pub(super) fn check_regex(regex: &str) -> Result<(), StructuredError> {
    at_most("the length of a regular expression in bytes", regex.len(), REGEX_BYTES)?;
    let (mut depth, mut deepest, mut in_class) = (0usize, 0, false);
    let mut bytes = regex.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'[' => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => depth += 1,
            b')' if !in_class => depth = depth.saturating_sub(1),
            // Repetitions of repetitions also nest.
            b'*' | b'+' | b'?' | b'{' if !in_class => deepest = deepest.max(depth + 1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    at_most("the depth of groups in a regular expression", deepest, GROUP_DEPTH)
}
