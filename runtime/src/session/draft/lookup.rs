//! Drafts from the text itself (prompt lookup decoding): what followed the longest earlier
//! occurrence of the last tokens.

/// Least tokens that must match.
const LEAST: usize = 2;
/// Most tokens that are compared.
const MOST: usize = 16;
/// Tokens back to which it is searched.
const WINDOW: usize = 1 << 15;

/// At most `count` tokens that may follow `tokens`; the latest of equally long occurrences counts.
pub(super) fn lookup(tokens: &[u32], count: usize) -> Vec<u32> {
    let first = tokens.len().saturating_sub(WINDOW);
    let (mut best, mut length) = (None, LEAST - 1);
    for end in (first + 1..tokens.len()).rev() {
        let pairs = tokens[first..end].iter().rev().zip(tokens.iter().rev());
        let matching = pairs.take(MOST).take_while(|(a, b)| a == b).count();
        if matching > length {
            (best, length) = (Some(end), matching);
        }
        if length == MOST {
            break;
        }
    }
    let Some(at) = best else { return Vec::new() };
    // What repeats up to the end is taken to go on repeating.
    tokens[at..].iter().cycle().take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_wins_then_the_latest() {
        assert_eq!(lookup(&[1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 2), [9, 2]);
        assert_eq!(lookup(&[2, 3, 9, 2, 3, 8, 7, 2, 3], 3), [8, 7, 2]);
        assert_eq!(lookup(&[5, 5, 5, 5], 4), [5, 5, 5, 5]);
        assert_eq!(lookup(&[9, 1, 2, 3, 1, 2, 3], 5), [1, 2, 3, 1, 2]);
    }

    #[test]
    fn one_token_alone_is_no_match() {
        assert!(lookup(&[1, 2, 3, 1], 2).is_empty());
        assert!(lookup(&[], 2).is_empty() && lookup(&[1], 2).is_empty());
    }
}
