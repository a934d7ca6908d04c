//! gpt-oss's messages in channels: `<|start|>assistant<|channel|>final<|message|>Hello<|end|>`.
//!
//! Headers are occasionally malformed: free text in place of the channel name, or a missing
//! `<|message|>`. Text in such a header beyond the header's own words is shown.

use super::stop::partial_suffix;

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const CONSTRAIN: &str = "<|constrain|>";
/// Ends a header.
const MESSAGE: &str = "<|message|>";
/// Ends a message; a header follows.
const END: &str = "<|end|>";

/// Markers that begin an answer in channels.
pub(super) const STARTS: [&str; 2] = [CHANNEL, START];
/// Maximum length of a header in bytes; longer text is not a header.
const MAX_HEADER: usize = 256;
const CHANNELS: [&str; 3] = ["analysis", "commentary", "final"];

/// Result of parsing the text at a position where a header is expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// More text is needed.
    Unclear,
    /// A header of `len` bytes, the part of it to show, and whether the message that follows is
    /// reasoning.
    Header { len: usize, reasoning: bool, shown: String },
}

/// Parses the header at the start of a text.
pub(super) fn header(text: &str) -> Piece {
    let begins = STARTS.iter().any(|start| text.starts_with(start));
    if !begins && STARTS.iter().any(|start| start.starts_with(text.trim_start())) {
        return Piece::Unclear;
    }
    if !begins && !STARTS.iter().any(|start| text.trim_start().starts_with(start)) {
        return Piece::Header { len: 0, reasoning: false, shown: String::new() };
    }
    // Only tags within the maximum header length count, so that the result does not depend on how
    // the text is cut.
    let first = |tag: &str| text.find(tag).filter(|at| *at <= MAX_HEADER);
    match (first(MESSAGE), first(END)) {
        (Some(at), end) if end.is_none_or(|end| at < end) => read(&text[..at], at + MESSAGE.len()),
        (_, Some(at)) => read(&text[..at], at),
        _ if text.len() > MAX_HEADER + MESSAGE.len() => {
            let certain = text.floor_char_boundary(MAX_HEADER);
            read(&text[..certain], certain)
        }
        _ => Piece::Unclear,
    }
}

/// Parses a header that the end of the answer cut short.
pub(super) fn cut_short(text: &str) -> Piece {
    let tags = [START, CHANNEL, CONSTRAIN, MESSAGE, END];
    let held = tags.iter().map(|tag| partial_suffix(text, tag)).max().unwrap_or(0);
    read(&text[..text.len() - held], text.len())
}

/// Removes the text of a message up to its end, and returns it with whether the end was found.
pub(super) fn message(pending: &mut String) -> (String, bool) {
    let end = pending.find(END);
    let certain = end.unwrap_or(pending.len() - partial_suffix(pending, END));
    let text = pending.drain(..certain).collect();
    if end.is_some() {
        pending.drain(..END.len());
    }
    (text, end.is_some())
}

/// Reads a header without its `<|message|>`.
fn read(header: &str, len: usize) -> Piece {
    // A tool call: the caller that executes it needs the name of the tool.
    if header.contains("to=") {
        let shown = if len > header.len() { [header, MESSAGE].concat() } else { header.into() };
        return Piece::Header { len, reasoning: false, shown };
    }
    let (role, channel) = match header.split_once(CHANNEL) {
        Some((role, channel)) => (role, Some(channel)),
        None => (header, None),
    };
    let role = role.trim_start().trim_start_matches(START);
    let role = without(role, &["assistant"]);
    let reasoning = channel.is_some_and(|channel| channel.trim_start().starts_with(CHANNELS[0]));
    let channel = without(channel.unwrap_or_default(), &CHANNELS);
    let channel = match channel.trim_start().strip_prefix(CONSTRAIN) {
        Some(kind) => without(kind, &["json", "code", "text"]),
        None => channel,
    };
    let words = [role, channel].map(|words| if words.trim().is_empty() { "" } else { words });
    Piece::Header { len, reasoning, shown: words.concat().trim_start().into() }
}

/// Strips the first word of a text if it is one of `words`, or a prefix of one at the end of the
/// text.
fn without<'a>(text: &'a str, words: &[&str]) -> &'a str {
    let text = text.trim_start();
    let rest = words.iter().find_map(|word| text.strip_prefix(word));
    let begun = words.iter().any(|word| word.starts_with(text));
    rest.unwrap_or(if begun { "" } else { text })
}
