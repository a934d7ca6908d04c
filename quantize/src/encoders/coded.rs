//! Encodes e2, e3, e4 and e8: a scale per row, then a scale search per group ([`super::search`]).

use rayon::prelude::*;
use vaquita_runtime::blocks::coded::{Layout, Packer};
use vaquita_runtime::blocks::{BlockType, GROUP};

use super::feedback::Feedback;
use super::ldlq;
use super::search::{self, Grid, LANES};
use super::tables;
use super::{Distortion, EncodeError, Guide, Rows};

/// Number of rows on which the tables of a type are compared.
const SAMPLE_ROWS: usize = 8;

/// Number of rows whose codes are held in memory before they are packed.
const ROWS_AT_ONCE: usize = 512;

struct EncodedRow {
    scale: f32,
    group_scales: Vec<u8>,
    codes: Vec<u8>,
    distortion: Distortion,
}

/// Encodes a matrix as a coded type.
pub(super) fn encode(
    ty: BlockType,
    weights: &dyn Rows,
    guide: Guide,
) -> Result<(Vec<u8>, Distortion), EncodeError> {
    let grid = choose_grid(ty, weights, guide)?;
    let table = match grid {
        Grid::Table(table) => table.entries,
        Grid::Integers => [0; 16],
    };
    let mut packer = Packer::new(ty, weights.rows(), weights.cols(), &table)
        .ok_or_else(|| shape_error(ty, weights))?;
    let mut distortion = Distortion::default();
    for first in (0..weights.rows()).step_by(ROWS_AT_ONCE) {
        let rows: Vec<_> = (first..weights.rows().min(first + ROWS_AT_ONCE)).collect();
        for (&row, encoded) in rows.iter().zip(encode_rows(&grid, weights, &rows, guide, true)?) {
            packer.set_row(row, encoded.scale, &encoded.group_scales, &encoded.codes);
            distortion += encoded.distortion;
        }
    }
    Ok((packer.finish(), distortion))
}

/// Computes the error of encoding without the bytes.
pub(super) fn measure(
    ty: BlockType,
    weights: &dyn Rows,
    guide: Guide,
) -> Result<Distortion, EncodeError> {
    let grid = choose_grid(ty, weights, guide)?;
    let rows: Vec<_> = (0..weights.rows()).collect();
    let rows = encode_rows(&grid, weights, &rows, guide, false)?;
    Ok(rows.into_iter().map(|row| row.distortion).sum())
}

/// Encodes some rows. Their order does not depend on the threads.
fn encode_rows(
    grid: &Grid,
    weights: &dyn Rows,
    rows: &[usize],
    guide: Guide,
    with_codes: bool,
) -> Result<Vec<EncodedRow>, EncodeError> {
    let cols = weights.cols();
    let side_by_side = |rows: &[usize]| {
        let mut values = vec![0f32; rows.len() * cols];
        let mut encoded = Vec::with_capacity(rows.len());
        for (&row, values) in rows.iter().zip(values.chunks_exact_mut(cols.max(1))) {
            weights.read_row(row, values);
            encoded.push(scaled(grid, row, values)?);
        }
        match guide.feedback {
            Some(feedback) => with_feedback(grid, feedback, &values, with_codes, &mut encoded),
            None => {
                for (row, values) in encoded.iter_mut().zip(values.chunks_exact(cols.max(1))) {
                    without_feedback(grid, values, guide.importance, with_codes, row);
                }
            }
        }
        Ok(encoded)
    };
    let runs: Vec<Vec<EncodedRow>> =
        rows.par_chunks(LANES).map(side_by_side).collect::<Result<_, _>>()?;
    Ok(runs.into_iter().flatten().collect())
}

fn shape_error(ty: BlockType, weights: &dyn Rows) -> EncodeError {
    EncodeError::Shape { ty, rows: weights.rows(), cols: weights.cols() }
}

