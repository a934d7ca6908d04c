//! Gemma 3 (arXiv 2503.19786): norms before and after mixer and feed-forward, with weights around
//! zero; a sliding window with its own rotary embedding in five of six layers; scaled embeddings.

use super::grouped::{
    ATTENTION_BIAS, Grouped, LLAMA_NAMES, Names, PLAIN, ScoreScale, SlidingPeriod, Window,
};
use crate::checkpoint::config::{Activation, QkNorm};

/// Number of layers of the largest model, which scales its scores by the width of the residual
/// stream per head.
const LAYERS_OF_27B: usize = 62;

/// The family of Gemma 3, 270M to 27B.
pub static GEMMA3: Grouped = Grouped {
    name: "Gemma 3",
    model_types: &["gemma3_text"],
    architecture: "gemma3",
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    window: Some(Window::AllButEverySixth),
    qk_norm: QkNorm::PerHead,
    sliding_rope: true,
    gguf_sliding_theta: Some(10000.0),
    sliding_period: Some(SlidingPeriod { layers: 6, full_first: false }),
    zero_centred: true,
    scaled_embedding: true,
    post_norms: true,
    score_scale: ScoreScale::QueryScalar(|layers, hidden_per_head, head_dim| {
        let width = if layers == LAYERS_OF_27B { hidden_per_head } else { head_dim };
        1.0 / (width as f32).sqrt()
    }),
    activation: Activation::GeGlu,
    names: Names { ffn_norm: "pre_feedforward_layernorm", ..LLAMA_NAMES },
    ..PLAIN
};
