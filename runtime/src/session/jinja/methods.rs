//! String methods and filters that cost more than the engine charges for them.

use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Maximum number of digits of a width or precision in a format.
const WIDTH_DIGITS: usize = 4;
/// Bytes per unit of fuel.
const BYTES_PER_FUEL: usize = 64;
/// Bytes charged per list item.
const ITEM_BYTES: usize = 48;

/// Python's methods of strings, lists and dictionaries.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let argument = args.first().and_then(Value::as_str);
        match method {
            "split" => charge_items(state, pieces(text, argument))?,
            "splitlines" => charge_items(state, pieces(text, Some("\n")))?,
            // Each character is compared with all characters of the argument.
            "strip" | "lstrip" | "rstrip" => {
                charge(state, text.len().saturating_mul(argument.map_or(0, str::len)))?;
            }
            "format" if has_long_number(text) => {
                let what = format!("a format has a number of more than {WIDTH_DIGITS} digits");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
            _ => {}
        }
    }
    unknown_method_callback(state, value, method, args)
}

/// The filter `split`.
pub(super) fn split(
    state: &State,
    value: &Value,
    separator: Option<Arc<str>>,
    most: Option<i64>,
) -> Result<Value, Error> {
    charge_items(state, pieces(value.as_str().unwrap_or_default(), separator.as_deref()))?;
    filters::split(value, separator, most)
}

/// The filter `lines`.
pub(super) fn lines(state: &State, value: &Value) -> Result<Value, Error> {
    charge_items(state, pieces(value.as_str().unwrap_or_default(), Some("\n")))?;
    filters::lines(value)
}

/// Upper bound on the number of pieces that a text is split into.
fn pieces(text: &str, separator: Option<&str>) -> usize {
    match separator {
        Some(separator) => text.matches(separator).count() + 1,
        None => text.split_whitespace().count(),
    }
}

fn charge_items(state: &State, items: usize) -> Result<(), Error> {
    charge(state, items.saturating_mul(ITEM_BYTES))
}

fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)
}

fn has_long_number(format: &str) -> bool {
    let digits = format.split(|c: char| !c.is_ascii_digit());
    digits.map(|digits| digits.trim_start_matches('0').len()).any(|len| len > WIDTH_DIGITS)
}
