//! The Markdown pages: links resolve, prose is wrapped, and words are plain.

use std::fs;
use std::path::{Path, PathBuf};

/// Maximum number of columns of a line of prose.
const COLUMNS: usize = 100;

/// Words that have a plainer one: "the caller", "again", "the same way", "at the same time", "evict".
const UNPLAIN: [&str; 8] = [
    "whoever",
    " anew",
    "likewise",
    "meanwhile",
    "at hand",
    "gives way",
    "give way",
    "whatever the",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Pages for readers, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let of = |folder: &str| fs::read_dir(root().join(folder)).unwrap();
    let paths = of("").chain(of("docs")).map(|entry| entry.unwrap().path());
    let markdown = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    markdown.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Lines outside of code blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut code = false;
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            lines.push((i + 1, line));
        }
    }
    lines
}

/// The heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_of_it() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = match file.is_empty() {
                true => path.clone(),
                false => path.parent().unwrap().join(file),
            };
            let sound = linked.exists()
                && (heading.is_empty()
                    || fs::read_to_string(&linked).unwrap().lines().any(|line| {
                        line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading
                    }));
            if !sound {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn prose_is_wrapped_and_plain() {
    let mut odd = Vec::new();
    for (path, text) in pages() {
        for (number, line) in prose(&text) {
            let at = format!("{}:{number}", path.display());
            let is_prose = !line.starts_with(['|', '#', '!', '<']);
            // A command or link that does not fit stands on a line of its own.
            let is_one_word = |line: &str| line.starts_with('`') || !line.contains(' ');
            let columns = line.chars().count();
            if is_prose && columns > COLUMNS && !is_one_word(line.trim_start_matches([' ', '-'])) {
                odd.push(format!("{at}: {columns} columns, at most {COLUMNS}"));
            }
            let lower = line.to_lowercase();
            odd.extend(
                UNPLAIN.iter().filter(|word| lower.contains(*word)).map(|w| format!("{at}: {w:?}")),
            );
        }
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}
