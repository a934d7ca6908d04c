//! Draws hit rate against memory budget as SVG, one curve per eviction policy.

use super::Trace;
use super::replay::{EvictionRule, ReplayError, replay};
use crate::svg::Drawing;

/// Height of the drawing.
const HEIGHT: f64 = 440.0;
/// Number of budgets, from the experts of one layer to all experts.
const POINTS: u32 = 24;

/// Hit rates of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The rule.
    pub rule: EvictionRule,
    /// Budgets in bytes, with the hit rate during generation.
    pub points: Vec<(u64, f64)>,
}

/// Replays a trace at budgets from the smallest possible one up to all experts that it uses.
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
    EvictionRule::ALL.into_iter().map(curve).collect()
}

/// Bytes of the largest visit during generation, and of all experts that the trace uses.
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

/// Draws the curves.
pub fn svg(curves: &[Curve]) -> String {
    let colours = ["#999999", "#d98200", "#0060c0", "#222222"];
    let most = curves.iter().flat_map(|c| &c.points).map(|p| p.0).max().unwrap_or(1).max(1);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut drawing = Drawing::new();
    let titles = ("memory for experts, MiB", "hits, %");
    let panel = drawing.panel(HEIGHT, (mib(most), 100.0), titles);
    drawing.title(&panel, "hit rate of the eviction policies while decoding");
    for (i, curve) in curves.iter().enumerate() {
        let colour = colours[i % colours.len()];
        let points = curve.points.iter().map(|&(bytes, rate)| (mib(bytes), 100.0 * rate));
        let points: Vec<(f64, f64)> = points.collect();
        drawing.curve(&panel, colour, &points);
        drawing.name(&panel, colour, curves.len() - i, curve.rule.name());
    }
    drawing.finish()
}
