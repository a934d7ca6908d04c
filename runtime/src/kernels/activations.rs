//! Inputs of a matrix product: float values and, for quantized weights, the same values as int8
//! with one scale per group of 32.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use crate::blocks::GROUP;
use crate::isa::{BIAS, Isa, Kernel, Tier};

/// Inputs, `[tokens, width]`.
#[derive(Clone, Debug)]
pub struct Activations<'a> {
    /// Values, row-major.
    pub values: Cow<'a, [f32]>,
    /// Number of inputs per token.
    pub width: usize,
    /// Quantized values; empty if `width` is not a multiple of 32.
    pub codes: Cow<'a, [i8]>,
    /// Scales, `[tokens, width / 32]`.
    pub scales: Cow<'a, [f32]>,
    /// Sum of the quantized values of each group, `[tokens, width / 32]`.
    pub sums: Cow<'a, [i32]>,
    blocks: OnceLock<Blocks>,
    halves: OnceLock<Vec<Halves<1>>>,
}

/// Tokens per block.
pub(super) const BLOCK: usize = 8;

/// Half a block, for instruction sets with fewer registers.
pub(super) const HALF: usize = BLOCK / 2;

/// Quantized values in blocks of eight tokens, interleaved by group, so that a kernel reads them
/// sequentially. Missing tokens of the last block are zero.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// Codes in fours, `[blocks, width / 32]` of eight tokens each.
    pub codes: Vec<[[[i8; 4]; 8]; BLOCK]>,
    /// Scales, `[blocks, width / 32]` of eight tokens each.
    pub scales: Vec<[f32; BLOCK]>,
    /// Sums of codes, `[blocks, width / 32]` of eight tokens each.
    pub sums: Vec<[i32; BLOCK]>,
    /// Sums of codes times minus [`BIAS`].
    pub starts: Vec<[i32; BLOCK]>,
    halves: OnceLock<Vec<Halves<BLOCK>>>,
}

/// Sums of the quantized values of each half of a group, of `T` tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halves<const T: usize> {
    /// The sums themselves.
    pub sums: [[i32; T]; 2],
    /// The sums times the group's scale: the factors of offsets that all weights of a half share.
    pub scaled: [[f32; T]; 2],
    /// Both of these, added: the factors of offsets that all weights of a group share.
    pub whole: [f32; T],
}

impl Blocks {
    /// Sums of halves, `[blocks, width / 32]`, computed on first use.
    pub(super) fn halves(&self) -> &[Halves<BLOCK>] {
        self.halves.get_or_init(|| halves(&self.codes, &self.scales))
    }
}

/// Computes [`Blocks::halves`].
fn halves<const T: usize>(codes: &[[[[i8; 4]; 8]; T]], scales: &[[f32; T]]) -> Vec<Halves<T>> {
    let sum = |codes: &[[i8; 4]]| codes.iter().flatten().map(|&code| i32::from(code)).sum::<i32>();
    let none = Halves { sums: [[0; T]; 2], scaled: [[0.0; T]; 2], whole: [0.0; T] };
    let mut all = vec![none; scales.len()];
    for ((halves, codes), scales) in all.iter_mut().zip(codes).zip(scales) {
        for (t, (codes, scale)) in codes.iter().zip(scales).enumerate() {
            for (half, codes) in codes.chunks_exact(4).enumerate() {
                halves.sums[half][t] = sum(codes);
                halves.scaled[half][t] = scale * halves.sums[half][t] as f32;
            }
            halves.whole[t] = halves.scaled[0][t] + halves.scaled[1][t];
        }
    }
    all
}

