//! The operations that a kernel is written in.
//!
//! [`TileSimd`] has those of a matrix product with coded weights: registers with one lane per row, of
//! one tile of eight rows or of several side by side. [`Isa`] adds, for registers of one tile, what
//! every other kernel needs. Every operation gives the same bits on every instruction set.

/// Tiles side by side in a register, at most.
pub(crate) const MOST_TILES: usize = 2;

/// Operations of matrix products, over the rows of one tile or of several side by side.
///
/// A value of the type is proof that the CPU has the instructions. Where a type has fewer tiles than
/// [`MOST_TILES`], the first ones count.
pub trait TileSimd: Copy + Send + Sync {
    /// Tiles side by side.
    const TILES: usize;
    /// Tokens that share the unpacking of weights: as many as registers hold.
    const TOKENS: usize;
    /// Bias that [`lookup`](Self::lookup) adds to each weight, where products want one factor without
    /// a sign. Sums are then too large by the bias times the sum of the activations, which a
    /// [`Kernel`] subtracts beforehand.
    const TABLE_BIAS: i32;
    /// Bias that [`load_weights_tiles`](Self::load_weights_tiles) adds to each weight.
    const BYTE_BIAS: i32;
    /// An f32 per row.
    type F32: Copy;
    /// An i32 per row.
    type I32: Copy;
    /// Four bytes per row.
    type U8: Copy;
    /// A table of 16 weights.
    type Table: Copy;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// To float, rounded to nearest.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// One number per row of each tile.
    fn load_tiles(self, from: [&[f32; 8]; MOST_TILES]) -> Self::F32;
    /// To one number per row; `to` holds all rows of the tiles.
    fn store_tiles(self, x: Self::F32, to: &mut [f32]);
    /// 32 bytes of each tile: four per row.
    fn load_bytes_tiles(self, from: [&[u8; 32]; MOST_TILES]) -> Self::U8;
    /// Weights between -127 and 127 of each tile, with `BYTE_BIAS` added.
    fn load_weights_tiles(self, from: [&[u8; 32]; MOST_TILES]) -> Self::U8;
    /// Eight scale bytes of each tile, decoded by [`decode_scale`](super::scalar::decode_scale).
    fn scales_tiles(self, bytes: [&[u8; 8]; MOST_TILES]) -> Self::F32;
    /// `byte >> SHIFT & mask` in each byte.
    fn shift_and<const SHIFT: i32>(self, a: Self::U8, mask: u8) -> Self::U8;
    /// In each byte the bits of `mask` from `b << SHIFT` (`b >> -SHIFT` where that is negative), the
    /// others from `a`.
    fn insert<const SHIFT: i32>(self, a: Self::U8, b: Self::U8, mask: u8) -> Self::U8;
    /// A table whose entries lie between -64 and 64.
    fn table(self, entries: &[i8; 16]) -> Self::Table;
    /// The table entries that the codes, below 16, name, with `TABLE_BIAS` added.
    fn lookup(self, table: Self::Table, codes: Self::U8) -> Self::U8;
    /// In each lane, `acc` plus the products of that row's four looked-up weights with `a`.
    /// Activations lie between -127 and 127.
    fn dot4_table(self, acc: Self::I32, weights: Self::U8, a: &[i8; 4]) -> Self::I32;
    /// [`dot4_table`](Self::dot4_table) for loaded weights.
    fn dot4_bytes(self, acc: Self::I32, weights: Self::U8, a: &[i8; 4]) -> Self::I32;

    /// A group, or half of one: [`dot4_table`](Self::dot4_table) eight or four times, in any order,
    /// since integers are exact. Numbers from 0 to 63 will do as well as looked-up weights.
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

    /// [`dot_table`](Self::dot_table) for loaded weights.
    #[inline(always)]
    fn dot_bytes(self, mut acc: Self::I32, weights: &[Self::U8; 8], a: &[[i8; 4]; 8]) -> Self::I32 {
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

/// An instruction set: registers of one tile, which are eight f32 lanes or 32 bytes.
pub trait Isa: TileSimd {
    /// Registers for products with coded weights: these, or wider ones where the CPU has them.
    type Wide: TileSimd;
    /// Returns the wide variant of this instruction set.
    fn wide(self) -> Self::Wide;

    /// From memory.
    #[inline(always)]
    fn load(self, from: &[f32; 8]) -> Self::F32 {
        self.load_tiles([from; MOST_TILES])
    }
    /// To memory.
    #[inline(always)]
    fn store(self, x: Self::F32, to: &mut [f32; 8]) {
        self.store_tiles(x, to);
    }
    /// From memory.
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 32]) -> Self::U8 {
        self.load_bytes_tiles([from; MOST_TILES])
    }
    /// From little-endian half precision in memory.
    fn load_f16(self, from: &[u8; 16]) -> Self::F32;
    /// From little-endian bfloat16 in memory.
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
    /// Without the sign.
    fn abs(self, a: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even, for magnitudes below 2^31.
    fn round(self, a: Self::F32) -> Self::I32;
    /// `2^n` for `-126 <= n <= 127`.
    fn exp2i(self, n: Self::I32) -> Self::F32;
    /// Integers that fit bytes to memory.
    fn store_i8(self, a: Self::I32, to: &mut [i8; 8]);

    /// The sum of the lanes: `((0+4) + (2+6)) + ((1+5) + (3+7))`.
    #[inline(always)]
    fn sum(self, a: Self::F32) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    /// The largest lane, found in the order of [`sum`](Self::sum).
    #[inline(always)]
    fn max_lane(self, a: Self::F32) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        let max = |a: f32, b: f32| if a > b { a } else { b };
        let [even, odd] = [0, 1].map(|i| max(max(x[i], x[i + 4]), max(x[i + 2], x[i + 6])));
        max(even, odd)
    }

    /// Prefetches the cache line `AHEAD` bytes from `at`. Any address will do.
    #[inline(always)]
    fn prefetch<const AHEAD: usize>(self, at: *const u8) {
        let _ = at;
    }

    /// To memory.
    fn store_bytes(self, a: Self::U8, to: &mut [u8; 32]);
    /// Sixteen bytes of each row: register `k` has every row's bytes `4 k` to `4 k + 3`.
    fn transpose(self, rows: [&[u8; 16]; 8]) -> [Self::U8; 4];
    /// A little-endian half-precision number of each row.
    fn load_halves(self, rows: [&[u8; 2]; 8]) -> Self::F32;
    /// Byte `AT` of each row's four, as an integer.
    fn byte<const AT: i32>(self, a: Self::U8) -> Self::I32;
    /// Four of each row's 32 bits as bytes: byte `b` is 255 where bit `AT + b` is set, else 0. `AT` is
    /// a multiple of 4.
    fn spread<const AT: i32>(self, a: Self::U8) -> Self::U8;
}

/// What tiers differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// Floating point.
    Floats,
    /// And dot products of integers.
    Dots,
    /// And products of several tokens with coded weights.
    Products,
}

/// A computation that runs on any instruction set.
pub trait Kernel {
    /// What it gains from; tiers without more of that share one copy of its code.
    const FEATURES: Features = Features::Floats;
    /// What it gives.
    type Output;
    /// Runs it. Implementations are `#[inline(always)]`, so that they are compiled for the
    /// instruction set that calls them.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}
