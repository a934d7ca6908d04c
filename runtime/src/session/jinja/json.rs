//! The filter `tojson`, with the output format of Python's `json.dumps`.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

/// Maximum size of one serialized value in bytes.
const MAX_BYTES: usize = 32 << 20;

/// Python's `json.dumps` with its options. The depth of the value has already been checked.
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::BadSerialization, format!("tojson: {error}"))
    };
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let mut value = serde_json::to_value(value).map_err(|error| bad(&error))?;
    if sorted == Some(true) {
        value.sort_all_objects();
    }
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.clone(), key.clone()],
        Some(_) => return Err(bad(&"separators are two strings")),
        None => [if indent.is_some() { "," } else { ", " }.into(), ": ".into()],
    };
    let indent = indent.map(|indent| indent.min(16));
    let mut out = String::new();
    let dump = Dump { item, key, indent, ascii: ascii == Some(true) };
    match dump.write(&value, 0, &mut out) {
        Some(()) => Ok(out),
        None => Err(bad(&format!("the text is longer than {MAX_BYTES} bytes"))),
    }
}

/// Serializes a value as `json.dumps` does without options.
pub(in crate::session) fn dump(value: &Json) -> String {
    let (item, key) = (", ".into(), ": ".into());
    let mut out = String::new();
    let _ = Dump { item, key, indent: None, ascii: false }.write(value, 0, &mut out);
    out
}

/// JSON formatting options.
struct Dump {
    /// Separators between items and after a key.
    item: String,
    key: String,
    /// Number of spaces per indentation level, with each item on its own line.
    indent: Option<usize>,
    /// Whether to escape non-ASCII characters.
    ascii: bool,
}

impl Dump {
    /// Returns `None` if the output would become longer than [`MAX_BYTES`].
    fn write(&self, value: &Json, depth: usize, out: &mut String) -> Option<()> {
        match value {
            Json::Array(items) => {
                let items = items.iter().map(|item| (None, item));
                self.list(['[', ']'], items, depth, out)?;
            }
            Json::Object(items) => {
                let items = items.iter().map(|(key, item)| (Some(key), item));
                self.list(['{', '}'], items, depth, out)?;
            }
            Json::String(text) => self.string(text, out),
            other => out.push_str(&other.to_string()),
        }
        (out.len() <= MAX_BYTES).then_some(())
    }

    fn list<'a>(
        &self,
        [open, close]: [char; 2],
        items: impl ExactSizeIterator<Item = (Option<&'a String>, &'a Json)>,
        depth: usize,
        out: &mut String,
    ) -> Option<()> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        let any = items.len() > 0;
        out.push(open);
        for (number, (key, item)) in items.enumerate() {
            if number > 0 {
                out.push_str(&self.item);
            }
            line(depth + 1, out);
            if let Some(key) = key {
                self.string(key, out);
                out.push_str(&self.key);
            }
            self.write(item, depth + 1, out)?;
        }
        if any {
            line(depth, out);
        }
        out.push(close);
        Some(())
    }

    fn string(&self, text: &str, out: &mut String) {
        for c in Json::from(text).to_string().chars() {
            if self.ascii && !c.is_ascii() {
                out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
            } else {
                out.push(c);
            }
        }
    }
}
