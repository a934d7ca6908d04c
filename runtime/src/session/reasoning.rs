//! Separates reasoning from the answer. Reasoning is the text between tags such as `<think>` and
//! `</think>`, and the channel `analysis` in gpt-oss's answers, which consist of messages in
//! channels (see [`super::channels`]).
//!
//! Models are not strict about their tags: they open a block twice, close one that was not opened,
//! or think again in the middle of an answer. Tags used in these ways are dropped; nothing else is,
//! and text that cannot be attributed is shown as the answer.

use super::channels::{self, Piece};
use super::stop::partial_suffix;

/// Opening and closing tags of a block: DeepSeek's and most other models', Mistral's, Seed's,
/// Kimi-VL's, Cohere's, Gemma 4's.
const TAGS: [(&str, &str); 6] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
];

fn openings() -> impl Iterator<Item = &'static str> {
    TAGS.into_iter().map(|(open, _)| open)
}

fn closings() -> impl Iterator<Item = &'static str> {
    TAGS.into_iter().map(|(_, close)| close)
}

/// A piece of streamed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text of the reasoning.
    Reasoning(String),
    /// Text of the answer.
    Answer(String),
    /// All text emitted as the answer so far was reasoning, and so is this: a block ended that no
    /// tag had opened. Newlines at the end of the combined text belong to the tag.
    WasReasoning(String),
}

impl Part {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Reasoning(text) | Self::Answer(text) if text.is_empty())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only white space so far: a tag may follow.
    Start,
    /// In a block; `fresh` until text of the block is emitted.
    Reasoning { fresh: bool },
    /// Outside blocks.
    Answer,
    /// At a position where a message header is expected.
    Header,
    /// In a message, which is reasoning or not.
    Message { reasoning: bool },
}

/// Splits streamed text, independently of where it is cut. Tags are dropped together with adjacent
/// newlines.
#[derive(Clone, Debug)]
pub struct ReasoningSplitter {
    state: State,
    pending: String,
    /// Closing tag of the block; `None` accepts any closing tag if the prompt opened the block.
    close: Option<&'static str>,
    /// Whether newlines that come next belong to a tag.
    after_tag: bool,
    /// Whether a block has ended.
    thought: bool,
    /// Whether the answer has mentioned a tag: later tags may be mentions, too.
    spoken: bool,
    /// Last character of the answer since the last tag.
    last: Option<char>,
    /// Whether the answer has only white space since the last tag.
    blank: bool,
}

/// Position in the streamed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Only white space so far: reasoning or the answer may follow.
    Start,
    /// In the reasoning.
    Reasoning,
    /// In the header of a message in a channel.
    Header,
    /// In the answer.
    Answer,
}

impl ReasoningSplitter {
    /// Whether `text` is a tag or marker that begins reasoning.
    pub fn begins_with(text: &str) -> bool {
        // Only the first of Gemma's is a token.
        text == "<|channel>" || openings().chain(channels::STARTS).any(|start| start == text)
    }

    /// Whether the held-back text ends with `text`.
    pub(super) fn is_holding(&self, text: &str) -> bool {
        self.pending.ends_with(text)
    }

