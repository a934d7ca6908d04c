//! Multi-token-prediction layers (DeepSeek-V3, section 2.2): a decoder layer, and what combines the
//! embedding of a token with the hidden state before it.

use crate::checkpoint::config::Config;
use crate::checkpoint::spec::{Function, HfTensor, Role, TensorSpec};

/// Name of the norm before the head, in GGUF and in checkpoints, both below the layer.
pub const NORM: [&str; 2] = ["nextn.shared_head_norm", "shared_head.norm"];

/// Tensors of a multi-token-prediction layer besides its block, with the names of the norm before
/// the head. Embedding and head are those of the main model unless a checkpoint repeats them.
pub fn tensors(config: &Config, layer: usize, norm: [&str; 2]) -> Vec<TensorSpec> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let spec = |name: &str, [rows, cols]: [usize; 2], role, from: &str| {
        let hf = HfTensor::Whole(format!("model.layers.{layer}.{from}"));
        let optional = matches!(role, Role::Embedding | Role::Output);
        TensorSpec { name: format!("blk.{layer}.{name}"), rows, cols, role, hf, optional }
    };
    let (vector, table) = ([1, hidden], [vocab, hidden]);
    vec![
        spec("nextn.eh_proj.weight", [hidden, 2 * hidden], Role::Mtp, "eh_proj.weight"),
        spec("nextn.enorm.weight", vector, Role::Vector, "enorm.weight"),
        spec("nextn.hnorm.weight", vector, Role::Vector, "hnorm.weight"),
        spec(&format!("{}.weight", norm[0]), vector, Role::Vector, &format!("{}.weight", norm[1])),
        spec("nextn.embed_tokens.weight", table, Role::Embedding, "embed_tokens.weight"),
        spec("nextn.shared_head_head.weight", table, Role::Output, "shared_head.head.weight"),
    ]
}

/// The same of Qwen3-Next and its successors, whose checkpoints have one module below `mtp.` with
/// norms around zero, and no embedding or head of its own.
pub fn module_tensors(config: &Config, layer: usize) -> Vec<TensorSpec> {
    let renamed = |mut spec: TensorSpec| {
        let name = spec.name.rsplit('.').nth(1).unwrap_or_default().to_string();
        let norm = |from: &str| {
            HfTensor::Applied(format!("mtp.{from}.weight"), Function::PlusOne, Vec::new())
        };
        spec.hf = match name.as_str() {
            "eh_proj" => HfTensor::Whole("mtp.fc.weight".into()),
            "enorm" => norm("pre_fc_norm_embedding"),
            "hnorm" => norm("pre_fc_norm_hidden"),
            "shared_head_norm" => norm("norm"),
            _ => return None,
        };
        Some(spec)
    };
    tensors(config, layer, NORM).into_iter().filter_map(renamed).collect()
}
