//! Pre-tokenizer of a tokenizer.json: splits a text into words before BPE.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper, SplitDelimiterBehavior,
};

use super::TokenizerError;
use super::limits;
use super::pre_tokenizers::GPT2;
use super::split::{Clock, RegexSplit};

const ALLOWED: &str =
    "Split, ByteLevel, Digits, Punctuation, Metaspace, WhitespaceSplit, and Sequence of them";

/// Steps that split a text into words, in order.
#[derive(Debug, Default)]
pub(super) struct PreTokenizer {
    steps: Vec<Step>,
    /// Number of parts of unknown regexes.
    regex_parts: usize,
}

#[derive(Debug)]
enum Step {
    Split(RegexSplit),
    /// Adds a space before the first word.
    PrefixSpace,
    /// Replaces each byte with its character.
    Bytes,
    /// Isolates single digits, or runs of digits.
    Digits(PreTokenizerWrapper, bool),
    /// Another step of the `tokenizers` crate, without a regex.
    Other(PreTokenizerWrapper),
}

#[derive(Deserialize)]
struct SplitJson {
    pattern: PatternJson,
    behavior: SplitDelimiterBehavior,
    #[serde(default)]
    invert: bool,
}

#[derive(Deserialize)]
enum PatternJson {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
struct ByteLevelJson {
    #[serde(default)]
    add_prefix_space: bool,
    #[serde(default = "yes")]
    use_regex: bool,
}

fn yes() -> bool {
    true
}

impl PreTokenizer {
    /// Loads the pre-tokenizer of a tokenizer.json; without one, texts are not split.
    pub(super) fn load(value: Option<&Value>) -> Result<Self, TokenizerError> {
        let mut this = Self::default();
        if let Some(value) = value.filter(|value| !value.is_null()) {
            this.add(value, 0)?;
        }
        Ok(this)
    }

    fn add(&mut self, value: &Value, depth: usize) -> Result<(), TokenizerError> {
        if self.steps.len() >= limits::PRE_TOKENIZERS {
            let found = format!("more than {}", limits::PRE_TOKENIZERS);
            let allowed = format!("at most {}", limits::PRE_TOKENIZERS);
            return Err(TokenizerError::value("the number of pre-tokenizers", found, allowed));
        }
        match value["type"].as_str().unwrap_or_default() {
            "Sequence" if depth < limits::SEQUENCE_DEPTH => {
                for part in value["pretokenizers"].as_array().into_iter().flatten() {
                    self.add(part, depth + 1)?;
                }
            }
            "Split" => {
                let json = SplitJson::deserialize(value)?;
                let pattern = match json.pattern {
                    PatternJson::Regex(pattern) => pattern,
                    PatternJson::String(text) => fancy_regex::escape(&text).into_owned(),
                };
                let split = RegexSplit::new(&pattern, json.behavior, json.invert)?;
                self.regex_parts += split.parts();
                if self.regex_parts > limits::REGEX_PARTS {
                    let (found, allowed) = (self.regex_parts, limits::REGEX_PARTS);
                    let (found, allowed) = (format!("{found}"), format!("at most {allowed}"));
                    let what = "the number of parts of the pre-tokenizer's regexes";
                    return Err(TokenizerError::value(what, found, allowed));
                }
                self.steps.push(Step::Split(split));
            }
            "ByteLevel" => {
                let json = ByteLevelJson::deserialize(value)?;
                if json.add_prefix_space {
                    self.steps.push(Step::PrefixSpace);
                }
                if json.use_regex {
                    let behavior = SplitDelimiterBehavior::Isolated;
                    self.steps.push(Step::Split(RegexSplit::new(GPT2, behavior, false)?));
                }
                self.steps.push(Step::Bytes);
            }
            "Digits" => {
                let individual = value["individual_digits"].as_bool().unwrap_or(false);
                let digits = serde_json::from_value(value.clone())?;
                self.steps.push(Step::Digits(digits, individual));
            }
            "Punctuation" | "Metaspace" | "WhitespaceSplit" => {
                self.steps.push(Step::Other(serde_json::from_value(value.clone())?));
            }
            other => {
                return Err(TokenizerError::value("pre_tokenizer", format!("{other:?}"), ALLOWED));
            }
        }
        Ok(())
    }

    /// Whether bytes are replaced with characters.
    pub(super) fn is_byte_level(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Bytes))
    }

    /// The regexes whose matches become words, in order of application; `None` if there are other
    /// kinds of steps.
    pub(super) fn regexes(&self) -> Option<Vec<&str>> {
        let mut regexes = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Step::Split(split) => regexes.push(split.isolates()?),
                Step::Digits(_, true) => regexes.push(r"\p{N}"),
                Step::Digits(_, false) => regexes.push(r"\p{N}+"),
                Step::Bytes if i + 1 == self.steps.len() => {}
                Step::Bytes | Step::PrefixSpace | Step::Other(_) => return None,
            }
        }
        Some(regexes)
    }

    /// Splits those pieces of a text into words that are not tokens yet.
    pub(super) fn apply(
        &self,
        text: &mut PreTokenizedString,
        bytes: usize,
    ) -> tokenizers::Result<()> {
        let clock = Clock::start(bytes);
        for step in &self.steps {
            match step {
                Step::Split(split) => split.apply(text, &clock)?,
                Step::PrefixSpace => text.normalize(|piece| {
                    if !piece.get().starts_with(' ') {
                        piece.prepend(" ");
                    }
                    Ok(())
                })?,
                Step::Bytes => ByteLevel::new(false, false, false).pre_tokenize(text)?,
                Step::Digits(step, _) | Step::Other(step) => step.pre_tokenize(text)?,
            }
        }
        Ok(())
    }
}
