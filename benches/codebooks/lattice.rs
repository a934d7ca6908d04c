//! E8P (QuIP#, arXiv 2402.04396, section 4.2): 65,536 points of the lattice E8, shifted by a quarter, in 16 bits for 8
//! weights: 8 bits name the magnitudes of a point of D8 + 1/2, 7 the signs, of which the eighth follows from the sum's
//! parity, and one says whether a quarter is added or taken away.

use crate::code::{Code, Step};

const DIM: usize = 8;
/// Magnitudes whose square norm is at most 10 are all there; of norm 12, 29.
const NORM: u32 = 10;
/// Nearest points that the search hears of.
const NEAREST: usize = 4;

pub struct Lattice {
    magnitudes: Vec<[f32; DIM]>,
    values: Vec<f32>,
    pub beam: usize,
}

impl Lattice {
    pub fn new(beam: usize) -> Self {
        let magnitudes = magnitudes();
        let mut values = Vec::with_capacity(DIM << 16);
        for entry in 0..1u32 << 16 {
            let point = &magnitudes[entry as usize >> 8];
            let signs = signs(point, entry >> 1 & 0x7f);
            let shift = if entry & 1 == 0 { 0.25 } else { -0.25 };
            values.extend((0..DIM).map(|i| {
                let value = if signs >> i & 1 == 0 { point[i] } else { -point[i] };
                value + shift
            }));
        }
        Self { magnitudes, values, beam }
    }
}

/// Halves, all positive: 256 of them, the short ones first.
pub fn magnitudes() -> Vec<[f32; DIM]> {
    let all = (0..3u32.pow(DIM as u32)).map(|number| {
        std::array::from_fn::<u32, DIM, _>(|i| 2 * (number / 3u32.pow(i as u32) % 3) + 1)
    });
    // In halves, norms are four times as large.
    let norm = |odd: &[u32; DIM]| odd.iter().map(|x| x * x).sum::<u32>() / 4;
    let mut points: Vec<[u32; DIM]> = all.filter(|odd| norm(odd) <= NORM + 2).collect();
    points.sort_by_key(norm);
    points.truncate(256);
    points.into_iter().map(|odd| odd.map(|x| x as f32 / 2.0)).collect()
}

/// All eight signs: the sum of a point of D8 + 1/2 is even.
fn signs(point: &[f32; DIM], seven: u32) -> u32 {
    let sum: f32 = (0..7).map(|i| if seven >> i & 1 == 0 { point[i] } else { -point[i] }).sum();
    let odd = (sum + point[7]).rem_euclid(2.0) != 0.0;
    seven | u32::from(odd) << 7
}

impl Code for Lattice {
    fn name(&self) -> String {
        format!("E8P, 8 weights in 16 bits, beam {}", self.beam)
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
        false
    }

    fn follow(&self, _: u32, wanted: &[f32], steps: &mut Vec<Step>) {
        let mut nearest = [(f32::INFINITY, 0u32); NEAREST];
        for shift in 0..2u32 {
            let offset = if shift == 0 { 0.25 } else { -0.25 };
            let x: [f32; DIM] = std::array::from_fn(|i| wanted[i] - offset);
            let negative = (0..DIM).filter(|i| x[*i] < 0.0).fold(0u32, |bits, i| bits | 1 << i);
            let x = x.map(f32::abs);
            for (at, point) in self.magnitudes.iter().enumerate() {
                let distances: [f32; DIM] =
                    std::array::from_fn(|i| (x[i] - point[i]) * (x[i] - point[i]));
                let mut distance = distances.iter().sum::<f32>();
                if distance >= nearest[NEAREST - 1].0 {
                    continue;
                }
                let mut bits = negative;
                if signs(point, bits & 0x7f) != bits {
                    // One sign must be the other one: where it costs least.
                    let cost = |i: &usize| x[*i] * point[*i];
                    let flip = (0..DIM).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(0);
                    distance += 4.0 * cost(&flip);
                    bits ^= 1 << flip;
                }
                let entry = (at as u32) << 8 | (bits & 0x7f) << 1 | shift;
                let place = nearest.partition_point(|one| one.0 <= distance);
                if place < NEAREST {
                    nearest[place..].rotate_right(1);
                    nearest[place] = (distance, entry);
                }
            }
        }
        steps.extend(nearest.map(|(_, entry)| Step { entry, state: 0 }));
    }

    fn beam(&self) -> usize {
        self.beam
    }
}
