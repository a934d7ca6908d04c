//! Routing traces, in the `route_trace v1` CSV format that BigMoeOnEdge records: one row per routed
//! expert, in the order in which layers were computed. [`Recorder`] writes them, [`Trace`] reads
//! them for [`replay`], which compares eviction policies on them and [`plot`] draws the comparison.
//!
//! ```text
//! # route_trace v1
//! # model=NAME arch=deepseek2 n_layer=27 n_expert=64 n_expert_used=6
//! # layer=1 expert_bytes=4601856
//! # sizes layer=1 4601856 2437632 ...          (ours: where experts differ in size)
//! turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
//! ```
//!
//! `phase` is 0 for the prompt (all tokens of a chunk, layer by layer) and 1 for generation;
//! `residency` states whether the expert was resident, and `expert_bytes` the bytes that had to be
//! read for it.

pub mod plot;
mod recorder;
pub mod replay;

pub use recorder::Recorder;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::{ExpertId, LayerId};
use crate::experts::policies::Shape;

/// Limits on the sizes that a trace may declare.
const MAX_LAYERS: usize = 4096;
const MAX_EXPERTS: usize = 65_536;
const MAX_EXPERTS_IN_ALL: usize = 1 << 20;
pub(super) const COLUMNS: &str = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes";
pub(super) const FIRST_LINE: &str = "# route_trace v1";

/// Error of reading a trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// A malformed line.
    #[error("{path}, line {line}: found {found:?}; expected {expected}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The text found.
        found: String,
        /// Description of the expected text.
        expected: String,
    },
}

/// A visit of one layer, for one generated token or for the tokens of a prompt's chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceVisit {
    /// The layer.
    pub layer: LayerId,
    /// Whether the tokens belong to a prompt.
    pub prefill: bool,
    /// Experts of each token, `[tokens, per_token]`.
    pub routed: Vec<ExpertId>,
}

/// The routing of a run, in order.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Number of layers and experts of the model.
    pub shape: Shape,
    /// Bytes of each expert, by [`Shape::index`].
    pub expert_bytes: Vec<u64>,
    /// The visits.
    pub visits: Vec<TraceVisit>,
}

impl Trace {
    /// Reads a trace file.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let text = fs::read_to_string(path)
            .map_err(|source| TraceError::Io { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a trace; `path` is used only in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TraceError> {
        let mut parser = Parser { path, line: 0, header: Header::default(), rows: Rows::default() };
        for (i, line) in text.lines().enumerate() {
            parser.line = i + 1;
            parser.take(line.trim())?;
        }
        parser.finish()
    }

    /// Number of generated tokens.
    pub fn decoded_tokens(&self) -> u64 {
        let per_layer = |layer| {
            let of_layer = |visit: &&TraceVisit| !visit.prefill && visit.layer == LayerId(layer);
            self.visits.iter().filter(of_layer).count() as u64
        };
        (0..self.shape.layers).map(per_layer).max().unwrap_or(0)
    }
}

#[derive(Default)]
struct Header {
    shape: Option<Shape>,
    bytes: HashMap<usize, u64>,
    sizes: HashMap<usize, Vec<u64>>,
}

#[derive(Default)]
struct Rows {
    started: bool,
    key: Option<[u64; 4]>,
    visits: Vec<TraceVisit>,
}

struct Parser<'a> {
    path: &'a Path,
    line: usize,
    header: Header,
    rows: Rows,
}

impl Parser<'_> {
    fn error(&self, found: &str, expected: impl Into<String>) -> TraceError {
        let found = found.chars().take(80).collect();
        TraceError::Line {
            path: self.path.to_path_buf(),
            line: self.line,
            found,
            expected: expected.into(),
        }
    }

    fn take(&mut self, line: &str) -> Result<(), TraceError> {
        if self.line == 1 {
            let fits = line == FIRST_LINE;
            return if fits { Ok(()) } else { Err(self.error(line, FIRST_LINE)) };
        }
        if let Some(comment) = line.strip_prefix('#') {
            self.comment(comment.trim())
        } else if line.is_empty() {
            Ok(())
        } else if !self.rows.started {
            if line != COLUMNS {
                return Err(self.error(line, COLUMNS));
            }
            self.rows.started = true;
            Ok(())
        } else {
            self.row(line)
        }
    }

    fn number(&self, text: &str, what: &str, below: usize) -> Result<usize, TraceError> {
        let number = text.parse::<usize>().ok().filter(|&n| n < below);
        number.ok_or_else(|| self.error(text, format!("{what}, a number below {below}")))
    }

