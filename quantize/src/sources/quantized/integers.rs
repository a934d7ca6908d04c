//! Integers of 4 or 8 bits, several in a word of 32, with a scale and often a zero point per group
//! of inputs: compressed-tensors, GPTQ and AWQ.

use safetensors::Dtype;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::WeightsError;

use super::super::shards::Stored;
use super::method::Kind;
use super::scales::{encoded, rounding, to_f32};
use super::{Finder, check_shape, shape_error, type_error};

/// Place in a word of AWQ's output number 0 to 7.
const AWQ_ORDER: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A matrix of packed integers.
pub(in super::super) struct Integers<'a> {
    layout: Layout,
    bits: usize,
    codes: Stored<'a>,
    zeros: Option<Stored<'a>>,
    /// Scales, by group and row as the layout has them.
    scales: Vec<f32>,
    rounds_to: BlockType,
    groups: usize,
    /// The group of each input.
    group_of: Vec<usize>,
}

/// Order of codes, zero points and scales.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Words along inputs, one row per output. Codes are offset by half of their range; zero points
    /// are packed along outputs.
    Compressed,
    /// Words along inputs, one row per word. Zero points are less by the number here.
    Gptq(i32),
    /// Words along outputs, in [`AWQ_ORDER`], one row per input.
    Awq,
}

impl<'a> Integers<'a> {
    /// `weight_packed` of compressed-tensors.
    pub(super) fn compressed(
        finder: &mut Finder<'a>,
        codes: Stored<'a>,
        base: &str,
        [rows, cols]: [usize; 2],
    ) -> Result<Self, WeightsError> {
        let name = format!("{base}.weight_packed");
        let across = codes.shape.last().copied().unwrap_or(0);
        let bits =
            bits_of(across, cols).ok_or_else(|| shape_error(&codes, &name, &[rows, cols / 8]))?;
        check_shape(&codes, &name, &[rows, across])?;
        // The shape that the configuration leads to is what counts.
        finder.optional(format!("{base}.weight_shape"));
        let scale_name = format!("{base}.weight_scale");
        let scales = finder.required(scale_name.clone())?;
        let groups = match *scales.shape {
            [found, groups] if found == rows => groups,
            [found] if found == rows => 1,
            _ => return Err(shape_error(&scales, &scale_name, &[rows, cols / 32])),
        };
        let order = finder.optional(format!("{base}.weight_g_idx"));
        let group_of = groups_of(order, groups, cols, &scales, &scale_name)?;
        let zero_name = format!("{base}.weight_zero_point");
        let zeros = finder.optional(zero_name.clone());
        if let Some(zeros) = &zeros {
            check_words(zeros, &zero_name, &[(rows * bits).div_ceil(32), groups])?;
        }
        let (layout, rounds_to) = (Layout::Compressed, rounding(scales.dtype));
        let scales = to_f32(&scales, &scale_name)?;
        Ok(Self { layout, bits, codes, zeros, scales, rounds_to, groups, group_of })
    }

    /// `qweight` of GPTQ or AWQ.
    pub(super) fn qweight(
        finder: &mut Finder<'a>,
        codes: Stored<'a>,
        base: &str,
        [rows, cols]: [usize; 2],
    ) -> Result<Self, WeightsError> {
        let name = format!("{base}.qweight");
        let (layout, bits) = match finder.method.kind {
            Kind::Awq => (Layout::Awq, 4),
            Kind::Gptq { zero_offset } => {
                let words = codes.shape.first().copied().unwrap_or(0);
                let bits = bits_of(words, cols);
                let wrong = || shape_error(&codes, &name, &[cols / 8, rows]);
                (Layout::Gptq(zero_offset), bits.ok_or_else(wrong)?)
            }
            _ => {
                return Err(type_error(
                    &codes,
                    &name,
                    "a method of GPTQ or AWQ in quantization_config",
                ));
            }
        };
        let per_word = 32 / bits;
        if !rows.is_multiple_of(per_word) {
            return Err(shape_error(&codes, &name, &[cols, rows / per_word]));
        }
        match layout {
            Layout::Awq => check_words(&codes, &name, &[cols, rows / per_word])?,
            _ => check_words(&codes, &name, &[cols / per_word, rows])?,
        }
        let scale_name = format!("{base}.scales");
        let scales = finder.required(scale_name.clone())?;
        let [groups, _] = *scales.shape else {
            return Err(shape_error(&scales, &scale_name, &[cols / 128, rows]));
        };
        check_shape(&scales, &scale_name, &[groups, rows])?;
        let order = finder.optional(format!("{base}.g_idx"));
        let group_of = groups_of(order, groups, cols, &scales, &scale_name)?;
        let zero_name = format!("{base}.qzeros");
        let zeros = finder.required(zero_name.clone())?;
        check_words(&zeros, &zero_name, &[groups, rows / per_word])?;
        let rounds_to = rounding(scales.dtype);
        let scales = to_f32(&scales, &scale_name)?;
        Ok(Self { layout, bits, codes, zeros: Some(zeros), scales, rounds_to, groups, group_of })
    }

