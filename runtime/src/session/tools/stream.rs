//! Splits a streamed answer into text and calls.

use serde_json::{Value, json};

use super::cursor::{Cursor, Stop, TOKEN};
use super::format::{Format, Tokens};
use super::ids::Ids;
use super::offer::Tools;
use super::read::{Block, Item, Partial, Reader};
use crate::session::stop::partial_suffix;
use crate::tokenizer::Tokenizer;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text that does not belong to a call.
    Text(String),
    /// Start of a call, whose name is complete.
    Begin {
        /// Index of the call in the answer.
        index: usize,
        /// Identifier; unguessable, except for models that write their own.
        id: String,
        /// Name of the function.
        name: String,
    },
    /// Continuation of a call's arguments as JSON text.
    Arguments {
        /// Index of the call.
        index: usize,
        /// Next piece of the JSON text.
        json: String,
    },
    /// End of a call, which is complete.
    End {
        /// Index of the call.
        index: usize,
    },
    /// The text that looked like a call is not one, and follows as text from its start; a call that
    /// began is void.
    Malformed {
        /// Index of the call, if one began.
        index: Option<usize>,
        /// Description of the problem.
        problem: &'static str,
    },
}

/// A call of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Identifier.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Arguments: a JSON object, truncated if the call is incomplete.
    pub arguments: String,
    /// Whether the model has written the whole call.
    pub complete: bool,
}

impl Call {
    /// Converts the call to the format of OpenAI's API.
    pub fn to_json(&self) -> Value {
        let function = json!({"name": self.name, "arguments": self.arguments});
        json!({"id": self.id, "type": "function", "function": function})
    }
}

/// A whole answer, accumulated from its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Text outside calls.
    pub text: String,
    /// Calls in order.
    pub calls: Vec<Call>,
    /// Problems with calls that became text.
    pub warnings: Vec<&'static str>,
    /// Indices of the calls.
    indices: Vec<usize>,
}

impl Answer {
    /// Applies the next event.
    pub fn apply(&mut self, event: &ToolEvent) {
        let of = |indices: &[usize], index| indices.iter().position(|one| *one == index);
        match event {
            ToolEvent::Text(text) => self.text.push_str(text),
            ToolEvent::Begin { index, id, name } => {
                self.indices.push(*index);
                self.calls.push(Call { id: id.clone(), name: name.clone(), ..Call::default() });
            }
            ToolEvent::Arguments { index, json } => {
                if let Some(at) = of(&self.indices, *index) {
                    self.calls[at].arguments.push_str(json);
                }
            }
            ToolEvent::End { index } => {
                if let Some(at) = of(&self.indices, *index) {
                    self.calls[at].complete = true;
                }
            }
            ToolEvent::Malformed { index, problem } => {
                self.warnings.push(problem);
                if let Some(at) = index.and_then(|index| of(&self.indices, index)) {
                    self.calls.remove(at);
                    self.indices.remove(at);
                }
            }
        }
    }
}

/// A call that has not been read to its end.
#[derive(Clone, Copy, Debug)]
struct Open {
    index: usize,
    /// Number of bytes of the arguments that were emitted.
    sent: usize,
}

/// Splits an answer that arrives in pieces of any size. The input must not contain reasoning.
#[derive(Clone, Debug)]
pub struct ToolParser {
    reader: Reader,
    tools: Tools,
    triggers: Vec<String>,
    ids: Ids,
    pending: String,
    /// Length of `pending` in bytes at which it is read again, so that a long call is not read
    /// again at every token.
    due: usize,
    block: Option<Block>,
    /// White space before the block.
    space: String,
    open: Option<Open>,
    /// Number of calls that began.
    calls: usize,
    /// Whether any text other than white space was emitted, since the last call if there is one.
    spoke: bool,
}

impl ToolParser {
    /// Creates a parser for answers of a model. Markers that are tokens of its tokenizer count only
    /// if they arrived as such, as marked by [`piece`](Self::piece).
    pub fn new(format: Format, tools: Tools, tokenizer: &Tokenizer) -> Self {
        Self::with(format, tools, Tokens::new(format, tokenizer))
    }

    /// Creates a parser for text of unknown tokenization, such as recorded answers.
    pub fn of_text(format: Format, tools: Tools) -> Self {
        Self::with(format, tools, Tokens::default())
    }

    fn with(format: Format, tools: Tools, tokens: Tokens) -> Self {
        let triggers = format.triggers().iter().flat_map(|text| tokens.literals(text)).collect();
        let (pending, ids) = (String::new(), Ids::default());
        let reader = Reader { format, tokens };
        Self {
            reader,
            tools,
            triggers,
            ids,
            pending,
            due: 0,
            block: None,
            space: String::new(),
            open: None,
            calls: 0,
            spoke: false,
        }
    }

    /// Format of the calls.
    pub fn format(&self) -> Format {
        self.reader.format
    }

    /// Returns the text of `token` in the form that [`push`](Self::push) expects, if it is a marker
    /// of the format.
    pub fn piece(&self, token: u32, text: &str) -> Option<String> {
        self.reader.tokens.is_marker(token).then(|| format!("{TOKEN}{text}"))
    }

    /// Returns a text without the marks set by [`piece`](Self::piece).
    pub fn without_marks(text: &str) -> String {
        text.replace(TOKEN, "")
    }

