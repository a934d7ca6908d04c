//! Gemma 4 (Google, 2026): sliding and global layers with heads of different widths, keys as values
//! in global layers, last layers that share keys and values, a dense feed-forward beside the
//! experts, per-layer embeddings, and a limit on the logits.

use serde_json::Value as Json;

use super::ConfigError;
use super::grouped::{
    ATTENTION_BIAS, ExpertLayout, Experts, Grouped, LLAMA_NAMES, Names, PLAIN, SOFTMAX_EXPERTS,
    ScoreScale, Window,
};
use super::keys::{ConfigReader, MetadataReader, limits};
use crate::checkpoint::config::{
    Activation, Config, GroupedConfig, HeadShape, KeysAsValues, LayerType, QkNorm,
};
use crate::gguf::{Array, Metadata, Value};

/// Keys of GGUF, below the architecture.
pub const LOGIT_CAP: &str = "final_logit_softcapping";
pub const PER_LAYER_WIDTH: &str = "embedding_length_per_layer_input";
const FFN: &str = "feed_forward_length";
const HEADS: &str = "attention.head_count_kv";
const SHARED: &str = "attention.shared_kv_layers";
const PATTERN: &str = "attention.sliding_window_pattern";

/// Limit on the logits in GGUF files that state none, where llama.cpp has this one; 0 is none.
pub const GGUF_LOGIT_CAP: f32 = 30.0;

/// Width of a head in global layers, unless a checkpoint states it.
const GLOBAL_HEAD_DIM: usize = 512;

/// The family of Gemma 4: E2B, E4B, 26B-A4B and 31B.
pub static GEMMA4: Grouped = Grouped {
    name: "Gemma 4",
    model_types: &["gemma4_text"],
    architecture: "gemma4",
    moe: Some(Experts {
        optional: true,
        layout: ExpertLayout::Joined(["experts.gate_up_proj", "experts.down_proj"]),
        ..SOFTMAX_EXPERTS
    }),
    qkv_bias: ATTENTION_BIAS,
    output_bias: ATTENTION_BIAS,
    window: Some(Window::AllButEverySixth),
    qk_norm: QkNorm::PerHead,
    sliding_rope: true,
    gguf_sliding_theta: Some(10000.0),
    scaled_embedding: true,
    post_norms: true,
    score_scale: ScoreScale::One,
    gemma4: true,
    activation: Activation::GeGlu,
    names: Names { ffn_norm: "pre_feedforward_layernorm", router: "router.proj", ..LLAMA_NAMES },
    ..PLAIN
};

/// Reads what distinguishes the family's attention from `config.json`.
pub fn attention_from_hf(
    r: &ConfigReader,
    mut attention: GroupedConfig,
) -> Result<GroupedConfig, ConfigError> {
    // As transformers does.
    if let Some(last) = attention.layer_types.last_mut() {
        *last = LayerType::Full;
    }
    let keys_are_values = r.bool("attention_k_eq_v")?.unwrap_or(false);
    attention.keys_as_values = match keys_are_values {
        true => KeysAsValues::Yes,
        false => KeysAsValues::No,
    };
    attention.global = Some(match r.get("per_layer_config").and_then(Json::as_object) {
        Some(layers) => global_of_layers(&attention, layers)?,
        None => {
            let heads = attention.num_key_value_heads;
            let own = r.size_or("num_global_key_value_heads", heads, [1, limits::HEADS])?;
            HeadShape {
                head_dim: r.size_or("global_head_dim", GLOBAL_HEAD_DIM, [1, limits::WIDTH])?,
                num_key_value_heads: if keys_are_values { own } else { heads },
            }
        }
    });
    attention.value_norm = true;
    attention.num_kv_shared_layers = r.size_or("num_kv_shared_layers", 0, [0, limits::LAYERS])?;
    check(attention)
}

/// Heads of global layers, from the keys by which layers differ.
fn global_of_layers(
    attention: &GroupedConfig,
    layers: &serde_json::Map<String, Json>,
) -> Result<HeadShape, ConfigError> {
    let own = attention.head_shape(LayerType::Sliding);
    let shape = |layer: usize| -> Result<HeadShape, ConfigError> {
        let Some(stated) = layers.get(&layer.to_string()) else { return Ok(own) };
        let r = ConfigReader(stated);
        let keys = ["head_dim", "num_key_value_heads"];
        let entries = stated.as_object().into_iter().flatten();
        if let Some((key, value)) = entries.into_iter().find(|(key, _)| !keys.contains(&&***key)) {
            let key = format!("per_layer_config.{layer}.{key}");
            return Err(ConfigError::value(&key, value, "head_dim and num_key_value_heads"));
        }
        Ok(HeadShape {
            head_dim: r.size_or(keys[0], own.head_dim, [1, limits::WIDTH])?,
            num_key_value_heads: r.size_or(keys[1], own.num_key_value_heads, [1, limits::HEADS])?,
        })
    };
    let mut global = None;
    for (layer, ty) in attention.layer_types.iter().enumerate() {
        let shape = shape(layer)?;
        let expected = match ty {
            LayerType::Full => *global.get_or_insert(shape),
            _ => own,
        };
        if shape != expected {
            let key = format!("per_layer_config.{layer}");
            let allowed = "the same in all layers of a type, and only in global ones";
            return Err(ConfigError::value(&key, format!("{shape:?}"), allowed));
        }
    }
    Ok(global.unwrap_or(own))
}

