//! Accounts for every tensor of a file or folder: it is used, known to be dispensable, or an error.
//! A network that ignores an unknown tensor would silently compute wrong numbers.

use std::collections::HashSet;
use std::path::Path;

use super::{Config, ExpertId, LayerId, Projection, WeightsError, kv_b};

/// Tensors that no network needs, by name suffix, with the reason.
const DISPENSABLE: [(&str, &str); 7] = [
    ("rotary_emb.inv_freq", "the configuration states the frequencies"),
    ("attn_rot_embd.weight", "the same in old GGUF files"),
    ("attn_rot_embd", "the same in old GGUF files"),
    (".input_scale", "activations are quantized by their own scales here"),
    (".activation_scale", "activations are quantized by their own scales here"),
    (".k_scale", "the cache is quantized by its own scales here"),
    (".v_scale", "the cache is quantized by its own scales here"),
];

/// Refuses tensors that are neither `used` nor dispensable.
///
/// # Errors
/// [`WeightsError::Unused`] with all of their names, sorted.
pub fn account<'a>(
    path: &Path,
    stored: impl Iterator<Item = &'a str>,
    used: impl Fn(&str) -> bool,
) -> Result<(), WeightsError> {
    let dispensable = |name: &str| DISPENSABLE.iter().any(|(end, _)| name.ends_with(end));
    let unused = stored.filter(|name| !used(name) && !dispensable(name));
    let mut names: Vec<String> = unused.map(str::to_string).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort_unstable();
    Err(WeightsError::Unused { path: path.to_path_buf(), names })
}

/// Names of a model's tensors in GGUF.
pub(super) struct GgufNames<'a> {
    config: &'a Config,
    expert_major: bool,
    others: HashSet<String>,
}

impl<'a> GgufNames<'a> {
    pub fn new(config: &'a Config, expert_major: bool) -> Self {
        let mut others = HashSet::new();
        for spec in config.family.tensors(config) {
            others.extend(kv_b::whole(&spec).map(|(whole, _)| whole.name));
            others.insert(spec.name);
        }
        let experts = (0..config.num_layers_stored()).filter(|layer| config.is_moe(*layer));
        for layer in experts.filter(|_| !expert_major) {
            let expert = config.family.expert(config, LayerId(layer), ExpertId(0));
            others.extend(Projection::ALL.map(|projection| expert.stack_name(projection)));
            others.insert(expert.joined_stack_name());
        }
        Self { config, expert_major, others }
    }

    pub fn contain(&self, name: &str) -> bool {
        self.others.contains(name)
            || (self.expert_major && self.is_record(name))
            || self.config.is_spare(name)
    }

    /// Whether a name is that of an expert's record: `blk.LAYER.ffn_expert.EXPERT`.
    fn is_record(&self, name: &str) -> bool {
        let numbers = name.strip_prefix("blk.").and_then(|rest| rest.split_once(".ffn_expert."));
        let Some((layer, expert)) = numbers else { return false };
        match (layer.parse(), expert.parse::<usize>()) {
            (Ok(layer), Ok(expert)) => {
                layer < self.config.num_layers_stored()
                    && self.config.is_moe(layer)
                    && expert < self.config.moe.n_routed_experts
            }
            _ => false,
        }
    }
}

/// Lists the first few names, and the number of the others.
pub(super) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
