//! Mamba-2 layers: configuration and tensors.

use serde_json::Value as Json;

use super::ConfigError;
use super::keys::{self, ConfigReader, MetadataReader, limits};
use crate::checkpoint::config::{Bias, Mamba2Config};
use crate::checkpoint::spec::{Function, HfTensor, Role};
use crate::gguf::Metadata;

/// Longest convolution.
const TAPS: usize = 64;

/// Reads the dimensions from `config.json`.
pub fn config_from_hf(r: &ConfigReader, hidden: usize) -> Result<Mamba2Config, ConfigError> {
    let width = [1, limits::WIDTH];
    let num_heads = r.size("mamba_n_heads", [1, limits::HEADS])?;
    let inner = r.size("mamba_expand", [1, 64])? * hidden;
    keys::multiple("mamba_expand * hidden_size", inner, num_heads)?;
    let head_dim = match r.get("mamba_d_head") {
        Some(Json::String(auto)) if auto == "auto" => inner / num_heads,
        _ => r.size_or("mamba_d_head", inner / num_heads, width)?,
    };
    if head_dim * num_heads != inner {
        let allowed = format!("{}, the width over the heads", inner / num_heads);
        return Err(ConfigError::value("mamba_d_head", head_dim, allowed));
    }
    r.expect_bool("mamba_proj_bias", false)?;
    check_step_limit(r)?;
    check(Mamba2Config {
        num_heads,
        head_dim,
        num_groups: r.size("mamba_n_groups", [1, num_heads])?,
        state_dim: r.size("mamba_d_state", width)?,
        conv_kernel_dim: r.size("mamba_d_conv", [1, TAPS])?,
        conv_bias: match r.bool("mamba_conv_bias")?.unwrap_or(true) {
            true => Bias::Required,
            false => Bias::None,
        },
    })
}

/// Reads the dimensions from llama.cpp's keys.
pub fn config_from_gguf(k: &MetadataReader) -> Result<Mamba2Config, ConfigError> {
    let num_heads = k.size("ssm.time_step_rank", [1, limits::HEADS])?;
    let inner = k.size("ssm.inner_size", [num_heads, limits::WIDTH])?;
    keys::multiple(&k.key("ssm.inner_size"), inner, num_heads)?;
    check(Mamba2Config {
        num_heads,
        head_dim: inner / num_heads,
        num_groups: k.size("ssm.group_count", [1, num_heads])?,
        state_dim: k.size("ssm.state_size", [1, limits::WIDTH])?,
        conv_kernel_dim: k.size("ssm.conv_kernel", [1, TAPS])?,
        conv_bias: Bias::IfStored,
    })
}

/// Writes llama.cpp's keys.
pub fn write_metadata(architecture: &str, mamba: &Mamba2Config, metadata: &mut Metadata) {
    for (name, size) in [
        ("conv_kernel", mamba.conv_kernel_dim),
        ("state_size", mamba.state_dim),
        ("group_count", mamba.num_groups),
        ("time_step_rank", mamba.num_heads),
        ("inner_size", mamba.inner_dim()),
    ] {
        metadata.insert(format!("{architecture}.ssm.{name}"), size as u32);
    }
}

/// Refuses bounds on `dt`, which no published model has.
fn check_step_limit(r: &ConfigReader) -> Result<(), ConfigError> {
    let key = "time_step_limit";
    let Some(found) = r.get(key) else { return Ok(()) };
    // JSON has no infinity: transformers writes an object with its name.
    let unbounded = match found.as_array().map(Vec::as_slice) {
        Some([low, high]) => low.as_f64() == Some(0.0) && !high.is_number(),
        _ => false,
    };
    match unbounded {
        true => Ok(()),
        false => Err(ConfigError::value(key, found, "0 to infinity")),
    }
}

fn check(config: Mamba2Config) -> Result<Mamba2Config, ConfigError> {
    keys::multiple("heads of Mamba-2", config.num_heads, config.num_groups)?;
    keys::multiple("width of a head of Mamba-2", config.head_dim, 8)?;
    for (key, size) in
        [("projections", config.conv_dim()), ("states", config.inner_dim() * config.state_dim)]
    {
        if size > limits::STATE {
            let allowed = format!("at most {} numbers", limits::STATE);
            return Err(ConfigError::value(&format!("Mamba-2's {key}"), size, allowed));
        }
    }
    Ok(config)
}

/// Names in GGUF and in checkpoints, both below the layer, with rows, columns and role; and the
/// bias of the convolution, which a file may leave out.
pub fn tensors(
    mamba: &Mamba2Config,
    hidden: usize,
    mut add: impl FnMut(&str, [usize; 2], Role, &dyn Fn(String) -> HfTensor, &str),
) {
    let (heads, inner, conv) = (mamba.num_heads, mamba.inner_dim(), mamba.conv_dim());
    let whole = |name: String| HfTensor::Whole(name);
    let input = [inner + conv + heads, hidden];
    add("ssm_in.weight", input, Role::Attention, &whole, "mamba.in_proj.weight");
    let taps = [conv, mamba.conv_kernel_dim];
    add("ssm_conv1d.weight", taps, Role::Vector, &whole, "mamba.conv1d.weight");
    add("ssm_dt.bias", [1, heads], Role::Vector, &whole, "mamba.dt_bias");
    let applied = |name, function| HfTensor::Applied(name, function, Vec::new());
    let decay = |name: String| applied(name, Function::NegativeExp);
    add("ssm_a", [heads, 1], Role::Vector, &decay, "mamba.A_log");
    add("ssm_d", [heads, 1], Role::Vector, &whole, "mamba.D");
    let groups = [mamba.num_groups, inner / mamba.num_groups];
    let norm = |name: String| applied(name, Function::Same);
    add("ssm_norm.weight", groups, Role::Vector, &norm, "mamba.norm.weight");
    add("ssm_out.weight", [hidden, inner], Role::Attention, &whole, "mamba.out_proj.weight");
}
