//! Gated DeltaNet layers of Qwen3-Next and its successors: configuration and tensors.

use super::ConfigError;
use super::keys::{ConfigReader, MetadataReader, limits};
use crate::checkpoint::config::{GatedDeltaConfig, LayerType};
use crate::checkpoint::spec::{Axis, Function, HfTensor, Picked, Role};
use crate::gguf::Metadata;

/// How a family stores these layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaLayout {
    /// Qwen3-Next: checkpoints join the projections, with all rows of a key head together.
    Joined,
    /// Qwen3.5: projections are separate, and GGUF has the value heads in an order in which each
    /// key head's are `num_key_heads` apart.
    Separate,
}

/// Every such layer attends to all positions, unless the configuration says otherwise.
const FULL_ATTENTION_INTERVAL: usize = 4;

/// Longest convolution.
const TAPS: usize = 64;

/// Type of a layer by the interval of those with attention.
pub fn layer_type(layer: usize, interval: usize) -> LayerType {
    match (layer + 1).is_multiple_of(interval) {
        true => LayerType::Full,
        false => LayerType::Recurrent,
    }
}

/// Reads the interval of layers with attention from `config.json`.
pub fn interval_from_hf(r: &ConfigReader) -> Result<usize, ConfigError> {
    r.size_or("full_attention_interval", FULL_ATTENTION_INTERVAL, [1, limits::LAYERS])
}

/// Reads the interval of layers with attention from GGUF metadata.
pub fn interval_from_gguf(k: &MetadataReader) -> Result<usize, ConfigError> {
    k.size_or("full_attention_interval", FULL_ATTENTION_INTERVAL, [1, limits::LAYERS])
}

impl DeltaLayout {
    /// Reads the dimensions from `config.json`.
    pub fn config_from_hf(self, r: &ConfigReader) -> Result<GatedDeltaConfig, ConfigError> {
        let heads = [1, limits::HEADS];
        let width = [1, limits::WIDTH];
        self.check(GatedDeltaConfig {
            num_key_heads: r.size("linear_num_key_heads", heads)?,
            num_value_heads: r.size("linear_num_value_heads", heads)?,
            key_head_dim: r.size("linear_key_head_dim", width)?,
            value_head_dim: r.size("linear_value_head_dim", width)?,
            conv_kernel_dim: r.size("linear_conv_kernel_dim", [1, TAPS])?,
            tiled: self == Self::Separate,
        })
    }

    /// Reads the dimensions from llama.cpp's keys.
    pub fn config_from_gguf(self, k: &MetadataReader) -> Result<GatedDeltaConfig, ConfigError> {
        let num_value_heads = k.size("ssm.time_step_rank", [1, limits::HEADS])?;
        let inner = k.size("ssm.inner_size", [num_value_heads, limits::WIDTH])?;
        self.check(GatedDeltaConfig {
            num_key_heads: k.size("ssm.group_count", [1, limits::HEADS])?,
            num_value_heads,
            key_head_dim: k.size("ssm.state_size", [1, limits::WIDTH])?,
            value_head_dim: inner / num_value_heads,
            conv_kernel_dim: k.size("ssm.conv_kernel", [1, TAPS])?,
            tiled: self == Self::Separate,
        })
    }

    fn check(self, config: GatedDeltaConfig) -> Result<GatedDeltaConfig, ConfigError> {
        let (keys, values) = (config.num_key_heads, config.num_value_heads);
        super::keys::multiple("linear_num_value_heads", values, keys)?;
        super::keys::multiple("linear_value_head_dim", config.value_head_dim, 8)?;
        // All dimensions fit into a machine's word together.
        for (key, size) in
            [("keys", config.key_dim()), ("values", config.value_dim() * config.key_head_dim)]
        {
            if size > limits::STATE {
                let allowed = format!("at most {} numbers", limits::STATE);
                return Err(ConfigError::value(&format!("linear {key}"), size, allowed));
            }
        }
        Ok(config)
    }

