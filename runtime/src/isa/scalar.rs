//! Plain Rust: the reference for every other instruction set.

use half::{bf16, f16};

use super::{Isa, MOST_TILES, TileSimd};

/// Value of a scale byte.
pub fn decode_scale(byte: u8) -> f32 {
    let sign = u32::from(byte >> 7) << 31;
    let exponent_and_mantissa = (u32::from(byte & 0x7f) << 20) + (112 << 23);
    f32::from_bits(sign | exponent_and_mantissa)
}

/// Runs on any CPU.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

fn map(f: impl Fn(usize) -> f32) -> [f32; 8] {
    std::array::from_fn(f)
}

// Frequently used operations are not inlined: this tier is the reference, and is kept small rather
// than fast.
impl TileSimd for Scalar {
    const TILES: usize = 1;
    type F32 = [f32; 8];
    type I32 = [i32; 8];
    type U8 = [u8; 32];
    type Table = [i8; 16];

    const TABLE_BIAS: i32 = 0;
    const BYTE_BIAS: i32 = 0;
    const TOKENS: usize = 1;

    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }

    fn load_tiles(self, [from, _]: [&[f32; 8]; MOST_TILES]) -> [f32; 8] {
        *from
    }

    fn store_tiles(self, x: [f32; 8], to: &mut [f32]) {
        let to: &mut [f32; 8] = to.first_chunk_mut().expect("a tile has eight rows");
        *to = x;
    }

    #[inline(never)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] * b[i])
    }

    #[inline(never)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        map(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(never)]
    fn to_f32(self, a: [i32; 8]) -> [f32; 8] {
        a.map(|x| x as f32)
    }

    fn splat_i32(self, x: i32) -> [i32; 8] {
        [x; 8]
    }

    #[inline(never)]
    fn load_f16_tiles(self, [from, _]: [&[u8; 16]; MOST_TILES]) -> [f32; 8] {
        map(|i| f16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }

    #[inline(never)]
    fn load_scaled_tiles(
        self,
        [bytes, _]: [&[u8; 8]; MOST_TILES],
        [scale, _]: [&[u8; 2]; MOST_TILES],
    ) -> [f32; 8] {
        let scale = bf16::from_le_bytes(*scale).to_f32();
        map(|i| f32::from(bytes[i] as i8) * scale)
    }

    fn load_bytes_tiles(self, [from, _]: [&[u8; 32]; MOST_TILES]) -> [u8; 32] {
        *from
    }

    #[inline(never)]
    fn shift_and<const SHIFT: i32>(self, a: [u8; 32], mask: u8) -> [u8; 32] {
        a.map(|byte| byte >> SHIFT & mask)
    }

    #[inline(never)]
    fn insert<const SHIFT: i32>(self, a: [u8; 32], b: [u8; 32], mask: u8) -> [u8; 32] {
        std::array::from_fn(|i| {
            let shifted = (u32::from(b[i]) << 8 >> (8 - SHIFT)) as u8;
            a[i] & !mask | shifted & mask
        })
    }

    fn table(self, entries: &[i8; 16]) -> [i8; 16] {
        *entries
    }

    #[inline(never)]
    fn lookup(self, table: [i8; 16], codes: [u8; 32]) -> [u8; 32] {
        codes.map(|code| table[usize::from(code & 15)] as u8)
    }

    #[inline(never)]
    fn load_weights_tiles(self, [from, _]: [&[u8; 32]; MOST_TILES]) -> [u8; 32] {
        *from
    }

    #[inline(never)]
    fn dot4_table(self, acc: [i32; 8], weights: [u8; 32], a: &[i8; 4]) -> [i32; 8] {
        std::array::from_fn(|row| {
            let weights = &weights[row * 4..][..4];
            let products = weights.iter().zip(a).map(|(w, a)| i32::from(*w as i8) * i32::from(*a));
            acc[row] + products.sum::<i32>()
        })
    }

    #[inline(never)]
    fn dot4_bytes(self, acc: [i32; 8], weights: [u8; 32], a: &[i8; 4]) -> [i32; 8] {
        self.dot4_table(acc, weights, a)
    }

    #[inline(never)]
    fn scales_tiles(self, [bytes, _]: [&[u8; 8]; MOST_TILES]) -> [f32; 8] {
        bytes.map(decode_scale)
    }
}

impl Isa for Scalar {
    const SCALAR: bool = true;
    const LARGEST_BY_ROW: usize = 0;

