//! Tables with memory: a table of 16 is looked up with the code of a column and some bits of the code before it, in
//! the same lane of a register, which is that of four columns earlier. A trellis of few states that costs a decoder
//! hardly more than a table of 4, for the window of 4 bits lies in one byte anyway.

use crate::code::{Code, Step};
use crate::data::{Data, Random};
use crate::train;

/// Columns between a code and the one that it remembers.
const STRIDE: u32 = 4;

/// What [`Window::train`] found.
#[rustfmt::skip]
pub const TABLE: [f32; 16] = [
    -35.0, -2.0, 25.0, 63.0, -64.0, -23.0, 2.0, 33.0,
    -33.0, -3.0, 23.0, 63.0, -60.0, -20.0, 9.0, 44.0,
];

/// Rounds of training.
const ROUNDS: usize = 24;

pub struct Window {
    /// `[before][code]`
    pub values: Vec<f32>,
    /// Bits of a code.
    pub code_bits: u32,
    /// Bits of the code before that are remembered.
    pub memory: u32,
    pub beam: usize,
}

impl Window {
    /// A table of 16 from a random start: after each code there is a part of a Gaussian's quantiles, of which the
    /// codes before share every fourth.
    pub fn train(data: &Data, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut sorted: Vec<f32> = (0..16_000).map(|_| random.gaussian()).collect();
        sorted.sort_by(f32::total_cmp);
        let mut values = vec![0.0; 16];
        for code in 0..4 {
            let mut order = [0, 1, 2, 3];
            for i in (1..4).rev() {
                order.swap(i, random.next() as usize % (i + 1));
            }
            for (before, at) in order.into_iter().enumerate() {
                values[before << 2 | code] = sorted[500 + 1000 * (code << 2 | at)];
            }
        }
        let mut window = Self { values, code_bits: 2, memory: 2, beam: 64 };
        for _ in 0..ROUNDS {
            window.values = train::step(&window, data).0;
        }
        let most = window.values.iter().fold(0f32, |most, v| most.max(v.abs()));
        window.values.iter_mut().for_each(|v| *v = (*v * 64.0 / most).round());
        window
    }
}

impl Code for Window {
    fn name(&self) -> String {
        format!("window of {} + {} bits, beam {}", self.memory, self.code_bits, self.beam)
    }

    fn bits(&self) -> f64 {
        f64::from(self.code_bits)
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

    fn follow(&self, state: u32, _: &[f32], steps: &mut Vec<Step>) {
        let before = state & ((1 << self.memory) - 1);
        let older = state >> self.memory;
        let top = self.memory * (STRIDE - 1);
        steps.extend((0..1 << self.code_bits).map(|code| {
            let kept = code >> (self.code_bits - self.memory);
            Step { entry: before << self.code_bits | code, state: older | kept << top }
        }));
    }

    fn merges(&self) -> bool {
        true
    }

    fn beam(&self) -> usize {
        self.beam
    }
}
