//! From the tokens of an answer to its reasoning, its text and its tool calls, with the events that
//! announce them.

use std::ops::ControlFlow;

use super::generate::{Event, GenerationOptions, StopReason};
use super::reasoning::{Part, Phase, ReasoningSplitter};
use super::sampler::logprobs::Logprobs;
use super::stop::StopStrings;
use super::text::TextStream;
use super::tools::{self, ToolEvent, ToolParser};
use crate::tokenizer::Tokenizer;

type OnEvent<'a> = &'a mut dyn FnMut(Event) -> ControlFlow<()>;

/// Converts tokens to reasoning, answer and calls.
pub(super) struct AnswerText {
    stream: TextStream,
    stops: StopStrings,
    splitter: ReasoningSplitter,
    parser: Option<ToolParser>,
    /// Whether the next token belongs to the answer regardless of what it looks like.
    pub held: bool,
    /// Whether that holds for all tokens.
    keep_tags: bool,
    pub reasoning: String,
    pub answer: String,
    pub called: tools::Answer,
    /// The answer including its calls as the model wrote them.
    pub raw: String,
}

impl AnswerText {
    pub fn new(options: &GenerationOptions, tokenizer: &Tokenizer) -> Self {
        Self {
            stream: TextStream::default(),
            stops: StopStrings::new(options.stop.iter().cloned()),
            splitter: ReasoningSplitter::new(options.reasoning_open),
            parser: options
                .calls
                .as_ref()
                .map(|calls| ToolParser::new(calls.format, calls.tools.clone(), tokenizer)),
            held: false,
            keep_tags: options.keep_tags,
            called: tools::Answer::default(),
            raw: String::new(),
            reasoning: String::new(),
            answer: String::new(),
        }
    }

    /// Emits a token and the text that is certain after it. Breaks if the answer ends here.
    pub fn push(
        &mut self,
        token: u32,
        logprobs: Option<&Logprobs>,
        tokenizer: &Tokenizer,
        on_event: OnEvent,
    ) -> ControlFlow<StopReason> {
        let mut flow = on_event(Event::Token(token));
        if let Some(logprobs) = logprobs
            && on_event(Event::Logprobs(logprobs)).is_break()
        {
            flow = ControlFlow::Break(());
        }
        let mut stopped = false;
        for part in self.parts(token, tokenizer) {
            let (emitted, found) = self.take(part, on_event);
            if emitted.is_break() {
                flow = ControlFlow::Break(());
            }
            stopped = found;
            if stopped {
                break;
            }
        }
        match (flow, stopped) {
            (_, true) => ControlFlow::Break(StopReason::StopString),
            (ControlFlow::Break(()), _) => ControlFlow::Break(StopReason::Cancelled),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Splits the text of a token into parts.
    fn parts(&mut self, token: u32, tokenizer: &Tokenizer) -> Vec<Part> {
        let piece = tokenizer.piece(token).unwrap_or_default();
        let marker = self.parser.as_ref().and_then(|parser| {
            Some((parser.piece(token, &String::from_utf8_lossy(&piece))?, parser.format()))
        });
        if self.held || self.keep_tags {
            let text = match &marker {
                Some((marker, _)) => self.stream.flush() + marker,
                None => self.stream.push(&piece),
            };
            let parts = self.splitter.flush().into_iter();
            return parts.chain([Part::Answer(text)]).collect();
        }
        let Some((marker, format)) = marker else {
            return self.splitter.push(&self.stream.push(&piece));
        };
        let text = self.stream.flush();
        let mut parts = self.splitter.push(&text);
        let forgotten = format.ends_reasoning() && self.splitter.phase() == Phase::Reasoning;
        if forgotten && self.splitter.is_holding("<") {
            // The held-back `<` is the start of the marker: complete it to `</think>` to end the
            // reasoning, then push `<` again before the marker.
            parts.extend(self.splitter.push("/think>"));
            parts.extend(self.splitter.push("<"));
        }
        parts.extend(self.splitter.push(&marker));
        parts
    }

    /// Emits the text of a part that is certain not to belong to a stop string, and returns whether
    /// a stop string was found.
    fn take(&mut self, part: Part, on_event: OnEvent) -> (ControlFlow<()>, bool) {
        match part {
            Part::Answer(text) => {
                let (text, found) = self.stops.push(&text);
                (self.answer(&text, on_event), found)
            }
            // The held-back text can no longer belong to a stop string.
            Part::Reasoning(text) => {
                let held = self.stops.flush();
                let answered = self.answer(&held, on_event);
                self.reasoning.push_str(&text);
                let thought = on_event(Event::Reasoning(&text));
                (if answered.is_break() { answered } else { thought }, false)
            }
            Part::WasReasoning(rest) => {
                let rest = self.stops.flush() + &rest;
                let _ = self.end_calls(on_event);
                self.raw.clear();
                let thought = std::mem::take(&mut self.answer) + &rest;
                self.reasoning.push_str(thought.trim_matches('\n'));
                let rest = rest.trim_end_matches('\n');
                let mut flow = on_event(Event::WasReasoning);
                if !rest.is_empty() && flow.is_continue() {
                    flow = on_event(Event::Reasoning(rest));
                }
                (flow, false)
            }
        }
    }

    fn answer(&mut self, text: &str, on_event: OnEvent) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        let Some(parser) = &mut self.parser else {
            self.answer.push_str(text);
            return on_event(Event::Answer(text));
        };
        self.raw.push_str(&ToolParser::without_marks(text));
        let events = parser.push(text);
        self.tell(&events, on_event)
    }

    fn tell(&mut self, events: &[ToolEvent], on_event: OnEvent) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        for event in events {
            self.called.apply(event);
            let told = match event {
                ToolEvent::Text(text) => {
                    self.answer.push_str(text);
                    on_event(Event::Answer(text))
                }
                event => on_event(Event::Call(event)),
            };
            if told.is_break() {
                flow = told;
            }
        }
        flow
    }

