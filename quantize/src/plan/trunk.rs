//! The trunk: everything but the routed experts. Which types it gets, and how much its errors count.
//!
//! All figures here were measured on the reference model by encoding one tensor at a time
//! (docs/measurements-quality.md, "The trunk").

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{Config, Role, TensorSpec};

/// The types of the trunk's matrices. Vectors and routers are F32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// The output head. Its errors reach the logits undiminished.
    pub output: BlockType,
    /// The projection to what attention caches: it is small, and every later token sees its errors.
    pub latent: BlockType,
    /// Everything else.
    pub rest: BlockType,
}

impl Trunk {
    /// What goes with experts of a type: e4 with e8 where it matters most, below experts of e4, e3 and e2; the type
    /// itself otherwise.
    pub fn beside(experts: BlockType) -> Self {
        match experts {
            BlockType::E2 | BlockType::E3 | BlockType::E4 => {
                Self { rest: BlockType::E4, ..Self::all(BlockType::E8) }
            }
            other => Self::all(other),
        }
    }

    /// One type for all of it.
    pub fn all(ty: BlockType) -> Self {
        Self { output: ty, latent: ty, rest: ty }
    }

    /// That of one tensor, whatever its width.
    pub(super) fn of(&self, config: &Config, spec: &TensorSpec) -> BlockType {
        match kind(config, spec) {
            Kind::Plain => BlockType::F32,
            Kind::Output => self.output,
            Kind::Latent => self.latent,
            _ => self.rest,
        }
    }
}

/// Parts of the trunk that bear errors differently.
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
        // The MTP layer's copies of embedding and output head serve its drafts alone.
        _ if spec.name.contains(".nextn.") => Kind::Other,
        Role::Output => Kind::Output,
        // A tied embedding is the output head as well.
        Role::Embedding if config.tie_word_embeddings => Kind::Output,
        Role::Embedding => Kind::Embedding,
        Role::Attention if spec.name.contains(".attn_kv_a") => Kind::Latent,
        Role::DenseFfn => Kind::Dense,
        _ => Kind::Other,
    }
}

/// How much the relative squared error of a tensor counts, where that of an expert's projection that sees every
/// token counts 1.
pub(super) fn share(config: &Config, spec: &TensorSpec) -> f64 {
    match kind(config, spec) {
        Kind::Plain => 0.0,
        Kind::Output => 300.0,
        Kind::Latent => 6.0,
        Kind::Embedding => 10.0,
        Kind::Dense => 10.0,
        Kind::Other => 2.0,
    }
}
