//! Gemma 4's calls, `call:NAME{key:value,..}`: JSON but for keys, which have no quotes, and texts,
//! which are between marks.

use serde_json::Value;

use super::cursor::{Cursor, Read, Stop, TOKEN};
use super::json::is_number;
use super::offer::MAX_NAME;
use super::read::{Partial, name};
use crate::session::stop::partial_suffix;

/// Mark before and after a text.
pub(super) const QUOTE: &str = "<|\"|>";
/// Maximum nesting depth.
const MAX_DEPTH: usize = 64;

/// Reads `call:NAME{..}`; `quote` is [`QUOTE`] as it arrives.
pub(super) fn call(text: &mut Cursor, quote: &str, call: &mut Partial) -> Read<()> {
    text.expect("call:", "a call does not begin with `call:`")?;
    call.name = Some(name(text.until(&["{"], MAX_NAME, "a call has no arguments")?)?);
    members(text, quote, 0, &mut call.arguments)
}

/// Reads the members of an object and its closing bracket, and appends the object to `out`.
fn members(text: &mut Cursor, quote: &str, depth: usize, out: &mut String) -> Read<()> {
    out.push('{');
    let mut first = true;
    loop {
        text.space();
        if text.take("}")? {
            out.push('}');
            return Ok(());
        }
        if !first {
            text.expect(",", "arguments are not separated")?;
            text.space();
        }
        let key = key(text, quote)?;
        if !first {
            out.push(',');
        }
        out.push_str(&Value::from(key).to_string());
        out.push(':');
        value(text, quote, depth, out)?;
        first = false;
    }
}

/// Reads a key, with or without marks, and the colon after it.
fn key(text: &mut Cursor, quote: &str) -> Read<String> {
    const PROBLEM: &str = "an argument has no name";
    if text.take(quote)? {
        let key = text.until(&[quote], MAX_NAME, PROBLEM)?.to_string();
        text.space();
        text.expect(":", PROBLEM)?;
        return Ok(key);
    }
    let key = text.until(&[":"], MAX_NAME, PROBLEM)?.trim_end();
    match !key.is_empty() && !key.contains(['{', '}', '[', ']', ',', TOKEN, '\n']) {
        true => Ok(key.into()),
        false => Err(Stop::Wrong(PROBLEM)),
    }
}

/// Reads a value and appends it to `out`: texts as they arrive.
fn value(text: &mut Cursor, quote: &str, depth: usize, out: &mut String) -> Read<()> {
    if depth > MAX_DEPTH {
        return Err(Stop::Wrong("an argument nests too deep"));
    }
    text.space();
    if text.take(quote)? {
        return string(text, quote, out);
    }
    if text.take("{")? {
        return members(text, quote, depth + 1, out);
    }
    if text.take("[")? {
        return elements(text, quote, depth + 1, out);
    }
    word(text, out)
}

fn elements(text: &mut Cursor, quote: &str, depth: usize, out: &mut String) -> Read<()> {
    out.push('[');
    let mut first = true;
    loop {
        text.space();
        if text.take("]")? {
            out.push(']');
            return Ok(());
        }
        if !first {
            text.expect(",", "elements are not separated")?;
            out.push(',');
        }
        value(text, quote, depth, out)?;
        first = false;
    }
}

/// Reads a text up to its closing mark.
fn string(text: &mut Cursor, quote: &str, out: &mut String) -> Read<()> {
    let rest = text.rest();
    let end = rest.find(quote);
    let certain = end.unwrap_or(rest.len() - partial_suffix(rest, quote));
    let content: String = rest[..certain].chars().filter(|c| *c != TOKEN).collect();
    let quoted = Value::from(content).to_string();
    out.push_str(&quoted[..quoted.len() - usize::from(end.is_none())]);
    text.at += certain + end.map_or(0, |_| quote.len());
    end.map(drop).ok_or(Stop::More)
}

/// Reads a number, a truth value or null, as JSON or Python write it.
fn word(text: &mut Cursor, out: &mut String) -> Read<()> {
    let rest = text.rest();
    let ends = |c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c));
    let len = rest.find(ends).ok_or(Stop::More)?;
    let json = match &rest[..len] {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        word @ ("true" | "false" | "null") => word,
        number if is_number(number) => number,
        _ => return Err(Stop::Wrong("an argument is neither a text between marks nor JSON")),
    };
    out.push_str(json);
    text.at += len;
    Ok(())
}
