//! Translates llama.cpp's grammar language (GBNF) to Lark.
//!
//! Every character becomes a separate terminal, so that a sentence is matched in all ways that the
//! grammar allows: longer terminals would be matched greedily. Tokens (`<...>`) are rejected: a
//! grammar describes text.

use std::collections::HashMap;
use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use super::StructuredError;
use super::limits::{BYTES, GROUP_DEPTH, REPETITIONS, RULES, at_most};

/// Returns a Lark grammar that matches the same texts.
pub fn to_lark(gbnf: &str) -> Result<String, StructuredError> {
    at_most("the length of the grammar in bytes", gbnf.len(), BYTES)?;
    let mut parser = Parser { rest: gbnf.chars().peekable(), line: 1, names: HashMap::new() };
    let mut rules: HashMap<usize, String> = HashMap::new();
    parser.space(true)?;
    while parser.peek().is_some() {
        let line = parser.line;
        let name = parser.name()?;
        parser.space(false)?;
        for expected in "::=".chars() {
            parser.expect(expected)?;
        }
        parser.space(true)?;
        let body = parser.alternatives(0)?;
        let id = parser.id(name.clone(), line);
        if rules.insert(id, body).is_some() {
            return Err(parser.at(line, format!("the rule `{name}` is defined twice")));
        }
        at_most("the number of rules", rules.len(), RULES)?;
        match parser.peek() {
            None | Some('\n' | '\r') => parser.space(true)?,
            Some(other) => return Err(parser.wrong(format!("`{other}` is not expected here"))),
        }
    }
    let missing = parser.names.iter().filter(|(_, (id, _))| !rules.contains_key(id));
    if let Some((name, (_, line))) = missing.min_by_key(|(_, (id, _))| *id) {
        return Err(parser.at(*line, format!("the rule `{name}` is not defined")));
    }
    let Some((root, _)) = parser.names.get("root") else {
        return Err(parser.at(1, "there is no rule `root`".into()));
    };
    let mut lark = format!("start: r{root}\n");
    for id in 0..parser.names.len() {
        let _ = writeln!(lark, "r{id}: {}", rules[&id]); // a String takes all
    }
    Ok(lark)
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
    /// Numbers of rules, and the lines of their first occurrences.
    names: HashMap<String, (usize, usize)>,
}

impl Parser<'_> {
    fn at(&self, line: usize, problem: String) -> StructuredError {
        StructuredError::Grammar { line, problem }
    }

    fn wrong(&self, problem: impl Into<String>) -> StructuredError {
        self.at(self.line, problem.into())
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Result<char, StructuredError> {
        let next = self.rest.next().ok_or_else(|| self.wrong("the grammar ends too soon"))?;
        self.line += usize::from(next == '\n');
        Ok(next)
    }

    fn expect(&mut self, expected: char) -> Result<(), StructuredError> {
        match self.next()? {
            found if found == expected => Ok(()),
            found => Err(self.wrong(format!("`{found}` instead of `{expected}`"))),
        }
    }

    /// Skips blanks and comments, and also line breaks if `newlines`.
    fn space(&mut self, newlines: bool) -> Result<(), StructuredError> {
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' => drop(self.next()?),
                '\n' | '\r' if newlines => drop(self.next()?),
                '#' => while self.rest.next_if(|c| !"\n\r".contains(*c)).is_some() {},
                _ => break,
            }
        }
        Ok(())
    }

    fn name(&mut self) -> Result<String, StructuredError> {
        let mut name = String::new();
        while let Some(char) =
            self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
        {
            name.push(char);
        }
        match name.is_empty() {
            true => Err(self.wrong("a rule's name is expected here")),
            false => Ok(name),
        }
    }

    fn id(&mut self, name: String, line: usize) -> usize {
        let next = self.names.len();
        self.names.entry(name).or_insert((next, line)).0
    }

    fn alternatives(&mut self, depth: usize) -> Result<String, StructuredError> {
        at_most("the depth of groups in the grammar", depth, GROUP_DEPTH)?;
        let mut all = self.sequence(depth)?;
        while self.peek() == Some('|') {
            self.next()?;
            self.space(true)?;
            all = format!("{all} | {}", self.sequence(depth)?);
        }
        Ok(all)
    }

    fn sequence(&mut self, depth: usize) -> Result<String, StructuredError> {
        let mut items: Vec<String> = Vec::new();
        while let Some(next) = self.peek() {
            let item = match next {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.next()?;
                    "/./s".into()
                }
                '(' => {
                    self.next()?;
                    self.space(true)?;
                    let inner = self.alternatives(depth + 1)?;
                    self.expect(')')?;
                    format!("({inner})")
                }
                '<' | '!' => {
                    return Err(self.wrong("tokens (`<...>`) cannot be enforced: describe text"));
                }
                '*' | '+' | '?' | '{' => {
                    let item = items
                        .pop()
                        .ok_or_else(|| self.wrong(format!("`{next}` follows nothing")))?;
                    let repeated = self.repetition()?;
                    format!("({item}){repeated}")
                }
                c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => {
                    let (line, name) = (self.line, self.name()?);
                    format!("r{}", self.id(name, line))
                }
                _ => break,
            };
            items.push(item);
            self.space(depth > 0)?;
        }
        Ok(match items.is_empty() {
            true => "\"\"".into(),
            false => items.join(" "),
        })
    }

    fn literal(&mut self) -> Result<String, StructuredError> {
        self.expect('"')?;
        let mut chars = Vec::new();
        while self.peek() != Some('"') {
            chars.push(terminal(&[(self.char()?, None)], false));
        }
        self.expect('"')?;
        Ok(match chars.is_empty() {
            true => "\"\"".into(),
            false => format!("({})", chars.join(" ")),
        })
    }

    fn class(&mut self) -> Result<String, StructuredError> {
        self.expect('[')?;
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        while self.peek() != Some(']') {
            let first = self.char()?;
            let mut last = None;
            if self.peek() == Some('-') {
                let mut ahead = self.rest.clone();
                ahead.next();
                if ahead.peek() != Some(&']') {
                    self.next()?;
                    last = Some(self.char()?);
                }
            }
            if last.is_some_and(|last| last < first) {
                return Err(self.wrong("a range of characters ends before it begins"));
            }
            ranges.push((first, last));
        }
        self.expect(']')?;
        match ranges.is_empty() {
            true => Err(self.wrong("a class without characters matches nothing")),
            false => Ok(terminal(&ranges, negated)),
        }
    }

    /// Parses a possibly escaped character of a literal or a class.
    fn char(&mut self) -> Result<char, StructuredError> {
        let first = self.next()?;
        if first != '\\' {
            return Ok(first);
        }
        let escaped = self.next()?;
        let digits = match escaped {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'n' => return Ok('\n'),
            '\\' | '"' | '[' | ']' | '-' | '^' => return Ok(escaped),
            _ => return Err(self.wrong(format!("`\\{escaped}` is not an escape"))),
        };
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.next()?.to_digit(16);
            code = code * 16
                + digit.ok_or_else(|| {
                    self.wrong(format!("`\\{escaped}` needs {digits} hexadecimal digits"))
                })?;
        }
        char::from_u32(code).ok_or_else(|| self.wrong(format!("U+{code:04X} is not a character")))
    }

    /// Parses `*`, `+`, `?`, `{m}`, `{m,}` or `{m,n}`.
    fn repetition(&mut self) -> Result<String, StructuredError> {
        let first = self.next()?;
        if first != '{' {
            return Ok(first.into());
        }
        self.space(false)?;
        let least = self.number()?;
        self.space(false)?;
        let mut most = Some(least);
        if self.rest.next_if_eq(&',').is_some() {
            self.space(false)?;
            most = match self.peek() {
                Some('}') => None,
                _ => Some(self.number()?),
            };
            self.space(false)?;
        }
        self.expect('}')?;
        match most {
            Some(most) if most < least => Err(self.wrong(format!("{{{least},{most}}} is empty"))),
            Some(most) => Ok(format!("{{{least},{most}}}")),
            None => Ok(format!("{{{least},}}")),
        }
    }

    fn number(&mut self) -> Result<u64, StructuredError> {
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let number = digits.parse().map_err(|_| self.wrong("a number is expected here"))?;
        match number > REPETITIONS {
            true => {
                Err(self.wrong(format!("{number} repetitions; at most {REPETITIONS} are allowed")))
            }
            false => Ok(number),
        }
    }
}

