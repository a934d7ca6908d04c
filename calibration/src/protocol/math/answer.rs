//! The structure of an answer: a term, an ordered tuple or interval, a set, or words.

use super::evaluate;
use super::expression::{self, Expression};
use super::rational::Rational;
use super::units;

/// Deepest nesting of tuples and sets.
const DEEPEST: usize = 6;
/// Most members of a set or tuple that are compared.
const MOST: usize = 64;

/// A parsed answer.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A number or term.
    Term { term: Expression, percent: bool, unit: String },
    /// A tuple, point, interval, matrix or equation; brackets tell which.
    Ordered { open: char, items: Vec<Answer>, close: char },
    /// A set or list, without order.
    Set(Vec<Answer>),
    /// Anything else, without blanks and capitals.
    Words(String),
}

impl Answer {
    /// Parses a cleaned text.
    pub fn parse(text: &str) -> Self {
        match text.contains(['(', '[']) {
            true => parse(text, 0),
            false => parse(&without_separators(text), 0),
        }
    }
}

fn parse(text: &str, depth: usize) -> Answer {
    let text = text.trim();
    if depth > DEEPEST {
        return words(text);
    }
    let all = |items: Vec<&str>| -> Vec<Answer> {
        items.into_iter().take(MOST).map(|item| parse(item, depth + 1)).collect()
    };
    if let Some((left, right)) = text.split_once("\\in ").or_else(|| text.split_once('=')) {
        let equation = || Answer::Ordered { open: '=', items: all(vec![left, right]), close: '=' };
        return match is_name(left) {
            true => parse(right, depth + 1),
            false => equation(),
        };
    }
    if matches!(text, "\\emptyset" | "\\varnothing") {
        return Answer::Set(Vec::new());
    }
    if let Some(inner) = text.strip_prefix("\\{").and_then(|rest| rest.strip_suffix("\\}")) {
        return Answer::Set(all(split(inner, ",")));
    }
    let parts = split(text, "\\cup");
    if parts.len() > 1 {
        return Answer::Set(all(parts));
    }
    if let Some(rows) = matrix(text) {
        let row =
            |row: &str| Answer::Ordered { open: '(', items: all(split(row, "&")), close: ')' };
        let items = split(rows, "\\\\").into_iter().take(MOST).map(row).collect();
        return Answer::Ordered { open: 'm', items, close: 'm' };
    }
    if let Some((open, inner, close)) = bracketed(text) {
        let items = split(inner, ",");
        if items.len() > 1 {
            return Answer::Ordered { open, items: all(items), close };
        }
    }
    let listed = text.replace("\"and\"", ",").replace(" and ", ",").replace("\"or\"", ",");
    let listed = listed.replace(" or ", ",").replace(",,", ",").replace(", ,", ",");
    let items = split(&listed, ",");
    if items.len() > 1 {
        return Answer::Set(all(items));
    }
    if text.contains("\\pm") {
        let (plus, minus) = (text.replace("\\pm", "+"), text.replace("\\pm", "-"));
        return Answer::Set(all(vec![&plus, &minus]));
    }
    term(text)
}

/// A number, a term, or words.
fn term(text: &str) -> Answer {
    let letter = text.trim_matches(['"', '(', ')', ' ']);
    if letter.chars().count() == 1 && letter.chars().all(char::is_alphabetic) {
        let term = Expression::Variable(letter.into());
        return Answer::Term { term, percent: false, unit: String::new() };
    }
    let bare = ["%", "\"percent\"", "percent"].iter().find_map(|sign| text.strip_suffix(sign));
    let (source, unit) = units::split(bare.unwrap_or(text));
    match expression::parse(source).filter(|_| !has_words(source)) {
        Some(term) => Answer::Term { term, percent: bare.is_some(), unit },
        None => words(text),
    }
}

fn words(text: &str) -> Answer {
    let kept = text.chars().filter(|c| !c.is_whitespace() && *c != '"');
    let words: String = kept.flat_map(char::to_lowercase).collect();
    Answer::Words(words.trim_matches(['(', ')']).into())
}

/// Whether a text has a word: three letters in a row that are no function's name, or `no`.
fn has_words(text: &str) -> bool {
    let known = ["sqrt", "sin", "cos", "tan", "log", "exp", "pi", "ln"];
    let mut rest = text.to_string();
    while let Some(at) = rest.find('\\') {
        let after = &rest[at + 1..];
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        rest.replace_range(at..at + 1 + end, " ");
    }
    for name in known {
        rest = rest.replace(name, " ");
    }
    let mut runs = rest.split(|c: char| !c.is_alphabetic());
    runs.any(|run| run.chars().count() > 2 || run.eq_ignore_ascii_case("no"))
}

