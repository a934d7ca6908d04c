//! Weighted sums of the values of a block of positions.

use super::BLOCK;
use crate::isa::{MOST_TILES, TileSimd};
use crate::kernels::cached::Cached;

/// Where values are in an entry.
pub(super) struct Values {
    pub entry_bytes: usize,
    pub uniform: usize,
    pub value_at: usize,
}

/// Columns of the outputs of several heads, and the factors that merge a block into them.
pub(super) struct Merge<'a> {
    /// First column.
    pub at: usize,
    pub heads: usize,
    /// Factor of each head on the outputs so far.
    pub kept: &'a [f32; 8],
    /// Factor of each head on the block.
    pub taken: &'a [f32; 8],
    /// Outputs, `[heads, value width]`.
    pub out: &'a mut [f32],
}

impl Values {
    /// `out = kept * out + taken * (weights . values)` for `L` registers of each head's value.
    #[inline(always)]
    pub fn merge<W: TileSimd, C: Cached, const H: usize, const L: usize>(
        &self,
        isa: W,
        block: &[u8],
        weights: &[[f32; BLOCK]; H],
        into: Merge,
    ) {
        let from = self.value_at + into.at;
        let columns = from..from + 8 * W::TILES * L;
        let mut sums = [[isa.splat(0.0); H]; L];
        for (position, entry) in block.chunks_exact(self.entry_bytes).enumerate() {
            let row = C::row(entry, columns.clone(), self.uniform);
            let mut values = [isa.splat(0.0); L];
            for (l, value) in values.iter_mut().enumerate() {
                let at = [l * W::TILES, (l + 1) * W::TILES - 1];
                *value = C::load(isa, at, [row; MOST_TILES]);
            }
            for head in 0..H {
                let weight = isa.splat(weights[head][position]);
                for (sums, value) in sums.iter_mut().zip(values) {
                    sums[head] = isa.fma(weight, value, sums[head]);
                }
            }
        }
        let value_width = into.out.len() / into.heads;
        for head in 0..into.heads {
            let out = &mut into.out[head * value_width + into.at..][..8 * W::TILES * L];
            let (kept, taken) = (isa.splat(into.kept[head]), isa.splat(into.taken[head]));
            for (out, sums) in out.chunks_exact_mut(8 * W::TILES).zip(&sums) {
                let eights = out.as_chunks::<8>().0;
                let so_far = isa.load_tiles([&eights[0], &eights[W::TILES - 1]]);
                isa.store_tiles(isa.fma(sums[head], taken, isa.mul(so_far, kept)), out);
            }
        }
    }
}
