//! Calibration in parts: each runs its share of the documents through all layers and writes exact
//! sums, which [`merge`] adds up to a file that is byte-identical to that of one machine.
//!
//! A part is a header and, in the order of the layers, a record of sums for each: see
//! docs/format.md. Sums are packed to the bytes that they need, about 8 each, twice the size in the
//! calibration file.

mod merge;
mod packed;
mod reader;
mod writer;

use std::io;

use serde::{Deserialize, Serialize};
use vaquita_quantize::Part;

use super::file::{CalibrationError, LayerShape, Origin, Shape};

pub use merge::merge;
pub(super) use writer::PartWriter;

const MAGIC: &[u8; 8] = b"VAQCALP1";
/// Maximum length of a header, in bytes.
const MAX_HEADER: u64 = 64 << 20;

/// Identity of a part. All parts of one calibration have the same header except for their number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub number: usize,
    pub count: usize,
    pub source: String,
    pub text: String,
    pub documents: usize,
    /// Everything besides source and texts that determines the hidden states.
    pub computed: String,
    pub block: Option<usize>,
    /// Names and numbers of inputs of the matrices of each step: a layer, or finally the output
    /// head.
    pub steps: Vec<Step>,
}

/// Contents of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    pub matrices: Vec<(String, usize)>,
    pub experts: Option<Experts>,
}

/// Routed experts of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Experts {
    pub layer: usize,
    pub count: usize,
    pub input: usize,
    pub hidden: usize,
}

impl Header {
    /// The header of one part of a calibration with that shape. There is a step for each layer and,
    /// unless it is tied to the embedding, one for the output head.
    pub fn new(
        part: Part,
        origin: &Origin,
        shape: &Shape,
        computed: &str,
        [layers, steps]: [usize; 2],
    ) -> Self {
        let Origin { source, text, documents, .. } = origin.clone();
        let steps = (0..steps).map(|at| step(shape, (at < layers).then_some(at)));
        let steps = steps.collect();
        let (number, count) = (part.number(), part.count());
        let (computed, block) = (computed.into(), shape.block);
        Self { number, count, source, text, documents, computed, block, steps }
    }

    /// Number of sums in the part; `None` on overflow.
    pub fn sums(&self) -> Option<u64> {
        let of = |cols: usize| -> Option<u64> {
            let products = match self.block {
                // An upper bound: the number of sums in whole blocks.
                Some(block) => cols.checked_mul(block.div_ceil(2))?,
                None => 0,
            };
            u64::try_from(products.checked_add(cols)?).ok()
        };
        self.steps.iter().try_fold(0u64, |all, step| {
            let mut matrices = step.matrices.iter();
            let sum = matrices.try_fold(all, |sum, (_, cols)| sum.checked_add(of(*cols)?))?;
            let Some(experts) = step.experts else { return Some(sum) };
            let expert = of(experts.input)?.checked_add(of(experts.hidden)?)?;
            sum.checked_add(expert.checked_mul(experts.count as u64)?)
        })
    }

    /// A checksum that identifies the part and its calibration.
    pub fn fingerprint(&self) -> io::Result<String> {
        let json = serde_json::to_vec(self)?;
        Ok(format!("crc32:{:08x} of {} bytes", crc32fast::hash(&json), json.len()))
    }

    /// Origin: texts and model.
    pub fn origin(&self) -> Origin {
        let (source, text, documents) = (self.source.clone(), self.text.clone(), self.documents);
        Origin { source, text, documents, ..Origin::default() }
    }

    /// Shape of the merged file.
    pub fn shape(&self) -> Shape {
        let layers = self.steps.iter().filter_map(|step| step.experts);
        let layers = layers.map(|one| LayerShape {
            layer: one.layer,
            experts: one.count,
            input: one.input,
            hidden: one.hidden,
        });
        let matrices = self.steps.iter().flat_map(|step| step.matrices.clone());
        Shape { matrices: matrices.collect(), layers: layers.collect(), block: self.block }
    }
}

fn step(shape: &Shape, layer: Option<usize>) -> Step {
    let matrices = shape.matrices.iter();
    let matrices = matrices.filter(|(name, _)| super::file::layer_of(name, "blk.") == layer);
    let experts = shape.layers.iter().find(|one| Some(one.layer) == layer).map(|one| Experts {
        layer: one.layer,
        count: one.experts,
        input: one.input,
        hidden: one.hidden,
    });
    Step { matrices: matrices.cloned().collect(), experts }
}
