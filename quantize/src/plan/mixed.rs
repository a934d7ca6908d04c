//! The mixed plan: each expert gets the types at which a byte buys most, under a size for the whole file.
//!
//! The cost of a choice is the squared error of the weights that it leaves, relative to the mean energy of
//! that projection in its layer. Layers that calibration never reached, the MTP layer for one, count a tenth.
//! Costs weighted by importance and by the experts' work were tried and gave worse plans
//! (docs/measurements-quality.md).

use rayon::prelude::*;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::model::gguf_weights::record_layout;
use vaquita_runtime::model::{ExpertSpec, Projection, Weights, WeightsError};

use super::knapsack::{self, Choice};
use super::{Plan, expert_layers, expert_specs, fit};
use crate::container::{self, ContainerError, Inventory};
use crate::encoders::{self, Distortion, EncodeError, Sample};
use crate::importance::Importance;
use crate::progress::{Progress, Stage};
use crate::sources::Identity;
use vaquita_runtime::gguf::Metadata;

/// Types that experts may get.
const TYPES: [BlockType; 4] = [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8];
/// What errors count in a layer that no text reached.
const UNREACHED: f64 = 0.1;
/// Rows by which a matrix is judged.
const SAMPLE_ROWS: usize = 256;

/// How large the file may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Bits of the whole file per weight of the model.
    BitsPerWeight(f64),
    /// Bytes of the whole file.
    Bytes(u64),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BitsPerWeight(bits) => write!(f, "{bits} bits per weight"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No choice of types makes the file small enough.
    #[error(
        "{target} cannot be reached: this model takes from {least_bytes} bytes ({least_bits:.3} bits per weight) to {most_bytes} bytes ({most_bits:.3})"
    )]
    Unreachable {
        /// What was asked for.
        target: Target,
        /// The smallest file.
        least_bytes: u64,
        /// The same in bits per weight.
        least_bits: f64,
        /// The largest file.
        most_bytes: u64,
        /// The same in bits per weight.
        most_bits: f64,
    },
    /// A weight that cannot be encoded.
    #[error("tensor {name}: {source}")]
    Encode {
        /// The tensor.
        name: String,
        /// Why.
        source: EncodeError,
    },
    /// Reading failed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The size of the file could not be worked out.
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// What the types would leave of an expert: by projection, then by type.
type Measured = [[Distortion; TYPES.len()]; 3];

