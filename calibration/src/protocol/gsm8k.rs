//! Answers of GSM8K: the rules of lm-evaluation-harness.

/// Most tokens of an answer to a prompt of several examples.
pub const MAX_TOKENS: usize = 256;
/// Text that ends an answer to a prompt of several examples.
pub const STOPS: [&str; 3] = ["Question:", "</s>", "<|im_end|>"];

/// The answer after `####`: the strict rule.
pub fn strict(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
    text.match_indices("#### ").find_map(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].find(|c| !is_part(c)).unwrap_or(rest.len() - sign);
        (digits > 0).then(|| &rest[..sign + digits])
    })
}

/// The last number: the flexible rule, `(-?[$0-9.,]{2,})|(-?[0-9]+)`.
pub fn flexible(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let run =
        |from: usize, is: fn(&u8) -> bool| bytes[from..].iter().take_while(|byte| is(byte)).count();
    let (mut at, mut last) = (0, None);
    while at < bytes.len() {
        let sign = usize::from(bytes[at] == b'-');
        let long = run(at + sign, |byte| byte.is_ascii_digit() || b"$.,".contains(byte));
        let digits = run(at + sign, u8::is_ascii_digit);
        let len = if long >= 2 { long } else { digits };
        if len == 0 {
            at += 1;
            continue;
        }
        // A match is ASCII, and so are its ends.
        last = text.get(at..at + sign + len);
        at += sign + len;
    }
    last
}

/// Whether an answer is the right one, of which what follows the last `#### ` counts: exactly, but
/// for capitals, commas, dollar signs and a full stop at the end.
pub fn matches(given: Option<&str>, right: &str) -> bool {
    given.is_some_and(|given| plain(given) == plain(right))
}

fn plain(text: &str) -> String {
    let text = text.replace([',', '$'], "");
    let text = text.rsplit("#### ").next().unwrap_or_default();
    text.strip_suffix('.').unwrap_or(text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_as_the_harness_finds_them() {
        assert_eq!(strict("5 + 7 = 12\n#### 12\nmore #### 13"), Some("12"));
        assert_eq!(strict("#### -1,200.5 m"), Some("-1,200.5"));
        assert_eq!(strict("#### x"), None);
        assert_eq!(flexible("5 apples and $12.50 each."), Some("$12.50"));
        assert_eq!(flexible("so 7."), Some("7."));
        assert_eq!(flexible("-5 then é -"), Some("-5"));
        assert_eq!(flexible("well... no"), Some("..."));
        assert_eq!(flexible("nothing"), None);
    }

    #[test]
    fn separators_and_currency_do_not_count() {
        assert!(matches(Some("$1,200."), "400 * 3 = 1200\n#### 1,200"));
        assert!(!matches(Some("1200.0"), "#### 1200"));
        assert!(!matches(None, "#### 1"));
    }
}
