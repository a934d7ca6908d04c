//! Layout of e2, e3, e4 and e8.
//!
//! A weight is `row_scale * group_scale * table[code]` (e8: `row_scale * group_scale * code`).
//! In bytes, all little-endian:
//!
//! ```text
//! header      64 bytes: 16 table entries (i8, -64..=64), then zeros
//! row scales  f32 per row, rows rounded up to 8, then zeros up to a multiple of 64 bytes
//! tiles       one per 8 rows:
//!   scales    per group of 32 columns: 8 scale bytes, one per row
//!   codes     per group of 32 columns: 8 rows x 32 codes, see the file of each type
//! ```
//!
//! Within a group, codes are ordered so that 32 consecutive ones are 8 rows x 4 columns: the
//! contents of one 256-bit register, which one `vpdpbusd`, or two `sdot`, multiply with 4
//! activations. A row is a lane: its sum runs over the groups in order and needs no final
//! reduction.
//!
//! A scale byte is a small float with sign 1, exponent 4, mantissa 3, without zero, infinities or
//! NaN: `(-1)^s * 2^(e - 15) * (1 + m / 8)`. Powers of two are exact, so MXFP4 repacks losslessly;
//! the sign lets an asymmetric table be used in both orientations. Rows beyond the last are padding
//! and hold zeros.

use super::{BlockType, GROUP, Matrix, MatrixError, TILE_ROWS, e2, e3, e4, e8};
use crate::isa::scalar::decode_scale;

/// Bytes before the row scales.
pub const HEADER_BYTES: usize = 64;
/// Largest magnitude of a table entry: the sum of four products with int8 then fits 16 bits.
pub const TABLE_LIMIT: i8 = 64;

/// Offsets and sizes within the bytes of a coded matrix.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Groups along a row.
    pub groups: usize,
    /// Tiles of 8 rows, the last one padded.
    pub tiles: usize,
    /// Offset of the first tile.
    pub tiles_at: usize,
    /// Bytes of the scales at the start of a tile.
    pub scale_bytes: usize,
    /// Bytes of the codes of one group of one tile.
    pub group_bytes: usize,
    /// Bytes of one tile.
    pub tile_bytes: usize,
    /// Bytes of the whole matrix.
    pub byte_len: usize,
}

impl Layout {
    /// The layout of `rows` x `cols` weights; `None` if the type cannot hold them.
    pub fn new(ty: BlockType, rows: usize, cols: usize) -> Option<Self> {
        let bits = ty.code_bits()?;
        if rows == 0 || cols == 0 || !cols.is_multiple_of(GROUP) {
            return None;
        }
        let groups = cols / GROUP;
        let tiles = rows.div_ceil(TILE_ROWS);
        let row_scale_bytes = tiles.checked_mul(TILE_ROWS * 4)?.checked_next_multiple_of(64)?;
        let tiles_at = row_scale_bytes.checked_add(HEADER_BYTES)?;
        let scale_bytes = groups.checked_mul(TILE_ROWS)?;
        let group_bytes = TILE_ROWS * GROUP * bits / 8;
        let tile_bytes = groups.checked_mul(group_bytes)?.checked_add(scale_bytes)?;
        let byte_len = tiles.checked_mul(tile_bytes)?.checked_add(tiles_at)?;
        Some(Self { groups, tiles, tiles_at, scale_bytes, group_bytes, tile_bytes, byte_len })
    }

    /// Offset of the scale byte of `row` in `group`.
    fn scale_at(&self, row: usize, group: usize) -> usize {
        self.tiles_at + row / TILE_ROWS * self.tile_bytes + group * TILE_ROWS + row % TILE_ROWS
    }

    /// Offset of the codes of `group` in the tile of `row`.
    fn codes_at(&self, row: usize, group: usize) -> usize {
        let tile = self.tiles_at + row / TILE_ROWS * self.tile_bytes;
        tile + self.scale_bytes + group * self.group_bytes
    }
}

/// The scale byte whose value is nearest to `scale`; ties go to the smaller magnitude.
pub fn encode_scale(scale: f32) -> u8 {
    let magnitude = scale.abs();
    let mut best = 0u8;
    for byte in 1..=0x7f {
        if (decode_scale(byte) - magnitude).abs() < (decode_scale(best) - magnitude).abs() {
            best = byte;
        }
    }
    if scale < 0.0 { best | 0x80 } else { best }
}

/// The largest value of a scale byte.
pub const MAX_SCALE: f32 = 1.875;

/// Reads the table in the header.
#[inline(always)]
pub fn table(data: &[u8]) -> [i8; 16] {
    let mut table = [0; 16];
    for (entry, byte) in table.iter_mut().zip(&data[..16]) {
        *entry = *byte as i8;
    }
    table
}

