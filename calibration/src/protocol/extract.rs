//! The final answer in a model's text.

use super::math::group;

/// What follows the reasoning.
pub fn after_reasoning(text: &str) -> &str {
    text.rsplit("</think>").next().unwrap_or_default().trim()
}

/// The contents of the last `\boxed{...}`; `None` if there is none or it was cut short.
pub fn boxed(text: &str) -> Option<&str> {
    let at = ["\\boxed", "\\fbox"].iter().filter_map(|name| Some(text.rfind(name)? + name.len()));
    let rest = &text[at.max()?..];
    match group(rest) {
        Some((inner, _)) => Some(inner.trim()),
        // TeX takes one character without braces.
        None if rest.starts_with(' ') => {
            rest.split_whitespace().next().filter(|word| !word.starts_with('{'))
        }
        None => None,
    }
}

/// The answer of a text that need not have a box: the box, what follows the last "answer is", or
/// else the last number.
pub fn flexible(text: &str) -> Option<&str> {
    if let Some(inner) = boxed(text) {
        return Some(inner);
    }
    // Letters whose lower case has another length would shift positions: ASCII alone is lowered.
    let lower = text.to_ascii_lowercase();
    if let Some(at) = lower.rfind("answer is").map(|at| at + "answer is".len()) {
        let line = text[at..].trim_start_matches([':', ' ']).lines().next().unwrap_or_default();
        let end = line.find(". ").unwrap_or(line.len());
        let answer = line[..end].trim_end_matches('.').trim();
        if !answer.is_empty() {
            return Some(answer);
        }
    }
    last_number(text)
}

/// The last number of a text, with sign, separators and decimals.
pub fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'/');
    let mut from = end;
    while from > 0 && is_part(bytes[from - 1]) {
        from -= 1;
    }
    let number = text[from..end].trim_start_matches([',', '/']);
    from = end - number.len();
    let signed = from > 0
        && bytes[from - 1] == b'-'
        && !bytes.get(from.wrapping_sub(2)).is_some_and(u8::is_ascii_alphanumeric);
    Some(&text[from - usize::from(signed)..end])
}

/// The letter of a choice: in a box, after "answer is", or the first letter that stands alone.
pub fn letter(text: &str, choices: usize) -> Option<usize> {
    let of = |text: &str| {
        let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let index = |word: &str| match word.as_bytes() {
            [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')).filter(|at| *at < choices),
            _ => None,
        };
        words.find_map(index)
    };
    let answer = boxed(text).and_then(of);
    let said = || text.rfind("nswer is").and_then(|at| of(&text[at..]));
    answer.or_else(said).or_else(|| of(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_box_counts_and_may_be_nested() {
        assert_eq!(boxed("\\boxed{1} so \\boxed{\\frac{1}{2}}."), Some("\\frac{1}{2}"));
        assert_eq!(boxed("\\boxed{\\{1, 2\\}}"), Some("\\{1, 2\\}"));
        assert_eq!(boxed("\\boxed 7"), Some("7"));
        assert_eq!(boxed("\\boxed{1} and then \\boxed{2"), None);
        assert_eq!(boxed("no box"), None);
        assert_eq!(boxed("\\boxed"), None);
    }

    #[test]
    fn without_a_box_the_last_number_counts() {
        assert_eq!(flexible("Ali has 14 cups."), Some("14"));
        assert_eq!(flexible("From 3 to -1,250.5."), Some("-1,250.5"));
        assert_eq!(flexible("5-3 is 2/3"), Some("2/3"));
        assert_eq!(flexible("10-3"), Some("3"));
        assert_eq!(flexible("The answer is: \\frac{1}{2}. Done in 3 steps."), Some("\\frac{1}{2}"));
        assert_eq!(flexible("none"), None);
        assert_eq!(flexible("İ answer is"), None);
    }

    #[test]
    fn a_letter_is_found_in_sentences() {
        assert_eq!(letter("D", 4), Some(3));
        assert_eq!(letter("The answer is (B).", 4), Some(1));
        assert_eq!(letter("A camel is no tool. The answer is D.", 4), Some(3));
        assert_eq!(letter("\\boxed{\\text{C}}", 4), Some(2));
        assert_eq!(letter("E", 4), None);
        assert_eq!(letter("Because of that", 4), None);
    }

    #[test]
    fn reasoning_does_not_count() {
        assert_eq!(after_reasoning("1 or 2?</think>\n\n2 "), "2");
        assert_eq!(after_reasoning("2"), "2");
    }
}
