//! Units behind numbers: they may be left out, but not differ.

/// Units that are known without `\text`, with the form in which they are compared.
const UNITS: [(&str, &[&str]); 31] = [
    ("cm", &["centimeter", "centimeters", "centimetre", "centimetres"]),
    ("mm", &["millimeter", "millimeters"]),
    ("km", &["kilometer", "kilometers", "kilometre", "kilometres"]),
    ("meters", &["meter", "metre", "metres"]),
    ("inches", &["inch"]),
    ("feet", &["foot", "ft"]),
    ("yards", &["yard"]),
    ("miles", &["mile"]),
    ("mph", &[]),
    ("kg", &["kilogram", "kilograms"]),
    ("grams", &["gram"]),
    ("pounds", &["pound", "lbs"]),
    ("ounces", &["ounce"]),
    ("liters", &["liter", "litre", "litres"]),
    ("gallons", &["gallon"]),
    ("seconds", &["second", "sec"]),
    ("minutes", &["minute", "min"]),
    ("hours", &["hour"]),
    ("days", &["day"]),
    ("weeks", &["week"]),
    ("months", &["month"]),
    ("years", &["year"]),
    ("dollars", &["dollar"]),
    ("cents", &["cent"]),
    ("degrees", &["degree"]),
    ("radians", &["radian"]),
    ("units", &["unit"]),
    ("points", &["point"]),
    ("people", &["person"]),
    ("students", &["student"]),
    ("times", &[]),
];

/// Splits a text into a number's term and its unit. The unit is empty if there is none, and for
/// `units` and `square units`.
pub(super) fn split(text: &str) -> (&str, String) {
    let text = text.trim();
    // Marks that the cleaning leaves for \text{...}.
    if let Some((term, unit)) = text.split_once('"')
        && let Some((unit, power)) = unit.split_once('"')
        && term.trim_end().ends_with(|c: char| c.is_ascii_digit() || matches!(c, '}' | ')' | 'π'))
        && is_power(power)
    {
        return (term.trim_end(), format!("{}{}", name(unit), digits(power)));
    }
    let mut rest = text;
    let mut words = Vec::new();
    let power = match rest.rsplit_once('^') {
        Some((before, power)) if is_power(&rest[before.len()..]) => {
            rest = before;
            digits(power)
        }
        _ => String::new(),
    };
    loop {
        let end = rest.trim_end().len();
        let word = rest[..end].trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
        // A word alone is no unit, and neither is the end of a command.
        if word == 0 || rest[..word].ends_with(['\\', '_', '"']) || !is_unit(&rest[word..end]) {
            break;
        }
        words.insert(0, &rest[word..end]);
        rest = rest[..word].trim_end();
    }
    match words.is_empty() {
        true => (text, String::new()),
        false => (rest, format!("{}{power}", name(&words.join(" ")))),
    }
}

/// Whether a text is empty or `^2` or `^3`.
fn is_power(text: &str) -> bool {
    matches!(text.trim(), "" | "^2" | "^3" | "^{2}" | "^{3}")
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn is_unit(word: &str) -> bool {
    let word = word.to_lowercase();
    matches!(word.as_str(), "square" | "cubic" | "sq")
        || UNITS.iter().any(|(unit, others)| *unit == word || others.contains(&word.as_str()))
}

/// The form in which a unit is compared.
fn name(unit: &str) -> String {
    let words: Vec<String> = unit.to_lowercase().split_whitespace().map(String::from).collect();
    let known = |word: &String| {
        let found =
            UNITS.iter().find(|(unit, others)| unit == word || others.contains(&word.as_str()));
        found.map_or(word.clone(), |(unit, _)| unit.to_string())
    };
    let squared = words.iter().any(|word| word == "square" || word == "sq");
    let cubed = words.iter().any(|word| word == "cubic");
    let kept = words.iter().filter(|word| !matches!(word.as_str(), "square" | "sq" | "cubic"));
    let mut unit: String = kept.map(known).collect::<Vec<_>>().join(" ");
    unit.truncate(unit.trim_end_matches('.').len());
    if unit == "units" {
        return String::new();
    }
    if squared {
        unit.push('2');
    }
    if cubed {
        unit.push('3');
    }
    unit
}
