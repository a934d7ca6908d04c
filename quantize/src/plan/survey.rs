//! Rate-distortion survey: the error of every matrix at every type, measured once and reused for
//! all plans.
//!
//! The cost of a choice is its squared error relative to the energy of the weights. For an expert's
//! projection, the energy is the mean over that projection in the layer. For dense matrices, the
//! error is weighted by the number of tokens that they process and by their sensitivity
//! ([`dense::sensitivity`]). Matrices that calibration did not reach, such as the MTP layer, count
//! a tenth. Costs weighted by importance and by the experts' work were tried and gave worse plans
//! (docs/measurements-quality.md).

use rayon::prelude::*;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::gguf_weights::record_layout;
use vaquita_runtime::checkpoint::{
    Config, ExpertSpec, Projection, Role, TensorSpec, Weights, WeightsError,
};
use vaquita_runtime::gguf::Metadata;

use super::error::PlanError;
use super::knapsack::Choice;
use super::{Plan, dense, expert_layers, expert_specs, fit};
use crate::container::{self, ContainerError, Inventory};
use crate::encoders::{self, Distortion, Guide, Sample};
use crate::importance::Importance;
use crate::progress::{Progress, Stage};
use crate::sources::Identity;

/// Types that matrices may get, smallest first.
pub(super) const TYPES: [BlockType; 4] =
    [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8];
/// Weight of errors in matrices that no text reached.
const UNREACHED: f64 = 0.1;
/// Number of sampled rows per matrix.
const SAMPLE_ROWS: usize = 256;

/// A model to be planned.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// Weights of the source.
    pub weights: &'a dyn Weights,
    /// Identity of the source.
    pub identity: &'a Identity,
    /// `tokenizer.*` metadata of the file.
    pub tokenizer: &'a Metadata,
    /// Importance of columns, if known.
    pub importance: Option<&'a dyn Importance>,
}

/// An expert or a dense tensor, with the size and cost of each option.
pub(super) struct SurveyItem<T> {
    pub spec: T,
    pub choices: Vec<Choice>,
}

/// Measured errors of a model.
pub struct Survey {
    pub(super) config: Config,
    /// Number of weights of the model.
    pub parameters: u64,
    /// Bytes of the smallest and of the largest file.
    pub bytes: [u64; 2],
    /// Dense tensors, with an option per type of [`TYPES`].
    pub(super) dense: Vec<SurveyItem<TensorSpec>>,
    /// Experts by layer, with the options of [`combination`].
    pub(super) experts: Vec<Vec<SurveyItem<ExpertSpec>>>,
}

/// Distortion of an expert by projection and type.
type Measured = [[Distortion; TYPES.len()]; 3];

