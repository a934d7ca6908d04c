//! Checks Lark grammars of users against limits, and rejects constructs that reach beyond text.

use super::StructuredError;
use super::limits::{BYTES, GROUP_DEPTH, REGEX_BYTES, at_most};

/// Checks a grammar before it is compiled.
pub(super) fn check(grammar: &str) -> Result<(), StructuredError> {
    at_most("the length of the grammar in bytes", grammar.len(), BYTES)?;
    let refuse = |at: usize, problem: &str| {
        let line = grammar[..at].matches('\n').count() + 1;
        Err(StructuredError::Grammar { line, problem: problem.into() })
    };
    if let Some(at) = grammar.find("x-guidance").or(grammar.find("%llguidance")) {
        return refuse(at, "options of the matcher cannot be set");
    }
    let mut depth = 0usize;
    let mut rest = grammar.char_indices().peekable();
    while let Some((at, char)) = rest.next() {
        match char {
            '"' | '/' if !(char == '/' && grammar[at..].starts_with("//")) => {
                let mut length = 0;
                while let Some((_, inner)) = rest.next() {
                    length += inner.len_utf8();
                    match inner {
                        '\\' => drop(rest.next()),
                        '\n' => break,
                        _ if inner == char => break,
                        _ => {}
                    }
                }
                if char == '/' {
                    at_most("the length of a regular expression in bytes", length, REGEX_BYTES)?;
                    super::limits::check_regex(&grammar[at..(at + length).min(grammar.len())])?;
                }
            }
            '#' | '/' => while rest.next_if(|(_, char)| *char != '\n').is_some() {},
            '<' => return refuse(at, "a grammar cannot hold tokens (`<...>`): describe text"),
            '(' | '[' | '{' => {
                depth += 1;
                at_most("the depth of groups in the grammar", depth, GROUP_DEPTH)?;
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_refused_and_texts_that_look_like_them_are_not() {
        let good = "start: \"<|im_end|>\" /<[a-z]>/ # <a>\n | \"//\" // <b>\n";
        assert_eq!(check(good), Ok(()));
        for bad in ["start: <|im_end|>", "start: \"a\"\n  <[12]>", "start: \"\\\"\" <a>"] {
            assert!(matches!(check(bad), Err(StructuredError::Grammar { .. })), "{bad}");
        }
        let line = check("start: \"a\"\nb: <x>").unwrap_err().to_string();
        assert!(line.starts_with("line 2 "), "{line}");
    }

    #[test]
    fn options_cannot_be_set() {
        assert!(check("%llguidance {\"allow_invalid_utf8\": true}\nstart: /a/").is_err());
        assert!(check("start: %json {\"x-guidance\": {\"lenient\": true}}").is_err());
    }

    #[test]
    fn sixty_thousand_groups_are_refused() {
        assert!(matches!(check(&"(".repeat(60_000)), Err(StructuredError::Limit { .. })));
        assert!(check(&format!("start: /{}/", "(".repeat(3000))).is_err());
    }
}
