//! Predicted error by file size of mixed plans, before anything is quantized.

use serde::Serialize;

use super::survey::{Survey, TYPES, combination, fitted};
use super::{Allocation, Material, Plan, PlanError, Target, fit};

/// One plan on a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bits of the file per weight.
    pub bits_per_weight: f64,
    /// Cost of the plan's errors, relative to the smallest file's.
    pub predicted_error: f64,
}

impl Survey {
    /// Mixed plans for `steps` sizes (at least two), evenly spaced from the smallest file to twice
    /// its size.
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

    /// Size and cost of a plan.
    fn point(&self, plan: &Plan) -> Point {
        let mut file_bytes = self.fixed_bytes();
        let mut cost = 0.0;
        for item in &self.dense {
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
}
