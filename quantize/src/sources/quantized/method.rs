//! The method that a configuration states, as far as shapes do not say it.

use serde_json::Value as Json;
use vaquita_runtime::checkpoint::families::{ConfigError, text_config};

/// Methods that are read, for errors.
const READ: &str = "fp8, mxfp4, compressed-tensors, modelopt, gptq, awq, auto-round with GPTQ's or AWQ's packing, or none: \
     use the unquantized checkpoint";

/// A method of quantization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Method {
    pub(super) kind: Kind,
    /// Rows and columns that share a scale, where scales are per block.
    pub block: [usize; 2],
}

/// Properties of a method that shapes do not determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Shapes say everything.
    Plain,
    /// Stored zero points are less by this.
    Gptq {
        zero_offset: i32,
    },
    Awq,
}

impl Method {
    /// The method of a `config.json`; those that are not read are refused by their names.
    pub fn of(json: &Json) -> Result<Self, ConfigError> {
        let mut method = Self { kind: Kind::Plain, block: block_size(json)? };
        for json in [json, text_config(json)] {
            let Some(config) = json.get("quantization_config").filter(|config| !config.is_null())
            else {
                if let Some(found) = json.get("quantization").filter(|found| found.is_object()) {
                    return Err(ConfigError::value("quantization (of MLX)", found, READ));
                }
                continue;
            };
            method.kind = kind(config)?;
        }
        Ok(method)
    }
}

fn kind(config: &Json) -> Result<Kind, ConfigError> {
    let text = |key: &str| config.get(key).and_then(Json::as_str);
    let refused = |key: &str, found: &str, allowed: &str| {
        Err(ConfigError::value(&format!("quantization_config.{key}"), found, allowed))
    };
    let Some(method) = text("quant_method") else { return Ok(Kind::Plain) };
    match method {
        "fp8" | "mxfp4" => Ok(Kind::Plain),
        "compressed-tensors" => {
            const FORMATS: [&str; 8] = [
                "dense",
                "pack-quantized",
                "float-quantized",
                "int-quantized",
                "naive-quantized",
                "nvfp4-pack-quantized",
                "mxfp4-pack-quantized",
                "mixed-precision",
            ];
            match text("format").filter(|format| !FORMATS.contains(format)) {
                Some(format) => refused("format", format, &FORMATS.join(", ")),
                None => Ok(Kind::Plain),
            }
        }
        "modelopt" | "modelopt_fp4" => {
            const ALGORITHMS: [&str; 5] =
                ["NVFP4", "W4A16_NVFP4", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "MIXED_PRECISION"];
            match text("quant_algo").filter(|found| !ALGORITHMS.contains(found)) {
                Some(found) => refused("quant_algo", found, &ALGORITHMS.join(", ")),
                None => Ok(Kind::Plain),
            }
        }
        "gptq" => match text("checkpoint_format").unwrap_or("gptq") {
            "gptq" => Ok(Kind::Gptq { zero_offset: 1 }),
            "gptq_v2" => Ok(Kind::Gptq { zero_offset: 0 }),
            other => refused("checkpoint_format", other, "gptq, gptq_v2"),
        },
        "awq" => match text("version").unwrap_or("gemm").to_ascii_lowercase().as_str() {
            "gemm" => Ok(Kind::Awq),
            other => refused("version", other, "gemm"),
        },
        "auto-round" | "intel/auto-round" => match text("packing_format") {
            Some("auto_round:auto_gptq" | "auto_gptq") => Ok(Kind::Gptq { zero_offset: 1 }),
            Some("auto_round:auto_awq" | "auto_awq") => Ok(Kind::Awq),
            other => refused(
                "packing_format",
                other.unwrap_or("not stated"),
                "auto_round:auto_gptq, auto_round:auto_awq",
            ),
        },
        other => refused("quant_method", other, READ),
    }
}

/// Rows and columns that share a scale, by default 128 x 128.
fn block_size(json: &Json) -> Result<[usize; 2], ConfigError> {
    const KEY: &str = "quantization_config.weight_block_size";
    let config =
        json.get("quantization_config").or_else(|| text_config(json).get("quantization_config"));
    let stated = config.and_then(|config| config.get("weight_block_size"));
    // compressed-tensors states it for each group of layers; one size is all that was ever used.
    let groups = config.and_then(|config| config.get("config_groups")?.as_object());
    let structure = || {
        let mut groups = groups?.values();
        groups
            .find_map(|group| group.get("weights")?.get("block_structure").filter(|v| !v.is_null()))
    };
    let Some(found) = stated.filter(|value| !value.is_null()).or_else(structure) else {
        return Ok([128, 128]);
    };
    let sides: Option<Vec<u64>> =
        found.as_array().and_then(|sides| sides.iter().map(Json::as_u64).collect());
    match sides.as_deref() {
        Some(&[rows @ 1..=65536, cols @ 1..=65536]) => Ok([rows as usize, cols as usize]),
        _ => Err(ConfigError::value(KEY, found, "two numbers from 1 to 65536")),
    }
}
