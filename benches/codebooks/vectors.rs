//! A trained codebook: 8 bits name one of 256 vectors of four weights.

use crate::code::{Code, Step};
use crate::data::{Data, Random};
use crate::train;

pub const DIM: usize = 4;
const ENTRIES: usize = 256;
const ROUNDS: usize = 30;

pub struct Vectors {
    pub values: Vec<f32>,
    pub beam: usize,
}

impl Vectors {
    /// Lloyd's iteration with the search of scales inside, from random vectors of the data's own kind.
    pub fn train(data: &Data, beam: usize) -> Self {
        let mut random = Random::new(5);
        let values = (0..ENTRIES * DIM).map(|_| random.gaussian()).collect();
        let mut code = Self { values, beam: 1 };
        for _ in 0..ROUNDS {
            code.values = train::step(&code, data).0;
        }
        Self { beam, ..code }
    }
}

impl Code for Vectors {
    fn name(&self) -> String {
        format!("trained, 4 weights in 8 bits, beam {}", self.beam)
    }

    fn bits(&self) -> f64 {
        2.0
    }

    fn width(&self) -> usize {
        DIM
    }

    fn values(&self) -> &[f32] {
        &self.values
    }

    fn lopsided(&self) -> bool {
        true
    }

    fn follow(&self, _: u32, _: &[f32], steps: &mut Vec<Step>) {
        steps.extend((0..ENTRIES as u32).map(|entry| Step { entry, state: 0 }));
    }

    fn beam(&self) -> usize {
        self.beam
    }
}
