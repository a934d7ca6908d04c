//! Incremental JSON scanner: accepts objects and lists character by character and reports when one
//! is complete or invalid.

/// Maximum nesting depth.
const MAX_DEPTH: usize = 128;

/// Scans one object or list.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonScanner {
    /// Closing brackets that are still expected.
    open: Vec<char>,
    state: State,
    number: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A value is expected.
    #[default]
    Value,
    /// After `[` or `{`: an element or the end is expected.
    First,
    /// After a comma in an object: a key is expected.
    Key,
    /// After a key: a colon is expected.
    Colon,
    /// After a value: a comma or the end is expected.
    After,
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    /// In `\uXXXX`, with this number of digits remaining.
    Code {
        key: bool,
        left: u8,
    },
    /// In `true`, `false` or `null`, with this part remaining.
    Word(&'static str),
    Number,
    Done,
}

impl JsonScanner {
    /// Whether the value is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Appends `next` to `out` as valid JSON: line breaks and other control characters within
    /// strings, which models write unescaped, are escaped. Returns `Err` if `next` is not allowed
    /// here.
    pub fn push(&mut self, next: char, out: &mut String) -> Result<(), ()> {
        let in_text = matches!(self.state, State::Text { .. });
        self.step(next)?;
        match next {
            '\n' if in_text => out.push_str("\\n"),
            '\r' if in_text => out.push_str("\\r"),
            '\t' if in_text => out.push_str("\\t"),
            _ if in_text && next < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(next))),
            _ => out.push(next),
        }
        Ok(())
    }

    fn step(&mut self, next: char) -> Result<(), ()> {
        let blank = matches!(next, ' ' | '\n' | '\r' | '\t');
        let in_object = self.open.last() == Some(&'}');
        self.state = match self.state {
            State::Number if "+-.eE".contains(next) || next.is_ascii_digit() => {
                self.number.push(next);
                State::Number
            }
            State::Number => {
                if !is_number(&self.number) {
                    return Err(());
                }
                self.state = State::After;
                return self.step(next);
            }
            State::Text { key } => match next {
                '"' if key => State::Colon,
                '"' => State::After,
                '\\' => State::Escape { key },
                _ => State::Text { key },
            },
            State::Escape { key } => match next {
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => State::Text { key },
                'u' => State::Code { key, left: 4 },
                _ => return Err(()),
            },
            State::Code { key, left } if next.is_ascii_hexdigit() => match left {
                1 => State::Text { key },
                _ => State::Code { key, left: left - 1 },
            },
            State::Word(rest) => match rest.strip_prefix(next) {
                Some("") => State::After,
                Some(rest) => State::Word(rest),
                None => return Err(()),
            },
            state if blank && state != State::Done => state,
            State::Colon if next == ':' => State::Value,
            State::First | State::Key if in_object && next == '"' => State::Text { key: true },
            State::After if next == ',' => match in_object {
                true => State::Key,
                false => State::Value,
            },
            State::First | State::After if self.open.last() == Some(&next) => {
                self.open.pop();
                match self.open.is_empty() {
                    true => State::Done,
                    false => State::After,
                }
            }
            State::Value => self.begin(next)?,
            State::First if !in_object => self.begin(next)?,
            _ => return Err(()),
        };
        Ok(())
    }

    /// Handles the first character of a value.
    fn begin(&mut self, next: char) -> Result<State, ()> {
        let close = match next {
            '{' => '}',
            '[' => ']',
            // Only objects and lists can stand alone: the end of a number would not be recognized.
            _ if self.open.is_empty() => return Err(()),
            '"' => return Ok(State::Text { key: false }),
            't' => return Ok(State::Word("rue")),
            'f' => return Ok(State::Word("alse")),
            'n' => return Ok(State::Word("ull")),
            '-' | '0'..='9' => {
                self.number = next.to_string();
                return Ok(State::Number);
            }
            _ => return Err(()),
        };
        self.open.push(close);
        match self.open.len() > MAX_DEPTH {
            true => Err(()),
            false => Ok(State::First),
        }
    }
}

/// Whether `text` is a number by RFC 8259, section 6.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
        }
        None => (text, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && digits(fraction)
        && digits(exponent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the output text and the number of characters in the value; `None` if it is invalid.
    fn scan(text: &str) -> Option<(String, usize)> {
        let mut scanner = JsonScanner::default();
        let mut out = String::new();
        for (at, next) in text.chars().enumerate() {
            scanner.push(next, &mut out).ok()?;
            if scanner.is_done() {
                return Some((out, at + 1));
            }
        }
        None
    }

    #[test]
    fn a_value_ends_with_its_last_bracket() {
        assert_eq!(scan(r#"{"a": [1, -2.5e+3, "}\""], "b": {}} x"#).unwrap().1, 35);
        assert_eq!(scan("[]]").unwrap().1, 2);
    }

    #[test]
    fn line_breaks_in_texts_are_escaped() {
        assert_eq!(scan("{\n\"a\": \"b\nc\u{1}\"}").unwrap().0, "{\n\"a\": \"b\\nc\\u0001\"}");
    }

    #[test]
    fn wrong_json_is_refused() {
        for wrong in [
            "1",
            "\"a\"",
            "{a: 1}",
            "{\"a\" 1}",
            "{\"a\": 01}",
            "{\"a\": 1.}",
            "[1,]",
            "{\"a\":1,}",
            "[tru]",
            "[1}",
            "{\"a\": \"\\x\"}",
            "{\"a\": \"\\u12g4\"}",
            "[+1]",
            "{1: 2}",
            "[1 2]",
            "{\"a\": }",
            "[.5]",
        ] {
            assert_eq!(scan(wrong), None, "{wrong}");
        }
        assert_eq!(scan(&"[".repeat(200)), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde(text in r#"[\[{][\[\]{},:"a1.e\- truefalsn\\]{0,12}"#) {
            let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let found = scan(&text).is_some_and(|(_, len)| text[len..].trim().is_empty());
            prop_assert_eq!(found, expected);
        }
    }
}
