//! Value tables: the values that the codes of e2, e3 and e4 represent.
//!
//! A group's scale has a sign, so an asymmetric table serves in both orientations. This matters: on
//! groups of 32 Gaussian weights the best tables found are all asymmetric, with an error of 9.6% of
//! the energy at 2 bits (10.5% for a symmetric table), 2.4% at 3 bits and 0.57% at 4. They were
//! found by Lloyd's iteration with the scale search of [`super::search`] inside, then rounded to
//! integers. Tables trained on the experts of a trained model were the same within 0.1%.

use std::sync::LazyLock;

use vaquita_runtime::blocks::BlockType;

/// A table with precomputed lookups for the search.
#[derive(Debug)]
pub struct Table {
    /// Ascending entries, padded with zeros.
    pub entries: [i8; 16],
    /// Number of codes in use.
    pub len: usize,
    /// Whether the table equals its mirror image.
    pub symmetric: bool,
    /// Nearest entry by place: place `i` covers values from `(i - 128) / 2` to `(i - 127) / 2`.
    /// Entries are integers, so midpoints between them fall on the borders, and the lookup is
    /// exact.
    pub(super) nearest: [f32; 256],
    /// Codes of `nearest`.
    pub(super) codes: [u8; 256],
}

impl Table {
    /// A table of ascending entries between -64 and 64.
    fn new(values: &[i8]) -> Self {
        let mut entries = [0; 16];
        entries[..values.len()].copy_from_slice(values);
        let codes = std::array::from_fn(|i| {
            let value = (i as f32 - 127.5) / 2.0;
            let distance = |code: &usize| (f32::from(values[*code]) - value).abs();
            let best = (0..values.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            best.unwrap_or(0) as u8
        });
        Self {
            entries,
            len: values.len(),
            symmetric: values.iter().all(|value| values.contains(&-value)),
            nearest: codes.map(|code| f32::from(values[usize::from(code)])),
            codes,
        }
    }

    /// The entries in use.
    pub fn values(&self) -> &[i8] {
        &self.entries[..self.len]
    }
}

// In each list: trained on Gaussian weights, then on Laplacian ones, for tensors with heavy tails.

static E2: LazyLock<Vec<Table>> =
    LazyLock::new(|| vec![Table::new(&[-45, -9, 22, 64]), Table::new(&[-31, -3, 17, 58])]);

static E3: LazyLock<Vec<Table>> = LazyLock::new(|| {
    vec![
        Table::new(&[-58, -35, -20, -8, 4, 16, 30, 48]),
        Table::new(&[-39, -21, -9, -1, 7, 18, 35, 61]),
    ]
});

static E4: LazyLock<Vec<Table>> = LazyLock::new(|| {
    vec![
        Table::new(&[-56, -42, -33, -25, -19, -13, -7, -1, 4, 10, 16, 22, 29, 36, 46, 58]),
        Table::new(&[-46, -34, -25, -18, -12, -7, -3, 1, 5, 10, 16, 22, 30, 38, 50, 64]),
        // MXFP4's values, so that its checkpoints repack without loss.
        Table::new(&[-48, -32, -24, -16, -12, -8, -4, 0, 4, 8, 12, 16, 24, 32, 48]),
    ]
});

/// Candidate tables of a type; empty for types without tables.
pub fn candidates(ty: BlockType) -> &'static [Table] {
    match ty {
        BlockType::E2 => &E2,
        BlockType::E3 => &E3,
        BlockType::E4 => &E4,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_finds_its_nearest_entry() {
        for ty in [BlockType::E2, BlockType::E3, BlockType::E4] {
            for table in candidates(ty) {
                let values = table.values();
                assert!(values.is_sorted(), "{values:?}");
                for step in -6400..=6400 {
                    let value = step as f32 / 100.0;
                    let found = table.nearest[usize::from((value * 2.0 + 128.0) as u8)];
                    let least = values.iter().map(|entry| (f32::from(*entry) - value).abs());
                    let least = least.fold(f32::MAX, f32::min);
                    assert_eq!((found - value).abs(), least, "{ty} {value}");
                }
            }
        }
    }
}