impl Survey {
    /// Measures a model.
    pub fn new(
        material: &Material,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, PlanError> {
        let config = material.weights.config();
        let inventory = Inventory::new(material.weights)?;
        let size = |ty: BlockType| -> Result<u64, ContainerError> {
            let types = |spec: &ExpertSpec| fitted(spec, [ty; 3]);
            let plan = Plan::new(config, String::new(), |_| ty, types);
            let Material { identity, tokenizer, .. } = material;
            Ok(container::Layout::new(&inventory, identity, tokenizer, &plan)?.file_bytes)
        };
        let bytes = [size(BlockType::E2)?, size(BlockType::E8)?];
        let total = inventory.parameters;
        let mut progress = Progress { stage: Stage::Planning, done: 0, total }.with(on_progress);
        // An expert processes only some of the tokens, so its errors count that much less.
        let moe = &config.moe;
        let visits = moe.num_experts_per_tok.max(1) as f64 / moe.n_routed_experts.max(1) as f64;

        let matrices =
            inventory.tensors.iter().filter(|spec| dense::sensitivity(config, spec) > 0.0);
        let matrices: Vec<&TensorSpec> = matrices.collect();
        let mut dense = Vec::new();
        for part in matrices.chunks(rayon::current_num_threads()) {
            let measured: Vec<_> = part
                .par_iter()
                .map(|spec| {
                    measure_tensor(material, spec, dense::sensitivity(config, spec) / visits)
                })
                .collect::<Result<_, _>>()?;
            dense.extend(measured);
            progress.add(part.iter().map(|spec| spec.rows as u64 * spec.cols as u64).sum());
        }
        let mut experts = Vec::new();
        for layer in expert_layers(config) {
            let specs: Vec<ExpertSpec> = expert_specs(config, layer).collect();
            let mut measured = Vec::new();
            for part in specs.chunks(rayon::current_num_threads() * 2) {
                let of_part: Vec<Measured> = part
                    .par_iter()
                    .map(|spec| measure_expert(material.weights, spec))
                    .collect::<Result<_, _>>()?;
                measured.extend(of_part);
                progress.add(part.iter().map(container::expert_parameters).sum());
            }
            let reached = material.importance.is_none_or(|all| all.reaches(Some(layer.0)));
            let share = if reached { 1.0 } else { UNREACHED };
            let energies = [0, 1, 2].map(|p| {
                let sum: f64 = measured.iter().map(|expert| expert[p][0].energy).sum();
                (sum / specs.len() as f64 / share).max(f64::MIN_POSITIVE)
            });
            let items = specs.into_iter().zip(&measured).map(|(spec, measured)| SurveyItem {
                choices: expert_choices(&spec, measured, energies),
                spec,
            });
            experts.push(items.collect());
        }
        Ok(Self { config: config.clone(), parameters: total, bytes, dense, experts })
    }

    /// Bytes of the file that do not depend on the options.
    pub(super) fn fixed_bytes(&self) -> u64 {
        let smallest = |choices: &[Choice]| choices.first().map_or(0, |choice| choice.bytes);
        let dense = self.dense.iter().map(|item| smallest(&item.choices));
        let experts = self.experts.iter().flatten().map(|item| smallest(&item.choices));
        self.bytes[0].saturating_sub(dense.chain(experts).sum())
    }
}

/// The types of the `n`-th combination; the first is the smallest.
pub(super) fn combination(n: usize) -> [BlockType; 3] {
    let types = TYPES.len();
    [n / types / types % types, n / types % types, n % types].map(|at| TYPES[at])
}

pub(super) fn fitted(spec: &ExpertSpec, types: [BlockType; 3]) -> [BlockType; 3] {
    Projection::ALL.map(|projection| fit(types[projection as usize], spec.shape(projection).1))
}

/// Size and cost of every combination of types.
fn expert_choices(spec: &ExpertSpec, measured: &Measured, energies: [f64; 3]) -> Vec<Choice> {
    let shapes = Projection::ALL.map(|projection| spec.shape(projection));
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
    (0..TYPES.len().pow(3)).map(choice).collect()
}

fn measure_expert(weights: &dyn Weights, spec: &ExpertSpec) -> Result<Measured, PlanError> {
    let expert = weights.expert(spec)?;
    let mut measured = Measured::default();
    for (projection, matrix) in
        Projection::ALL.into_iter().zip([&expert.gate, &expert.up, &expert.down])
    {
        let sample = Sample::new(matrix, SAMPLE_ROWS);
        for (at, ty) in TYPES.into_iter().enumerate() {
            let ty = fit(ty, matrix.cols());
            let distortion =
                encoders::measure(ty, &sample, Guide::default()).map_err(|source| {
                    let name = spec.projection_name(projection);
                    PlanError::Encode { name, source }
                })?;
            measured[projection as usize][at] = distortion;
        }
        matrix.release();
    }
    Ok(measured)
}

/// Size and cost of every type.
fn measure_tensor(
    material: &Material,
    spec: &TensorSpec,
    share: f64,
) -> Result<SurveyItem<TensorSpec>, PlanError> {
    let missing = || WeightsError::Missing { path: "model".into(), name: spec.name.clone() };
    let matrix = material.weights.tensor(spec)?.ok_or_else(missing)?;
    // Calibration collects inputs of matrices, which an embedding does not have.
    let reached = spec.role == Role::Embedding
        || material.importance.is_none_or(|all| all.reaches(spec.layer()));
    let share = if reached { share } else { share * UNREACHED };
    let sample = Sample::new(&matrix, SAMPLE_ROWS);
    let choice = |ty| {
        let ty = fit(ty, spec.cols);
        let encode = |source| PlanError::Encode { name: spec.name.clone(), source };
        let lost = encoders::measure(ty, &sample, Guide::default()).map_err(encode)?;
        let bytes = ty.byte_len(spec.rows, spec.cols).map_or(u64::MAX / 2, |len| len as u64);
        Ok(Choice { bytes: container::padded(bytes), cost: lost.relative() * share })
    };
    let choices = TYPES.into_iter().map(choice).collect::<Result<_, PlanError>>()?;
    matrix.release();
    Ok(SurveyItem { spec: spec.clone(), choices })
}
