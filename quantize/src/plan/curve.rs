//! What a plan is expected to cost, before anything is quantized: size against error, and a map of bits.

use std::fmt::Write;

use serde::Serialize;
use vaquita_runtime::model::ExpertSpec;

use super::survey::{Item, Survey, TYPES, combination, fitted};
use super::{Allocation, Material, Plan, PlanError, Target, fit};
use crate::importance::Importance;

/// One plan of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bits of the file per weight.
    pub bits_per_weight: f64,
    /// What the plan's errors cost, as a part of what those of the smallest file cost.
    pub predicted_error: f64,
}

impl Survey {
    /// The mixed plans of `steps` sizes, two or more, evenly spread from the smallest file to one of twice its size.
    pub fn curve(&self, material: &Material, steps: usize) -> Result<Vec<Point>, PlanError> {
        let [least, most] = self.bytes;
        let most = most.min(least.saturating_mul(2));
        let worst =
            self.point(&self.plan(material, Target::Bytes(least), Allocation::PerExpert)?);
        let points = (0..steps.max(2)).map(|step| {
            let bytes = least + (most - least) / (steps.max(2) as u64 - 1) * step as u64;
            let plan = self.plan(material, Target::Bytes(bytes), Allocation::PerExpert)?;
            let point = self.point(&plan);
            let predicted_error = point.predicted_error / worst.predicted_error;
            Ok(Point { predicted_error, ..point })
        });
        points.collect()
    }

    /// A plan's size and cost.
    fn point(&self, plan: &Plan) -> Point {
        let mut file_bytes = self.fixed_bytes();
        let mut cost = 0.0;
        for item in &self.trunk {
            let ty = plan.tensor_type(&item.spec);
            let at = TYPES.iter().position(|one| fit(*one, item.spec.cols) == ty).unwrap_or(0);
            file_bytes += item.choices[at].bytes;
            cost += item.choices[at].cost;
        }
        for item in self.experts.iter().flatten() {
            let types = plan.expert_types(item.spec.layer, item.spec.expert);
            let found = |at: &usize| Some(fitted(&item.spec, combination(*at))) == types;
            let at = (0..item.choices.len()).find(found).unwrap_or(0);
            file_bytes += item.choices[at].bytes;
            cost += item.choices[at].cost;
        }
        let bits_per_weight = file_bytes as f64 * 8.0 / self.parameters.max(1) as f64;
        Point { file_bytes, bits_per_weight, predicted_error: cost }
    }

    /// An SVG map of a plan: a row per layer, a cell per expert, darker for more bits; under each, where calibration
    /// knows it, a bar for the tokens that it saw.
    pub fn map(&self, plan: &Plan, importance: Option<&dyn Importance>) -> String {
        const CELL: usize = 12;
        let columns = self.experts.iter().map(Vec::len).max().unwrap_or(0);
        let (width, height) = (70 + columns * CELL, 30 + self.experts.len() * 2 * CELL);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"4\" y=\"14\">{}</text>\n",
            plan.name()
        );
        for (row, layer) in self.experts.iter().enumerate() {
            let y = 24 + row * 2 * CELL;
            let tokens = |item: &Item<ExpertSpec>| {
                importance.and_then(|all| all.tokens(&item.spec)).unwrap_or(0)
            };
            let most = layer.iter().map(tokens).max().unwrap_or(0).max(1);
            let name = layer.first().map_or(0, |item| item.spec.layer.0);
            // Writing to a string does not fail.
            let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">layer {name}</text>", y + CELL);
            for (column, item) in layer.iter().enumerate() {
                let types = plan.expert_types(item.spec.layer, item.spec.expert);
                let types = types.unwrap_or([TYPES[0]; 3]);
                let bits: usize = types.iter().map(|ty| ty.code_bits().unwrap_or(16)).sum();
                let shade = 240usize.saturating_sub((bits - 6) * 12);
                let (x, heat) = (60 + column * CELL, tokens(item) * 8 / most);
                let names = types.map(|ty| ty.name()).join(" ");
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"11\" height=\"11\" fill=\"rgb({shade},{shade},240)\"><title>expert {column}: {names}, {} tokens</title></rect><rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"{heat}\" fill=\"#c0562f\"/>",
                    tokens(item),
                    y + 12,
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}
