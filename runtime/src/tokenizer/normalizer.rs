//! Normalizers of a tokenizer.json. Their effect on the length of a text is bounded.

use serde_json::Value;
use tokenizers::NormalizerWrapper;

use super::TokenizerError;
use super::limits;

const ALLOWED: &str =
    "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace of a string, and Sequence of them";
/// Maximum length of a replacement relative to the text it replaces; `▁` for a space has ratio 3.
const GROWTH: usize = 4;

/// Loads the normalizer of a tokenizer.json; `None` if there is none.
pub(super) fn load(value: Option<&Value>) -> Result<Option<NormalizerWrapper>, TokenizerError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let count = check(value, 0)?;
    if count > limits::NORMALIZERS {
        let allowed = format!("at most {}", limits::NORMALIZERS);
        return Err(TokenizerError::value("the number of normalizers", count.to_string(), allowed));
    }
    Ok(Some(serde_json::from_value(value.clone())?))
}

/// Checks a value and counts its normalizers.
fn check(value: &Value, depth: usize) -> Result<usize, TokenizerError> {
    let kind = value["type"].as_str().unwrap_or_default();
    let refuse = |found: String| Err(TokenizerError::value("normalizer", found, ALLOWED));
    match kind {
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" => Ok(1),
        "Prepend" => match value["prepend"].as_str() {
            Some(text) if text.len() <= 16 => Ok(1),
            _ => refuse("Prepend of no string, or of more than 16 bytes".into()),
        },
        "Replace" => {
            let (pattern, content) =
                (value["pattern"]["String"].as_str(), value["content"].as_str());
            match (pattern, content) {
                (Some(pattern), Some(content))
                    if !pattern.is_empty() && content.len() <= GROWTH * pattern.len() =>
                {
                    Ok(1)
                }
                (Some(_), Some(_)) => {
                    refuse(format!("Replace by text more than {GROWTH} times as long"))
                }
                _ => refuse("Replace of a regex".into()),
            }
        }
        "Sequence" if depth < limits::SEQUENCE_DEPTH => {
            let parts = value["normalizers"].as_array().map_or(&[][..], Vec::as_slice);
            parts.iter().map(|part| check(part, depth + 1)).sum()
        }
        other => refuse(format!("{other:?}")),
    }
}
