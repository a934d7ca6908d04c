//! Stop strings, which end an answer and are found even if they are split across tokens.

/// Watches streamed text for stop strings.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Stops at the first occurrence of any of `strings`; empty ones are ignored.
    pub fn new(strings: impl IntoIterator<Item = String>) -> Self {
        let strings = strings.into_iter().filter(|string| !string.is_empty()).collect();
        Self { strings, held: String::new() }
    }

    /// Returns the text that is certain not to belong to a stop string, and whether a stop string
    /// was found. Nothing may be pushed after that.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self.strings.iter().filter_map(|string| self.held.find(string)).min();
        if let Some(at) = found {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let kept = self.strings.iter().map(|string| partial_suffix(&self.held, string)).max();
        let certain = self.held.len() - kept.unwrap_or(0);
        (self.held.drain(..certain).collect(), false)
    }

    /// Returns the held-back text at the end of the text.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest suffix of `text` that is a prefix of `string`.
pub(super) fn partial_suffix(text: &str, string: &str) -> usize {
    let starts = text.char_indices().map(|(at, _)| at);
    let longest = starts.skip_while(|at| text.len() - at >= string.len());
    longest.map(|at| &text[at..]).find(|end| string.starts_with(end)).map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(strings: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stops = StopStrings::new(strings.iter().map(|s| s.to_string()));
        let mut out = String::new();
        for piece in pieces {
            let (text, stopped) = stops.push(piece);
            out.push_str(&text);
            if stopped {
                return (out, true);
            }
        }
        (out + &stops.flush(), false)
    }

    #[test]
    fn a_stop_string_across_pieces_is_found_and_not_shown() {
        assert_eq!(run(&["\nUser:"], &["Hello\n", "Us", "er: next"]), ("Hello".into(), true));
    }

    #[test]
    fn the_earliest_of_several_counts() {
        assert_eq!(run(&["end", "b"], &["a b end"]), ("a ".into(), true));
    }

    #[test]
    fn text_that_only_begins_like_one_is_shown_in_the_end() {
        assert_eq!(run(&["stop"], &["st", "o"]), ("sto".into(), false));
        let mut stops = StopStrings::new(["stop".to_string()]);
        assert_eq!(stops.push("a sto"), ("a ".into(), false));
        assert_eq!(stops.push("ve"), ("stove".into(), false));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[ab€]{0,20}", stop in "[ab€]{1,4}", cut in 0usize..20) {
            let cut = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
            let expected = match text.find(&stop) {
                Some(at) => (text[..at].to_string(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&[&stop], &[&text[..cut], &text[cut..]]), expected);
        }
    }
}
