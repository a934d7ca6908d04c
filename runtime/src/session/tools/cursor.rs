//! Reading position in the text that a model has written so far.

use serde_json::Value;

use super::json::JsonScanner;

/// Precedes the text of a marker that arrived as a token of its own: a noncharacter reserved for
/// internal use (Unicode, section 23.7), so that no text can contain it.
pub(super) const TOKEN: char = '\u{FDD0}';

/// Reason why reading stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text so far ends here.
    More,
    /// The text is not a call.
    Wrong(&'static str),
}

pub(super) type Read<T> = Result<T, Stop>;

/// Reads text from start to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips white space.
    pub fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Reads `literal` if it follows, and returns whether it did.
    pub fn take(&mut self, literal: &str) -> Read<bool> {
        let rest = self.rest();
        if rest.starts_with(literal) {
            self.at += literal.len();
            return Ok(true);
        }
        match literal.starts_with(rest) {
            true => Err(Stop::More),
            false => Ok(false),
        }
    }

    /// Reads one of `literals` if it follows, and returns whether it did.
    pub fn take_any(&mut self, literals: &[String]) -> Read<bool> {
        let mut more = false;
        for literal in literals {
            match self.take(literal) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(_) => more = true,
            }
        }
        match more {
            true => Err(Stop::More),
            false => Ok(false),
        }
    }

    /// Reads `literal`.
    pub fn expect(&mut self, literal: &str, problem: &'static str) -> Read<()> {
        match self.take(literal)? {
            true => Ok(()),
            false => Err(Stop::Wrong(problem)),
        }
    }

    /// Reads the text before one of `ends`, at most `most` bytes, and the end itself. Returns the
    /// text before the end.
    pub fn until(&mut self, ends: &[&str], most: usize, problem: &'static str) -> Read<&'a str> {
        let rest = self.rest();
        let found = ends.iter().filter_map(|end| Some((rest.find(end)?, end.len()))).min();
        match found {
            Some((len, end)) if len <= most => {
                self.at += len + end;
                Ok(&rest[..len])
            }
            None if rest.len() <= most => Err(Stop::More),
            _ => Err(Stop::Wrong(problem)),
        }
    }

    /// Reads an object or a list and appends it to `out`, as far as it has arrived.
    pub fn json(&mut self, out: &mut String) -> Read<()> {
        let mut scanner = JsonScanner::default();
        for next in self.rest().chars() {
            let read = match next {
                TOKEN => Ok(()),
                next => scanner.push(next, out),
            };
            read.map_err(|()| Stop::Wrong("its arguments are not JSON"))?;
            self.at += next.len_utf8();
            if scanner.is_done() {
                return Ok(());
            }
        }
        Err(Stop::More)
    }

    /// Reads a JSON string.
    pub fn json_text(&mut self) -> Read<String> {
        let rest = self.rest();
        if !rest.starts_with('"') {
            return Err(if rest.is_empty() {
                Stop::More
            } else {
                Stop::Wrong("a text is missing")
            });
        }
        let mut list = String::new();
        // The end of a standalone string would not be recognized, so it is read as the element of a
        // list.
        let mut scanner = JsonScanner::default();
        let _ = scanner.push('[', &mut list); // always good
        let mut escaped = false;
        for (at, next) in rest.char_indices().filter(|(_, next)| *next != TOKEN) {
            scanner.push(next, &mut list).map_err(|()| Stop::Wrong("a text is not JSON"))?;
            if at > 0 && next == '"' && !escaped {
                self.at += at + 1;
                let text = serde_json::from_str(&format!("{list}]"));
                let text = text.map(|[text]: [String; 1]| text);
                return text.map_err(|_| Stop::Wrong("a text is not JSON"));
            }
            escaped = next == '\\' && !escaped;
        }
        Err(Stop::More)
    }

    /// Reads any JSON value that is followed by a comma, a bracket or white space.
    pub fn json_value(&mut self) -> Read<Value> {
        let rest = self.rest();
        let wrong = Stop::Wrong("a value is not JSON");
        match rest.chars().next() {
            None => Err(Stop::More),
            Some('"') => self.json_text().map(Value::String),
            Some('{' | '[') => {
                let mut text = String::new();
                self.json(&mut text)?;
                serde_json::from_str(&text).map_err(|_| wrong)
            }
            Some(_) => {
                let len = rest.find([',', '}', ']', ' ', '\n']).ok_or(Stop::More)?;
                self.at += len;
                serde_json::from_str(&rest[..len]).map_err(|_| wrong)
            }
        }
    }
}
