//! NVFP4: 4-bit floats with an 8-bit float per 16. 4.5 bits.

use super::mxfp4::TABLE;
use super::tile::{bits, numbers, sixteen, small};
use super::{Block, CodeRange, GROUP, Group, TILE_ROWS, TileGroup};
use crate::isa::Isa;

/// Four scales, e4m3 without a sign, and for each scale eight bytes of codes: the low nibbles of
/// all, then the high ones.
pub struct Nvfp4;

/// Half of a scale, since the values of the table are doubled. The eighth bit is ignored except for
/// NaN: 127 is 0, 255 is 480.
fn half_scale(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    match exponent {
        _ if byte == 127 => 0.0,
        0 => mantissa * 2f32.powi(-10),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 11),
    }
}

impl Block for Nvfp4 {
    type Bytes = [u8; 36];
    const WEIGHTS: usize = 64;
    const HALVES: bool = true;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 36], index: usize) -> Group {
        let bytes = &block[4 + 16 * index..];
        let codes = std::array::from_fn::<_, GROUP, _>(|i| {
            let code = bytes[i / 16 * 8 + i % 8] >> (4 * (i / 8 % 2)) & 15;
            TABLE[usize::from(code)]
        });
        let scales = [block[2 * index], block[2 * index + 1]].map(half_scale);
        Group { codes, scales, offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 36]; TILE_ROWS], groups: &mut [TileGroup]) {
        let [bytes, ..] = sixteen(isa, rows, 0);
        let exponents = numbers(isa, isa.shift_and::<3>(bytes, 15));
        let mantissas = numbers(isa, isa.shift_and::<0>(bytes, 7));
        let (zero, one) = (isa.splat(0.0), isa.splat(1.0));
        let mut scales = numbers(isa, bytes);
        for (scale, (exponent, mantissa)) in
            scales.iter_mut().zip(exponents.into_iter().zip(mantissas))
        {
            // The smallest exponent equals that of 1, without the leading bit.
            let leading = isa.mul(isa.min(exponent, one), isa.splat(8.0));
            let power = isa.sub(isa.max(exponent, one), isa.splat(11.0));
            let number = isa.min(isa.abs(isa.sub(*scale, isa.splat(127.0))), one);
            let power = isa.mul(isa.exp2i(isa.round(power)), number);
            *scale = isa.mul(isa.add(leading, mantissa), power);
        }
        for (index, group) in groups.iter_mut().enumerate() {
            let bytes = sixteen(isa, rows, 4 + 16 * index);
            let low = small(isa, &TABLE, bits::<I, 0>(isa, bytes, 15));
            let high = small(isa, &TABLE, bits::<I, 4>(isa, bytes, 15));
            for half in 0..2 {
                let at = 2 * half;
                group.set_codes(isa, half, [low[at], low[at + 1], high[at], high[at + 1]]);
                group.set_factors(isa, half, scales[2 * index + half], zero);
            }
        }
    }
}
