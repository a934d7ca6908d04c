//! Draws the bits of each expert under a plan.

use std::fmt::Write;

use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{Config, ExpertSpec};
use vaquita_runtime::svg::escape;

use super::{Plan, expert_layers, expert_specs};
use crate::importance::Importance;

/// Width and height of an expert's cell.
const CELL: usize = 12;
/// Height of everything above the first row.
const HEAD: usize = 44;

/// An SVG map of a plan: a row per layer and a cell per expert, with a stripe in the colour of its
/// type for each of gate, up and down. A bar below each cell shows the expert's tokens, if
/// calibration knows them.
pub fn map(config: &Config, plan: &Plan, importance: Option<&dyn Importance>) -> String {
    let rows = expert_layers(config).count();
    let width = 70 + (config.moe.n_routed_experts * CELL).max(390);
    let height = HEAD + 6 + rows * 2 * CELL;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"4\" y=\"14\">{}; stripes of a cell: gate, up, down of an expert</text>\n",
        escape(plan.name())
    );
    legend(&mut svg, config, plan, importance.is_some());
    for (row, layer) in expert_layers(config).enumerate() {
        let y = HEAD + row * 2 * CELL;
        let tokens = |spec: &ExpertSpec| importance.and_then(|all| all.tokens(spec)).unwrap_or(0);
        let seen: Vec<u64> = expert_specs(config, layer).map(|spec| tokens(&spec)).collect();
        let most = seen.iter().copied().max().unwrap_or(0).max(1);
        let drafts = if layer.0 < config.num_hidden_layers { "" } else { " (MTP)" };
        // Writing to a string does not fail, here and below.
        let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">layer {}{drafts}</text>", y + 10, layer.0);
        for (spec, seen) in expert_specs(config, layer).zip(seen) {
            let Some(types) = plan.expert_types(layer, spec.expert) else { continue };
            let (x, heat) = (70 + spec.expert.0 * CELL, seen as f64 * 8.0 / most as f64);
            let names = types.map(|ty| ty.name()).join(" ");
            let number = spec.expert.0;
            let _ = write!(svg, "<g><title>expert {number}: {names}, {seen} tokens</title>");
            for (at, ty) in types.into_iter().enumerate() {
                square(&mut svg, x + 4 * at, y, 4 - at / 2, colour(ty));
            }
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"{heat:.0}\" fill=\"{HEAT}\"/></g>",
                y + 12,
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Colour of the bars of tokens.
const HEAT: &str = "#c0562f";

/// Colour of a type, by its whole bits per weight: the palette of Okabe and Ito, which colour-blind
/// people tell apart, from light to dark for vaquita's types.
fn colour(ty: BlockType) -> &'static str {
    match ty.byte_len(8, 256).unwrap_or(usize::MAX) / 256 {
        0..=1 => "#bbbbbb",
        2 => "#f0e442",
        3 => "#e69f00",
        4 => "#009e73",
        5 => "#56b4e9",
        6 => "#cc79a7",
        7..=8 => "#0072b2",
        _ => "#000000",
    }
}

fn square(svg: &mut String, x: usize, y: usize, width: usize, colour: &str) {
    let size = format!("width=\"{width}\" height=\"11\"");
    let _ = write!(svg, "<rect x=\"{x}\" y=\"{y}\" {size} fill=\"{colour}\"/>");
}

/// The colours of the types that the plan gives to experts, and of the bars.
fn legend(svg: &mut String, config: &Config, plan: &Plan, has_tokens: bool) {
    let experts = expert_layers(config).flat_map(|layer| expert_specs(config, layer));
    let types = experts.filter_map(|spec| plan.expert_types(spec.layer, spec.expert)).flatten();
    let mut types: Vec<BlockType> = types.collect();
    types.sort_by_key(|ty| (ty.byte_len(8, 256), ty.name()));
    types.dedup();
    let types = types.into_iter().map(|ty| (colour(ty), ty.name()));
    let mut x = 70;
    for (colour, name) in types.chain(has_tokens.then_some((HEAT, "tokens"))) {
        square(svg, x, 22, 11, colour);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"31\">{name}</text>", x + 14);
        x += 30 + 6 * name.len();
    }
}
