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

    /// What multiplies coded weights: this, or wider registers where there are any.
    type Wide: Wide;
    /// That.
    fn wide(self) -> Self::Wide;

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
    /// Integers that fit bytes to memory.
    fn store_i8(self, a: Self::I32x8, to: &mut [i8; 8]);
    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32x8;

    /// The sum of the lanes: `((0+4) + (2+6)) + ((1+5) + (3+7))`.
    #[inline(always)]
    fn sum(self, a: Self::F32x8) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    /// The largest lane, found in the order of [`sum`](Self::sum).
    #[inline(always)]
    fn max_lane(self, a: Self::F32x8) -> f32 {
        let mut x = [0.0; 8];
        self.store(a, &mut x);
        let max = |a: f32, b: f32| if a > b { a } else { b };
        let [even, odd] = [0, 1].map(|i| max(max(x[i], x[i + 4]), max(x[i + 2], x[i + 6])));
        max(even, odd)
    }

    /// Says that the cache line `AHEAD` bytes from `at` will be read soon. Any address will do.
    #[inline(always)]
    fn prefetch<const AHEAD: usize>(self, at: *const u8) {
        let _ = at;
    }

    /// From memory.
    fn load_bytes(self, from: &[u8; 32]) -> Self::U8x32;
    /// To memory.
    fn store_bytes(self, a: Self::U8x32, to: &mut [u8; 32]);
    /// Sixteen bytes of each row: register `k` has every row's bytes `4 k` to `4 k + 3`.
    fn transpose(self, rows: [&[u8; 16]; 8]) -> [Self::U8x32; 4];
    /// A little-endian half-precision number of each row.
    fn load_halves(self, rows: [&[u8; 2]; 8]) -> Self::F32x8;
    /// Byte `AT` of each row's four, as an integer.
    fn byte<const AT: i32>(self, a: Self::U8x32) -> Self::I32x8;
    /// Four of each row's 32 bits as bytes: byte `b` is 255 where bit `AT + b` is set, else 0. `AT` is a multiple of 4.
    fn spread<const AT: i32>(self, a: Self::U8x32) -> Self::U8x32;
    /// `byte >> SHIFT & mask` in each byte.
    fn shift_and<const SHIFT: i32>(self, a: Self::U8x32, mask: u8) -> Self::U8x32;
    /// In each byte the bits of `mask` from `b << SHIFT` (`b >> -SHIFT` where that is negative), the others from `a`.
    fn insert<const SHIFT: i32>(self, a: Self::U8x32, b: Self::U8x32, mask: u8) -> Self::U8x32;
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
    /// A group, or half of one: [`dot4_table`](Self::dot4_table) eight or four times, in any order, since integers are
    /// exact. Numbers from 0 to 63 will do as well as looked-up weights.
    #[inline(always)]
    fn dot_table<const N: usize>(
        self,
        mut acc: Self::I32x8,
        weights: &[Self::U8x32; N],
        a: &[[i8; 4]; N],
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

    /// Eight scale bytes, decoded (see `blocks::coded`).
    fn scales(self, bytes: &[u8; 8]) -> Self::F32x8;
}

/// Tiles that go side by side, at the most.
pub(super) const MOST_TILES: usize = 2;

