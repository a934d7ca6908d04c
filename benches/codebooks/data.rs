//! Matrices to write.

use crate::rotation::Rotation;

/// xorshift64: the same numbers every time.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Between 0 and 1, neither included.
    fn uniform(&mut self) -> f64 {
        (self.next() as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1 (Box and Muller).
    pub fn gaussian(&mut self) -> f32 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }
}

/// Row-major weights.
#[derive(Clone)]
pub struct Data {
    pub cols: usize,
    pub values: Vec<f32>,
}

/// Rows of Gaussian numbers.
pub fn gaussian(rows: usize, cols: usize, seed: u64) -> Data {
    let mut random = Random::new(seed);
    Data { cols, values: (0..rows * cols).map(|_| random.gaussian()).collect() }
}

impl Data {
    /// The sum of the squares.
    pub fn energy(&self) -> f64 {
        self.values.iter().map(|w| f64::from(w * w)).sum()
    }

    /// Random rotations of the columns and of the rows, where their numbers are powers of two.
    pub fn rotations(&self) -> [Option<Rotation>; 2] {
        [Rotation::new(self.cols, 1), Rotation::new(self.values.len() / self.cols, 2)]
    }

    /// Applies them.
    pub fn rotate(&mut self, rotations: &[Option<Rotation>; 2]) {
        self.turn(rotations, Rotation::forward);
    }

    /// Takes them back.
    pub fn rotate_back(&mut self, rotations: &[Option<Rotation>; 2]) {
        self.turn(rotations, Rotation::back);
    }

    fn turn(&mut self, rotations: &[Option<Rotation>; 2], by: fn(&Rotation, &mut [f32])) {
        let (rows, cols) = (self.values.len() / self.cols, self.cols);
        if let Some(rotation) = &rotations[0] {
            self.values.chunks_exact_mut(cols).for_each(|row| by(rotation, row));
        }
        if let Some(rotation) = &rotations[1] {
            let mut turned = transposed(&self.values, cols);
            turned.chunks_exact_mut(rows).for_each(|col| by(rotation, col));
            self.values = transposed(&turned, rows);
        }
    }
}

/// The matrix with its rows as columns.
pub fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    let rows = values.len() / cols;
    (0..values.len()).map(|at| values[at % rows * cols + at / rows]).collect()
}
