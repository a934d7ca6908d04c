//! Layers with a recurrent state.

use super::Bias;

/// Mixer of recurrent layers.
#[derive(Clone, Debug, PartialEq)]
pub enum Recurrence {
    /// Gated DeltaNet (arXiv 2412.06464).
    GatedDelta(GatedDeltaConfig),
    /// Mamba-2 (arXiv 2405.21060).
    Mamba2(Mamba2Config),
    /// Kimi Delta Attention (arXiv 2510.26692).
    KimiDelta(KimiDeltaConfig),
}

/// Mamba-2 as in Granite 4.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba2Config {
    /// Number of heads, each with a state.
    pub num_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Groups of heads that share `B` and `C`, and of channels that are normalized together.
    pub num_groups: usize,
    /// Rows of a head's state.
    pub state_dim: usize,
    /// Positions in the window of the convolution, including the current one.
    pub conv_kernel_dim: usize,
    /// Bias of the convolution.
    pub conv_bias: Bias,
}

impl Mamba2Config {
    /// Channels of all heads.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Channels of the convolution: `x`, `B` and `C`.
    pub fn conv_dim(&self) -> usize {
        self.inner_dim() + 2 * self.num_groups * self.state_dim
    }
}

/// Kimi Delta Attention: the delta rule with a decay for each key channel.
#[derive(Clone, Debug, PartialEq)]
pub struct KimiDeltaConfig {
    /// Number of heads, each with a state.
    pub num_heads: usize,
    /// Width of a head's query, key and value.
    pub head_dim: usize,
    /// Positions in the windows of the convolutions, including the current one.
    pub conv_kernel_dim: usize,
    /// Function from the gate's inputs to decays.
    pub decay_gate: DecayGate,
}

impl KimiDeltaConfig {
    /// Numbers of all heads: of the queries, the keys, or the values of a token.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }
}

/// Decay of a key channel by its input `x` and a head's parameter `A_log`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DecayGate {
    /// `exp(-exp(A_log) softplus(x))` (Kimi-Linear).
    Softplus,
    /// `exp(bound sigmoid(exp(A_log) x))` with a bound below zero (Ling 3).
    Bounded(f32),
}

/// Gated DeltaNet as in Qwen3-Next.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedDeltaConfig {
    /// Number of heads of queries and keys.
    pub num_key_heads: usize,
    /// Number of heads of values, each with a state.
    pub num_value_heads: usize,
    /// Width of a key.
    pub key_head_dim: usize,
    /// Width of a value.
    pub value_head_dim: usize,
    /// Positions in the window of the convolution, including the current one.
    pub conv_kernel_dim: usize,
    /// Whether value head `i` belongs to key head `i % num_key_heads`, as GGUF files of Qwen3.5
    /// have it, instead of to the heads in order.
    pub tiled: bool,
}

impl GatedDeltaConfig {
    /// Numbers of all keys of a token.
    pub fn key_dim(&self) -> usize {
        self.num_key_heads * self.key_head_dim
    }

    /// Numbers of all values of a token.
    pub fn value_dim(&self) -> usize {
        self.num_value_heads * self.value_head_dim
    }

    /// Channels of the convolution: queries, keys and values.
    pub fn conv_dim(&self) -> usize {
        2 * self.key_dim() + self.value_dim()
    }
}