/// Reads what distinguishes the family's attention from GGUF metadata.
pub fn attention_from_gguf(
    k: &MetadataReader,
    mut attention: GroupedConfig,
) -> Result<GroupedConfig, ConfigError> {
    let width = [1, limits::WIDTH];
    let of_heads = k.metadata.u32s(&k.key(HEADS)).ok().flatten().unwrap_or_default();
    let heads = |ty: LayerType| {
        let layer = attention.layer_types.iter().position(|of| *of == ty);
        let heads = layer.and_then(|layer| of_heads.get(layer));
        heads.map_or(attention.num_key_value_heads, |heads| *heads as usize)
    };
    let (global, sliding) = (heads(LayerType::Full), heads(LayerType::Sliding));
    attention.global =
        Some(HeadShape { head_dim: attention.head_dim, num_key_value_heads: global });
    attention.num_key_value_heads = sliding;
    attention.head_dim = k.size_or("attention.key_length_swa", attention.head_dim, width)?;
    let value = k.size_or("attention.value_length_swa", attention.head_dim, width)?;
    if value != attention.head_dim {
        let allowed = format!("{}, the width of a key", attention.head_dim);
        return Err(ConfigError::value(&k.key("attention.value_length_swa"), value, allowed));
    }
    attention.keys_as_values = KeysAsValues::UnlessStored;
    attention.value_norm = true;
    attention.num_kv_shared_layers = k.size_or(SHARED, 0, [0, limits::LAYERS])?;
    check(attention)
}

/// Types of the layers in a file of llama.cpp, which lists those that slide.
pub fn layer_types(k: &MetadataReader, layers: usize) -> Result<Vec<LayerType>, ConfigError> {
    let key = k.key(PATTERN);
    match k.metadata.get(&key) {
        Some(Value::Array(Array::Bool(slides))) if slides.len() == layers => Ok(slides
            .iter()
            .map(|slides| if *slides { LayerType::Sliding } else { LayerType::Full })
            .collect()),
        Some(found) => {
            let allowed = format!("whether each of the {layers} layers slides");
            Err(ConfigError::value(&key, found.type_name(), allowed))
        }
        None => Err(ConfigError::Missing { key }),
    }
}

/// Width of the feed-forward, and whether it is twice that in layers that share keys and values,
/// from the widths of all layers.
pub fn ffn_widths(k: &MetadataReader) -> Result<(usize, bool), ConfigError> {
    let key = k.key(FFN);
    let widths = k.metadata.u32s(&key)?.unwrap_or_default();
    let shared = k.size_or(SHARED, 0, [0, limits::LAYERS])?;
    let (own, of_shared) = widths.split_at(widths.len().saturating_sub(shared));
    let width = own.first().copied().unwrap_or(0);
    let all = |widths: &[u32], width: u32| widths.iter().all(|of| *of == width);
    let double = !all(of_shared, width);
    let fits = all(own, width) && (!double || all(of_shared, width.saturating_mul(2)));
    if !fits || width == 0 || width as usize > limits::WIDTH {
        let allowed = "one width, or twice that in layers that share keys and values";
        return Err(ConfigError::value(&key, format!("{widths:?}"), allowed));
    }
    Ok((width as usize, double))
}

/// Width of a layer's part of the per-layer embeddings in `config.json`.
pub fn per_layer_width_from_hf(r: &ConfigReader) -> Result<usize, ConfigError> {
    let width = r.size_or("hidden_size_per_layer_input", 0, [0, limits::WIDTH])?;
    let (own, all) = ("vocab_size_per_layer_input", "vocab_size");
    let range = [1, limits::VOCABULARY];
    let (found, vocabulary) = (r.size_or(own, r.size(all, range)?, range)?, r.size(all, range)?);
    match width > 0 && found != vocabulary {
        true => Err(ConfigError::value(own, found, format!("{vocabulary}, the {all}"))),
        false => Ok(width),
    }
}

fn check(attention: GroupedConfig) -> Result<GroupedConfig, ConfigError> {
    let layers = attention.layer_types.len();
    let shared = attention.num_kv_shared_layers;
    let has_source = |layer: usize| attention.key_value_layer(layer) != layer;
    if !(layers.saturating_sub(shared)..layers).all(has_source) {
        let allowed = "fewer layers, with one of each type before them";
        return Err(ConfigError::value("num_kv_shared_layers", shared, allowed));
    }
    Ok(attention)
}

/// Writes the keys that llama.cpp has for this architecture alone.
pub fn write_metadata(config: &Config, attention: &GroupedConfig, metadata: &mut Metadata) {
    let key = |name: &str| format!("gemma4.{name}");
    let types = &attention.layer_types;
    let heads = types.iter().map(|ty| attention.head_shape(*ty).num_key_value_heads as i32);
    metadata.insert(key(HEADS), heads.collect::<Vec<i32>>());
    let slides = types.iter().map(|ty| *ty == LayerType::Sliding);
    metadata.insert(key(PATTERN), slides.collect::<Vec<bool>>());
    let mut size = |name: &str, value: usize| metadata.insert(key(name), value as u32);
    size("attention.sliding_window", attention.sliding_window);
    size("attention.key_length_swa", attention.head_dim);
    size("attention.value_length_swa", attention.head_dim);
    size(SHARED, attention.num_kv_shared_layers);
    size(PER_LAYER_WIDTH, config.per_layer_width);
    if config.double_wide_shared {
        let widths = (0..types.len()).map(|layer| config.dense_width(layer) as i32);
        metadata.insert(key(FFN), widths.collect::<Vec<i32>>());
    }
    metadata.insert(key(LOGIT_CAP), config.scales.logit_cap.unwrap_or(0.0));
}
