//! Splits text by a regex that may come from a hostile file.
//!
//! Such a regex runs on a backtracking engine, which can take exponential time. At the engine's
//! limit, the `tokenizers` crate silently stops and continues with wrong pieces; here it is an
//! error. The limits are ours: backtracking steps per match, bytes of text per piece, and time per
//! text. Regexes of the registry are known to be safe and have higher limits.

use std::cell::Cell;
use std::iter::Peekable;
use std::str::Chars;
use std::time::{Duration, Instant};

use fancy_regex::{Regex, RegexBuilder};
use tokenizers::SplitDelimiterBehavior;
use tokenizers::pattern::{Invert, Pattern};
use tokenizers::{NormalizedString, Offsets, PreTokenizedString};

use super::TokenizerError;
use super::{limits, pre_tokenizers};

/// Pattern of white space: before a word, all but the last space; otherwise all of it. Regexes of
/// the registry end with this pattern. The part before it needs no look-ahead, so it runs in linear
/// time.
const SPACES: &str = r"|\s+(?!\S)|\s+";

/// Interpretation of white-space matches.
#[derive(Clone, Copy, Debug)]
struct Spaces {
    /// Whether an alternative matches white space up to a line break, so that the remaining white
    /// space contains no line break.
    breaks_apart: bool,
}

/// A regex and the treatment of its matches.
#[derive(Debug)]
pub(super) struct RegexSplit {
    /// Regex as in the file.
    pattern: String,
    regex: Regex,
    /// Set if the pattern ends with [`SPACES`], which the compiled regex then omits.
    spaces: Option<Spaces>,
    behavior: SplitDelimiterBehavior,
    invert: bool,
    known: bool,
    /// Number of parts of an unknown regex.
    parts: usize,
}

impl RegexSplit {
    /// Checks and compiles a regex.
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
        let parts = if known { 0 } else { parts(pattern) };
        if !known {
            check(pattern).map_err(refuse)?;
        }
        if parts > limits::REGEX_PARTS {
            let allowed = limits::REGEX_PARTS;
            return Err(refuse(format!("it has {parts} parts; at most {allowed} are allowed")));
        }
        let backtracks = if known { limits::KNOWN_BACKTRACKS } else { limits::BACKTRACKS };
        let compiled_bytes =
            if known { limits::KNOWN_COMPILED_BYTES } else { limits::COMPILED_BYTES };
        let head = pattern.strip_suffix(SPACES).filter(|_| known);
        let spaces = head.map(|head| Spaces { breaks_apart: head.contains(r"|\s*[") });
        // Possessive quantifiers make no difference there: what follows cannot match what they
        // consumed.
        let compiled = match head {
            Some(head) => format!(r"{}|\s+", head.replace("]?+", "]?").replace("]++", "]+")),
            None => pattern.into(),
        };
        let regex = RegexBuilder::new(&compiled)
            .backtrack_limit(backtracks)
            .delegate_size_limit(compiled_bytes)
            .delegate_dfa_size_limit(compiled_bytes)
            .build();
        let regex = regex.map_err(|error| refuse(error.to_string()))?;
        Ok(Self { pattern: pattern.into(), regex, spaces, behavior, invert, known, parts })
    }

    /// Finds the first match at or after `from`.
    fn find(&self, text: &str, from: usize) -> Result<Option<(usize, usize)>, String> {
        let found = self.regex.find_from_pos(text, from).map_err(|error| error.to_string())?;
        let Some(found) = found else { return Ok(None) };
        let (start, end) = (found.start(), found.end());
        let last = found.as_str().char_indices().next_back().map_or(0, |(at, _)| at);
        let of_spaces = self.spaces.is_some_and(|spaces| {
            let breaks = spaces.breaks_apart && found.as_str().contains(['\r', '\n']);
            !breaks && found.as_str().chars().all(char::is_whitespace)
        });
        // The last white-space character belongs to the next word.
        let shorter = of_spaces && last > 0 && end < text.len();
        Ok(Some((start, if shorter { start + last } else { end })))
    }

    /// Number of parts of the regex if it is unknown, otherwise 0.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// The regex, if its matches and the text between them become pieces.
    pub(super) fn isolates(&self) -> Option<&str> {
        // Removing unmatched text is equivalent for regexes that match everything.
        let whole = matches!(
            (self.behavior, self.invert),
            (SplitDelimiterBehavior::Isolated, _) | (SplitDelimiterBehavior::Removed, true)
        );
        whole.then_some(self.pattern.as_str())
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

/// Refuses features that tokenizers do not need and that make backtracking worse.
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

/// Number of parts of a regex: its classes, and the characters and classes that its counts add.
///
/// The backtracking engine compiles each run of classes between look-aheads, atomic groups and
/// possessive quantifiers by itself, and writes counts out; a class of Unicode takes up to 150 KiB.
fn parts(pattern: &str) -> usize {
    // For each open group: the parts of its last element, and of all its elements.
    let mut groups = vec![(0usize, 0usize)];
    let mut total = 0usize;
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        let element = match c {
            '(' => {
                groups.push((0, 0));
                continue;
            }
            ')' if groups.len() > 1 => groups.pop().map_or(0, |(_, all)| all),
            '{' => {
                let inner: String = rest.by_ref().take_while(|c| *c != '}').collect();
                let most = inner.rsplit(',').find_map(|n| n.trim().parse().ok()).unwrap_or(1usize);
                if let Some((last, all)) = groups.last_mut() {
                    let added = last.saturating_mul(most.saturating_sub(1));
                    (*all, total) = (all.saturating_add(added), total.saturating_add(added));
                    *last = last.saturating_mul(most);
                }
                continue;
            }
            '\\' => {
                let escaped = rest.next();
                if matches!(escaped, Some('p' | 'P' | 'x' | 'u')) && rest.peek() == Some(&'{') {
                    rest.by_ref().find(|c| *c == '}');
                }
                let class = |c: char| c.is_ascii_alphabetic() && !"nrtfvaexuUz".contains(c);
                total += usize::from(escaped.is_some_and(class));
                1
            }
            '[' => {
                skip_set(&mut rest);
                total += 1;
                1
            }
            '.' => {
                total += 1;
                1
            }
            _ => 1,
        };
        if let Some((last, all)) = groups.last_mut() {
            (*last, *all) = (element, all.saturating_add(element));
        }
    }
    total
}

