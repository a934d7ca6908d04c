//! Splitting text by a regex that may come from a hostile file.
//!
//! Such a regex runs on a backtracking engine, which can take forever. The `tokenizers` crate stops at the engine's limit
//! in silence and goes on with wrong pieces; here it is an error, and the limits are ours: steps back per match, bytes
//! of text per piece, and time per text. Regexes of the registry are known to behave, and get wider limits.

use std::cell::Cell;
use std::time::{Duration, Instant};

use fancy_regex::{Regex, RegexBuilder};
use tokenizers::SplitDelimiterBehavior;
use tokenizers::pattern::{Invert, Pattern};
use tokenizers::{NormalizedString, Offsets, PreTokenizedString};

use super::TokenizerError;
use super::{limits, pre_tokenizers};

/// A regex, and what becomes of its matches.
#[derive(Debug)]
pub(super) struct RegexSplit {
    regex: Regex,
    behavior: SplitDelimiterBehavior,
    invert: bool,
    known: bool,
}

impl RegexSplit {
    /// A split by a regex, which is checked.
    pub(super) fn new(
        pattern: &str,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    ) -> Result<Self, TokenizerError> {
        let known = pre_tokenizers::is_known_regex(pattern);
        let refuse = |reason: String| {
            let pattern = pattern.chars().take(200).collect();
            TokenizerError::Regex { pattern, reason }
        };
        if !known {
            check(pattern).map_err(refuse)?;
        }
        let backtracks = if known { limits::KNOWN_BACKTRACKS } else { limits::BACKTRACKS };
        let regex = RegexBuilder::new(pattern).backtrack_limit(backtracks).build();
        let regex = regex.map_err(|error| refuse(error.to_string()))?;
        Ok(Self { regex, behavior, invert, known })
    }

    /// The regex, where matches and what is between them become pieces.
    pub(super) fn isolates(&self) -> Option<&str> {
        // Removing what does not match is the same, for regexes that match everything.
        let whole = matches!(
            (self.behavior, self.invert),
            (SplitDelimiterBehavior::Isolated, _) | (SplitDelimiterBehavior::Removed, true)
        );
        whole.then(|| self.regex.as_str())
    }

    /// Splits all pieces of a text that are not tokens yet.
    pub(super) fn apply(
        &self,
        text: &mut PreTokenizedString,
        clock: &Clock,
    ) -> tokenizers::Result<()> {
        text.split(|_, piece: NormalizedString| {
            let search = Search { split: self, clock };
            match self.invert {
                true => piece.split(Invert(search), self.behavior),
                false => piece.split(search, self.behavior),
            }
        })
    }
}

/// Refuses what tokenizers do not need and what makes backtracking worse.
fn check(pattern: &str) -> Result<(), String> {
    if pattern.len() > limits::REGEX_BYTES {
        let allowed = limits::REGEX_BYTES;
        return Err(format!("it has {} bytes; at most {allowed} are allowed", pattern.len()));
    }
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        if char == '\\'
            && let Some(escaped @ ('1'..='9' | 'k' | 'g' | 'K' | 'G')) = chars.next()
        {
            return Err(format!("\\{escaped} (back references, \\K, \\G) is not allowed"));
        }
    }
    for group in ["(?<", "(?P", "(?("] {
        if pattern.contains(group) {
            return Err(format!("{group} (look-behind, named groups, conditions) is not allowed"));
        }
    }
    Ok(())
}

/// How long the splitting of one text may take in all.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    allowed: Duration,
    searches: Cell<u32>,
}

impl Clock {
    /// Starts one for a text. Known regexes split a MiB in well under a second.
    pub(super) fn start(text_bytes: usize) -> Self {
        let mib = u32::try_from(text_bytes >> 20).unwrap_or(u32::MAX);
        let allowed = Duration::from_secs(10).saturating_mul(mib.saturating_add(1));
        Self { started: Instant::now(), allowed, searches: Cell::new(0) }
    }

    /// Whether the time is over; looks only now and then.
    fn is_over(&self) -> bool {
        let searches = self.searches.get().wrapping_add(1);
        self.searches.set(searches);
        searches.is_multiple_of(32) && self.started.elapsed() > self.allowed
    }
}

struct Search<'a> {
    split: &'a RegexSplit,
    clock: &'a Clock,
}

impl Search<'_> {
    fn gave_up(&self, reason: String) -> TokenizerError {
        TokenizerError::Split { pattern: self.split.regex.as_str().into(), reason }
    }
}

impl Pattern for Search<'_> {
    fn find_matches(&self, text: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if text.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        if !self.split.known && text.len() > limits::REGEX_TEXT_BYTES {
            let allowed = limits::REGEX_TEXT_BYTES;
            let reason =
                format!("{} bytes without a special token; allowed: {allowed}", text.len());
            return Err(self.gave_up(reason).into());
        }
        let mut pieces = Vec::new();
        let mut end = 0;
        for found in self.split.regex.find_iter(text) {
            let found = found.map_err(|error| self.gave_up(error.to_string()))?;
            if self.clock.is_over() {
                let reason = format!("it takes more than {:?}", self.clock.allowed);
                return Err(self.gave_up(reason).into());
            }
            if found.start() > end {
                pieces.push(((end, found.start()), false));
            }
            pieces.push(((found.start(), found.end()), true));
            end = found.end();
        }
        if end < text.len() {
            pieces.push(((end, text.len()), false));
        }
        Ok(pieces)
    }
}
