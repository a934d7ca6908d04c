//! Draws the bits of each expert under a plan.

use std::fmt::Write;

use vaquita_runtime::checkpoint::{Config, ExpertSpec};
use vaquita_runtime::svg::escape;

use super::{Plan, expert_layers, expert_specs};
use crate::importance::Importance;

const CELL: usize = 12;

/// An SVG map of a plan: a row per layer and a cell per expert, darker for more bits. A bar below
/// each cell shows the expert's tokens, if calibration knows them.
pub fn map(config: &Config, plan: &Plan, importance: Option<&dyn Importance>) -> String {
    let rows = expert_layers(config).count();
    let (width, height) = (70 + config.moe.n_routed_experts * CELL, 30 + rows * 2 * CELL);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"4\" y=\"14\">{}</text>\n",
        escape(plan.name())
    );
    for (row, layer) in expert_layers(config).enumerate() {
        let y = 24 + row * 2 * CELL;
        let tokens = |spec: &ExpertSpec| importance.and_then(|all| all.tokens(spec)).unwrap_or(0);
        let seen: Vec<u64> = expert_specs(config, layer).map(|spec| tokens(&spec)).collect();
        let most = seen.iter().copied().max().unwrap_or(0).max(1);
        // Writing to a string does not fail.
        let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">layer {}</text>", y + CELL, layer.0);
        for (spec, seen) in expert_specs(config, layer).zip(seen) {
            let Some(types) = plan.expert_types(layer, spec.expert) else { continue };
            let bits: usize = types.iter().map(|ty| ty.code_bits().unwrap_or(16)).sum();
            let shade = 240usize.saturating_sub(bits.saturating_sub(6) * 12);
            let (x, heat) = (60 + spec.expert.0 * CELL, seen as f64 * 8.0 / most as f64);
            let names = types.map(|ty| ty.name()).join(" ");
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"11\" height=\"11\" fill=\"rgb({shade},{shade},240)\"><title>expert {}: {names}, {seen} tokens</title></rect><rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"{heat:.0}\" fill=\"#c0562f\"/>",
                spec.expert.0,
                y + 12,
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