    /// Current position in the text.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Start => Phase::Start,
            State::Reasoning { .. } | State::Message { reasoning: true } => Phase::Reasoning,
            State::Header => Phase::Header,
            State::Answer | State::Message { reasoning: false } => Phase::Answer,
        }
    }

    /// Creates a splitter; `open` tells whether the prompt ended inside a block: see [`is_open`].
    pub fn new(open: bool) -> Self {
        Self {
            state: if open { State::Reasoning { fresh: true } } else { State::Start },
            pending: String::new(),
            close: None,
            after_tag: open,
            thought: false,
            spoken: false,
            last: None,
            blank: true,
        }
    }

    /// Adds `text` and returns the parts that are now certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.pending.push_str(text);
        let mut parts = Vec::new();
        while self.step(&mut parts) {}
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Returns the held-back text at the end of the text.
    pub fn flush(&mut self) -> Option<Part> {
        let rest = std::mem::take(&mut self.pending);
        let part = match self.state {
            State::Reasoning { .. } | State::Message { reasoning: true } => Part::Reasoning(rest),
            State::Header => channels::cut_short(&rest).into(),
            State::Start | State::Answer | State::Message { .. } => Part::Answer(rest),
        };
        (!part.is_empty()).then_some(part)
    }

    /// Takes one step and returns whether another may follow.
    fn step(&mut self, parts: &mut Vec<Part>) -> bool {
        if self.after_tag {
            let newlines = self.pending.len() - self.pending.trim_start_matches('\n').len();
            self.pending.drain(..newlines);
            self.after_tag = self.pending.is_empty();
        }
        if self.pending.is_empty() {
            return false;
        }
        match self.state {
            State::Start => self.start(),
            State::Reasoning { fresh } => self.reasoning(fresh, parts),
            State::Answer => self.answer(parts),
            State::Header => match channels::header(&self.pending) {
                Piece::Unclear => false,
                piece @ Piece::Header { len, reasoning, .. } => {
                    self.pending.drain(..len);
                    parts.push(piece.into());
                    self.state = State::Message { reasoning };
                    true
                }
            },
            State::Message { reasoning } => {
                let (text, ended) = channels::message(&mut self.pending);
                parts.push(if reasoning { Part::Reasoning(text) } else { Part::Answer(text) });
                if ended {
                    self.state = State::Header;
                }
                ended
            }
        }
    }

    fn start(&mut self) -> bool {
        let text = self.pending.trim_start();
        if let Some((open, close)) = TAGS.into_iter().find(|(open, _)| text.starts_with(open)) {
            self.pending = text[open.len()..].to_string();
            self.enter(close);
            return true;
        }
        if channels::STARTS.iter().any(|start| text.starts_with(start)) {
            self.state = State::Header;
            return true;
        }
        if openings().chain(channels::STARTS).any(|start| start.starts_with(text)) {
            return false;
        }
        self.state = State::Answer;
        true
    }

    fn reasoning(&mut self, fresh: bool, parts: &mut Vec<Part>) -> bool {
        if fresh {
            // The block is opened again.
            let text = self.pending.trim_start();
            if let Some(open) = openings().find(|open| text.starts_with(open)) {
                self.pending = text[open.len()..].to_string();
                self.after_tag = true;
                return true;
            }
            if openings().any(|open| open.starts_with(text)) {
                return false;
            }
            self.state = State::Reasoning { fresh: false };
        }
        let ours = self.close;
        let tags = || closings().filter(|close| ours.is_none_or(|ours| ours == *close));
        if let Some((at, close)) = find(&self.pending, tags()) {
            let thought = self.pending[..at].trim_end_matches('\n').to_string();
            self.pending.drain(..at + close.len());
            parts.push(Part::Reasoning(thought));
            self.leave();
            return true;
        }
        let held = tags().map(|close| partial_suffix(&self.pending, close)).max();
        let certain = self.pending.len() - held.unwrap_or(0);
        let certain = self.pending[..certain].trim_end_matches('\n').len();
        parts.push(Part::Reasoning(self.pending.drain(..certain).collect()));
        false
    }

    fn answer(&mut self, parts: &mut Vec<Part>) -> bool {
        let Some((at, tag)) = find(&self.pending, openings().chain(closings())) else {
            let tags = openings().chain(closings());
            let held = tags.map(|tag| partial_suffix(&self.pending, tag)).max();
            let certain = self.pending.len() - held.unwrap_or(0);
            self.say(certain, parts);
            return false;
        };
        let before = self.pending[..at].chars().next_back().or(self.last);
        let quoted = before.is_some_and(|c| c == ' ' || c == '\t' || "`'\"“‘«(".contains(c));
        let blank = self.blank && self.pending[..at].trim().is_empty();
        let opens = TAGS.into_iter().find(|(open, _)| *open == tag);
        match opens {
            Some((_, close)) if self.thought && !self.spoken && (blank || !quoted) => {
                self.say(at, parts);
                self.pending.drain(..tag.len());
                self.enter(close);
            }
            // The block is closed again. White space before the tag may already have been emitted.
            None if self.thought && blank => {
                self.say(at, parts);
                self.pending.drain(..tag.len());
                self.leave();
            }
            None if !self.thought && !self.spoken && !quoted => {
                parts.push(Part::WasReasoning(self.pending.drain(..at).collect()));
                self.pending.drain(..tag.len());
                self.leave();
            }
            _ => {
                self.spoken = true;
                self.say(at + tag.len(), parts);
            }
        }
        true
    }

    /// Emits the first `len` bytes of the pending text as the answer.
    fn say(&mut self, len: usize, parts: &mut Vec<Part>) {
        let text: String = self.pending.drain(..len).collect();
        self.last = text.chars().next_back().or(self.last);
        self.blank &= text.trim().is_empty();
        parts.push(Part::Answer(text));
    }

    fn enter(&mut self, close: &'static str) {
        self.state = State::Reasoning { fresh: true };
        self.close = Some(close);
        self.after_tag = true;
    }

    fn leave(&mut self) {
        self.state = State::Answer;
        (self.thought, self.after_tag) = (true, true);
        (self.last, self.blank) = (None, true);
    }
}