    /// The weights: `(code - zero) * scale`, rounded to the type of the scales.
    pub(super) fn read(&self, [rows, cols]: [usize; 2]) -> (BlockType, Vec<u8>) {
        let mut weights = Vec::with_capacity(rows * cols);
        for row in 0..rows {
            for col in 0..cols {
                let group = self.group_of[col];
                let scale = match self.layout {
                    Layout::Compressed => self.scales[row * self.groups + group],
                    _ => self.scales[group * rows + row],
                };
                let difference = self.code(row, col, rows, cols) - self.zero(row, group, rows);
                weights.push(difference as f32 * scale);
            }
        }
        self.codes.bytes.release();
        encoded(&weights, self.rounds_to)
    }

    fn code(&self, row: usize, col: usize, rows: usize, cols: usize) -> i32 {
        let per_word = 32 / self.bits;
        let (word, place) = match self.layout {
            Layout::Compressed => (row * cols.div_ceil(per_word) + col / per_word, col % per_word),
            Layout::Gptq(_) => (col / per_word * rows + row, col % per_word),
            Layout::Awq => (col * (rows / per_word) + row / per_word, AWQ_ORDER[row % per_word]),
        };
        self.extract(&self.codes, word, place)
    }

    fn zero(&self, row: usize, group: usize, rows: usize) -> i32 {
        let per_word = 32 / self.bits;
        let Some(zeros) = &self.zeros else { return 1 << (self.bits - 1) };
        match self.layout {
            // Both are offset by half of the range, which the difference takes out.
            Layout::Compressed => {
                self.extract(zeros, row / per_word * self.groups + group, row % per_word)
            }
            Layout::Gptq(offset) => {
                let word = group * (rows / per_word) + row / per_word;
                self.extract(zeros, word, row % per_word) + offset
            }
            Layout::Awq => {
                let word = group * (rows / per_word) + row / per_word;
                self.extract(zeros, word, AWQ_ORDER[row % per_word])
            }
        }
    }

    /// Code number `place` of a word. Shapes were checked, so that every word exists.
    fn extract(&self, words: &Stored, word: usize, place: usize) -> i32 {
        let word = u32::from_le_bytes(words.bytes.as_chunks::<4>().0[word]);
        (word >> (self.bits * place) & ((1 << self.bits) - 1)) as i32
    }
}

/// Bits of codes of which `codes` fill `words`; 4 or 8.
fn bits_of(words: usize, codes: usize) -> Option<usize> {
    [4, 8].into_iter().find(|bits| words > 0 && codes.div_ceil(32 / bits) == words)
}

fn check_words(stored: &Stored, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
    if stored.dtype != Dtype::I32 {
        return Err(type_error(stored, name, "I32, several codes in each"));
    }
    check_shape(stored, name, shape)
}

/// The group of each input: stated, or groups of equal length in order.
fn groups_of(
    stated: Option<Stored>,
    groups: usize,
    cols: usize,
    scales: &Stored,
    name: &str,
) -> Result<Vec<usize>, WeightsError> {
    if groups == 0 || !cols.is_multiple_of(groups) {
        return Err(shape_error(scales, name, &[cols / 32]));
    }
    let Some(stated) = stated else {
        return Ok((0..cols).map(|col| col / (cols / groups)).collect());
    };
    check_words(&stated, "the group index (g_idx)", &[cols])?;
    let words = stated.bytes.as_chunks::<4>().0.iter();
    let found: Vec<usize> = words.map(|bytes| u32::from_le_bytes(*bytes) as usize).collect();
    match found.iter().all(|group| *group < groups) {
        true => Ok(found),
        false => Err(shape_error(&stated, "the groups of g_idx", &[groups])),
    }
}
