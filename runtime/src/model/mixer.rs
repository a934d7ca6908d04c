//! What lets the tokens of a layer see each other.

use super::Compute;
use super::cache::LayerCache;
use super::gqa::Gqa;
use super::mla::Mla;
use super::rope::Rope;
use super::short_conv::ShortConv;
use crate::checkpoint::config::Config;
use crate::kernels::Activations;

/// One of the ways.
#[derive(Clone, Debug)]
pub enum Mixer {
    /// Multi-head latent attention.
    Mla(Mla),
    /// Grouped-query attention.
    Gqa(Gqa),
    /// A short convolution.
    ShortConv(ShortConv),
}

impl Mixer {
    /// Applies it to `x`, `[tokens, hidden_size]`, which follows the positions in `cache`; what
    /// later tokens need of these is added to it.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        rope: &Rope,
        x: &Activations,
        cache: &mut LayerCache,
    ) -> Vec<f32> {
        match self {
            Self::Mla(mla) => mla.forward(ctx, config, rope, x, cache),
            Self::Gqa(gqa) => gqa.forward(ctx, config, rope, x, cache),
            Self::ShortConv(conv) => conv.forward(ctx, x, cache),
        }
    }
}