/// Plans a file that is as large as the target allows and no larger. A target beyond the largest file gives
/// the largest.
pub fn mixed(
    weights: &dyn Weights,
    identity: &Identity,
    tokenizer: &Metadata,
    importance: Option<&dyn Importance>,
    target: Target,
    progress: &mut dyn FnMut(Progress),
) -> Result<Plan, PlanError> {
    let config = weights.config();
    let inventory = Inventory::new(weights)?;
    let name = match target {
        Target::BitsPerWeight(bits) => format!("mixed, at most {bits} bits per weight"),
        Target::Bytes(bytes) => format!("mixed, at most {bytes} bytes"),
    };
    let size = |ty: BlockType| -> Result<u64, ContainerError> {
        let types = |spec: &ExpertSpec| Projection::ALL.map(|p| fit(ty, spec.shape(p).1));
        let plan = Plan::new(config, name.clone(), BlockType::E8, types);
        Ok(container::Layout::new(&inventory, identity, tokenizer, &plan)?.file_bytes)
    };
    let (least, most) = (size(BlockType::E2)?, size(BlockType::E8)?);
    let budget = match target {
        Target::Bytes(bytes) => bytes,
        Target::BitsPerWeight(bits) => (bits * inventory.parameters as f64 / 8.0) as u64,
    };
    if budget < least {
        let bits = |bytes: u64| bytes as f64 * 8.0 / inventory.parameters as f64;
        let (least_bits, most_bits) = (bits(least), bits(most));
        return Err(PlanError::Unreachable {
            target,
            least_bytes: least,
            least_bits,
            most_bytes: most,
            most_bits,
        });
    }

    let layers: Vec<Vec<ExpertSpec>> =
        expert_layers(config).map(|layer| expert_specs(config, layer).collect()).collect();
    let total = layers.iter().flatten().map(container::expert_parameters).sum();
    let mut progress = Progress { stage: Stage::Planning, done: 0, total }.with(progress);
    let mut items = Vec::new();
    for specs in &layers {
        let mut measured = Vec::new();
        for part in specs.chunks(rayon::current_num_threads() * 2) {
            let part_measured: Vec<Measured> =
                part.par_iter().map(|spec| measure(weights, spec)).collect::<Result<_, _>>()?;
            measured.extend(part_measured);
            progress.add(part.iter().map(container::expert_parameters).sum());
        }
        let reached = importance.is_none_or(|all| {
            specs.iter().any(|spec| all.expert(spec, Projection::Gate).is_some())
        });
        let share = if reached { 1.0 } else { UNREACHED };
        let energies = [0, 1, 2].map(|p| {
            let sum: f64 = measured.iter().map(|expert| expert[p][0].energy).sum();
            (sum / specs.len() as f64 / share).max(f64::MIN_POSITIVE)
        });
        items.extend(specs.iter().zip(&measured).map(|(spec, m)| choices(spec, m, energies)));
    }
    // All files with these tensors differ only in their records.
    let smallest: u64 = items.iter().map(|choices| choices[0].bytes).sum();
    let fixed = least.saturating_sub(smallest);
    let chosen = knapsack::solve(&items, budget.saturating_sub(fixed)).ok_or_else(|| {
        let found = "the smallest records do not fit the budget".to_string();
        PlanError::Container(ContainerError::Layout { found })
    })?;
    let mut chosen = chosen.into_iter();
    Ok(Plan::new(config, name, BlockType::E8, |spec| {
        let types = combination(chosen.next().unwrap_or(0));
        fitted(spec, types)
    }))
}

/// The types of the `n`-th combination; the first is the smallest.
fn combination(n: usize) -> [BlockType; 3] {
    let types = TYPES.len();
    [n / types / types % types, n / types % types, n % types].map(|at| TYPES[at])
}

fn fitted(spec: &ExpertSpec, types: [BlockType; 3]) -> [BlockType; 3] {
    Projection::ALL.map(|projection| fit(types[projection as usize], spec.shape(projection).1))
}

/// Size and cost of every combination of types.
fn choices(spec: &ExpertSpec, measured: &Measured, energies: [f64; 3]) -> Vec<Choice> {
    let shapes = Projection::ALL.map(|projection| spec.shape(projection));
    let combinations = TYPES.len().pow(3);
    let choice = |n: usize| {
        let types = combination(n);
        let record = record_layout(fitted(spec, types), shapes);
        let bytes = record.map_or(u64::MAX / 2, |(_, len)| container::padded(len as u64));
        let cost = (0..3).map(|p| {
            let ty = TYPES.iter().position(|ty| *ty == types[p]).unwrap_or(0);
            measured[p][ty].squared_error / energies[p]
        });
        Choice { bytes, cost: cost.sum() }
    };
    (0..combinations).map(choice).collect()
}

fn measure(weights: &dyn Weights, spec: &ExpertSpec) -> Result<Measured, PlanError> {
    let expert = weights.expert(spec)?;
    let mut measured = Measured::default();
    for (projection, matrix) in
        Projection::ALL.into_iter().zip([&expert.gate, &expert.up, &expert.down])
    {
        let sample = Sample::new(matrix, SAMPLE_ROWS);
        for (at, ty) in TYPES.into_iter().enumerate() {
            let ty = fit(ty, matrix.cols());
            let distortion = encoders::measure(ty, &sample, None).map_err(|source| {
                let name = spec.projection_name(projection);
                PlanError::Encode { name, source }
            })?;
            measured[projection as usize][at] = distortion;
        }
        matrix.release();
    }
    Ok(measured)
}
