//! Bounds on what users send: checked before anything is computed from it.

use std::time::Duration;

use super::StructuredError;

/// Bytes of a schema, grammar or list of choices.
pub const BYTES: usize = 256 << 10;
/// Depth of nested JSON.
pub const JSON_DEPTH: usize = 64;
/// Bytes of one regular expression.
pub const REGEX_BYTES: usize = 4 << 10;
/// Depth of nested groups in regular expressions and grammars.
pub const GROUP_DEPTH: usize = 100;
/// Rules of a grammar.
pub const RULES: usize = 4096;
/// Largest number in a repetition of a grammar, or number of items or properties in a schema.
pub const REPETITIONS: u64 = 10_000;
/// Largest length of a string in a schema.
pub const STRING_LENGTH: u64 = 1_000_000;
/// Choices in a list.
pub const CHOICES: usize = 4096;
/// Time to compile.
pub const COMPILE_TIME: Duration = Duration::from_secs(1);
/// Grammars that are compiled at the same time, those that take too long among them.
pub const COMPILERS: usize = 4;
/// Compiled grammars that are kept.
pub const CACHED: usize = 32;
/// States of a lexer, 1 to 2 kB each.
pub(super) const LEXER_STATES: usize = 32_000;
/// Bytes of the stack on which grammars are compiled.
pub(super) const STACK: usize = 32 << 20;

/// Refuses more than `allowed`.
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

/// Refuses regular expressions that are too long or nest too deep.
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
            // A repetition of a repetition nests, too.
            b'*' | b'+' | b'?' | b'{' if !in_class => deepest = deepest.max(depth + 1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    at_most("the depth of groups in a regular expression", deepest, GROUP_DEPTH)
}
