//! Bit plans: the block type of every tensor, and of every projection of every expert.
//!
//! [`Plan::uniform`] gives all experts one type; [`mixed()`] gives each what it needs under a size.

use vaquita_runtime::blocks::{BlockType, GROUP};
use vaquita_runtime::model::{Config, ExpertId, ExpertSpec, LayerId, Projection, Role, TensorSpec};

mod knapsack;
pub mod mixed;

pub use mixed::{PlanError, Target, mixed};

/// Which type everything gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    name: String,
    trunk: BlockType,
    first_layer: usize,
    experts: Vec<Vec<[BlockType; 3]>>,
}

impl Plan {
    /// Experts of one type. The rest, a small part of the weights that every token visits, is e8 under the
    /// coded types and of the type itself under the plain ones. Vectors and routers stay F32.
    pub fn uniform(config: &Config, ty: BlockType) -> Self {
        let trunk = if ty.is_coded() { BlockType::E8 } else { ty };
        Self::new(config, ty.name().into(), trunk, |spec| {
            Projection::ALL.map(|projection| fit(ty, spec.shape(projection).1))
        })
    }

    /// A plan that asks `expert_types` for every expert.
    pub(crate) fn new(
        config: &Config,
        name: String,
        trunk: BlockType,
        mut expert_types: impl FnMut(&ExpertSpec) -> [BlockType; 3],
    ) -> Self {
        let experts = expert_layers(config).map(|layer| {
            let specs = expert_specs(config, layer);
            specs.map(|spec| expert_types(&spec)).collect()
        });
        Self {
            name,
            trunk,
            first_layer: config.moe.first_k_dense_replace,
            experts: experts.collect(),
        }
    }

    /// What the plan is called in files and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of a tensor that is not a routed expert.
    pub fn tensor_type(&self, spec: &TensorSpec) -> BlockType {
        match spec.role {
            Role::Vector | Role::Router => BlockType::F32,
            _ => fit(self.trunk, spec.cols),
        }
    }

    /// The types of an expert's gate, up and down; `None` for an expert that the planned model lacks.
    pub fn expert_types(&self, layer: LayerId, expert: ExpertId) -> Option<[BlockType; 3]> {
        let layer = layer.0.checked_sub(self.first_layer)?;
        self.experts.get(layer)?.get(expert.0).copied()
    }

    /// How many projections of experts have each type; types that none has are left out.
    pub fn counts(&self) -> Vec<(BlockType, usize)> {
        let all = || self.experts.iter().flatten().flatten();
        let counts = BlockType::WRITTEN.map(|ty| (ty, all().filter(|found| **found == ty).count()));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// The type itself, or F16 where a row is no whole number of groups.
pub(crate) fn fit(ty: BlockType, cols: usize) -> BlockType {
    if ty.is_coded() && !cols.is_multiple_of(GROUP) { BlockType::F16 } else { ty }
}

/// The layers that have experts, the MTP layers among them.
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
