//! Operations that kernels are written in.
//!
//! [`TileSimd`] has the operations of matrix products with coded weights, on registers with one
//! lane per row, of one tile of eight rows or of several tiles. [`Isa`] adds, for registers of one
//! tile, the operations of all other kernels. Every operation returns the same bits on every
//! instruction set.

/// Maximum number of tiles in a register.
pub(crate) const MOST_TILES: usize = 2;

/// Biases of weights are multiples of this magnitude, which no entry of a table exceeds.
pub(crate) const BIAS: i32 = 64;

/// Stands for codes from -127 to 127 in the place of the largest code of an unsigned type.
pub(crate) const EITHER_SIGN: u8 = u8::MAX;

/// Operations of matrix products over the rows of one or several tiles.
///
/// A value of the type proves that the CPU has the instructions. If a type has fewer tiles than
/// [`MOST_TILES`], only the first array elements are used.
pub trait TileSimd: Copy + Send + Sync {
    /// Tiles per register.
    const TILES: usize;
    /// Number of tokens whose sums registers hold beside the weights of a group, which they share:
    /// one, four or eight.
    const TOKENS: usize;
    /// Number of tokens from which on their sums had better wait in memory, while the weights of a
    /// group are in registers for all of them.
    const MANY_FROM: usize = usize::MAX;
    /// The same for weights that are loaded as they are, so that tokens have no unpacking to share.
    const MANY_BYTES_FROM: usize = Self::MANY_FROM;
    /// Whether these tokens are multiplied in pairs.
    const PAIRS: bool = false;
    /// Bits of weights below which [`dot_unsigned`](Self::dot_unsigned) gets no faster.
    const FEWEST_BITS: u32 = 6;
    /// Bias that [`lookup`](Self::lookup) adds to each weight, where dot products need one unsigned
    /// factor. Sums are then too large by the bias times the sum of the activations, which a
    /// [`Kernel`] subtracts beforehand.
    const TABLE_BIAS: i32;
    /// Bias that [`load_weights_tiles`](Self::load_weights_tiles) adds to each weight.
    const BYTE_BIAS: i32;
    /// One f32 per row.
    type F32: Copy;
    /// One i32 per row.
    type I32: Copy;
    /// Four bytes per row.
    type U8: Copy;
    /// Table of 16 weights.
    type Table: Copy;

    /// `x` in all lanes.
    fn splat(self, x: f32) -> Self::F32;
    /// `x` in all lanes.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Converts to float, rounding to nearest.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// Loads one f32 per row of each tile.
    fn load_tiles(self, from: [&[f32; 8]; MOST_TILES]) -> Self::F32;
    /// Stores one f32 per row; `to` has room for all rows of the tiles.
    fn store_tiles(self, x: Self::F32, to: &mut [f32]);
    /// Loads one little-endian half-precision number per row of each tile.
    fn load_f16_tiles(self, from: [&[u8; 16]; MOST_TILES]) -> Self::F32;
    /// Loads one signed byte per row of each tile, times the tile's scale in little-endian bfloat16.
    fn load_scaled_tiles(
        self,
        bytes: [&[u8; 8]; MOST_TILES],
        scales: [&[u8; 2]; MOST_TILES],
    ) -> Self::F32;
    /// Loads 32 bytes of each tile, four per row.
    fn load_bytes_tiles(self, from: [&[u8; 32]; MOST_TILES]) -> Self::U8;
    /// Loads weights between -127 and 127 of each tile and adds `BYTE_BIAS`.
    fn load_weights_tiles(self, from: [&[u8; 32]; MOST_TILES]) -> Self::U8;
    /// Loads eight scale bytes of each tile, decoded by
    /// [`decode_scale`](super::scalar::decode_scale).
    fn scales_tiles(self, bytes: [&[u8; 8]; MOST_TILES]) -> Self::F32;
    /// `byte >> SHIFT & mask` in each byte.
    fn shift_and<const SHIFT: i32>(self, a: Self::U8, mask: u8) -> Self::U8;
    /// In each byte, the bits of `mask` from `b << SHIFT` (`b >> -SHIFT` if negative), the others
    /// from `a`.
    fn insert<const SHIFT: i32>(self, a: Self::U8, b: Self::U8, mask: u8) -> Self::U8;
    /// Table with entries between -64 and 64.
    fn table(self, entries: &[i8; 16]) -> Self::Table;
    /// The table entries selected by codes below 16, with `TABLE_BIAS` added.
    fn lookup(self, table: Self::Table, codes: Self::U8) -> Self::U8;
    /// In each lane, `acc` plus the dot product of that row's four looked-up weights with `a`.
    /// Activations are between -127 and 127.
    fn dot4_table(self, acc: Self::I32, weights: Self::U8, a: &[i8; 4]) -> Self::I32;
    /// [`dot4_table`](Self::dot4_table) for loaded weights.
    fn dot4_bytes(self, acc: Self::I32, weights: Self::U8, a: &[i8; 4]) -> Self::I32;