/// Builds a terminal for one character from ranges.
fn terminal(ranges: &[(char, Option<char>)], negated: bool) -> String {
    let code = |char: char| format!("\\u{{{:X}}}", u32::from(char));
    let range = |(first, last): &(char, Option<char>)| match last {
        Some(last) => format!("{}-{}", code(*first), code(*last)),
        None => code(*first),
    };
    let ranges: String = ranges.iter().map(range).collect();
    format!("/[{}{ranges}]/", if negated { "^" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_becomes_a_terminal() {
        let lark = to_lark("root ::= \"ab\" x-y* # two\nx-y ::=\n  [^a-c\\n] |\n  .{2,}").unwrap();
        assert_eq!(
            lark,
            "start: r1\nr0: /[^\\u{61}-\\u{63}\\u{A}]/ | (/./s){2,}\nr1: (/[\\u{61}]/ /[\\u{62}]/) (r0)*\n"
        );
    }

    #[test]
    fn errors_name_the_line() {
        for (grammar, expected) in [
            ("root ::= a", "line 1 of the grammar: the rule `a` is not defined"),
            ("a ::= \"x\"", "line 1 of the grammar: there is no rule `root`"),
            (
                "root ::= \"x\"\nroot ::= \"y\"",
                "line 2 of the grammar: the rule `root` is defined twice",
            ),
            ("root ::= \"x\n", "line 2 of the grammar: the grammar ends too soon"),
            ("root ::=\n <think>", "line 2 of the grammar: tokens"),
            ("root ::= [b-a]", "line 1 of the grammar: a range"),
            ("root ::= \"\\q\"", "line 1 of the grammar: `\\q` is not an escape"),
            ("root ::= \"\\uD800\"", "line 1 of the grammar: U+D800 is not a character"),
            ("root ::= \"a\"{3,2}", "line 1 of the grammar: {3,2} is empty"),
            ("root ::= *", "line 1 of the grammar: `*` follows nothing"),
            ("root ::= \"a\" )", "line 1 of the grammar: `)` is not expected"),
            ("root ::= \"a\"{99999}", "line 1 of the grammar: 99999 repetitions"),
        ] {
            let error = to_lark(grammar).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn sixty_thousand_groups_are_refused() {
        let deep = format!("root ::= {}", "(".repeat(60_000));
        assert!(matches!(to_lark(&deep), Err(StructuredError::Limit { .. })));
    }
}
