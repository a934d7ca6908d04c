//! Tables: a code names one of a few values. What e2, e3 and e4 are.

use crate::code::{Code, Step};

pub struct Scalar {
    pub values: Vec<f32>,
    pub beam: usize,
}

impl Code for Scalar {
    fn name(&self) -> String {
        format!("table of {}, beam {}", self.values.len(), self.beam)
    }

    fn bits(&self) -> f64 {
        (self.values.len() as f64).log2()
    }

    fn width(&self) -> usize {
        1
    }

    fn values(&self) -> &[f32] {
        &self.values
    }

    fn lopsided(&self) -> bool {
        true
    }

    fn follow(&self, _: u32, _: &[f32], steps: &mut Vec<Step>) {
        steps.extend((0..self.values.len() as u32).map(|entry| Step { entry, state: 0 }));
    }

    fn beam(&self) -> usize {
        self.beam
    }
}
