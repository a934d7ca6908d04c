//! Encodes e2, e3, e4 and e8: a scale per row, then per group the search of [`super::search`].

use rayon::prelude::*;
use vaquita_runtime::blocks::coded::{Layout, Packer};
use vaquita_runtime::blocks::{BlockType, GROUP};

use super::feedback::Carried;
use super::search::{self, Grid};
use super::tables;
use super::{Distortion, EncodeError, Guide, Rows};

/// Rows on which the tables of a type compete.
const SAMPLE_ROWS: usize = 8;

/// Rows whose codes are in memory before they are packed.
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
        let rows: Vec<EncodedRow> = (first..weights.rows().min(first + ROWS_AT_ONCE))
            .into_par_iter()
            .map_init(
                || vec![0f32; weights.cols()],
                |values, row| encode_row(&grid, weights, row, values, guide, true),
            )
            .collect::<Result<_, _>>()?;
        for (row, encoded) in rows.into_iter().enumerate() {
            packer.set_row(first + row, encoded.scale, &encoded.group_scales, &encoded.codes);
            distortion += encoded.distortion;
        }
    }
    Ok((packer.finish(), distortion))
}

/// The error that encoding would leave, without the bytes.
pub(super) fn measure(
    ty: BlockType,
    weights: &dyn Rows,
    guide: Guide,
) -> Result<Distortion, EncodeError> {
    let grid = choose_grid(ty, weights, guide)?;
    // Collected before it is added up: the sum must not depend on how threads share the rows.
    let rows: Vec<Distortion> = (0..weights.rows())
        .into_par_iter()
        .map_init(
            || vec![0f32; weights.cols()],
            |values, row| {
                encode_row(&grid, weights, row, values, guide, false).map(|row| row.distortion)
            },
        )
        .collect::<Result<_, _>>()?;
    Ok(rows.into_iter().sum())
}

fn shape_error(ty: BlockType, weights: &dyn Rows) -> EncodeError {
    EncodeError::Shape { ty, rows: weights.rows(), cols: weights.cols() }
}

/// The table that serves a sample of the rows best.
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
    let step = weights.rows().div_ceil(SAMPLE_ROWS);
    let mut values = vec![0f32; weights.cols()];
    for table in candidates {
        let grid = Grid::Table(table);
        let mut error = 0.0;
        for row in (0..weights.rows()).step_by(step) {
            let row = encode_row(&grid, weights, row, &mut values, guide, false)?;
            error += row.distortion.squared_error;
        }
        if error < best.1 {
            best = (grid, error);
        }
    }
    Ok(best.0)
}

fn encode_row(
    grid: &Grid,
    weights: &dyn Rows,
    row: usize,
    values: &mut [f32],
    guide: Guide,
    with_codes: bool,
) -> Result<EncodedRow, EncodeError> {
    weights.read_row(row, values);
    let mut largest = 0f32;
    for (col, value) in values.iter().enumerate() {
        if !value.is_finite() {
            return Err(EncodeError::NotFinite { row, col, value: *value });
        }
        largest = largest.max(value.abs());
    }
    let scale = search::row_scale(largest, grid);
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut encoded = EncodedRow {
        scale,
        group_scales: Vec::with_capacity(values.len() / GROUP),
        codes: Vec::new(),
        distortion: Distortion::default(),
    };
    for value in values.iter_mut() {
        *value *= inverse;
    }
    let mut carried = guide.feedback.map(Carried::new);
    let (mut squared_error, mut energy) = (0f64, 0f64);
    for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let importance = guide.importance.and_then(|all| all.as_chunks::<GROUP>().0.get(group));
        // Columns that never mattered say nothing about how to treat a group.
        let importance = importance.filter(|group| group.iter().any(|one| *one > 0.0));
        let mut codes = [0; GROUP];
        let (choice, group_energy) = match &mut carried {
            None => {
                let choice = search::choose(grid, values, importance);
                if with_codes {
                    search::codes(grid, choice.byte, values, &mut codes);
                }
                (choice, weighted_energy(values, importance))
            }
            Some(carried) => {
                (carried.round(grid, group, values, &mut codes), carried.energy(group, values))
            }
        };
        encoded.group_scales.push(choice.byte);
        if with_codes {
            encoded.codes.extend(codes);
        }
        squared_error += f64::from(choice.error);
        energy += f64::from(group_energy);
    }
    let unit = f64::from(scale) * f64::from(scale);
    encoded.distortion = Distortion { squared_error: squared_error * unit, energy: energy * unit };
    Ok(encoded)
}

fn weighted_energy(values: &[f32; GROUP], importance: Option<&[f32; GROUP]>) -> f32 {
    match importance {
        None => values.iter().map(|value| value * value).sum(),
        Some(importance) => {
            values.iter().zip(importance).map(|(value, one)| value * value * one).sum()
        }
    }
}
