//! Reads JSON bodies within limits, and notes the fields that this server does not know.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::error::{ApiError, Result};

/// Maximum depth of nested arrays and objects.
const DEPTH: usize = 64;

/// A body that was read, and its unknown fields.
pub(crate) struct Parsed<T> {
    /// The body.
    pub body: T,
    /// Paths of the fields that were ignored.
    pub unknown: BTreeSet<String>,
}

/// Parses a body.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Parsed<T>> {
    check_depth(bytes)?;
    let mut unknown = BTreeSet::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let mut ignore = |path: serde_ignored::Path| {
        unknown.insert(path.to_string());
    };
    let parsed = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut ignore));
    let body = parsed.map_err(|error| wrong(&track.path().to_string(), &error))?;
    json.end().map_err(|error| wrong(".", &error))?;
    Ok(Parsed { body, unknown })
}

fn wrong(path: &str, error: &serde_json::Error) -> ApiError {
    match path {
        "." | "?" | "" => ApiError::bad(format!("the body is not the JSON of a request: {error}")),
        path => ApiError::field(path, format!("{path}: {error}")),
    }
}

/// Rejects deeply nested JSON before anything recurses into it.
fn check_depth(bytes: &[u8]) -> Result<()> {
    let (mut depth, mut deepest, mut in_string) = (0usize, 0, false);
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    match deepest > DEPTH {
        true => Err(ApiError::bad(format!(
            "the body's JSON is nested {deepest} deep; allowed: {DEPTH}"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        list: Vec<u8>,
    }

    #[test]
    fn unknown_fields_are_noted_and_wrong_ones_are_named() {
        let parsed = parse::<Body>(br#"{"list": [1], "other": {"a": 1}}"#).unwrap();
        assert_eq!(parsed.body.list, [1]);
        assert_eq!(parsed.unknown, BTreeSet::from(["other".to_string()]));
        let error = parse::<Body>(br#"{"list": [1, 300]}"#).err().unwrap();
        assert_eq!(error.param.as_deref(), Some("list[1]"));
        assert!(parse::<Body>(br#"{"list": [1], "list": [2]}"#).is_err(), "a field given twice");
        assert!(parse::<Body>(br#"{"list": [1]} x"#).is_err());
        assert!(parse::<Body>(br#""\ud800""#).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse::<Body>(nested(63).as_bytes()).is_ok());
        let error = parse::<Body>(nested(100_000).as_bytes()).err().unwrap();
        assert!(error.message.contains("100001 deep"), "{}", error.message);
        assert!(parse::<Body>(format!("{{\"x\":\"{}\"}}", "[".repeat(100)).as_bytes()).is_ok());
    }
}
