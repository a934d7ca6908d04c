//! Dense weights (all but the routed experts): their types, and the sensitivity of the model to
//! their errors.
//!
//! All values here were measured on the reference model by encoding one tensor at a time
//! (docs/measurements-quality.md).

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{Config, Role, TensorSpec};

/// Types of the dense matrices. Vectors and routers are always F32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseTypes {
    /// Output head, whose errors reach the logits undiminished.
    pub output: BlockType,
    /// Projection to the cached latent: it is small, and its errors affect every later token.
    pub latent: BlockType,
    /// All other dense matrices.
    pub rest: BlockType,
}

impl DenseTypes {
    /// The types that go with experts of a type: e4, with e8 where it matters most, for experts of
    /// e4, e3 and e2; otherwise the type itself.
    pub fn beside(experts: BlockType) -> Self {
        match experts {
            BlockType::E2 | BlockType::E3 | BlockType::E4 => {
                Self { rest: BlockType::E4, ..Self::all(BlockType::E8) }
            }
            other => Self::all(other),
        }
    }

    /// One type for all dense matrices.
    pub fn all(ty: BlockType) -> Self {
        Self { output: ty, latent: ty, rest: ty }
    }

    /// Type of one tensor, before width constraints.
    pub(super) fn of(&self, config: &Config, spec: &TensorSpec) -> BlockType {
        match kind(config, spec) {
            Kind::Plain => BlockType::F32,
            Kind::Output => self.output,
            Kind::Latent => self.latent,
            _ => self.rest,
        }
    }
}

/// Classes of dense tensors with different sensitivities.
enum Kind {
    Plain,
    Output,
    Latent,
    Embedding,
    Dense,
    Other,
}

fn kind(config: &Config, spec: &TensorSpec) -> Kind {
    match spec.role {
        Role::Vector | Role::Router => Kind::Plain,
        // The MTP layer's copies of embedding and output head serve only its drafts.
        _ if spec.name.contains(".nextn.") => Kind::Other,
        Role::Output => Kind::Output,
        // A tied embedding is the output head as well.
        Role::Embedding if config.tie_word_embeddings && spec.name == "token_embd.weight" => {
            Kind::Output
        }
        Role::Embedding => Kind::Embedding,
        Role::Attention if spec.name.contains(".attn_kv_a") => Kind::Latent,
        Role::DenseFfn => Kind::Dense,
        _ => Kind::Other,
    }
}

/// Sensitivity weight: the cost of a tensor's relative squared error, compared with an expert's
/// projection that processes every token.
pub(super) fn sensitivity(config: &Config, spec: &TensorSpec) -> f64 {
    match kind(config, spec) {
        Kind::Plain => 0.0,
        Kind::Output => 300.0,
        Kind::Latent => 6.0,
        Kind::Embedding => 10.0,
        Kind::Dense => 10.0,
        Kind::Other => 2.0,
    }
}
