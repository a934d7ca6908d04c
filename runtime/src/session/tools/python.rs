//! Calls in Python's syntax, with keyword arguments that are literals.

use serde_json::{Map, Number, Value};

use super::cursor::{Cursor, Read, Stop};
use super::json::is_number;
use super::read::{Partial, name};
use super::value;

/// Maximum nesting depth.
const MAX_DEPTH: usize = 64;

/// Reads `f(a="x", b=[1, None])`.
pub(super) fn call(text: &mut Cursor, call: &mut Partial) -> Read<()> {
    call.name =
        Some(name(text.until(&["("], super::offer::MAX_NAME, "a call has no arguments")?)?);
    arguments(text, call)
}

/// Reads Llama's `tool.call(a="x")`.
pub(super) fn built_in(text: &mut Cursor, call: &mut Partial) -> Read<()> {
    let found = text.until(&[".call("], super::offer::MAX_NAME, "code calls no tool")?;
    call.name = Some(name(found)?);
    arguments(text, call)
}

fn arguments(text: &mut Cursor, call: &mut Partial) -> Read<()> {
    loop {
        text.space();
        if text.take(")")? {
            value::close(&mut call.arguments);
            return Ok(());
        }
        if !call.arguments.is_empty() {
            text.expect(",", "arguments are not separated")?;
            text.space();
        }
        let rest = text.rest();
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).ok_or(Stop::More)?;
        text.at += len;
        text.space();
        text.expect("=", "an argument has no name")?;
        let key = Some(&rest[..len]).filter(|key| !key.is_empty());
        let key = key.ok_or(Stop::Wrong("an argument has no name"))?;
        let found = literal(text, 0)?;
        value::key(&mut call.arguments, key);
        call.arguments.push_str(&found.to_string());
    }
}

/// Returns the next character after white space.
fn peek(text: &mut Cursor) -> Read<char> {
    text.space();
    text.rest().chars().next().ok_or(Stop::More)
}

fn literal(text: &mut Cursor, depth: usize) -> Read<Value> {
    if depth > MAX_DEPTH {
        return Err(Stop::Wrong("an argument nests too deep"));
    }
    match peek(text)? {
        '"' | '\'' => string(text).map(Value::String),
        '[' => list(text, ']', depth).map(Value::Array),
        '(' => list(text, ')', depth).map(Value::Array),
        '{' => dictionary(text, depth).map(Value::Object),
        _ => word(text),
    }
}

fn list(text: &mut Cursor, close: char, depth: usize) -> Read<Vec<Value>> {
    text.at += 1;
    let mut items = Vec::new();
    loop {
        if peek(text)? == close {
            text.at += 1;
            return Ok(items);
        }
        if !items.is_empty() {
            text.expect(",", "elements are not separated")?;
            if peek(text)? == close {
                continue;
            }
        }
        items.push(literal(text, depth + 1)?);
    }
}

fn dictionary(text: &mut Cursor, depth: usize) -> Read<Map<String, Value>> {
    text.at += 1;
    let mut items = Map::new();
    loop {
        if peek(text)? == '}' {
            text.at += 1;
            return Ok(items);
        }
        if !items.is_empty() {
            text.expect(",", "elements are not separated")?;
            if peek(text)? == '}' {
                continue;
            }
        }
        let key = match literal(text, depth + 1)? {
            Value::String(key) => key,
            other => other.to_string(),
        };
        peek(text)?;
        text.expect(":", "a key has no value")?;
        items.insert(key, literal(text, depth + 1)?);
    }
}

fn word(text: &mut Cursor) -> Read<Value> {
    let rest = text.rest();
    let len = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)))
        .ok_or(Stop::More)?;
    text.at += len;
    match &rest[..len] {
        "True" | "true" => Ok(true.into()),
        "False" | "false" => Ok(false.into()),
        "None" | "null" => Ok(Value::Null),
        word => {
            let plain = word.replace('_', "");
            let plain = plain.strip_prefix('+').unwrap_or(&plain);
            // `.5` and `1.` are numbers in Python.
            let plain = match plain.split_once('.') {
                Some((whole, fraction)) => {
                    let or = |digits: &str, other: &str| {
                        if digits.is_empty() { other.into() } else { digits.to_string() }
                    };
                    format!("{}.{}", or(whole, "0"), or(fraction, "0"))
                }
                None => plain.into(),
            };
            let number = Some(plain).filter(|plain| is_number(plain));
            let number = number.and_then(|plain| serde_json::from_str::<Number>(&plain).ok());
            number.map(Value::Number).ok_or(Stop::Wrong("an argument is no literal"))
        }
    }
}

fn string(text: &mut Cursor) -> Read<String> {
    let rest = text.rest();
    let quote = &rest[..1];
    let triple = quote.repeat(3);
    let end = match text.take(&triple) {
        Ok(true) => triple.as_str(),
        // An empty string so far, or the start of triple quotes.
        Err(_) if rest.len() < 3 => return Err(Stop::More),
        _ => {
            text.at += 1;
            quote
        }
    };
    let mut out = String::new();
    loop {
        if text.take(end)? {
            return Ok(out);
        }
        let next = text.rest().chars().next().ok_or(Stop::More)?;
        text.at += next.len_utf8();
        match next {
            '\\' => escape(text, &mut out)?,
            super::cursor::TOKEN => {}
            next => out.push(next),
        }
    }
}

fn escape(text: &mut Cursor, out: &mut String) -> Read<()> {
    let next = text.rest().chars().next().ok_or(Stop::More)?;
    text.at += next.len_utf8();
    let plain = match next {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        '0' => Some('\0'),
        '\\' | '\'' | '"' => Some(next),
        _ => None,
    };
    if let Some(plain) = plain {
        out.push(plain);
        return Ok(());
    }
    let digits = match next {
        '\n' => return Ok(()),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => {
            // Python keeps unknown escapes unchanged.
            out.extend(['\\', next]);
            return Ok(());
        }
    };
    let wrong = Stop::Wrong("an escape is no character");
    let code = text.rest().get(..digits).ok_or(Stop::More)?;
    let mut code = u32::from_str_radix(code, 16).map_err(|_| wrong)?;
    text.at += digits;
    // A surrogate pair, as JSON writes it.
    if (0xd800..0xdc00).contains(&code) {
        let low = text.rest().get(..6).ok_or(Stop::More)?;
        let low = low.strip_prefix("\\u").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let low = low.filter(|low| (0xdc00..0xe000).contains(low)).ok_or(wrong)?;
        text.at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    out.push(char::from_u32(code).ok_or(wrong)?);
    Ok(())
}