/// Selects the table with the least error on a sample of the rows.
fn choose_grid(
    ty: BlockType,
    weights: &dyn Rows,
    guide: Guide,
) -> Result<Grid<'static>, EncodeError> {
    Layout::new(ty, weights.rows(), weights.cols()).ok_or_else(|| shape_error(ty, weights))?;
    let candidates = tables::candidates(ty);
    let [first, others @ ..] = candidates else {
        return Ok(Grid::Integers);
    };
    let mut best = (Grid::Table(first), f64::INFINITY);
    if others.is_empty() {
        return Ok(best.0);
    }
    let step = weights.rows().div_ceil(SAMPLE_ROWS).max(1);
    let sample: Vec<_> = (0..weights.rows()).step_by(step).collect();
    for table in candidates {
        let grid = Grid::Table(table);
        let rows = encode_rows(&grid, weights, &sample, guide, false)?;
        let error = rows.iter().map(|row| row.distortion.squared_error).sum();
        if error < best.1 {
            best = (grid, error);
        }
    }
    Ok(best.0)
}

/// An empty encoded row with its scale; divides `values` by that scale.
fn scaled(grid: &Grid, row: usize, values: &mut [f32]) -> Result<EncodedRow, EncodeError> {
    let mut largest = 0f32;
    for (col, value) in values.iter().enumerate() {
        if !value.is_finite() {
            return Err(EncodeError::NotFinite { row, col, value: *value });
        }
        largest = largest.max(value.abs());
    }
    let scale = search::row_scale(largest, grid);
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    for value in values.iter_mut() {
        *value *= inverse;
    }
    Ok(EncodedRow {
        scale,
        group_scales: Vec::with_capacity(values.len() / GROUP),
        codes: Vec::new(),
        distortion: Distortion::default(),
    })
}

impl EncodedRow {
    /// Adds error and energy, in units of the squared scale.
    fn lost(&mut self, squared_error: f64, energy: f64) {
        let unit = f64::from(self.scale) * f64::from(self.scale);
        self.distortion.squared_error += squared_error * unit;
        self.distortion.energy += energy * unit;
    }
}

/// Encodes a row without error feedback.
fn without_feedback(
    grid: &Grid,
    values: &[f32],
    importance: Option<&[f32]>,
    with_codes: bool,
    row: &mut EncodedRow,
) {
    for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let importance = importance.and_then(|all| all.as_chunks::<GROUP>().0.get(group));
        // All-zero importance does not tell how to treat a group.
        let importance = importance.filter(|group| group.iter().any(|one| *one > 0.0));
        let choice = search::choose(grid, values, importance);
        row.group_scales.push(choice.byte);
        if with_codes {
            let mut codes = [0; GROUP];
            search::codes(grid, choice.byte, values, &mut codes);
            row.codes.extend(codes);
        }
        row.lost(f64::from(choice.error), f64::from(weighted_energy(values, importance)));
    }
}

/// Encodes several rows with error feedback.
fn with_feedback(
    grid: &Grid,
    feedback: &Feedback,
    values: &[f32],
    with_codes: bool,
    rows: &mut [EncodedRow],
) {
    let cols = feedback.cols();
    let mut lanes = vec![[[0f32; LANES]; GROUP]; cols / GROUP];
    for (lane, values) in values.chunks_exact(cols.max(1)).enumerate() {
        for (lanes, value) in lanes.as_flattened_mut().iter_mut().zip(values) {
            lanes[lane] = *value;
        }
    }
    let quantized = ldlq::quantize(feedback, grid, &lanes);
    for (lane, row) in rows.iter_mut().enumerate() {
        row.group_scales.extend(quantized.scales.iter().map(|scales| scales[lane]));
        if with_codes {
            row.codes.extend(quantized.codes.as_flattened().iter().map(|codes| codes[lane]));
        }
        row.lost(quantized.error[lane], quantized.energy[lane]);
    }
}

fn weighted_energy(values: &[f32; GROUP], importance: Option<&[f32; GROUP]>) -> f32 {
    match importance {
        None => values.iter().map(|value| value * value).sum(),
        Some(importance) => {
            values.iter().zip(importance).map(|(value, one)| value * value * one).sum()
        }
    }
}
