//! Reasoning told apart from the answer: what stands between `<think>` and `</think>`, and in gpt-oss's answers, which
//! consist of messages in channels, what is in the channel `analysis`.

use super::stop::partial_suffix;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
/// Comes before the name of a message's channel. An answer in channels begins with it.
const CHANNEL: &str = "<|channel|>";
/// Ends a message's header.
const MESSAGE: &str = "<|message|>";
/// Ends a message; a header follows.
const END: &str = "<|end|>";

/// A piece of streamed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The model thinks.
    Reasoning(String),
    /// The model answers.
    Answer(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far: a tag may follow.
    Start,
    Reasoning,
    Answer,
    /// In the header of a message in a channel.
    Header,
    /// In a message that is reasoning, or one that is not.
    Message {
        reasoning: bool,
    },
}

/// Splits text as it is streamed, wherever it is cut. Tags are dropped, and newlines beside them.
#[derive(Clone, Debug)]
pub struct ReasoningSplitter {
    state: State,
    pending: String,
    /// Newlines that come next belong to a tag.
    after_tag: bool,
}

impl ReasoningSplitter {
    /// `open` says that the prompt ended inside a `<think>` block: see [`is_open`].
    pub fn new(open: bool) -> Self {
        let state = if open { State::Reasoning } else { State::Start };
        Self { state, pending: String::new(), after_tag: open }
    }

    /// What `text` makes certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.pending.push_str(text);
        let mut parts = Vec::new();
        while self.step(&mut parts) {}
        parts
    }

    /// What was held back, when the text has ended.
    pub fn flush(&mut self) -> Option<Part> {
        let rest = std::mem::take(&mut self.pending);
        let part = match self.state {
            State::Reasoning | State::Message { reasoning: true } => Part::Reasoning(rest),
            // Half a header says nothing.
            State::Header => return None,
            State::Start | State::Answer | State::Message { .. } => Part::Answer(rest),
        };
        (part != Part::Reasoning(String::new()) && part != Part::Answer(String::new()))
            .then_some(part)
    }

    /// Takes one step and says whether another may follow.
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
            State::Start => {
                let text = self.pending.trim_start();
                if let Some(rest) = text.strip_prefix(OPEN) {
                    self.pending = rest.to_string();
                    self.enter(State::Reasoning);
                    return true;
                }
                if text.starts_with(CHANNEL) {
                    self.state = State::Header;
                    return true;
                }
                if OPEN.starts_with(text) || CHANNEL.starts_with(text) {
                    return false;
                }
                self.state = State::Answer;
                true
            }
            State::Reasoning => {
                if let Some(at) = self.pending.find(CLOSE) {
                    let thought = self.pending[..at].trim_end_matches('\n').to_string();
                    self.pending.drain(..at + CLOSE.len());
                    if !thought.is_empty() {
                        parts.push(Part::Reasoning(thought));
                    }
                    self.enter(State::Answer);
                    return true;
                }
                let certain = self.pending.len() - partial_suffix(&self.pending, CLOSE);
                let certain = self.pending[..certain].trim_end_matches('\n').len();
                if certain > 0 {
                    parts.push(Part::Reasoning(self.pending.drain(..certain).collect()));
                }
                false
            }
            State::Answer => {
                parts.push(Part::Answer(std::mem::take(&mut self.pending)));
                false
            }
            State::Header => {
                let Some(at) = self.pending.find(MESSAGE) else { return false };
                let header: String = self.pending.drain(..at + MESSAGE.len()).collect();
                let channel = header.split_once(CHANNEL).map_or("", |(_, channel)| channel);
                // A call of a tool: whoever acts on it needs to know of which.
                let call = header.contains("to=");
                if call {
                    parts.push(Part::Answer(header.clone()));
                }
                self.state = State::Message { reasoning: channel.starts_with("analysis") && !call };
                true
            }
            State::Message { reasoning } => {
                let end = self.pending.find(END);
                let certain = self.pending.len() - partial_suffix(&self.pending, END);
                let text: String = self.pending.drain(..end.unwrap_or(certain)).collect();
                if !text.is_empty() {
                    parts.push(if reasoning { Part::Reasoning(text) } else { Part::Answer(text) });
                }
                if end.is_some() {
                    self.pending.drain(..END.len());
                    self.state = State::Header;
                }
                end.is_some()
            }
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.after_tag = true;
    }
}

/// Whether the prompt of a conversation ends by opening a `<think>` block, as those of R1's template do. What a user says of
/// such blocks does not matter.
pub fn opens(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}

/// Whether a text that is to be continued as it is ends inside a `<think>` block.
pub fn is_open(prompt: &str) -> bool {
    prompt.rfind(OPEN) > prompt.rfind(CLOSE)
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
                prop::sample::select(vec!["<think>", "</think>", "\n", " ", "a", "<", "</thin", "é", "<|channel|>", "<|message|>", "<|end|>", "analysis"]), 0..12),
            cuts in prop::collection::vec(0usize..60, 0..4),
        ) {
            let text = words.concat();
            let mut at: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&str> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(open, &pieces), split(open, &[&text]));
        }
    }
}
