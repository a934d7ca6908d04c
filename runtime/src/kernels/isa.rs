//! The operations that a kernel is written in.

/// An instruction set: eight lanes, and 32 bytes that are eight rows of four weights. A value of the
/// type is proof that the CPU has the instructions. Every operation gives the same bits on every
/// instruction set.
pub trait Isa: Copy + Send + Sync {
    /// Eight f32 lanes.
    type F32x8: Copy;
    /// Eight i32 lanes.
    type I32x8: Copy;
    /// 32 bytes.
    type U8x32: Copy;
    /// A table of 16 weights.
    type Table: Copy;

    /// What [`lookup`](Self::lookup) adds to each weight: where products want one factor without a sign.
    /// Sums are then too large by this times the sum of the activations, which [`Kernel`]s take away
    /// beforehand.
    const TABLE_BIAS: i32;
    /// The same for [`load_weights`](Self::load_weights).
    const BYTE_BIAS: i32;
    /// Tokens that share the unpacking of weights: as many as registers hold.
    const TOKENS: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32x8;
    /// From memory.
    fn load(self, from: &[f32; 8]) -> Self::F32x8;
    /// From little-endian half precision in memory.
    fn load_f16(self, from: &[u8; 16]) -> Self::F32x8;
    /// From little-endian bfloat16 in memory.
    fn load_bf16(self, from: &[u8; 16]) -> Self::F32x8;
    /// To memory.
    fn store(self, x: Self::F32x8, to: &mut [f32; 8]);
    /// `a + b`
    fn add(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    /// `a - b`
    fn sub(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    /// `a * b`
    fn mul(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    /// `a / b`
    fn div(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32x8, b: Self::F32x8, c: Self::F32x8) -> Self::F32x8;
    /// `if a > b { a } else { b }`
    fn max(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    /// `if a < b { a } else { b }`
    fn min(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    /// Without the sign.
    fn abs(self, a: Self::F32x8) -> Self::F32x8;
    /// The nearest integer, ties to even, for magnitudes below 2^31.
    fn round(self, a: Self::F32x8) -> Self::I32x8;
    /// To float, rounded to nearest.
    fn to_f32(self, a: Self::I32x8) -> Self::F32x8;
    /// `2^n` for `-126 <= n <= 127`.
    fn exp2i(self, n: Self::I32x8) -> Self::F32x8;
    /// Integers to memory.
    fn store_i32(self, a: Self::I32x8, to: &mut [i32; 8]);
    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32x8;

    /// The sum of the lanes: `((0+4) + (2+6)) + ((1+5) + (3+7))`.
    #[inline(always)]
    fn sum(self, a: Self::F32x8) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    /// The largest lane.
    #[inline(always)]
    fn max_lane(self, a: Self::F32x8) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        x.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }

    /// Says that a cache line will be read soon. Any address will do.
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        let _ = at;
    }

    /// From memory.
    fn load_bytes(self, from: &[u8; 32]) -> Self::U8x32;
    /// `byte >> SHIFT & mask` in each byte.
    fn shift_and<const SHIFT: i32>(self, a: Self::U8x32, mask: u8) -> Self::U8x32;
    /// `a | b << SHIFT` in each byte, for `b` that does not overflow.
    fn or_shifted<const SHIFT: i32>(self, a: Self::U8x32, b: Self::U8x32) -> Self::U8x32;
    /// A table whose entries lie between -64 and 64.
    fn table(self, entries: &[i8; 16]) -> Self::Table;
    /// The table entries that the codes, below 16, name, with `TABLE_BIAS` added.
    fn lookup(self, table: Self::Table, codes: Self::U8x32) -> Self::U8x32;
    /// Weights between -127 and 127 from memory, with `BYTE_BIAS` added.
    fn load_weights(self, from: &[u8; 32]) -> Self::U8x32;
    /// In each lane, `acc` plus the products of that row's four looked-up weights with `a`. Activations
    /// lie between -127 and 127.
    fn dot4_table(self, acc: Self::I32x8, weights: Self::U8x32, a: &[i8; 4]) -> Self::I32x8;
    /// The same for loaded weights.
    fn dot4_bytes(self, acc: Self::I32x8, weights: Self::U8x32, a: &[i8; 4]) -> Self::I32x8;
    /// A group: [`dot4_table`](Self::dot4_table) eight times, in any order, since integers are exact.
    #[inline(always)]
    fn dot_table(
        self,
        mut acc: Self::I32x8,
        weights: &[Self::U8x32; 8],
        a: &[[i8; 4]; 8],
    ) -> Self::I32x8 {
        for (weights, a) in weights.iter().zip(a) {
            acc = self.dot4_table(acc, *weights, a);
        }
        acc
    }

    /// The same for loaded weights.
    #[inline(always)]
    fn dot_bytes(
        self,
        mut acc: Self::I32x8,
        weights: &[Self::U8x32; 8],
        a: &[[i8; 4]; 8],
    ) -> Self::I32x8 {
        for (weights, a) in weights.iter().zip(a) {
            acc = self.dot4_bytes(acc, *weights, a);
        }
        acc
    }

    /// [`dot_table`](Self::dot_table) of a group with two tokens.
    #[inline(always)]
    fn dot_table_pair(
        self,
        acc: [Self::I32x8; 2],
        weights: &[Self::U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [Self::I32x8; 2] {
        [self.dot_table(acc[0], weights, a[0]), self.dot_table(acc[1], weights, a[1])]
    }

    /// The same for loaded weights.
    #[inline(always)]
    fn dot_bytes_pair(
        self,
        acc: [Self::I32x8; 2],
        weights: &[Self::U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [Self::I32x8; 2] {
        [self.dot_bytes(acc[0], weights, a[0]), self.dot_bytes(acc[1], weights, a[1])]
    }

    /// In lane `i`, the products of weights and activations `4 i` to `4 i + 3`. Activations lie between -127
    /// and 127.
    fn dot32(self, weights: &[i8; 32], a: &[i8; 32]) -> Self::I32x8;
    /// Four lanes `low`, four lanes `high`.
    fn halves(self, low: f32, high: f32) -> Self::F32x8;
    /// Eight scale bytes, decoded (see `blocks::coded`).
    fn scales(self, bytes: &[u8; 8]) -> Self::F32x8;
}

/// A computation that runs on any instruction set.
pub trait Kernel {
    /// What it gives.
    type Output;
    /// Runs it. Implementations are `#[inline(always)]`, so that they are compiled for the
    /// instruction set that calls them.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}