    /// Dot product of a group, or of half a group: [`dot4_table`](Self::dot4_table) eight or four
    /// times, in any order, since integer sums are exact.
    #[inline(always)]
    fn dot_table<const N: usize>(
        self,
        mut acc: Self::I32,
        weights: &[Self::U8; N],
        a: &[[i8; 4]; N],
    ) -> Self::I32 {
        for (weights, a) in weights.iter().zip(a) {
            acc = self.dot4_table(acc, *weights, a);
        }
        acc
    }

    /// [`dot_table`](Self::dot_table) for weights from 0 to `MOST`, at most 63: the smaller they are,
    /// the more products fit 16 bits.
    #[inline(always)]
    fn dot_unsigned<const N: usize, const MOST: u8>(
        self,
        acc: Self::I32,
        weights: &[Self::U8; N],
        a: &[[i8; 4]; N],
    ) -> Self::I32 {
        self.dot_table(acc, weights, a)
    }

    /// [`dot_table`](Self::dot_table) for loaded weights.
    #[inline(always)]
    fn dot_bytes<const N: usize>(
        self,
        mut acc: Self::I32,
        weights: &[Self::U8; N],
        a: &[[i8; 4]; N],
    ) -> Self::I32 {
        for (weights, a) in weights.iter().zip(a) {
            acc = self.dot4_bytes(acc, *weights, a);
        }
        acc
    }

