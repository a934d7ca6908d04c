//! Lloyd's iteration around the search: entries become the mean of what they stand for.

use rayon::prelude::*;

use vaquita_runtime::blocks::GROUP;

use crate::code::Code;
use crate::data::Data;
use crate::search::{Scratch, write_row};

/// The code's values moved to the means of the weights that they were chosen for, and the relative error before.
pub fn step(code: &dyn Code, data: &Data) -> (Vec<f32>, f64) {
    let (width, len) = (code.width(), code.values().len());
    let rows: Vec<_> = data
        .values
        .par_chunks(data.cols)
        .map_init(Scratch::default, |scratch, weights| write_row(code, weights, None, scratch))
        .collect();
    let (mut sums, mut norms) = (vec![0f64; len], vec![0f64; len]);
    let mut cost = 0.0;
    for (row, weights) in rows.iter().zip(data.values.chunks(data.cols)) {
        cost += row.cost;
        for (col, weight) in weights.iter().enumerate() {
            let at = row.entries[col / width] as usize * width + col % width;
            let scale = row.scales[col / GROUP];
            sums[at] += f64::from(scale * weight);
            norms[at] += f64::from(scale * scale);
        }
    }
    let means = code.values().iter().zip(sums.iter().zip(&norms));
    let values = means.map(|(v, (sum, norm))| if *norm > 0.0 { (sum / norm) as f32 } else { *v });
    (values.collect(), cost / data.energy())
}