    /// Emits the events that the call parser holds back.
    fn end_calls(&mut self, on_event: OnEvent) -> ControlFlow<()> {
        let events = self.parser.as_mut().map(ToolParser::finish).unwrap_or_default();
        self.tell(&events, on_event)
    }

    /// Emits the text that was held back. The caller's control flow is ignored, since the answer
    /// ends here.
    pub fn finish(&mut self, stop: StopReason, on_event: OnEvent) {
        if stop != StopReason::StopString {
            self.flush(on_event);
        }
        let _ = self.end_calls(on_event);
    }

    fn flush(&mut self, on_event: OnEvent) {
        let text = self.stream.flush();
        let mut parts = self.splitter.push(&text);
        parts.extend(self.splitter.flush());
        for part in parts {
            if self.take(part, on_event).1 {
                return;
            }
        }
        let held = self.stops.flush();
        let _ = self.answer(&held, on_event);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Runs a text token by token and returns the reasoning, the answer, the reason why it ends if
    /// it is the text, and all emitted text.
    fn run(text: &str, open: bool, stop: &str) -> (String, String, Option<StopReason>, String) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference");
        let tokenizer = Tokenizer::from_folder(&folder).expect("the reference model has one");
        let options = GenerationOptions {
            stop: vec![stop.to_string()],
            reasoning_open: open,
            ..GenerationOptions::default()
        };
        let mut answer = AnswerText::new(&options, &tokenizer);
        let mut emitted = String::new();
        let mut on_event = |event: Event| {
            if let Event::Reasoning(text) | Event::Answer(text) = event {
                emitted.push_str(text);
            }
            ControlFlow::Continue(())
        };
        let mut stopped = None;
        for token in tokenizer.encode(text, false).expect("tokens") {
            let flow = answer.push(token, None, &tokenizer, &mut on_event);
            if let ControlFlow::Break(reason) = flow {
                stopped = Some(reason);
                break;
            }
        }
        answer.finish(stopped.unwrap_or(StopReason::Length), &mut on_event);
        (answer.reasoning, answer.answer, stopped, emitted)
    }

    #[test]
    fn a_stop_string_within_the_thoughts_ends_nothing() {
        let stopped = Some(StopReason::StopString);
        for (text, open) in [
            ("<think>\n6 = 2 * 3, so = it is</think>\n\nIt is 6 = 2 * 3.", false),
            ("6 = 2 * 3, so = it is</think>It is 6 = 2 * 3.", true),
            ("[THINK]6 = 2 * 3, so = it is[/THINK]It is 6 = 2 * 3.", false),
        ] {
            let (reasoning, answer, reason, emitted) = run(text, open, "=");
            assert_eq!((&*reasoning, &*answer), ("6 = 2 * 3, so = it is", "It is 6 "), "{text}");
            assert_eq!(reason, stopped, "{text}");
            assert_eq!(emitted, reasoning + &answer, "{text}");
        }
        let channels = "<|channel|>analysis<|message|>6 = 2 * 3<|end|><|start|>assistant\
            <|channel|>final<|message|>It is 6 = 2 * 3.";
        let (reasoning, answer, reason, _) = run(channels, false, "=");
        assert_eq!((&*reasoning, &*answer, reason), ("6 = 2 * 3", "It is 6 ", stopped));
    }

    #[test]
    fn a_stop_string_is_not_put_together_from_thoughts_and_answer() {
        for text in ["<think>so A</think>B is it", "<think>so</think>A<think>hm</think>B is it"] {
            let (_, answer, reason, _) = run(text, false, "AB");
            assert!(answer.ends_with("B is it") && reason.is_none(), "{text}: {answer}");
        }
        // One that the thoughts alone contain is kept whole.
        let (reasoning, answer, reason, _) = run("<think>AB, A</think>A", false, "AB");
        assert_eq!((&*reasoning, &*answer, reason), ("AB, A", "A", None));
    }

    #[test]
    fn thoughts_that_no_tag_opened_end_at_a_stop_string_since_they_look_like_the_answer() {
        let (reasoning, answer, reason, _) = run("so A, AB</think>it is", false, "AB");
        assert_eq!((&*reasoning, &*answer), ("", "so A, "));
        assert_eq!(reason, Some(StopReason::StopString));
        let (reasoning, answer, reason, _) = run("so A</think>it is AB", false, "AB");
        assert_eq!((&*reasoning, &*answer), ("so A", "it is "));
        assert_eq!(reason, Some(StopReason::StopString));
    }
}