    type Wide = Self;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    #[inline(never)]
    fn load_bf16(self, from: &[u8; 16]) -> [f32; 8] {
        map(|i| bf16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }

    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] + b[i])
    }

    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] - b[i])
    }

    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] / b[i])
    }

    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    fn abs(self, a: [f32; 8]) -> [f32; 8] {
        map(|i| a[i].abs())
    }

    #[inline(never)]
    fn round(self, a: [f32; 8]) -> [i32; 8] {
        a.map(|x| x.round_ties_even() as i32)
    }

    fn exp2i(self, n: [i32; 8]) -> [f32; 8] {
        n.map(|n| f32::from_bits((n.wrapping_add(127) as u32) << 23))
    }

    fn store_i8(self, a: [i32; 8], to: &mut [i8; 8]) {
        *to = a.map(|a| a as i8);
    }

    fn store_bytes(self, a: [u8; 32], to: &mut [u8; 32]) {
        *to = a;
    }

    #[inline(never)]
    fn transpose(self, rows: [&[u8; 16]; 8]) -> [[u8; 32]; 4] {
        std::array::from_fn(|four| std::array::from_fn(|i| rows[i / 4][4 * four + i % 4]))
    }

    #[inline(never)]
    fn load_halves(self, rows: [&[u8; 2]; 8]) -> [f32; 8] {
        rows.map(|half| f16::from_le_bytes(*half).to_f32())
    }

    #[inline(never)]
    fn byte<const AT: i32>(self, a: [u8; 32]) -> [i32; 8] {
        std::array::from_fn(|row| a[4 * row + AT as usize].into())
    }

    #[inline(never)]
    fn bits(self, a: [u8; 32], at: u32, count: u32) -> [i32; 8] {
        let rows = a.as_chunks::<4>().0;
        std::array::from_fn(|i| (u32::from_le_bytes(rows[i]) >> at & ((1 << count) - 1)) as i32)
    }

    #[inline(never)]
    fn join(self, low: [i32; 8], high: [i32; 8], by: u32) -> [i32; 8] {
        std::array::from_fn(|row| low[row].wrapping_add(high[row] << by))
    }

    fn lanes(self, a: [i32; 8]) -> [i32; 8] {
        a
    }

    #[inline(never)]
    fn spread<const AT: i32>(self, a: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| {
            let bit = AT as usize + i % 4;
            let set = a[i / 4 * 4 + bit / 8] >> (bit % 8) & 1 == 1;
            if set { 255 } else { 0 }
        })
    }

    #[inline(never)]
    fn transpose_eights(self, rows: [&[u8; 8]; 8]) -> [[u8; 32]; 2] {
        std::array::from_fn(|four| std::array::from_fn(|i| rows[i / 4][4 * four + i % 4]))
    }

    #[inline(never)]
    fn load_fours(self, rows: [&[u8; 4]; 8]) -> [u8; 32] {
        std::array::from_fn(|i| rows[i / 4][i % 4])
    }

    #[inline(never)]
    fn repeat<const AT: i32>(self, a: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i / 4 * 4 + AT as usize])
    }

    #[inline(never)]
    fn twos<const AT: i32>(self, a: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i / 4 * 4 + AT as usize] >> (2 * (i % 4)) & 3)
    }

    #[inline(never)]
    fn sevens(self, a: [u8; 32]) -> [u8; 32] {
        let rows = a.as_chunks::<4>().0;
        std::array::from_fn(|i| (u32::from_le_bytes(rows[i / 4]) >> (7 * (i % 4)) & 127) as u8)
    }

    fn splat_bytes(self, x: u8) -> [u8; 32] {
        [x; 32]
    }

    #[inline(never)]
    fn add_bytes(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(never)]
    fn and_bytes(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i] & b[i])
    }

    #[inline(never)]
    fn negate_where(self, a: [u8; 32], mask: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| (a[i] ^ mask[i]).wrapping_sub(mask[i]))
    }

    #[inline(never)]
    fn at_least(self, a: [u8; 32], least: u8) -> [u8; 32] {
        a.map(|byte| if byte >= least { 255 } else { 0 })
    }

    #[inline(never)]
    fn field(self, a: [u8; 32], at: u32, mask: u8) -> [u8; 32] {
        a.map(|a| a >> at & mask)
    }

    #[inline(never)]
    fn append<const SHIFT: i32>(self, low: [u8; 32], high: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| low[i] | high[i] << SHIFT)
    }

    #[inline(never)]
    fn nibbles(self, from: &[u8; 16]) -> [u8; 32] {
        std::array::from_fn(|i| from[i % 16] >> (i / 16 * 4) & 15)
    }

    #[inline(never)]
    fn masks(self, bits: &[u8; 4]) -> [u8; 32] {
        std::array::from_fn(|i| (bits[i / 8] >> (i % 8) & 1) * u8::MAX)
    }

    #[inline(never)]
    fn quarters(self, from: &[u8; 8]) -> [u8; 32] {
        std::array::from_fn(|i| from[i / 4] >> (2 * (i % 4)) & 3)
    }

    #[inline(never)]
    fn dot_row_halves<const MOST: u8>(
        self,
        rows: [[u8; 32]; 8],
        a: &[[i8; 4]; 8],
    ) -> [[i32; 8]; 2] {
        let a: &[[i8; 16]] = a.as_flattened().as_chunks().0;
        std::array::from_fn(|half| {
            rows.map(|row| {
                let codes = row.as_chunks::<16>().0[half].iter().zip(a[half]);
                codes.map(|(code, a)| i32::from(*code as i8) * i32::from(a)).sum()
            })
        })
    }
}