    fn comment(&mut self, comment: &str) -> Result<(), TraceError> {
        let words: Vec<&str> = comment.split_whitespace().collect();
        let field =
            |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        if let (Some(layers), Some(experts), Some(per_token)) =
            (field("n_layer"), field("n_expert"), field("n_expert_used"))
        {
            let layers = self.number(layers, "n_layer", MAX_LAYERS + 1)?;
            let experts = self.number(experts, "n_expert", MAX_EXPERTS + 1)?;
            let per_token = self.number(per_token, "n_expert_used", experts + 1)?;
            let shape = Shape { layers, experts, per_token };
            if per_token == 0 || layers == 0 || shape.len() > MAX_EXPERTS_IN_ALL {
                let expected = format!(
                    "a layer and an expert per token at least, {MAX_EXPERTS_IN_ALL} experts in all at most"
                );
                return Err(self.error(comment, expected));
            }
            if self.header.shape.is_some() {
                let expected = "one line with n_layer, n_expert and n_expert_used";
                return Err(self.error(comment, expected));
            }
            self.header.shape = Some(shape);
            return Ok(());
        }
        let Some(layer) = field("layer") else { return Ok(()) };
        let layer = self.number(layer, "layer", MAX_LAYERS)?;
        let bytes = |text: &str| {
            let bytes = text.parse::<u64>().ok().filter(|&bytes| bytes > 0 && bytes < 1 << 48);
            bytes.ok_or_else(|| self.error(text, "an expert's bytes, from 1 on"))
        };
        if words.first() == Some(&"sizes") {
            let sizes = words[2..].iter().map(|word| bytes(word)).collect::<Result<_, _>>()?;
            self.header.sizes.insert(layer, sizes);
        } else if let Some(of_layer) = field("expert_bytes") {
            let of_layer = bytes(of_layer)?;
            self.header.bytes.insert(layer, of_layer);
        }
        Ok(())
    }

    fn row(&mut self, line: &str) -> Result<(), TraceError> {
        let Some(shape) = self.header.shape else {
            return Err(self.error(line, "a line with n_layer, n_expert and n_expert_used before"));
        };
        let fields: Vec<&str> = line.split(',').collect();
        let [turn, phase, step, layer, _slot, expert, _weight, _residency, _bytes] = fields[..]
        else {
            return Err(self.error(line, "nine columns"));
        };
        let turn = self.number(turn, "turn", usize::MAX)? as u64;
        let phase = self.number(phase, "phase", 2)?;
        let step = self.number(step, "step", usize::MAX)? as u64;
        let layer = self.number(layer, "layer", shape.layers)?;
        let expert = ExpertId(self.number(expert, "expert", shape.experts)?);
        // A prompt's chunk is one visit per layer, although its rows have different steps.
        let key = [turn, phase as u64, layer as u64, if phase == 0 { 0 } else { step }];
        match self.rows.visits.last_mut() {
            Some(visit) if self.rows.key == Some(key) => visit.routed.push(expert),
            _ => {
                let (layer, prefill) = (LayerId(layer), phase == 0);
                self.rows.visits.push(TraceVisit { layer, prefill, routed: vec![expert] });
            }
        }
        self.rows.key = Some(key);
        Ok(())
    }

    fn finish(self) -> Result<Trace, TraceError> {
        let Some(shape) = self.header.shape else {
            return Err(self.error("", "a line with n_layer, n_expert and n_expert_used"));
        };
        let visited = |layer| self.rows.visits.iter().any(|visit| visit.layer == LayerId(layer));
        let mut expert_bytes = Vec::with_capacity(shape.len());
        for layer in 0..shape.layers {
            match (self.header.sizes.get(&layer), self.header.bytes.get(&layer)) {
                (Some(sizes), _) if sizes.len() == shape.experts => expert_bytes.extend(sizes),
                (Some(sizes), _) => {
                    let expected = format!("{} sizes for layer {layer}", shape.experts);
                    return Err(self.error(&format!("{} sizes", sizes.len()), expected));
                }
                (None, Some(&bytes)) => expert_bytes.extend((0..shape.experts).map(|_| bytes)),
                (None, None) if visited(layer) => {
                    return Err(self.error("", format!("expert_bytes of layer {layer}")));
                }
                (None, None) => expert_bytes.extend((0..shape.experts).map(|_| 0)),
            }
        }
        Ok(Trace { shape, expert_bytes, visits: self.rows.visits })
    }
}
