//! The bitshift trellis of QTIP (arXiv 2406.11235, section 3): a weight's value is a function of the last `L` bits of
//! the row's stream, of which two are new. "1MAD": a linear congruential generator's next number, the sum of whose
//! four bytes is nearly Gaussian, so that there is no table.

use crate::code::{Code, Step};

const NEW: u32 = 2;

pub struct Trellis {
    window: u32,
    values: Vec<f32>,
    pub beam: usize,
}

/// The value of a window.
pub fn one_mad(window: u32) -> i32 {
    let bytes = window.wrapping_mul(34_038_481).wrapping_add(76_625_530).to_le_bytes();
    bytes.map(i32::from).iter().sum::<i32>() - 510
}

impl Trellis {
    /// With windows of so many bits.
    pub fn new(window: u32, beam: usize) -> Self {
        let values = (0..1 << window).map(|bits| one_mad(bits) as f32 / 147.8).collect();
        Self { window, values, beam }
    }
}

impl Code for Trellis {
    fn name(&self) -> String {
        format!("trellis, windows of {} bits, beam {}", self.window, self.beam)
    }

    fn bits(&self) -> f64 {
        f64::from(NEW)
    }

    fn width(&self) -> usize {
        1
    }

    fn values(&self) -> &[f32] {
        &self.values
    }

    fn lopsided(&self) -> bool {
        false
    }

    fn follow(&self, state: u32, _: &[f32], steps: &mut Vec<Step>) {
        let mask = (1 << (self.window - NEW)) - 1;
        steps.extend((0..1 << NEW).map(|new| {
            let entry = state << NEW | new;
            Step { entry, state: entry & mask }
        }));
    }

    fn merges(&self) -> bool {
        true
    }

    fn beam(&self) -> usize {
        self.beam
    }
}