    /// Adds `text` and returns the events that are now certain.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        self.pending.push_str(text);
        self.advance(false)
    }

    /// Returns the held-back events at the end of the answer. A call that broke off gets no end
    /// event.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        self.advance(true)
    }

    fn advance(&mut self, ended: bool) -> Vec<ToolEvent> {
        let mut out = Vec::new();
        loop {
            let goes_on = match self.block {
                None => self.text(ended, &mut out),
                Some(block) => self.item(block, ended, &mut out),
            };
            if !goes_on {
                return out;
            }
        }
    }

    fn say(&mut self, bytes: usize, out: &mut Vec<ToolEvent>) {
        let text: String = self.pending.drain(..bytes).filter(|c| *c != TOKEN).collect();
        self.spoke |= !text.trim().is_empty();
        match out.last_mut() {
            _ if text.is_empty() => {}
            Some(ToolEvent::Text(last)) => last.push_str(&text),
            _ => out.push(ToolEvent::Text(text)),
        }
    }

    /// Emits text up to the next call. Returns whether a call may follow immediately.
    fn text(&mut self, ended: bool, out: &mut Vec<ToolEvent>) -> bool {
        let format = self.reader.format;
        let start = self.pending.trim_start();
        let begins = |text: &&&str| !self.spoke && self.calls == 0 && start.starts_with(**text);
        let first =
            format.begins_answer().iter().find(begins).map(|_| self.pending.len() - start.len());
        let found = self.triggers.iter().filter_map(|trigger| self.pending.find(trigger)).min();
        if let Some(at) = first.or(found) {
            // White space before a call belongs to it.
            let text = self.pending[..at].trim_end().len();
            self.say(text, out);
            self.space = self.pending.drain(..at - text).collect();
            (self.block, self.due) = (Some(Block::default()), 0);
            return true;
        }
        if ended {
            let blank = self.pending.trim().is_empty() && self.calls > 0 && !self.spoke;
            if blank {
                self.pending.clear()
            } else {
                self.say(self.pending.len(), out)
            }
            return false;
        }
        let may_begin = |text: &&str| !self.spoke && self.calls == 0 && text.starts_with(start);
        if format.begins_answer().iter().any(may_begin) {
            return false;
        }
        let held = self.triggers.iter().map(|trigger| partial_suffix(&self.pending, trigger)).max();
        let certain = self.pending.len() - held.unwrap_or(0);
        self.say(self.pending[..certain].trim_end().len(), out);
        false
    }

    /// Reads the next item of a block. Returns whether more may follow immediately.
    fn item(&mut self, mut block: Block, ended: bool, out: &mut Vec<ToolEvent>) -> bool {
        if !ended && self.pending.len() < self.due {
            return false;
        }
        let mut call = Partial::default();
        let mut cursor = Cursor::new(&self.pending);
        let (before, read) =
            (block, self.reader.next(&mut cursor, &mut block, &self.tools, &mut call));
        let at = cursor.at;
        match read {
            Ok(Item::Call) => {
                self.report(&call, out);
                out.extend(self.open.take().map(|open| ToolEvent::End { index: open.index }));
                self.pending.drain(..at);
                block.calls += 1;
                self.space.clear();
                (self.block, self.due, self.spoke) = (Some(block), 0, false);
                true
            }
            Ok(Item::End) => {
                self.pending.drain(..at);
                self.block = None;
                true
            }
            Err(Stop::More) => {
                self.report(&call, out);
                self.due = self.pending.len() + self.pending.len() / 64;
                if !ended {
                    return false;
                }
                self.block = None;
                // A call that began is cut off there; a block that lacks only its end is complete.
                if self.open.take().is_some()
                    || (before.calls > 0 && self.pending.trim().is_empty())
                {
                    self.pending.clear();
                    return false;
                }
                self.malformed("a call breaks off before its name", out)
            }
            Err(Stop::Wrong(_)) if before.calls > 0 && self.open.is_none() => {
                // Complete calls are followed by something else: text, or another block.
                self.block = None;

                true
            }
            Err(Stop::Wrong(problem)) => {
                self.block = None;
                self.malformed(problem, out)
            }
        }
    }

    /// Emits the text that was held for a call as text, up to the possible start of the next call.
    fn malformed(&mut self, problem: &'static str, out: &mut Vec<ToolEvent>) -> bool {
        out.push(ToolEvent::Malformed { index: self.open.take().map(|open| open.index), problem });
        self.pending.insert_str(0, &std::mem::take(&mut self.space));
        let len = self.trigger_len().max(self.pending.chars().next().map_or(0, char::len_utf8));
        self.say(len, out);
        self.spoke = true;
        true
    }

    fn trigger_len(&self) -> usize {
        let text = self.pending.trim_start();
        let at_start = self.triggers.iter().filter(|trigger| text.starts_with(*trigger));
        let longest = at_start.map(String::len).max();
        longest.map_or(0, |len| self.pending.len() - text.len() + len)
    }

    /// Emits the new parts of a call.
    fn report(&mut self, call: &Partial, out: &mut Vec<ToolEvent>) {
        let Some(name) = &call.name else { return };
        let open = match self.open {
            Some(open) => open,
            None => {
                let index = self.calls;
                self.calls += 1;
                let id = call.id.clone().unwrap_or_else(|| self.ids.next(self.reader.format));
                out.push(ToolEvent::Begin { index, id, name: name.clone() });
                Open { index, sent: 0 }
            }
        };
        let json = call.arguments.get(open.sent..).unwrap_or_default();
        if !json.is_empty() {
            out.push(ToolEvent::Arguments { index: open.index, json: json.into() });
        }
        self.open = Some(Open { sent: call.arguments.len(), ..open });
    }
}