/// Whether the left side of an equation only names the right one: `x`, `x_1` or `f(x)`.
fn is_name(text: &str) -> bool {
    let text = text.trim();
    let name = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((name, argument)) if argument.chars().count() == 1 => name,
        Some(_) => return false,
        None => text,
    };
    let (letter, index) = name.split_once('_').unwrap_or((name, ""));
    letter.trim_start_matches('\\').chars().all(char::is_alphabetic)
        && !letter.is_empty()
        && (letter.starts_with('\\') || letter.chars().count() == 1)
        && index.chars().all(|c| c.is_alphanumeric() || matches!(c, '{' | '}'))
}

/// The rows of a matrix.
fn matrix(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("\\begin{")?;
    let (kind, rest) = rest.split_once('}')?;
    let rows = rest.strip_suffix('}')?.strip_suffix(kind)?.strip_suffix("\\end{")?;
    kind.ends_with("matrix").then(|| rows.trim().trim_end_matches("\\\\"))
}

/// A text that one pair of brackets encloses.
fn bracketed(text: &str) -> Option<(char, &str, char)> {
    let (open, close) = (text.chars().next()?, text.chars().last()?);
    if text.len() < 2 || !matches!(open, '(' | '[') || !matches!(close, ')' | ']') {
        return None;
    }
    let inner = &text[1..text.len() - 1];
    let mut depth = 0i32;
    for c in inner.chars() {
        depth += i32::from(matches!(c, '(' | '[')) - i32::from(matches!(c, ')' | ']'));
        if depth < 0 {
            return None;
        }
    }
    (depth == 0).then_some((open, inner, close))
}

/// The parts of a text between separators that are in no brackets.
fn split<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut parts, mut from, mut depth, mut at) = (Vec::new(), 0, 0i32, 0);
    while at < text.len() {
        let rest = &text[at..];
        if depth == 0 && rest.starts_with(separator) {
            parts.push(&text[from..at]);
            at += separator.len();
            from = at;
            continue;
        }
        let c = rest.chars().next().unwrap_or_default();
        depth += i32::from(matches!(c, '(' | '[' | '{')) - i32::from(matches!(c, ')' | ']' | '}'));
        at += c.len_utf8();
    }
    parts.push(&text[from..]);
    if parts.iter().all(|part| part.trim().is_empty()) {
        parts.clear();
    }
    parts
}

/// A text without the commas of numbers such as `12,345,678`.
fn without_separators(text: &str) -> String {
    let bytes = text.as_bytes();
    let digits =
        |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while at < text.len() {
        let first = digits(at);
        if first == 0 {
            let c = text[at..].chars().next().unwrap_or_default();
            out.push(c);
            at += c.len_utf8();
            continue;
        }
        let mut end = at + first;
        let mut number = text[at..end].to_string();
        while first <= 3 && bytes.get(end) == Some(&b',') && digits(end + 1) == 3 {
            number.push_str(&text[end + 1..end + 4]);
            end += 4;
        }
        out.push_str(&number);
        at = end;
    }
    out
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Term { term: a, percent: of_a, unit: unit_a },
                Self::Term { term: b, percent: of_b, unit: unit_b },
            ) => {
                let units = unit_a == unit_b || unit_a.is_empty() || unit_b.is_empty();
                // 50% is the same as 50 with the sign left out, and as 1/2.
                let in_hundred = |part: &Expression, whole: &Expression| {
                    hundredth(part).is_some_and(|part| evaluate::equal(&part, whole))
                };
                units
                    && (evaluate::equal(a, b)
                        || *of_a && !of_b && in_hundred(a, b)
                        || *of_b && !of_a && in_hundred(b, a))
            }
            (
                Self::Ordered { open: a, items: of_a, close: end_a },
                Self::Ordered { open: b, items: of_b, close: end_b },
            ) => a == b && end_a == end_b && of_a == of_b,
            (Self::Set(a), Self::Set(b)) => same_members(a, b),
            (Self::Set(set), one) | (one, Self::Set(set)) => {
                matches!(&set[..], [only] if only == one)
            }
            (Self::Words(a), Self::Words(b)) => a == b && !a.is_empty(),
            _ => false,
        }
    }
}

fn hundredth(term: &Expression) -> Option<Expression> {
    let hundred = Expression::Number(Rational::new(100, 1)?);
    Some(Expression::Quotient(term.clone().into(), hundred.into()))
}

/// Whether every member of one set has a partner of its own in the other.
fn same_members(a: &[Answer], b: &[Answer]) -> bool {
    let mut left: Vec<&Answer> = b.iter().collect();
    let found = |one: &Answer| {
        let at = left.iter().position(|other| *other == one);
        at.map(|at| left.swap_remove(at)).is_some()
    };
    a.len() == b.len() && a.iter().all(found)
}
