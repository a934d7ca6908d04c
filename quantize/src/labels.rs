//! Keys by which the hub and other programs label a file: `general.size_label` and
//! `general.file_type`.

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::Config;

use crate::container::expert_parameters;
use crate::plan::{expert_layers, expert_specs};

/// `general.quantized_by`.
pub const QUANTIZED_BY: &str = concat!("vaquita ", env!("CARGO_PKG_VERSION"));

/// Weights as the `gguf` package states them: `1.2B`, or `32x480M` for 32 experts and the weights
/// that one of them computes with, those outside of experts included.
pub fn size_label(config: &Config, parameters: u64) -> String {
    let experts = config.moe.n_routed_experts as u64;
    let of_experts: u64 = expert_layers(config)
        .flat_map(|layer| expert_specs(config, layer))
        .map(|spec| expert_parameters(&spec))
        .sum();
    let rest = parameters.saturating_sub(of_experts);
    match of_experts.checked_div(experts) {
        Some(of_one) if of_one > 0 => format!("{experts}x{}", rounded(rest + of_one)),
        _ => rounded(parameters),
    }
}

/// At least two digits, and a letter for the power of a thousand.
fn rounded(count: u64) -> String {
    let powers = [(1e12, "T"), (1e9, "B"), (1e6, "M")];
    let found = powers.into_iter().find(|(power, _)| count as f64 > *power);
    let (power, letter) = found.unwrap_or((1e3, "K"));
    let scaled = count as f64 / power;
    let digits = if scaled.round() < 10.0 { 1 } else { 0 };
    format!("{scaled:.digits$}{letter}")
}

/// ggml's or ik_llama.cpp's number for a file whose matrices are mostly of a type. Types that have none, such as
/// vaquita's, are 1024, which stands for a guess from the tensors.
pub fn file_type(ty: BlockType) -> u32 {
    match ty {
        BlockType::F32 => 0,
        BlockType::F16 => 1,
        BlockType::Q4_0 => 2,
        BlockType::Q4_1 => 3,
        BlockType::Q8_0 => 7,
        BlockType::Q5_0 => 8,
        BlockType::Q5_1 => 9,
        BlockType::Q3K => 11,
        BlockType::Q4K => 14,
        BlockType::Q5K => 16,
        BlockType::Q6K => 18,
        BlockType::Iq2Xxs => 19,
        BlockType::Iq2Xs => 20,
        BlockType::Q2K => 21,
        BlockType::Iq3Xxs => 23,
        BlockType::Iq1S => 24,
        BlockType::Iq4Nl => 25,
        BlockType::Iq3S => 26,
        BlockType::Iq2S => 28,
        BlockType::Iq4Xs => 30,
        BlockType::Iq1M => 31,
        BlockType::BF16 => 32,
        BlockType::Tq1_0 => 36,
        BlockType::Tq2_0 => 37,
        BlockType::Mxfp4 => 38,
        BlockType::Nvfp4 => 39,
        BlockType::Q1_0 => 40,
        BlockType::Iq2K => 138,
        BlockType::Iq3K => 139,
        BlockType::Iq4K => 140,
        BlockType::Iq5K => 141,
        BlockType::Iq6K => 142,
        BlockType::Iq4Ks => 145,
        BlockType::Iq2Ks => 147,
        BlockType::Iq4Kss => 148,
        BlockType::Iq5Ks => 150,
        BlockType::Iq3Ks => 154,
        BlockType::E2 | BlockType::E3 | BlockType::E4 | BlockType::E8 | BlockType::Q2_0 => 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_rounded_as_the_gguf_package_does() {
        let counts = [480_000, 999_949_999, 1_240_000_000, 15_700_000_000, 671_000_000_000];
        assert_eq!(counts.map(rounded), ["480K", "1000M", "1.2B", "16B", "671B"]);
        assert_eq!(rounded(9_400_000), "9.4M");
    }
}
