//! Grouped-query attention.

use super::{Bias, LayerType};

/// Grouped-query attention (arXiv 2305.13245), with the extensions of the families.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedConfig {
    /// Number of query heads, the largest of all layers.
    pub num_attention_heads: usize,
    /// Number of query heads of each layer, if layers differ (Laguna); otherwise empty.
    pub num_attention_heads_per_layer: Vec<usize>,
    /// Number of key and value heads, each shared by an equal number of query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Heads of layers that attend to all positions, if they differ (Gemma 4).
    pub global: Option<HeadShape>,
    /// Layers at the end that attend to the keys and values of the last layer of their type before
    /// them (Gemma 4).
    pub num_kv_shared_layers: usize,
    /// Whether layers that attend to all positions have no projection to values but use the keys,
    /// before norm and rotation (Gemma 4).
    pub keys_as_values: KeysAsValues,
    /// Whether values are normalized, without weights (Gemma 4).
    pub value_norm: bool,
    /// Biases of the projections to queries, keys and values.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub output_bias: Bias,
    /// Bound to which the magnitudes of queries, keys and values are clamped (OLMo).
    pub clip_qkv: Option<f32>,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Factor on the scores, instead of one over the root of `head_dim` (Gemma, Granite).
    pub score_scale: Option<f32>,
    /// Whether each head has a sink: a logit that receives attention but has no value (arXiv
    /// 2309.17453; gpt-oss).
    pub sinks: bool,
    /// Gate on the attention's output, before the output projection.
    pub output_gate: Option<OutputGate>,
    /// Whether the queries and keys of each layer are rotated; empty if those of all layers are.
    pub rotates: Vec<bool>,
    /// Positions in the window of a sliding layer, including the current one.
    pub sliding_window: usize,
    /// Positions in the window of a convolution, including the current one.
    pub conv_l_cache: usize,
    /// Token mixer of each layer.
    pub layer_types: Vec<LayerType>,
}

/// Keys and values of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Width of a head.
    pub head_dim: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
}

/// Whether layers that attend to all positions use keys as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysAsValues {
    /// Values have a projection.
    No,
    /// Keys are values.
    Yes,
    /// The configuration does not say: keys are values if no projection is stored.
    UnlessStored,
}

/// Scope of the normalization of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// No normalization.
    None,
    /// Each head separately (Qwen3, LFM2).
    PerHead,
    /// Each head separately, if the tensors are stored (GLM-4.5, where large models have them).
    PerHeadIfStored,
    /// All heads together (OLMoE).
    Whole,
}

/// Gate on the output of attention, computed from the input of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputGate {
    /// Softplus of one number per head (Laguna XS).
    SoftplusPerHead,
    /// Softplus of one number per element (Laguna M).
    SoftplusPerElement,
    /// Sigmoid of one number per element, which the query projection computes after each head's
    /// query (Qwen3-Next).
    SigmoidInQuery,
}

impl OutputGate {
    /// Outputs of the gate's projection for each head.
    pub fn width(self, head_dim: usize) -> usize {
        match self {
            Self::SoftplusPerHead => 1,
            Self::SoftplusPerElement | Self::SigmoidInQuery => head_dim,
        }
    }
}

impl GroupedConfig {
    /// Number of query heads of a layer.
    pub fn heads(&self, layer: usize) -> usize {
        let own = self.num_attention_heads_per_layer.get(layer);
        own.copied().unwrap_or(self.num_attention_heads)
    }

    /// Whether the queries and keys of a layer are rotated.
    pub fn rotates(&self, layer: usize) -> bool {
        self.rotates.get(layer).copied().unwrap_or(true)
    }

    /// Heads of the layers of a type.
    pub fn head_shape(&self, ty: LayerType) -> HeadShape {
        let Self { head_dim, num_key_value_heads, .. } = *self;
        let own = HeadShape { head_dim, num_key_value_heads };
        self.global.filter(|_| ty == LayerType::Full).unwrap_or(own)
    }

    /// The first of the layers that share keys and values.
    fn first_shared(&self) -> usize {
        self.layer_types.len().saturating_sub(self.num_kv_shared_layers)
    }

    /// The layer whose keys and values a layer attends to: itself, unless it shares them.
    pub fn key_value_layer(&self, layer: usize) -> usize {
        let first = self.first_shared();
        let Some(ty) = self.layer_types.get(layer).filter(|_| layer >= first) else {
            return layer;
        };
        self.layer_types[..first].iter().rposition(|of| of == ty).unwrap_or(layer)
    }

    /// Whether any layer is of a type.
    pub fn has(&self, ty: LayerType) -> bool {
        self.layer_types.contains(&ty)
    }
}