impl<'a> Activations<'a> {
    /// Quantizes `values`.
    pub fn new(tier: Tier, values: &'a [f32], width: usize) -> Self {
        let (mut codes, mut scales, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        if width.is_multiple_of(GROUP) {
            codes.resize(values.len(), 0);
            scales.resize(values.len() / GROUP, 0.0);
            sums.resize(values.len() / GROUP, 0);
            let (codes, scales, sums) = (&mut codes[..], &mut scales[..], &mut sums[..]);
            tier.run(Quantize { values, codes, scales, sums });
        }
        let (codes, scales, sums) = (codes.into(), scales.into(), sums.into());
        let (blocks, halves) = (OnceLock::new(), OnceLock::new());
        Self { values: Cow::Borrowed(values), width, codes, scales, sums, blocks, halves }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// The inputs of a selection of tokens, copied.
    pub fn select(&self, tokens: &[usize]) -> Activations<'static> {
        fn rows<T: Copy>(from: &[T], width: usize, tokens: &[usize]) -> Vec<T> {
            if from.is_empty() {
                return Vec::new();
            }
            let mut rows = Vec::with_capacity(tokens.len() * width);
            tokens.iter().for_each(|&t| rows.extend_from_slice(&from[t * width..][..width]));
            rows
        }
        Activations {
            values: Cow::Owned(rows(&self.values, self.width, tokens)),
            width: self.width,
            codes: rows(&self.codes, self.width, tokens).into(),
            scales: rows(&self.scales, self.width / GROUP, tokens).into(),
            sums: rows(&self.sums, self.width / GROUP, tokens).into(),
            blocks: OnceLock::new(),
            halves: OnceLock::new(),
        }
    }

    /// The inputs of a range of tokens.
    pub fn view(&self, tokens: Range<usize>) -> Activations<'_> {
        fn rows<'a, T: Copy>(from: &'a [T], width: usize, tokens: &Range<usize>) -> Cow<'a, [T]> {
            let range = tokens.start * width..tokens.end * width;
            if from.is_empty() { Cow::Borrowed(from) } else { Cow::Borrowed(&from[range]) }
        }
        Activations {
            values: rows(&self.values, self.width, &tokens),
            width: self.width,
            codes: rows(&self.codes, self.width, &tokens),
            scales: rows(&self.scales, self.width / GROUP, &tokens),
            sums: rows(&self.sums, self.width / GROUP, &tokens),
            blocks: OnceLock::new(),
            halves: OnceLock::new(),
        }
    }

    /// [`Blocks::halves`] for each token by itself.
    pub(super) fn halves(&self) -> &[Halves<1>] {
        let codes = self.codes.as_chunks::<4>().0.as_chunks::<8>().0.as_chunks::<1>().0;
        self.halves.get_or_init(|| halves(codes, self.scales.as_chunks::<1>().0))
    }

    /// The inputs in blocks of tokens, computed on first use.
    pub(super) fn blocks(&self) -> &Blocks {
        self.blocks.get_or_init(|| {
            let groups = self.width / GROUP;
            let len = self.tokens().div_ceil(BLOCK) * groups;
            let mut blocks = Blocks {
                codes: vec![[[[0; 4]; 8]; BLOCK]; len],
                scales: vec![[0.0; BLOCK]; len],
                sums: vec![[0; BLOCK]; len],
                starts: vec![[0; BLOCK]; len],
                halves: OnceLock::new(),
            };
            let codes = self.codes.as_chunks::<4>().0.as_chunks::<8>().0;
            let tokens = codes.chunks_exact(groups).zip(self.scales.chunks_exact(groups));
            for (t, ((codes, scales), sums)) in
                tokens.zip(self.sums.chunks_exact(groups)).enumerate()
            {
                let (at, t) = (t / BLOCK * groups, t % BLOCK);
                for group in 0..groups {
                    blocks.codes[at + group][t] = codes[group];
                    blocks.scales[at + group][t] = scales[group];
                    blocks.sums[at + group][t] = sums[group];
                    blocks.starts[at + group][t] = -BIAS * sums[group];
                }
            }
            blocks
        })
    }
}

/// `scale = max |x| / 127`, `code = round(x / scale)`, per group of 32. The scale of a group in
/// which a value is NaN or infinite is NaN, so that all products with it are.
struct Quantize<'a> {
    values: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

/// Maximum magnitude below which a group is quantized as zero: the reciprocal would overflow.
const TINY: f32 = 1e-30;

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let groups = self.values.as_chunks::<GROUP>().0.iter();
        let codes = self.codes.as_chunks_mut::<GROUP>().0.iter_mut();
        let outputs = codes.zip(self.scales).zip(self.sums);
        for (values, ((codes, scale), sum)) in groups.zip(outputs) {
            let lanes = values.as_chunks::<8>().0;
            let (mut largest, mut zero) = (isa.splat(0.0), isa.splat(0.0));
            for lane in lanes {
                let x = isa.load(lane);
                largest = isa.max(largest, isa.abs(x));
                zero = isa.fma(x, isa.splat(0.0), zero);
            }
            let largest = isa.max_lane(largest);
            if isa.sum(zero).is_nan() {
                (*scale, *sum) = (f32::NAN, 0);
                codes.fill(0);
                continue;
            }
            if largest < TINY {
                (*scale, *sum) = (0.0, 0);
                codes.fill(0);
                continue;
            }
            *scale = largest / 127.0;
            let inverse = isa.splat(127.0 / largest);
            let mut total = isa.splat(0.0); // of integers below 2^24, so exact
            for (lane, codes) in lanes.iter().zip(codes.as_chunks_mut::<8>().0) {
                let rounded = isa.round(isa.mul(isa.load(lane), inverse));
                isa.store_i8(rounded, codes);
                total = isa.add(total, isa.to_f32(rounded));
            }
            *sum = isa.sum(total) as i32;
        }
    }
}
