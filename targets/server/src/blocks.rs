//! An answer as a sequence of blocks, which Anthropic's Messages and OpenAI's Responses consist of:
//! reasoning, text and calls, each opened, continued and closed.

use vaquita_runtime::session::tools::ToolEvent;

use crate::answering::{Outcome, Piece};

/// Kind of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Reasoning,
    Text,
    /// A call, with its identifier and the name of the function.
    Call {
        id: String,
        name: String,
    },
}

/// A block, which ends with the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub kind: Kind,
    /// The text, or the arguments of a call as JSON.
    pub text: String,
}

/// A change of the last block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Open { index: usize, kind: Kind },
    Delta { index: usize, kind: Kind, text: String },
    Close { index: usize, block: Block },
}

/// The blocks of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    open: Option<Block>,
    /// Blocks that were opened.
    count: usize,
}

impl Blocks {
    /// Changes that a piece of an answer makes.
    pub fn push(&mut self, piece: &Piece) -> Vec<Change> {
        match piece {
            Piece::Reasoning(text) => self.append(Kind::Reasoning, text),
            Piece::Text(text) => self.append(Kind::Text, text),
            Piece::Call(ToolEvent::Begin { id, name, .. }) => {
                let mut changes = self.close();
                changes.extend(self.open(Kind::Call { id: id.clone(), name: name.clone() }));
                changes
            }
            Piece::Call(ToolEvent::Arguments { json, .. }) => self.continued(json),
            Piece::Call(ToolEvent::End { .. } | ToolEvent::Malformed { .. }) => self.close(),
            _ => Vec::new(),
        }
    }

    /// Closes the last block.
    pub fn close(&mut self) -> Vec<Change> {
        let index = self.count.saturating_sub(1);
        self.open.take().map(|block| Change::Close { index, block }).into_iter().collect()
    }

    fn open(&mut self, kind: Kind) -> Vec<Change> {
        self.open = Some(Block { kind: kind.clone(), text: String::new() });
        self.count += 1;
        vec![Change::Open { index: self.count - 1, kind }]
    }

    fn append(&mut self, kind: Kind, text: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        if text.is_empty() {
            return changes;
        }
        if self.open.as_ref().is_none_or(|block| block.kind != kind) {
            changes.extend(self.close());
            changes.extend(self.open(kind));
        }
        changes.extend(self.continued(text));
        changes
    }

    fn continued(&mut self, text: &str) -> Vec<Change> {
        let Some(block) = self.open.as_mut().filter(|_| !text.is_empty()) else {
            return Vec::new();
        };
        block.text.push_str(text);
        let kind = block.kind.clone();
        vec![Change::Delta { index: self.count - 1, kind, text: text.into() }]
    }
}

/// The blocks of a whole answer.
pub(crate) fn of(outcome: &Outcome) -> Vec<Block> {
    let generation = &outcome.generation;
    let texts = [(Kind::Reasoning, &generation.reasoning), (Kind::Text, &generation.answer)];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let texts = texts.map(|(kind, text)| Block { kind, text: text.clone() });
    let calls = generation.calls.iter().map(|call| Block {
        kind: Kind::Call { id: call.id.clone(), name: call.name.clone() },
        text: call.arguments.clone(),
    });
    texts.chain(calls).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_each_other() {
        let mut blocks = Blocks::default();
        let pieces = [
            Piece::Reasoning("a".into()),
            Piece::Reasoning("b".into()),
            Piece::Text("c".into()),
            Piece::Call(ToolEvent::Begin { index: 0, id: "1".into(), name: "f".into() }),
            Piece::Call(ToolEvent::Arguments { index: 0, json: "{}".into() }),
            Piece::Call(ToolEvent::End { index: 0 }),
        ];
        let changes: Vec<Change> = pieces.iter().flat_map(|piece| blocks.push(piece)).collect();
        let closed: Vec<(usize, &str)> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Close { index, block } => Some((*index, block.text.as_str())),
                _ => None,
            })
            .collect();
        assert_eq!(closed, [(0, "ab"), (1, "c"), (2, "{}")]);
        assert_eq!(changes.len(), 10, "{changes:?}");
        assert!(blocks.close().is_empty());
    }
}