    /// Names in GGUF and in checkpoints, both below the layer, with rows, columns and role.
    pub fn tensors(
        self,
        delta: &GatedDeltaConfig,
        hidden: usize,
        mut add: impl FnMut(&str, [usize; 2], Role, &dyn Fn(&str) -> HfTensor, &str),
    ) {
        let heads = delta.num_value_heads;
        let (value, conv) = (delta.value_dim(), delta.conv_dim());
        let order = match self {
            Self::Joined => (0..heads).collect(),
            Self::Separate => tiled(delta),
        };
        let whole = |name: &str| HfTensor::Whole(name.into());
        let rows = |name: &str, stored: usize, ranges: Vec<_>| {
            HfTensor::Picked(name.into(), Picked { axis: Axis::Rows, stored, ranges })
        };
        let columns = |name: &str, width: usize| {
            let ranges = order.iter().map(|head| head * width..(head + 1) * width).collect();
            HfTensor::Picked(
                name.into(),
                Picked { axis: Axis::Columns, stored: heads * width, ranges },
            )
        };
        // Heads of `width` rows in GGUF's order, after the rows of queries and keys.
        let heads_of = |before: usize, width: usize| {
            let before_them = (before > 0).then_some(0..before);
            let of = |head: &usize| before + head * width..before + (head + 1) * width;
            before_them.into_iter().chain(order.iter().map(of)).collect::<Vec<_>>()
        };
        let (width, keys) = (delta.value_head_dim, 2 * delta.key_dim());

        match self {
            Self::Joined => {
                let joined = Joined::new(delta);
                let from = "linear_attn.in_proj_qkvz.weight";
                let qkv = |name: &str| rows(name, joined.rows, joined.qkv());
                add("attn_qkv.weight", [conv, hidden], Role::Attention, &qkv, from);
                let gate = |name: &str| rows(name, joined.rows, joined.gate());
                add("attn_gate.weight", [value, hidden], Role::Attention, &gate, from);
                let from = "linear_attn.in_proj_ba.weight";
                add("ssm_ba.weight", [2 * heads, hidden], Role::Router, &whole, from);
            }
            Self::Separate => {
                let qkv = |name: &str| rows(name, conv, heads_of(keys, width));
                let from = "linear_attn.in_proj_qkv.weight";
                add("attn_qkv.weight", [conv, hidden], Role::Attention, &qkv, from);
                let gate = |name: &str| rows(name, value, heads_of(0, width));
                let from = "linear_attn.in_proj_z.weight";
                add("attn_gate.weight", [value, hidden], Role::Attention, &gate, from);
                let one = |name: &str| rows(name, heads, heads_of(0, 1));
                for (name, from) in [("beta", "b"), ("alpha", "a")] {
                    let from = format!("linear_attn.in_proj_{from}.weight");
                    let name = format!("ssm_{name}.weight");
                    add(&name, [heads, hidden], Role::Router, &one, &from);
                }
            }
        }
        let taps = [conv, delta.conv_kernel_dim];
        let conv1d = |name: &str| rows(name, conv, heads_of(keys, width));
        add("ssm_conv1d.weight", taps, Role::Vector, &conv1d, "linear_attn.conv1d.weight");
        let dt = |name: &str| columns(name, 1);
        add("ssm_dt.bias", [1, heads], Role::Vector, &dt, "linear_attn.dt_bias");
        let a = |name: &str| HfTensor::Applied(name.into(), Function::NegativeExp, order.clone());
        add("ssm_a", [1, heads], Role::Vector, &a, "linear_attn.A_log");
        add("ssm_norm.weight", [1, width], Role::Vector, &whole, "linear_attn.norm.weight");
        let output = |name: &str| columns(name, width);
        let from = "linear_attn.out_proj.weight";
        add("ssm_out.weight", [hidden, value], Role::Attention, &output, from);
    }
}

/// Writes llama.cpp's keys.
pub fn write_metadata(architecture: &str, delta: &GatedDeltaConfig, metadata: &mut Metadata) {
    for (name, size) in [
        ("conv_kernel", delta.conv_kernel_dim),
        ("state_size", delta.key_head_dim),
        ("group_count", delta.num_key_heads),
        ("time_step_rank", delta.num_value_heads),
        ("inner_size", delta.value_dim()),
    ] {
        metadata.insert(format!("{architecture}.ssm.{name}"), size as u32);
    }
}

/// Value heads in GGUF's order, by their numbers in a checkpoint, in which those of a key head
/// follow each other.
fn tiled(delta: &GatedDeltaConfig) -> Vec<usize> {
    let per_key = delta.num_value_heads / delta.num_key_heads;
    let of_turn = |turn| (0..delta.num_key_heads).map(move |key| key * per_key + turn);
    (0..per_key).flat_map(of_turn).collect()
}

/// Rows of Qwen3-Next's joined projection: for each key head its query, its key, its values and
/// their gates.
struct Joined {
    rows: usize,
    key_heads: usize,
    key: usize,
    value: usize,
}

impl Joined {
    fn new(delta: &GatedDeltaConfig) -> Self {
        let value = delta.value_dim() / delta.num_key_heads;
        let rows = 2 * (delta.key_dim() + delta.value_dim());
        Self { rows, key_heads: delta.num_key_heads, key: delta.key_head_dim, value }
    }

    /// The rows from `at` on of each key head, `len` each.
    fn part(&self, at: usize, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let head = self.rows / self.key_heads;
        (0..self.key_heads).map(move |i| i * head + at..i * head + at + len)
    }

    fn qkv(&self) -> Vec<std::ops::Range<usize>> {
        let (queries, keys) = (self.part(0, self.key), self.part(self.key, self.key));
        queries.chain(keys).chain(self.part(2 * self.key, self.value)).collect()
    }

    fn gate(&self) -> Vec<std::ops::Range<usize>> {
        self.part(2 * self.key + self.value, self.value).collect()
    }
}
