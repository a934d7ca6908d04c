//! A drawing of hit rates over budgets, as SVG: what a device gains from memory, and a policy from cleverness.

use std::fmt::Write;

use super::replay::{ReplayError, Rule, replay};
use super::trace::Trace;

/// Size of the drawing and of the margins around its axes.
const SIZE: (f64, f64) = (720.0, 440.0);
const MARGIN: (f64, f64) = (60.0, 40.0);
/// Budgets drawn, from one layer's need to all experts.
const POINTS: u32 = 24;

/// One rule's hit rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Which rule.
    pub rule: Rule,
    /// Budget in bytes, and the share of uses that it hits while tokens are generated.
    pub points: Vec<(u64, f64)>,
}

/// Replays a trace at budgets from the least possible up to all experts that it uses.
pub fn curves(trace: &Trace) -> Result<Vec<Curve>, ReplayError> {
    let (least, most) = range(trace);
    let ratio = most as f64 / least.max(1) as f64;
    let budget = |i: u32| match i {
        POINTS => most,
        i => (least as f64 * ratio.powf(f64::from(i) / f64::from(POINTS))).ceil() as u64,
    };
    let curve = |rule| {
        let point = |i| {
            let budget = budget(i);
            replay(trace, rule, budget).map(|replay| (budget, replay.decode.hit_rate()))
        };
        Ok(Curve { rule, points: (0..=POINTS).map(point).collect::<Result<_, _>>()? })
    };
    Rule::ALL.into_iter().map(curve).collect()
}

/// The bytes that the largest generated visit needs at once, and those of all experts that are used.
fn range(trace: &Trace) -> (u64, u64) {
    let shape = trace.shape;
    let mut used = vec![false; shape.len()];
    let mut least = 0;
    for visit in &trace.visits {
        let mut experts = visit.routed.clone();
        experts.sort_unstable();
        experts.dedup();
        let indices: Vec<usize> =
            experts.iter().map(|e| visit.layer.0 * shape.experts + e.0).collect();
        let bytes = indices.iter().map(|&at| trace.expert_bytes[at]);
        least = least.max(if visit.prefill { bytes.max().unwrap_or(0) } else { bytes.sum() });
        indices.into_iter().for_each(|at| used[at] = true);
    }
    let bytes = trace.expert_bytes.iter().zip(&used).filter(|(_, used)| **used);
    (least.max(1), bytes.map(|(bytes, _)| bytes).sum::<u64>().max(least).max(1))
}

/// Draws curves.
pub fn svg(curves: &[Curve]) -> String {
    let colours = ["#999999", "#d98200", "#0060c0", "#222222"];
    let most = curves.iter().flat_map(|c| &c.points).map(|p| p.0).max().unwrap_or(1).max(1);
    let (width, height) = (SIZE.0 - 2.0 * MARGIN.0, SIZE.1 - 2.0 * MARGIN.1);
    let x = |bytes: u64| MARGIN.0 + width * bytes as f64 / most as f64;
    let y = |rate: f64| MARGIN.1 + height * (1.0 - rate);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
        SIZE.0, SIZE.1
    );
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let (left, right, at) = (MARGIN.0, MARGIN.0 + width, y(share));
        let _ = writeln!(
            out,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>\n<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}%</text>",
            left - 6.0,
            at + 4.0,
            share * 100.0
        );
        let mib = most as f64 * share / f64::from(1 << 20);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{mib:.0} MiB</text>",
            MARGIN.0 + width * share,
            MARGIN.1 + height + 18.0
        );
    }
    for (i, curve) in curves.iter().enumerate() {
        let colour = colours[i % colours.len()];
        let points: Vec<String> =
            curve.points.iter().map(|&(b, rate)| format!("{:.1},{:.1}", x(b), y(rate))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            MARGIN.0 + width - 60.0,
            MARGIN.1 + height - 20.0 * (curves.len() - i) as f64,
            curve.rule.name()
        );
    }
    out.push_str("</svg>\n");
    out
}
