//! Removes from an answer what carries no meaning: signs of mathematics mode, sizes of brackets,
//! spaces and fonts of LaTeX. Words in `\text{...}` become `"..."`.

/// Commands that are dropped.
const DROPPED: [&str; 14] = [
    "left",
    "right",
    "big",
    "Big",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "displaystyle",
    "textstyle",
    "limits",
    "quad",
    "qquad",
    "rm",
];
/// Commands whose argument is a text.
const TEXTS: [&str; 9] =
    ["text", "textbf", "textit", "textrm", "mbox", "mathrm", "mathbf", "operatorname", "mathit"];
/// Commands that stand for others.
const ALIASES: [(&str, &str); 8] = [
    ("dfrac", "\\frac"),
    ("tfrac", "\\frac"),
    ("cfrac", "\\frac"),
    ("lbrace", "\\{"),
    ("rbrace", "\\}"),
    ("degree", " degrees"),
    ("circ", "°"),
    ("mp", "\\pm"),
];

/// The cleaned form of an answer.
pub(super) fn clean(text: &str) -> String {
    let text = text.trim().trim_start_matches("**").trim_end_matches("**");
    let text = text.trim_end_matches(['.', ',', ';', ' ', '\n']).replace("\\$", "");
    let text = characters(&text);
    let text = commands(&text);
    let text = text.replace("^{°}", "°").replace("^°", "°").replace('°', " degrees");
    let text = text.replace("{,}", ",");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces characters beyond ASCII by what LaTeX has for them, and drops signs of mathematics
/// mode.
fn characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '$' | '"' => {}
            '−' | '–' => out.push('-'),
            '×' | '·' | '⋅' => out.push('*'),
            '÷' => out.push('/'),
            '√' => out.push_str("sqrt"),
            '∞' => out.push_str("\\infty "),
            '∪' => out.push_str("\\cup "),
            '±' => out.push_str("\\pm "),
            '²' => out.push_str("^2"),
            '³' => out.push_str("^3"),
            '½' => out.push_str(" 1/2"),
            '\u{a0}' | '\u{202f}' | '\u{2009}' | '~' => out.push(' '),
            _ => out.push(c),
        }
    }
    out
}

/// Replaces and drops commands.
fn commands(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        if end == 0 {
            let Some(sign) = rest.chars().next() else { break };
            rest = &rest[sign.len_utf8()..];
            match sign {
                '\\' => out.push_str("\\\\"),
                '{' => out.push_str("\\{"),
                '}' => out.push_str("\\}"),
                '!' | ',' | '(' | ')' | '[' | ']' | '$' => {}
                '%' => out.push('%'),
                _ => out.push(' '),
            }
            continue;
        }
        let (name, after) = rest.split_at(end);
        rest = after;
        if TEXTS.contains(&name)
            && let Some((words, after)) = group(rest)
        {
            out.push_str(&format!(" \"{}\"", words.trim()));
            rest = after;
        } else if let Some((_, alias)) = ALIASES.iter().find(|(known, _)| *known == name) {
            out.push_str(alias);
        } else if !DROPPED.contains(&name) {
            out.push('\\');
            out.push_str(name);
        }
    }
    out.push_str(rest);
    out
}

/// The contents of a group in braces at the beginning of a text, and what follows it.
pub(in crate::protocol) fn group(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start().strip_prefix('{')?;
    let (mut depth, mut escaped) = (1usize, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}
