//! Token mixing: attention, short convolution or a recurrent state.

use super::Compute;
use super::delta_net::GatedDeltaNet;
use super::gqa::Gqa;
use super::kimi_delta::KimiDeltaAttention;
use super::mamba2::Mamba2;
use super::mla::Mla;
use super::part::Part;
use super::rope::Angles;
use super::short_conv::ShortConv;
use crate::checkpoint::config::Config;
use crate::kernels::Activations;

/// Token mixer of a layer.
#[derive(Clone, Debug)]
pub enum Mixer {
    /// Multi-head latent attention.
    Mla(Mla),
    /// Grouped-query attention.
    Gqa(Gqa),
    /// A short convolution.
    ShortConv(ShortConv),
    /// Gated DeltaNet.
    GatedDeltaNet(Box<GatedDeltaNet>),
    /// Mamba-2.
    Mamba2(Box<Mamba2>),
    /// Kimi Delta Attention.
    KimiDelta(Box<KimiDeltaAttention>),
}

impl Mixer {
    /// Applies the mixer to `x`, `[tokens, hidden_size]`, where each token follows the sequence of
    /// its part, and appends what later tokens need of these tokens to the caches.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        angles: &Angles,
        x: &Activations,
        parts: &mut [Part],
    ) -> Vec<f32> {
        match self {
            Self::Mla(mla) => mla.forward(ctx, config, angles, x, parts),
            Self::Gqa(gqa) => gqa.forward(ctx, config, angles, x, parts),
            Self::ShortConv(conv) => conv.forward(ctx, x, parts),
            Self::GatedDeltaNet(net) => net.forward(ctx, config, x, parts),
            Self::Mamba2(mamba) => mamba.forward(ctx, config, x, parts),
            Self::KimiDelta(attention) => attention.forward(ctx, config, x, parts),
        }
    }
}