/// Skips what follows the opening bracket of a set, with sets inside it.
fn skip_set(rest: &mut Peekable<Chars<'_>>) {
    let mut depth = 1;
    while depth > 0
        && let Some(c) = rest.next()
    {
        match c {
            '\\' => drop(rest.next()),
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
    }
}

/// Time limit for splitting one text, over all regexes.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    allowed: Duration,
    searches: Cell<u32>,
}

impl Clock {
    /// Starts a clock for a text. Known regexes split a MiB in well under a second.
    pub(super) fn start(text_bytes: usize) -> Self {
        let mib = u32::try_from(text_bytes >> 20).unwrap_or(u32::MAX);
        let allowed = Duration::from_secs(10).saturating_mul(mib.saturating_add(1));
        Self { started: Instant::now(), allowed, searches: Cell::new(0) }
    }

    /// Whether the time limit is exceeded; checks only once in several calls.
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
        TokenizerError::Split { pattern: self.split.pattern.clone(), reason }
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
        let find = |from| self.split.find(text, from).map_err(|reason| self.gave_up(reason));
        let mut pieces = Vec::new();
        let (mut end, mut from, mut last) = (0, 0, None);
        while from <= text.len()
            && let Some((start, stop)) = find(from)?
        {
            if self.clock.is_over() {
                let reason = format!("it takes more than {:?}", self.clock.allowed);
                return Err(self.gave_up(reason).into());
            }
            from = stop;
            if start == stop {
                from += text[stop..].chars().next().map_or(1, char::len_utf8);
                // No empty match immediately after another match.
                if last == Some(stop) {
                    continue;
                }
            }
            if start > end {
                pieces.push(((end, start), false));
            }
            pieces.push(((start, stop), true));
            (end, last) = (stop, Some(stop));
        }
        if end < text.len() {
            pieces.push(((end, text.len()), false));
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::pre_tokenizers::REGISTRY;

    /// All regexes of the registry, as compiled here and as written.
    static REGEXES: LazyLock<Vec<(RegexSplit, Regex)>> = LazyLock::new(|| {
        let all = REGISTRY.iter().flat_map(|entry| entry.regexes);
        let both = all.map(|pattern| {
            let split = RegexSplit::new(pattern, SplitDelimiterBehavior::Isolated, false);
            (split.unwrap(), Regex::new(pattern).unwrap())
        });
        both.collect()
    });

    fn text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[ \t\r\n\u{a0}\u{3000}]{1,4}",
            "[a-zA-Z']{1,5}",
            "[0-9½]{1,4}",
            "[一二あ가é\u{301}]{1,3}",
            "[.!/#$«]{1,3}",
        ];
        prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn without_look_ahead_the_pieces_are_the_same(text in text()) {
            for (split, written) in REGEXES.iter() {
                let clock = Clock::start(text.len());
                let search = Search { split, clock: &clock };
                let found = search.find_matches(&text).unwrap();
                let matches: Vec<_> = found.iter().filter(|(_, is_match)| *is_match).map(|(at, _)| *at).collect();
                let expected: Vec<_> = written.find_iter(&text).map(|m| m.unwrap()).map(|m| (m.start(), m.end())).collect();
                if !text.is_empty() {
                    prop_assert_eq!(matches, expected, "{}", split.pattern);
                }
            }
        }
    }

    #[test]
    fn words_of_millions_of_letters_and_spaces_are_cut() {
        for text in [" ".repeat(3 << 19) + "a", "a".repeat(3 << 19), "\n".repeat(3 << 19)] {
            for (split, _) in REGEXES.iter() {
                let clock = Clock::start(text.len());
                assert!(Search { split, clock: &clock }.find_matches(&text).is_ok());
            }
        }
    }
}