impl From<Piece> for Part {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Header { reasoning: true, shown, .. } => Self::Reasoning(shown),
            Piece::Header { shown, .. } => Self::Answer(shown),
            Piece::Unclear => Self::Answer(String::new()),
        }
    }
}

/// Returns the position and text of the first match of any of `wanted`.
fn find(text: &str, wanted: impl Iterator<Item = &'static str>) -> Option<(usize, &'static str)> {
    wanted.filter_map(|wanted| Some((text.find(wanted)?, wanted))).min()
}

/// Whether the prompt of a conversation ends by opening a block, as with R1's template. Mentions of
/// such blocks by the user do not matter.
pub fn opens(prompt: &str) -> bool {
    openings().any(|open| prompt.trim_end().ends_with(open))
}

/// Whether the prompt of a conversation ends by closing a block, so that the model does not think.
pub fn closes(prompt: &str) -> bool {
    closings().any(|close| prompt.trim_end().ends_with(close))
}

/// Whether a text to be continued verbatim ends inside a block.
pub fn is_open(prompt: &str) -> bool {
    TAGS.into_iter().any(|(open, close)| prompt.rfind(open) > prompt.rfind(close))
}
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(open: bool, pieces: &[&str]) -> (String, String) {
        let mut splitter = ReasoningSplitter::new(open);
        let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        parts.extend(splitter.flush());
        let (mut reasoning, mut answer) = (String::new(), String::new());
        for part in parts {
            match part {
                Part::Reasoning(text) => reasoning.push_str(&text),
                Part::Answer(text) => answer.push_str(&text),
                Part::WasReasoning(rest) => {
                    reasoning.push_str((std::mem::take(&mut answer) + &rest).trim_end_matches('\n'))
                }
            }
        }
        (reasoning, answer)
    }

    #[test]
    fn a_block_that_the_prompt_opened_is_reasoning() {
        assert_eq!(split(true, &["1+1\nis 2.\n</think>\n\n2"]), ("1+1\nis 2.".into(), "2".into()));
        assert_eq!(split(true, &["\n</think>\n\n2"]), ("".into(), "2".into()));
    }

    #[test]
    fn a_block_that_the_model_opens_is_reasoning() {
        assert_eq!(split(false, &["<think>\nhm\n</think>\n\nyes"]), ("hm".into(), "yes".into()));
    }

    #[test]
    fn text_without_a_block_is_an_answer_to_the_letter() {
        assert_eq!(split(false, &["\n a < b <think>"]), ("".into(), "\n a < b <think>".into()));
    }

    #[test]
    fn channels_are_told_apart_and_their_headers_dropped() {
        let thoughts = "<|channel|>analysis<|message|>1+1\nis <|2<|end|>";
        let answer = "<|start|>assistant<|channel|>final<|message|>Two.\n";
        let expected = ("1+1\nis <|2".to_string(), "Two.\n".to_string());
        assert_eq!(split(false, &[thoughts, answer]), expected);
        assert_eq!(split(false, &["<|channel|>final<|message|>Hi"]), ("".into(), "Hi".into()));
        assert_eq!(split(false, &[thoughts, "<|start|>assistant<|chan"]).1, "");
        let call =
            "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}";
        assert_eq!(split(false, &[thoughts, call]).1, call);
        let mut splitter = ReasoningSplitter::new(false);
        let pieces = ["<|channel|>", "analysis", "<|message|>", "a", " b<|", "end|>"];
        let parts: Vec<Part> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        assert_eq!(parts, [Part::Reasoning("a".into()), Part::Reasoning(" b".into())]);
    }

    #[test]
    fn malformed_headers_lose_nothing() {
        let answer = |text: &str| split(false, &[text]);
        let shown = |text: &str| (String::new(), text.to_string());
        let thought = |text: &str| (text.to_string(), String::new());
        assert_eq!(answer("<|channel|>The answer is 4."), shown("The answer is 4."));
        assert_eq!(answer("<|channel|>final The answer is 4."), shown("The answer is 4."));
        assert_eq!(answer("<|channel|>Free text<|message|>and more"), shown("Free textand more"));
        assert_eq!(answer("<|channel|>analysis Let me see.<|end|>"), thought("Let me see."));
        assert_eq!(answer("<|start|>assistant Hello<|end|>"), shown("Hello"));
        assert_eq!(answer("<|channel|>final<|message|>Hi<|end|> and on"), shown("Hi and on"));
        assert_eq!(answer("<|channel|>final<|constrain|>json<|message|>{}"), shown("{}"));
        let long = "word ".repeat(200);
        assert_eq!(answer(&format!("<|channel|>{long}")), shown(&long));
        assert_eq!(answer(&format!("<|channel|>analysis {long}")), thought(&long));
        assert_eq!(answer("<|channel|>fin"), shown(""), "half a header says nothing");
        let both = "<|channel|>analysis<|message|>a<|end|><|channel|>Four.<|end|>";
        assert_eq!(answer(both), ("a".into(), "Four.".into()));
    }

    #[test]
    fn other_families_tags_are_known() {
        for (open, close) in TAGS {
            let text = format!("{open}\nhm\n{close}\n\nyes");
            assert_eq!(split(false, &[&text]), ("hm".into(), "yes".into()), "{open}");
            let text = format!("hm\n{close}\n\nyes");
            assert_eq!(split(true, &[&text]), ("hm".into(), "yes".into()), "{open}");
            assert!(opens(&format!("<|assistant|>{open}\n")) && is_open(&format!("{open}a")));
        }
        let other = "[THINK]a </think> b[/THINK]c";
        assert_eq!(split(false, &[other]), ("a </think> b".into(), "c".into()));
    }

    #[test]
    fn a_block_that_is_opened_again_is_one() {
        assert_eq!(split(true, &["<think>\nhm</think>a"]), ("hm".into(), "a".into()));
        assert_eq!(split(false, &["<think>\n<think>\nhm</think>a"]), ("hm".into(), "a".into()));
        let later = "<think>hm, <think> is a tag</think>a";
        assert_eq!(split(false, &[later]), ("hm, <think> is a tag".into(), "a".into()));
    }

    #[test]
    fn second_blocks_are_reasoning_too() {
        let glued = "<think>a</think>b<think>c</think>d";
        assert_eq!(split(false, &[glued]), ("ac".into(), "bd".into()));
        let lines = "<think>a</think>\n\nb\n<think>\nc\n</think>\n\nd";
        assert_eq!(split(false, &[lines]), ("ac".into(), "b\nd".into()));
        assert_eq!(split(true, &["a</think>\n<think>b</think>c"]), ("ab".into(), "c".into()));
        let spoken = "<think>a</think>Write <think> and </think>, or `<think>`.\n<think>\n";
        let answer = spoken.strip_prefix("<think>a</think>").unwrap();
        assert_eq!(split(false, &[spoken]), ("a".into(), answer.into()));
    }

    #[test]
    fn a_block_that_only_ends_was_reasoning() {
        let text = "First I reason.\n</think>\n\nAns";
        assert_eq!(split(false, &[text]), ("First I reason.".into(), "Ans".into()));
        let mut splitter = ReasoningSplitter::new(false);
        assert_eq!(splitter.push("First "), [Part::Answer("First ".into())]);
        assert_eq!(splitter.push("this</thi"), [Part::Answer("this".into())]);
        assert_eq!(
            splitter.push("nk>\nAns"),
            [Part::WasReasoning("".into()), Part::Answer("Ans".into())]
        );
        assert_eq!(split(true, &["a</think>\n</think>\n\nb"]), ("a".into(), "b".into()));
        for spoken in ["End it with </think>.", "```\n<think>\na\n</think>\n```", "a `</think>` b"]
        {
            assert_eq!(split(false, &[spoken]), ("".into(), spoken.into()));
        }
    }

    #[test]
    fn a_block_that_never_ends_is_reasoning_to_the_end() {
        assert_eq!(split(true, &["hm\n</thi"]), ("hm\n</thi".into(), "".into()));
    }

    #[test]
    fn reasoning_is_given_out_as_it_comes() {
        let mut splitter = ReasoningSplitter::new(true);
        assert_eq!(splitter.push("one "), [Part::Reasoning("one ".into())]);
        assert_eq!(splitter.push("two\n</"), [Part::Reasoning("two".into())]);
        assert_eq!(splitter.push("think>"), []);
        assert_eq!(splitter.push("\n\nthree"), [Part::Answer("three".into())]);
    }

    #[test]
    fn a_prompt_is_open_after_the_last_opening_tag() {
        assert!(is_open("<think>a</think>b<think>\n"));
        assert!(!is_open("<think>a</think>b"));
        assert!(!is_open("a"));
    }

    #[test]
    fn a_conversation_opens_a_block_only_at_its_end() {
        assert!(opens("<|user|>a<|assistant|><think>\n"));
        assert!(!opens("<|user|>What is <think> for?<|assistant|>"));
        assert!(!opens("<|assistant|><think>\n\n</think>\n\n"));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            open: bool,
            words in prop::collection::vec(
                prop::sample::select(vec!["<think>", "</think>", "\n", " ", "a", "<", "</thin", "é", "<|channel|>", "<|message|>", "<|end|>", "analysis", "[THINK]", "[/THINK]", "<|start|>", "assistant", "`"]), 0..12),
            cuts in prop::collection::vec(0usize..60, 0..4),
        ) {
            let text = words.concat();
            let mut at: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&str> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(open, &pieces), split(open, &[&text]));
        }

        #[test]
        fn no_word_is_lost(
            open: bool,
            words in prop::collection::vec(
                prop::sample::select(vec!["<think>", "</think>", "\n", " ", "◁think▷", "◁/think▷", "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "X", "Y", "Z"]), 0..12),
        ) {
            let letters = |text: &str| -> String { text.chars().filter(|c| "XYZ".contains(*c)).collect() };
            let sorted = |text: String| { let mut text: Vec<char> = text.chars().collect(); text.sort(); text };
            let text = words.concat();
            let (reasoning, answer) = split(open, &[&text]);
            prop_assert_eq!(sorted(letters(&(reasoning + &answer))), sorted(letters(&text)));
        }
    }
}
