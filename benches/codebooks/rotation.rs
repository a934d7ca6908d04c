//! Incoherence processing (QuIP#, arXiv 2402.04396, section 3): random signs, then a Hadamard transform, which makes
//! weights look Gaussian. Orthogonal, so errors keep their size; a runtime would rotate inputs and outputs.

use crate::data::Random;

/// `x -> H S x / sqrt(n)` for a power of two.
pub struct Rotation {
    signs: Vec<f32>,
}

impl Rotation {
    /// Random signs for `n` numbers; `None` where that is no power of two.
    pub fn new(n: usize, seed: u64) -> Option<Self> {
        let mut random = Random::new(seed);
        let sign = |_| if random.next() & 1 == 0 { 1.0 } else { -1.0 };
        n.is_power_of_two().then(|| Self { signs: (0..n).map(sign).collect() })
    }

    pub fn forward(&self, x: &mut [f32]) {
        x.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
        hadamard(x);
    }

    pub fn back(&self, x: &mut [f32]) {
        hadamard(x);
        x.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
    }
}

fn hadamard(x: &mut [f32]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (x.len() as f32).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
}
