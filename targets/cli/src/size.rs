//! Human-readable sizes.

/// Parses a number of bytes with one of the units B, K, KB, KiB, M, ..., TiB, or none. `K` and
/// `KiB` are 1024, `KB` is 1000.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bad = || format!("{text:?} is not a size; examples: 900MB, 1.5GiB, 2G");
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit = unit.trim().to_ascii_lowercase();
    let (power, base) = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" if unit != "ib" => (0, 1024.0f64),
        prefix => {
            let power = ["k", "m", "g", "t"].iter().position(|known| *known == prefix);
            let base = if unit.ends_with('b') && !unit.ends_with("ib") { 1000.0 } else { 1024.0 };
            (power.ok_or_else(bad)? as i32 + 1, base)
        }
    };
    let bytes = number * base.powi(power);
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(bad()) }
}

/// Parses a number of bytes as [`parse`] does; `none` is 0.
pub fn parse_or_none(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { parse(text) }
}

/// Formats bytes as `1.50 GiB`.
pub fn show(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.2} {unit}") }
}

/// Formats a count as `16.5 M`.
pub fn count(n: u64) -> String {
    match n {
        0..=999_999 => n.to_string(),
        1_000_000..=999_999_999 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} B", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in [
            ("123", 123),
            ("1k", 1024),
            ("1KB", 1000),
            ("1.5 GiB", 3 << 29),
            ("2G", 2 << 30),
            ("900MB", 900_000_000),
            ("7b", 7),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "G", "-1", "0", "1.2.3", "1 parsec", "1e9", "ib", "5ib", "99999999999T"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_their_unit() {
        assert_eq!(show(12), "12 B");
        assert_eq!(show(3 << 29), "1.50 GiB");
        assert_eq!(count(16_500_000), "16.5 M");
    }
}