    /// [`dot_table`](Self::dot_table) of a group with two tokens.
    #[inline(always)]
    fn dot_table_pair(
        self,
        acc: [Self::I32; 2],
        weights: &[Self::U8; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [Self::I32; 2] {
        [self.dot_table(acc[0], weights, a[0]), self.dot_table(acc[1], weights, a[1])]
    }

    /// [`dot_bytes`](Self::dot_bytes) with two tokens.
    #[inline(always)]
    fn dot_bytes_pair(
        self,
        acc: [Self::I32; 2],
        weights: &[Self::U8; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [Self::I32; 2] {
        [self.dot_bytes(acc[0], weights, a[0]), self.dot_bytes(acc[1], weights, a[1])]
    }
}

/// An instruction set, with registers of one tile: eight f32 lanes, or 32 bytes.
pub trait Isa: TileSimd {
    /// Whether these are registers in name only, so that code written for vectors gains nothing.
    const SCALAR: bool = false;
    /// Weights of the largest of ggml's blocks that few tokens are multiplied with row by row: by tiles
    /// of eight rows, larger ones take fewer instructions.
    const LARGEST_BY_ROW: usize = usize::MAX;

    /// Registers for products with coded weights: the same, or wider ones if the CPU has them.
    type Wide: TileSimd;
    /// Returns the wide variant of this instruction set.
    fn wide(self) -> Self::Wide;

    /// Loads eight lanes.
    #[inline(always)]
    fn load(self, from: &[f32; 8]) -> Self::F32 {
        self.load_tiles([from; MOST_TILES])
    }
    /// Stores eight lanes.
    #[inline(always)]
    fn store(self, x: Self::F32, to: &mut [f32; 8]) {
        self.store_tiles(x, to);
    }
    /// Loads 32 bytes.
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 32]) -> Self::U8 {
        self.load_bytes_tiles([from; MOST_TILES])
    }
    /// Loads little-endian half precision.
    #[inline(always)]
    fn load_f16(self, from: &[u8; 16]) -> Self::F32 {
        self.load_f16_tiles([from; MOST_TILES])
    }
    /// Loads little-endian bfloat16.
    fn load_bf16(self, from: &[u8; 16]) -> Self::F32;
    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Absolute value.
    fn abs(self, a: Self::F32) -> Self::F32;
    /// Nearest integer, ties to even, for magnitudes below 2^31.
    fn round(self, a: Self::F32) -> Self::I32;
    /// `2^n` for `-126 <= n <= 127`.
    fn exp2i(self, n: Self::I32) -> Self::F32;
    /// Stores integers that fit bytes.
    fn store_i8(self, a: Self::I32, to: &mut [i8; 8]);

    /// Sum of the lanes: `((0+4) + (2+6)) + ((1+5) + (3+7))`.
    #[inline(always)]
    fn sum(self, a: Self::F32) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    /// [`sum`](Self::sum) of each of eight registers.
    #[inline(always)]
    fn sums(self, a: [Self::F32; 8]) -> Self::F32 {
        let mut sums = [0.0; 8];
        for (sum, a) in sums.iter_mut().zip(a) {
            *sum = self.sum(a);
        }
        self.load(&sums)
    }

    /// Maximum of the lanes, reduced in the order of [`sum`](Self::sum).
    #[inline(always)]
    fn max_lane(self, a: Self::F32) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        let max = |a: f32, b: f32| if a > b { a } else { b };
        let [even, odd] = [0, 1].map(|i| max(max(x[i], x[i + 4]), max(x[i + 2], x[i + 6])));
        max(even, odd)
    }

    /// Prefetches the cache line `AHEAD` bytes after `at`. Any address is valid.
    #[inline(always)]
    fn prefetch<const AHEAD: usize>(self, at: *const u8) {
        let _ = at;
    }

    /// Stores 32 bytes.
    fn store_bytes(self, a: Self::U8, to: &mut [u8; 32]);
    /// Transposes sixteen bytes of each row: register `k` contains every row's bytes `4 k` to `4 k
    /// + 3`.
    fn transpose(self, rows: [&[u8; 16]; 8]) -> [Self::U8; 4];
    /// Loads a little-endian half-precision number of each row.
    fn load_halves(self, rows: [&[u8; 2]; 8]) -> Self::F32;
    /// Byte `AT` of each row's four, as an integer.
    fn byte<const AT: i32>(self, a: Self::U8) -> Self::I32;
    /// The `count` bits from bit `at` of each row's 32, as an integer.
    fn bits(self, a: Self::U8, at: u32, count: u32) -> Self::I32;
    /// `low + (high << by)` in each lane.
    fn join(self, low: Self::I32, high: Self::I32, by: u32) -> Self::I32;
    /// The lanes.
    fn lanes(self, a: Self::I32) -> [i32; 8];
    /// Expands four of each row's 32 bits to bytes: byte `b` is 255 if bit `AT + b` is set, else 0.
    /// `AT` is a multiple of 4.
    fn spread<const AT: i32>(self, a: Self::U8) -> Self::U8;
    /// Eight bytes of each row: register `k` has every row's bytes `4 k` to `4 k + 3`.
    fn transpose_eights(self, rows: [&[u8; 8]; 8]) -> [Self::U8; 2];
    /// Four bytes of each row.
    fn load_fours(self, rows: [&[u8; 4]; 8]) -> Self::U8;
    /// Byte `AT` of each row's four, four times.
    fn repeat<const AT: i32>(self, a: Self::U8) -> Self::U8;
    /// The four 2-bit numbers in byte `AT` of each row's four, low bits first, as bytes.
    fn twos<const AT: i32>(self, a: Self::U8) -> Self::U8;
    /// The four 7-bit numbers in the low 28 of each row's 32 bits, low bits first, as bytes.
    fn sevens(self, a: Self::U8) -> Self::U8;
    /// All bytes `x`.
    fn splat_bytes(self, x: u8) -> Self::U8;
    /// `a + b` in each byte, modulo 256.
    fn add_bytes(self, a: Self::U8, b: Self::U8) -> Self::U8;
    /// `a & b`
    fn and_bytes(self, a: Self::U8, b: Self::U8) -> Self::U8;
    /// In each byte `-a`, modulo 256, where `mask` is 255; `a` where it is 0.
    fn negate_where(self, a: Self::U8, mask: Self::U8) -> Self::U8;
    /// In each byte 255 where `a >= least`, else 0.
    fn at_least(self, a: Self::U8, least: u8) -> Self::U8;

    /// `a >> at & mask` in each byte, for a mask below `2^(8 - at)`.
    fn field(self, a: Self::U8, at: u32, mask: u8) -> Self::U8;
    /// `low | high << SHIFT` in each byte, for `low` below `2^SHIFT` and a result below 256.
    fn append<const SHIFT: i32>(self, low: Self::U8, high: Self::U8) -> Self::U8;
    /// The low nibbles of sixteen bytes, then the high ones.
    fn nibbles(self, from: &[u8; 16]) -> Self::U8;
    /// 32 bits as bytes: 255 where a bit is set, else 0.
    fn masks(self, bits: &[u8; 4]) -> Self::U8;
    /// 32 numbers of two bits as bytes.
    fn quarters(self, from: &[u8; 8]) -> Self::U8;
    /// For each of eight rows, the dot products of its first sixteen and its last sixteen codes
    /// with those of `a`. Codes are from 0 to `MOST`, at most 128, or from -127 to 127 for
    /// [`EITHER_SIGN`]; activations are between -127 and 127.
    fn dot_row_halves<const MOST: u8>(
        self,
        rows: [Self::U8; 8],
        a: &[[i8; 4]; 8],
    ) -> [Self::I32; 2];

    /// 32 bytes, eight from each place.
    #[inline(always)]
    fn load_eights(self, from: [&[u8; 8]; 4]) -> Self::U8 {
        let mut bytes = [0; 32];
        for (to, from) in bytes.as_chunks_mut().0.iter_mut().zip(from) {
            *to = *from;
        }
        self.load_bytes(&bytes)
    }
    /// Every second byte, from the second on.
    #[inline(always)]
    fn odd_bytes(self, from: &[u8; 64]) -> Self::U8 {
        let mut bytes = [0; 32];
        for (to, [_, from]) in bytes.iter_mut().zip(from.as_chunks().0) {
            *to = *from;
        }
        self.load_bytes(&bytes)
    }
    /// Sixteen numbers of a low byte and what [`HighBits`] selects.
    #[inline(always)]
    fn extended(self, low: &[u8; 16], high: &[u8; 16], bits: &HighBits) -> [u16; 16] {
        let mut numbers = [0; 16];
        for (i, (number, low)) in numbers.iter_mut().zip(low).enumerate() {
            let high = bits.from[i].map(|from| high.get(usize::from(from)).copied().unwrap_or(0));
            let high = u16::from_le_bytes(high).wrapping_mul(bits.times[i]) & bits.mask;
            *number = u16::from(*low) | high;
        }
        numbers
    }
    /// For each of eight groups of one row, a lane each, the dot products of its first sixteen and its
    /// last sixteen codes with those of `a`. With signs, codes are from 0 to 64 and negated where a bit
    /// is set; without, they are from -64 to 64. Activations are between -127 and 127.
    #[inline(always)]
    fn dot_groups(
        self,
        codes: [Self::U8; 8],
        signs: Option<&[[u8; 4]; 8]>,
        a: &[[[i8; 4]; 8]; 8],
    ) -> [Self::F32; 2] {
        let mut products = [[0.0; 8]; 2];
        for (group, (codes, a)) in codes.into_iter().zip(a).enumerate() {
            let codes = match signs {
                Some(signs) => self.negate_where(codes, self.masks(&signs[group])),
                None => codes,
            };
            let mut bytes = [0; 32];
            self.store_bytes(codes, &mut bytes);
            for (half, codes) in bytes.as_chunks::<16>().0.iter().enumerate() {
                let a = &a.as_flattened()[16 * half..][..16];
                let sum: i32 = codes
                    .iter()
                    .zip(a)
                    .map(|(code, a)| i32::from(*code as i8) * i32::from(*a))
                    .sum();
                products[half][group] = sum as f32;
            }
        }
        [self.load(&products[0]), self.load(&products[1])]
    }
    /// Lane `i` of register `k` is lane `k` of register `i`.
    #[inline(always)]
    fn transpose_lanes(self, rows: [Self::F32; 8]) -> [Self::F32; 8] {
        let mut from = [[0.0; 8]; 8];
        for (from, row) in from.iter_mut().zip(rows) {
            self.store(row, from);
        }
        let mut columns = rows;
        for (i, column) in columns.iter_mut().enumerate() {
            *column = self.load(&from.map(|row| row[i]));
        }
        columns
    }

    /// The sum of both [halves](Self::dot_row_halves).
    #[inline(always)]
    fn dot_rows<const MOST: u8>(self, rows: [Self::U8; 8], a: &[[i8; 4]; 8]) -> Self::I32 {
        let [first, second] = self.dot_row_halves::<MOST>(rows, a);
        self.join(first, second, 0)
    }
}

/// Where the high bits of sixteen numbers are.
pub struct HighBits {
    /// Places of two bytes of each number, the lower one first, or [`NONE`](Self::NONE).
    pub from: [[u8; 2]; 16],
    /// The factor of these two bytes, taken as a number of 16 bits.
    pub times: [u16; 16],
    /// The bits of the product, modulo 2^16, that belong to the number.
    pub mask: u16,
}

impl HighBits {
    /// Stands for a byte that is zero.
    pub const NONE: u8 = u8::MAX;

    /// The `bits` bits above the low eight, of `per_byte` numbers in each byte from `first_byte` on.
    pub const fn packed(first_byte: u8, per_byte: usize, bits: u32) -> Self {
        let (mut from, mut times) = ([[first_byte, Self::NONE]; 16], [0; 16]);
        let mut i = 0;
        while i < 16 {
            from[i][0] += (i / per_byte) as u8;
            times[i] = 1 << (8 - 8 / per_byte * (i % per_byte));
            i += 1;
        }
        Self { from, times, mask: ((1 << bits) - 1) << 8 }
    }
}

/// CPU features that a kernel benefits from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// Floating point only.
    Floats,
    /// Also integer dot products.
    Dots,
    /// Also products of several tokens with coded weights.
    Products,
}

/// A computation that runs on any instruction set.
pub trait Kernel {
    /// Features that the kernel benefits from; tiers that add nothing to them share one copy of its
    /// code.
    const FEATURES: Features = Features::Floats;
    /// Result.
    type Output;
    /// Runs the kernel. Implementations are `#[inline(always)]`, so that they are compiled with the
    /// target features of the caller.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}
