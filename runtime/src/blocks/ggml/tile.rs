//! What the types' vector code has in common: eight rows at a time.

use super::{TILE_ROWS, TileGroup};
use crate::isa::{Isa, TileSimd};

/// Four registers of four columns of eight rows.
pub(super) type Sixteen<I> = [<I as TileSimd>::U8; 4];

/// Sixteen bytes of each block, from `at` on, by fours.
#[inline(always)]
pub(super) fn sixteen<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
) -> Sixteen<I> {
    let mut bytes = [&[0; 16]; TILE_ROWS];
    for (bytes, row) in bytes.iter_mut().zip(rows) {
        *bytes = row[at..].first_chunk().expect("blocks are longer");
    }
    isa.transpose(bytes)
}

/// The half-precision number at `at` of each block.
#[inline(always)]
pub(super) fn halves<I: Isa, const N: usize>(
    isa: I,
    rows: [&[u8; N]; TILE_ROWS],
    at: usize,
) -> I::F32 {
    let mut bytes = [&[0; 2]; TILE_ROWS];
    for (bytes, row) in bytes.iter_mut().zip(rows) {
        *bytes = row[at..].first_chunk().expect("blocks are longer");
    }
    isa.load_halves(bytes)
}

/// The groups of a block of 256 weights.
#[inline(always)]
pub(super) fn eight(groups: &mut [TileGroup]) -> &mut [TileGroup; 8] {
    groups.first_chunk_mut().expect("a block of 256 has eight groups")
}

/// `byte >> SHIFT & mask` of each.
#[inline(always)]
pub(super) fn bits<I: Isa, const SHIFT: i32>(isa: I, bytes: Sixteen<I>, mask: u8) -> Sixteen<I> {
    let mut fields = bytes;
    for field in &mut fields {
        *field = isa.shift_and::<SHIFT>(*field, mask);
    }
    fields
}

/// Those bits of `mask` that are in `from << SHIFT`, the others from `codes`.
#[inline(always)]
pub(super) fn insert<I: Isa, const SHIFT: i32>(
    isa: I,
    codes: Sixteen<I>,
    from: Sixteen<I>,
    mask: u8,
) -> Sixteen<I> {
    let mut all = codes;
    for (code, from) in all.iter_mut().zip(from) {
        *code = isa.insert::<SHIFT>(*code, from, mask);
    }
    all
}

/// The signed bytes that codes below 16 stand for.
#[inline(always)]
pub(super) fn looked_up<I: Isa>(isa: I, table: &[i8; 16], codes: Sixteen<I>) -> Sixteen<I> {
    // What a table has added to its entries is taken from them first; bytes wrap around.
    let mut entries = *table;
    for entry in &mut entries {
        *entry = entry.wrapping_sub(I::TABLE_BIAS as i8);
    }
    let table = isa.table(&entries);
    let mut values = codes;
    for value in &mut values {
        *value = isa.lookup(table, *value);
    }
    values
}

/// The numbers that the bytes of each row are, unsigned.
#[inline(always)]
pub(super) fn numbers<I: Isa>(isa: I, bytes: I::U8) -> [I::F32; 4] {
    [
        isa.to_f32(isa.byte::<0>(bytes)),
        isa.to_f32(isa.byte::<1>(bytes)),
        isa.to_f32(isa.byte::<2>(bytes)),
        isa.to_f32(isa.byte::<3>(bytes)),
    ]
}

impl TileGroup {
    /// Sets the codes of one half.
    #[inline(always)]
    pub(super) fn set_codes<I: Isa>(&mut self, isa: I, half: usize, codes: Sixteen<I>) {
        for (to, codes) in self.codes[4 * half..][..4].iter_mut().zip(codes) {
            isa.store_bytes(codes, to);
        }
    }

    /// Sets the codes of both halves: the lower halves of sixteen bytes, then the upper ones.
    #[inline(always)]
    pub(super) fn set_nibbles<I: Isa>(&mut self, isa: I, bytes: Sixteen<I>) {
        self.set_codes(isa, 0, bits::<I, 0>(isa, bytes, 15));
        self.set_codes(isa, 1, bits::<I, 4>(isa, bytes, 15));
    }

    /// Sets what one half is multiplied with, and what is added. Of types without halves of their own, the first.
    #[inline(always)]
    pub(super) fn set_factors<I: Isa>(
        &mut self,
        isa: I,
        half: usize,
        scale: I::F32,
        offset: I::F32,
    ) {
        isa.store(scale, &mut self.scales[half]);
        isa.store(offset, &mut self.offsets[half]);
    }
}
