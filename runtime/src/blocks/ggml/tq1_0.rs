//! TQ1_0: ternary weights, five in a byte, a scale per 256. 1.6875 bits.

use super::tile::{Sixteen, eight, halves, less_one, part, set_scale, sixteen};
use super::{Block, ByRow, CodeRange, GROUP, Group, TILE_ROWS, TileGroup, half_at};
use crate::isa::Isa;

/// 48 bytes of five digits, four bytes of four, an f16 scale. A byte is a fraction in base 3, whose
/// first digit is the integer part of three times the byte, in units of 256.
pub struct Tq1_0;

/// First digit of a fraction.
fn digit(byte: u8) -> u8 {
    ((u16::from(byte) * 3) >> 8) as u8
}

/// The first digit (0 to 2) of each byte's fraction, and the remaining fraction.
#[inline(always)]
fn next<I: Isa>(isa: I, bytes: Sixteen<I>) -> [Sixteen<I>; 2] {
    let (mut digits, mut rest) = (bytes, bytes);
    for (digit, rest) in digits.iter_mut().zip(&mut rest) {
        // Three times 86 is above 256, three times 171 above twice 256. Masks are -1.
        let minus = isa.add_bytes(isa.at_least(*rest, 86), isa.at_least(*rest, 171));
        *digit = isa.negate_where(minus, isa.splat_bytes(255));
        *rest = isa.add_bytes(*rest, isa.add_bytes(*rest, *rest));
    }
    [digits, rest]
}

impl Block for Tq1_0 {
    type Bytes = [u8; 54];
    const WEIGHTS: usize = 256;
    const CODES: CodeRange = CodeRange::Small;

    #[inline(always)]
    fn group(block: &[u8; 54], index: usize) -> Group {
        let codes = std::array::from_fn::<_, GROUP, _>(|i| {
            let at = GROUP * index + i;
            let (byte, place) = match at {
                0..160 => (block[at % 32], at / 32),
                160..240 => (block[32 + at % 16], (at - 160) / 16),
                _ => (block[48 + at % 4], (at - 240) / 4),
            };
            digit(byte.wrapping_mul([1, 3, 9, 27, 81][place])) as i8 - 1
        });
        Group { codes, scales: [half_at(block, 52); 2], offsets: [0.0; 2] }
    }

    #[inline(always)]
    fn tile<I: Isa>(isa: I, rows: [&[u8; 54]; TILE_ROWS], groups: &mut [TileGroup]) {
        Self::factors(isa, rows, groups);
        let (first, last) = eight(groups).split_at_mut(5);
        for half in 0..2 {
            let mut bytes = sixteen(isa, rows, 16 * half);
            for group in &mut *first {
                let [digits, rest] = next(isa, bytes);
                group.set_codes(isa, half, less_one(isa, digits));
                bytes = rest;
            }
        }
        let mut bytes = sixteen(isa, rows, 32);
        for place in 0..5 {
            let [digits, rest] = next(isa, bytes);
            last[place / 2].set_codes(isa, place % 2, less_one(isa, digits));
            bytes = rest;
        }
        // Four bytes of each row, whose digits are four columns each.
        let [.., mut bytes] = sixteen(isa, rows, 36);
        let mut columns = [bytes; 4];
        for digits in &mut columns {
            let [all, rest] = next(isa, [bytes; 4]);
            (*digits, bytes) = (all[0], rest[0]);
        }
        last[2].set_codes(isa, 1, less_one(isa, columns));
    }
}

/// For each group of a block, masks by which its bytes are tripled up to four times: for digits after
/// the first.
const TRIPLED: [[[u8; GROUP]; 4]; 8] = {
    let mut masks = [[[0; GROUP]; 4]; 8];
    let mut at = 0;
    while at < 256 {
        let place = match at {
            0..160 => at / 32,
            160..240 => (at - 160) / 16,
            _ => (at - 240) / 4,
        };
        let mut time = 0;
        while time < place {
            masks[at / GROUP][time][at % GROUP] = u8::MAX;
            time += 1;
        }
        at += 1;
    }
    masks
};

impl ByRow for Tq1_0 {
    const PLUS_ONE: bool = true;

    #[inline(always)]
    fn factors<I: Isa>(isa: I, rows: [&[u8; 54]; TILE_ROWS], groups: &mut [TileGroup]) {
        set_scale(isa, halves(isa, rows, 52), groups);
    }

    #[inline(always)]
    fn codes<I: Isa>(isa: I, block: &[u8; 54], index: usize) -> I::U8 {
        let [a, b, c, d] = [part(block, 32), part(block, 36), part(block, 40), part(block, 44)];
        let last = part(block, 48);
        let mut bytes = match index {
            0..5 => isa.load_bytes(part(block, 0)),
            5 | 6 => isa.load_fours([a, b, c, d, a, b, c, d]),
            _ => isa.load_fours([a, b, c, d, last, last, last, last]),
        };
        for mask in &TRIPLED[index] {
            let twice = isa.and_bytes(isa.add_bytes(bytes, bytes), isa.load_bytes(mask));
            bytes = isa.add_bytes(bytes, twice);
        }
        let [digits, _] = next(isa, [bytes; 4]);
        digits[0]
    }
}
