//! Jinja as `transformers` sets it up for chat templates: whitespace, `tojson`, `strftime_now`, `raise_exception`,
//! `generation` blocks, methods of Python's strings and dictionaries. Templates come with model files and are not
//! trusted: fuel bounds what they compute.

use std::borrow::Cow;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value as Json;

/// Steps a template may take.
const FUEL: u64 = 20_000_000;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// What templates run in. `now` is the time they are told, in seconds since 1970.
pub(super) fn environment<'a>(now: u64) -> Environment<'a> {
    let mut environment = Environment::new();
    let mut syntax = environment.syntax().clone();
    syntax = syntax.to_builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or(syntax);
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<(), _> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| strftime(&format, now));
    environment.add_filter("tojson", to_json);
    environment.add_test("iterable", |value: &Value| {
        let kind = value.kind();
        kind != ValueKind::None && (kind == ValueKind::String || value.try_iter().is_ok())
    });
    environment
}

/// `{% generation %}` blocks mark what a model is trained on and render as what is in them.
pub(super) fn without_generation_blocks(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut pieces = source.split("{%");
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.push_str("{%");
        let (tag, rest) = piece.split_once("%}").unwrap_or((piece, ""));
        let (name, plain) = match tag.trim_matches(['-', '+']).trim() {
            "generation" => ("generation", "if true"),
            "endgeneration" => ("endgeneration", "endif"),
            _ => ("", ""),
        };
        match name {
            "" => out.push_str(piece),
            _ => out.extend([&tag.replacen(name, plain, 1), "%}", rest]),
        }
    }
    Cow::Owned(out)
}

/// Python's `strftime` of a time in UTC, as far as templates use it; what is not known stays as it is written.
fn strftime(format: &str, now: u64) -> String {
    let (days, seconds) = (now / 86_400, now % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let hour_of_12 = (hour + 11) % 12 + 1;
    let of_year = days - days_before(year) + 1;
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days as usize + 4) % 7]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let rest = chars.as_str();
        let unpadded = rest.starts_with('-');
        if unpadded {
            chars.next();
        }
        let two = |n: u64| if unpadded { n.to_string() } else { format!("{n:02}") };
        let part = match chars.next() {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('j') => {
                if unpadded {
                    of_year.to_string()
                } else {
                    format!("{of_year:03}")
                }
            }
            Some('H') => two(hour),
            Some('I') => two(hour_of_12),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('B') => month_name.into(),
            Some('b') => month_name[..3].into(),
            Some('A') => day_name.into(),
            Some('a') => day_name[..3].into(),
            Some('%') => "%".into(),
            Some(other) => format!("%{}{other}", if unpadded { "-" } else { "" }),
            None => "%".into(),
        };
        out.push_str(&part);
    }
    out
}

/// Days from 1970 to the first of January of a year.
fn days_before(year: u64) -> u64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400 - 719_162
}

/// Year, month and day of the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (mut month, mut day) = (1, days - days_before(year));
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

/// `json.dumps` of Python, with its options.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
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
    Dump { item, key, indent, ascii: ascii == Some(true) }.write(&value, 0, &mut out);
    Ok(out)
}

/// How JSON is written.
struct Dump {
    /// What stands between items, and after a key.
    item: String,
    key: String,
    /// Items on lines of their own, by so many spaces further in.
    indent: Option<usize>,
    /// Escape all but ASCII.
    ascii: bool,
}

impl Dump {
    fn write(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Array(items) => {
                let items = items.iter().map(|item| (None, item));
                self.list(['[', ']'], items, depth, out);
            }
            Json::Object(items) => {
                let items = items.iter().map(|(key, item)| (Some(key), item));
                self.list(['{', '}'], items, depth, out);
            }
            Json::String(text) => self.string(text, out),
            other => out.push_str(&other.to_string()),
        }
    }

    fn list<'a>(
        &self,
        [open, close]: [char; 2],
        items: impl ExactSizeIterator<Item = (Option<&'a String>, &'a Json)>,
        depth: usize,
        out: &mut String,
    ) {
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
            self.write(item, depth + 1, out);
        }
        if any {
            line(depth, out);
        }
        out.push(close);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        let source = without_generation_blocks(source);
        let environment = environment(1_709_251_199); // 2024-02-29 23:59:59
        environment.render_str(&source, ()).unwrap()
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = r#"{"z": 1, "a": [true, none, "é😀<\n"], "e": {}, "l": []}"#;
        let text = |options: &str| render(&format!("{{{{ {value} | tojson{options} }}}}"));
        assert_eq!(text(""), r#"{"z": 1, "a": [true, null, "é😀<\n"], "e": {}, "l": []}"#);
        let ascii = r#"{"z": 1, "a": [true, null, "\u00e9\ud83d\ude00<\n"], "e": {}, "l": []}"#;
        assert_eq!(text("(ensure_ascii=true)"), ascii);
        let tight = r#"{"a":[true,null,"é😀<\n"],"e":{},"l":[],"z":1}"#;
        assert_eq!(text("(sort_keys=true, separators=(',', ':'))"), tight);
        let lines = "{\n  \"z\": 1,\n  \"a\": [\n    true,\n    null,\n    \"é😀<\\n\"\n  ],\n  \"e\": {},\n  \"l\": []\n}";
        assert_eq!(text("(indent=2)"), lines);
    }

    #[test]
    fn the_time_is_written_as_python_writes_it() {
        let format = "{{ strftime_now('%Y-%m-%d %-d %H:%M:%S %I%p %A %a, %B %b %j %y %% %Q') }}";
        let expected = "2024-02-29 29 23:59:59 11PM Thursday Thu, February Feb 060 24 % %Q";
        assert_eq!(render(format), expected);
        assert_eq!(strftime("%d %b %Y", 0), "01 Jan 1970");
        assert_eq!(strftime("%Y-%m-%d", 4_107_542_399), "2100-02-28");
        assert_eq!(strftime("%Y-%m-%d", 4_107_542_400), "2100-03-01");
        assert_eq!(strftime("%Y-%m-%d %j", 1_735_603_200), "2024-12-31 366");
    }

    #[test]
    fn nothing_is_not_iterable() {
        let test = |value: &str| render(&format!("{{{{ {value} is iterable }}}}"));
        for (value, expected) in
            [("none", "False"), ("3", "False"), ("'a'", "True"), ("{}", "True")]
        {
            assert_eq!(test(value), expected, "{value}");
        }
    }

    #[test]
    fn generation_blocks_render_as_what_is_in_them() {
        let source = "a {%- generation -%} b {%- endgeneration %} c {{ 'generation' }}";
        assert_eq!(render(source), "ab c generation");
    }
}
