//! A plan: the block type of every tensor and of every expert's projections.

use std::collections::HashMap;

use vaquita_runtime::blocks::{BlockType, GROUP, Matrix};
use vaquita_runtime::checkpoint::{
    Config, Expert, ExpertId, ExpertSpec, LayerId, Projection, TensorSpec, Weights, WeightsError,
};

use super::dense::{self, DenseTypes};
use crate::encoders::holds_mxfp4;

/// Block types of all matrices of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) name: String,
    /// Types of tensors that are not routed experts; tensors that are not listed are F32.
    pub(super) tensors: HashMap<String, BlockType>,
    /// The first layer with experts.
    pub(super) first_layer: usize,
    /// Types of gate, up and down, `[layer][expert]`.
    pub(super) experts: Vec<Vec<[BlockType; 3]>>,
}

impl Plan {
    /// Experts of one type, with the dense types that go with it ([`DenseTypes::beside`]).
    pub fn uniform(config: &Config, ty: BlockType) -> Self {
        Self::with_dense(config, ty, DenseTypes::beside(ty))
    }

    /// Experts of one type, with given types of the dense weights.
    pub fn with_dense(config: &Config, ty: BlockType, dense: DenseTypes) -> Self {
        let name = match dense == DenseTypes::beside(ty) {
            true => ty.name().into(),
            false => {
                let DenseTypes { output, latent, rest } = dense;
                format!("{ty}, trunk {rest}, attn_kv_a {latent}, output {output}")
            }
        };
        let types = |spec: &TensorSpec| dense.of(config, spec);
        Self::new(config, name, types, |spec| {
            Projection::ALL.map(|projection| fit(ty, spec.shape(projection).1))
        })
    }

    /// The types of the source, so that no weight changes: MXFP4 becomes e4 if that holds it
    /// exactly.
    pub fn as_stored(weights: &dyn Weights) -> Result<Self, WeightsError> {
        let config = weights.config();
        let ty = |matrix: &Matrix| match matrix.block_type() {
            BlockType::Mxfp4 if holds_mxfp4(matrix) => BlockType::E4,
            ty => ty,
        };
        let mut tensors = HashMap::new();
        for spec in config.family.tensors(config) {
            if let Some(matrix) = weights.tensor(&spec)? {
                tensors.insert(spec.name, ty(&matrix));
            }
        }
        let types = |spec: ExpertSpec| {
            let Expert { gate, up, down } = weights.expert(&spec)?;
            Ok([&gate, &up, &down].map(ty))
        };
        let layer = |layer| expert_specs(config, layer).map(types).collect();
        let experts = expert_layers(config).map(layer).collect::<Result<_, WeightsError>>()?;
        let first_layer = config.moe.first_k_dense_replace;
        Ok(Self { name: "as stored".into(), tensors, first_layer, experts })
    }

    /// A plan from functions that return the types of each tensor and each expert.
    pub(crate) fn new(
        config: &Config,
        name: String,
        mut tensor_type: impl FnMut(&TensorSpec) -> BlockType,
        mut expert_types: impl FnMut(&ExpertSpec) -> [BlockType; 3],
    ) -> Self {
        let experts = expert_layers(config).map(|layer| {
            let specs = expert_specs(config, layer);
            specs.map(|spec| expert_types(&spec)).collect()
        });
        let experts = experts.collect();
        let tensors = config.family.tensors(config).into_iter();
        let matrices = tensors.filter(|spec| dense::sensitivity(config, spec) > 0.0);
        let tensors = matrices.map(|spec| {
            let ty = fit(tensor_type(&spec), spec.cols);
            (spec.name, ty)
        });
        let tensors = tensors.collect();
        Self { name, tensors, first_layer: config.moe.first_k_dense_replace, experts }
    }

    /// Name of the plan in files and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type of a tensor that is not a routed expert.
    pub fn tensor_type(&self, spec: &TensorSpec) -> BlockType {
        self.tensors.get(&spec.name).copied().unwrap_or(BlockType::F32)
    }

    /// Types of an expert's gate, up and down; `None` for an expert that is not in the plan.
    pub fn expert_types(&self, layer: LayerId, expert: ExpertId) -> Option<[BlockType; 3]> {
        let layer = layer.0.checked_sub(self.first_layer)?;
        self.experts.get(layer)?.get(expert.0).copied()
    }

    /// Number of experts' projections of each type, for types that occur.
    pub fn counts(&self) -> Vec<(BlockType, usize)> {
        let all = || self.experts.iter().flatten().flatten();
        let counts = BlockType::ALL.map(|ty| (ty, all().filter(|found| **found == ty).count()));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// The type itself, or F16 if rows are not a whole number of groups.
pub(crate) fn fit(ty: BlockType, cols: usize) -> BlockType {
    if ty.is_coded() && !cols.is_multiple_of(GROUP) { BlockType::F16 } else { ty }
}

/// Layers with experts, including MTP layers.
pub fn expert_layers(config: &Config) -> impl Iterator<Item = LayerId> + use<> {
    let layers = config.moe.first_k_dense_replace..config.num_layers_stored();
    let any = config.moe.n_routed_experts > 0;
    layers.filter(move |_| any).map(LayerId)
}

/// The experts of a layer.
pub fn expert_specs(config: &Config, layer: LayerId) -> impl Iterator<Item = ExpertSpec> + use<'_> {
    let experts = (0..config.moe.n_routed_experts).map(ExpertId);
    experts.map(move |expert| config.family.expert(config, layer, expert))
}