/// The operations of products of coded weights, over the rows of one tile or of several side by side, in registers of
/// so many times eight lanes. Each lane computes what it does in [`Isa`], which is one of these. Where there are fewer
/// tiles than [`MOST_TILES`], the first counts.
pub trait Wide: Copy + Send + Sync {
    /// Tiles side by side.
    const TILES: usize;
    /// [`Isa::TOKENS`]
    const TOKENS: usize;
    /// [`Isa::TABLE_BIAS`]
    const TABLE_BIAS: i32;
    /// [`Isa::BYTE_BIAS`]
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
    fn load(self, from: [&[f32; 8]; MOST_TILES]) -> Self::F32;
    /// To one number per row.
    fn store(self, x: Self::F32, to: &mut [f32]);
    /// 32 bytes of each tile.
    fn load_bytes(self, from: [&[u8; 32]; MOST_TILES]) -> Self::U8;
    /// [`Isa::load_weights`] of each tile.
    fn load_weights(self, from: [&[u8; 32]; MOST_TILES]) -> Self::U8;
    /// [`Isa::scales`] of each tile.
    fn scales(self, bytes: [&[u8; 8]; MOST_TILES]) -> Self::F32;
    /// [`Isa::shift_and`]
    fn shift_and<const SHIFT: i32>(self, a: Self::U8, mask: u8) -> Self::U8;
    /// [`Isa::insert`]
    fn insert<const SHIFT: i32>(self, a: Self::U8, b: Self::U8, mask: u8) -> Self::U8;
    /// [`Isa::table`]
    fn table(self, entries: &[i8; 16]) -> Self::Table;
    /// [`Isa::lookup`]
    fn lookup(self, table: Self::Table, codes: Self::U8) -> Self::U8;
    /// [`Isa::dot_table`]
    fn dot_table<const N: usize>(
        self,
        acc: Self::I32,
        weights: &[Self::U8; N],
        a: &[[i8; 4]; N],
    ) -> Self::I32;
    /// [`Isa::dot_bytes`]
    fn dot_bytes(self, acc: Self::I32, weights: &[Self::U8; 8], a: &[[i8; 4]; 8]) -> Self::I32;
    /// [`Isa::dot_table_pair`]
    fn dot_table_pair(
        self,
        acc: [Self::I32; 2],
        weights: &[Self::U8; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [Self::I32; 2];
    /// [`Isa::dot_bytes_pair`]
    fn dot_bytes_pair(
        self,
        acc: [Self::I32; 2],
        weights: &[Self::U8; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [Self::I32; 2];
}

impl<I: Isa> Wide for I {
    const TILES: usize = 1;
    const TOKENS: usize = <I as Isa>::TOKENS;
    const TABLE_BIAS: i32 = <I as Isa>::TABLE_BIAS;
    const BYTE_BIAS: i32 = <I as Isa>::BYTE_BIAS;
    type F32 = I::F32x8;
    type I32 = I::I32x8;
    type U8 = I::U8x32;
    type Table = <I as Isa>::Table;

    #[inline(always)]
    fn splat(self, x: f32) -> I::F32x8 {
        Isa::splat(self, x)
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> I::I32x8 {
        Isa::splat_i32(self, x)
    }
    #[inline(always)]
    fn mul(self, a: I::F32x8, b: I::F32x8) -> I::F32x8 {
        Isa::mul(self, a, b)
    }
    #[inline(always)]
    fn fma(self, a: I::F32x8, b: I::F32x8, c: I::F32x8) -> I::F32x8 {
        Isa::fma(self, a, b, c)
    }
    #[inline(always)]
    fn to_f32(self, a: I::I32x8) -> I::F32x8 {
        Isa::to_f32(self, a)
    }
    #[inline(always)]
    fn load(self, from: [&[f32; 8]; MOST_TILES]) -> I::F32x8 {
        Isa::load(self, from[0])
    }
    #[inline(always)]
    fn store(self, x: I::F32x8, to: &mut [f32]) {
        Isa::store(self, x, to.first_chunk_mut().expect("a tile has eight rows"));
    }
    #[inline(always)]
    fn load_bytes(self, from: [&[u8; 32]; MOST_TILES]) -> I::U8x32 {
        Isa::load_bytes(self, from[0])
    }
    #[inline(always)]
    fn load_weights(self, from: [&[u8; 32]; MOST_TILES]) -> I::U8x32 {
        Isa::load_weights(self, from[0])
    }
    #[inline(always)]
    fn scales(self, bytes: [&[u8; 8]; MOST_TILES]) -> I::F32x8 {
        Isa::scales(self, bytes[0])
    }
    #[inline(always)]
    fn shift_and<const SHIFT: i32>(self, a: I::U8x32, mask: u8) -> I::U8x32 {
        Isa::shift_and::<SHIFT>(self, a, mask)
    }
    #[inline(always)]
    fn insert<const SHIFT: i32>(self, a: I::U8x32, b: I::U8x32, mask: u8) -> I::U8x32 {
        Isa::insert::<SHIFT>(self, a, b, mask)
    }
    #[inline(always)]
    fn table(self, entries: &[i8; 16]) -> <I as Isa>::Table {
        Isa::table(self, entries)
    }
    #[inline(always)]
    fn lookup(self, table: <I as Isa>::Table, codes: I::U8x32) -> I::U8x32 {
        Isa::lookup(self, table, codes)
    }
    #[inline(always)]
    fn dot_table<const N: usize>(
        self,
        acc: I::I32x8,
        weights: &[I::U8x32; N],
        a: &[[i8; 4]; N],
    ) -> I::I32x8 {
        Isa::dot_table(self, acc, weights, a)
    }
    #[inline(always)]
    fn dot_bytes(self, acc: I::I32x8, weights: &[I::U8x32; 8], a: &[[i8; 4]; 8]) -> I::I32x8 {
        Isa::dot_bytes(self, acc, weights, a)
    }
    #[inline(always)]
    fn dot_table_pair(
        self,
        acc: [I::I32x8; 2],
        weights: &[I::U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [I::I32x8; 2] {
        Isa::dot_table_pair(self, acc, weights, a)
    }
    #[inline(always)]
    fn dot_bytes_pair(
        self,
        acc: [I::I32x8; 2],
        weights: &[I::U8x32; 8],
        a: [&[[i8; 4]; 8]; 2],
    ) -> [I::I32x8; 2] {
        Isa::dot_bytes_pair(self, acc, weights, a)
    }
}

/// What tiers differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
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
    const NEEDS: Needs = Needs::Floats;
    /// What it gives.
    type Output;
    /// Runs it. Implementations are `#[inline(always)]`, so that they are compiled for the
    /// instruction set that calls them.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}