/// Rejects a table that could overflow a kernel's 16-bit sums.
pub(super) fn check_table(ty: BlockType, data: &[u8]) -> Result<(), MatrixError> {
    match table(data).into_iter().find(|entry| !(-TABLE_LIMIT..=TABLE_LIMIT).contains(entry)) {
        Some(found) => Err(MatrixError::Table { ty, found }),
        None => Ok(()),
    }
}

/// Reads the code at column `k` of a group, row `r` of its tile; e8 codes are the bits of an i8.
fn get_code(ty: BlockType, group: &[u8], r: usize, k: usize) -> u8 {
    match ty {
        BlockType::E2 => e2::get(group, r, k),
        BlockType::E3 => e3::get(group, r, k),
        BlockType::E4 => e4::get(group, r, k),
        BlockType::E8 => e8::get(group, r, k),
        plain => unreachable!("{plain} has no codes"),
    }
}

/// Writes a code into a group whose bits are still zero.
fn put_code(ty: BlockType, group: &mut [u8], r: usize, k: usize, code: u8) {
    match ty {
        BlockType::E2 => e2::put(group, r, k, code),
        BlockType::E3 => e3::put(group, r, k, code),
        BlockType::E4 => e4::put(group, r, k, code),
        BlockType::E8 => e8::put(group, r, k, code),
        plain => unreachable!("{plain} has no codes"),
    }
}

/// The integer weights of one group of one tile, `[8 columns of 4][8 rows][4]`: the order in which
/// kernels consume them.
pub fn decode_group(ty: BlockType, table: &[i8; 16], group: &[u8]) -> [i8; TILE_ROWS * GROUP] {
    std::array::from_fn(|i| {
        let (k, r) = (i / 32 * 4 + i % 4, i / 4 % TILE_ROWS);
        let code = get_code(ty, group, r, k);
        if ty == BlockType::E8 { code as i8 } else { table[usize::from(code)] }
    })
}

/// Decodes one row.
pub(super) fn decode_row(matrix: &Matrix, row: usize, out: &mut [f32]) {
    let (ty, data) = (matrix.block_type(), matrix.data());
    let layout = Layout::new(ty, matrix.rows(), matrix.cols()).expect("checked at construction");
    let table = table(data);
    let row_scale = row_scale(data, row);
    for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let scale = decode_scale(data[layout.scale_at(row, group)]) * row_scale;
        let codes = &data[layout.codes_at(row, group)..][..layout.group_bytes];
        for (k, value) in out.iter_mut().enumerate() {
            let code = get_code(ty, codes, row % TILE_ROWS, k);
            let weight = if ty == BlockType::E8 { code as i8 } else { table[usize::from(code)] };
            *value = scale * f32::from(weight);
        }
    }
}

/// The scale of a whole row.
pub fn row_scale(data: &[u8], row: usize) -> f32 {
    let at = HEADER_BYTES + row * 4;
    f32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

/// Assembles the bytes of a coded matrix, row by row.
pub struct Packer {
    ty: BlockType,
    layout: Layout,
    data: Vec<u8>,
}

impl Packer {
    /// A matrix of zeros with the given table (ignored by e8); `None` if the type cannot hold the
    /// shape.
    pub fn new(ty: BlockType, rows: usize, cols: usize, table: &[i8; 16]) -> Option<Self> {
        let layout = Layout::new(ty, rows, cols)?;
        let mut data = vec![0; layout.byte_len];
        for (byte, entry) in data.iter_mut().zip(table) {
            *byte = *entry as u8;
        }
        Some(Self { ty, layout, data })
    }

    /// Sets one row: `codes` has one per column (e8: the bits of an i8), `scales` one byte per
    /// group. Each row is set once.
    pub fn set_row(&mut self, row: usize, row_scale: f32, scales: &[u8], codes: &[u8]) {
        self.data[HEADER_BYTES + row * 4..][..4].copy_from_slice(&row_scale.to_le_bytes());
        for (group, (scale, codes)) in scales.iter().zip(codes.chunks_exact(GROUP)).enumerate() {
            self.data[self.layout.scale_at(row, group)] = *scale;
            let at = self.layout.codes_at(row, group);
            let bytes = &mut self.data[at..][..self.layout.group_bytes];
            for (k, code) in codes.iter().enumerate() {
                put_code(self.ty, bytes, row % TILE_ROWS, k, *code);
            }
        }
    }

    /// The finished bytes.
    pub fn finish(self) -> Vec<u8> {
        self.data
    }
}
