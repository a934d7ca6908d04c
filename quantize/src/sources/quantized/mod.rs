//! Matrices as methods of quantization store them: codes, with scales in tensors beside them.
//!
//! | method | codes | scales |
//! |---|---|---|
//! | DeepSeek's FP8 | `weight` | `weight_scale_inv`, per block |
//! | its stacked experts | `gate_up_proj` | `gate_up_proj_scale_inv`, per expert and block |
//! | compressed-tensors, 8 bits | `weight` | `weight_scale`, per row, block or tensor |
//! | compressed-tensors, integers | `weight_packed` of I32 | `weight_scale`, `weight_zero_point`, `weight_g_idx` |
//! | compressed-tensors, FP4 | `weight_packed` of U8 | `weight_scale`, and `weight_global_scale` of NVFP4 |
//! | ModelOpt | `weight` | `weight_scale`, and `weight_scale_2` of NVFP4 |
//! | GPTQ, AWQ | `qweight` | `scales`, `qzeros`, `g_idx` |
//! | MXFP4 of DeepSeek-V4 | `weight` | `scale`, an exponent per 32 weights |
//!
//! Shapes say which form a matrix has, so that mixtures work; all of them are checked. Weights are
//! computed as the methods' own packages do, including the type that they round to.

mod integers;
mod method;
mod scales;
#[cfg(test)]
mod tests;

use half::bf16;
use safetensors::Dtype;
use vaquita_runtime::blocks::{BlockType, GROUP};
use vaquita_runtime::checkpoint::WeightsError;

use super::shards::{Shards, Stored};
use super::{fp8, rearrange};
use integers::Integers;
pub(super) use method::Method;
use scales::{Grid, encoded};

/// Weights per scale of NVFP4.
const NVFP4_GROUP: usize = 16;
/// Values of e2m1 codes without their sign.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// A quantized matrix.
pub(super) struct Quantized<'a> {
    form: Form<'a>,
    shape: [usize; 2],
    /// Names of the tensors that it consists of.
    pub names: Vec<String>,
}

enum Form<'a> {
    /// e4m3 numbers or integers of 8 bits.
    Bytes { codes: Stored<'a>, scales: Grid },
    /// Packed integers.
    Integers(Integers<'a>),
    /// e2m1 numbers with e4m3 scales relative to one of the tensor.
    Nvfp4 { codes: Stored<'a>, scales: Vec<f32> },
    /// e2m1 numbers with exponents.
    Mxfp4 { codes: Stored<'a>, exponents: Stored<'a> },
}

/// Finds the tensors of one matrix and checks them.
struct Finder<'a> {
    shards: &'a Shards,
    method: &'a Method,
    folder: &'a std::path::Path,
    names: Vec<String>,
}

/// Whether a checkpoint has a matrix under any form's name of its codes.
pub(super) fn is_stored(shards: &Shards, name: &str) -> bool {
    let base = name.strip_suffix(".weight");
    let packed =
        |suffix: &str| base.is_some_and(|base| shards.get(&format!("{base}.{suffix}")).is_some());
    shards.get(name).is_some() || packed("weight_packed") || packed("qweight")
}

/// Whether a tensor belongs to the quantization of activations or of the cache, which is not used.
pub(super) fn is_of_activations(name: &str) -> bool {
    let suffixes = ["input_scale", "input_global_scale", "output_scale", "k_scale", "v_scale"];
    let is_one = |last: &str| suffixes.contains(&last) || last.ends_with("activation_scale");
    name.rsplit('.').next().is_some_and(is_one)
}

/// The quantized matrix `name`; `None` if it is not quantized, or not there.
pub(super) fn find<'a>(
    shards: &'a Shards,
    method: &'a Method,
    folder: &'a std::path::Path,
    name: &str,
    shape: [usize; 2],
) -> Result<Option<Quantized<'a>>, WeightsError> {
    let Some(base) = name.strip_suffix(".weight") else { return Ok(None) };
    let mut finder = Finder { shards, method, folder, names: Vec::new() };
    let form = finder.form(name, base, shape)?;
    Ok(form.map(|form| Quantized { form, shape, names: finder.names }))
}

/// Name of the scales of stacked experts in FP8, as transformers keeps them.
pub(super) fn scales_of_stack(name: &str) -> String {
    format!("{name}_scale_inv")
}

/// Expert number `expert` of a stack of FP8 matrices, which has scales for each block of each.
pub(super) fn of_stack<'a>(
    shards: &'a Shards,
    method: &Method,
    stack: Stored<'a>,
    name: &str,
    expert: usize,
    shape: [usize; 2],
) -> Result<Quantized<'a>, WeightsError> {
    let experts = stack.shape.first().copied().unwrap_or(1);
    let part = |all: Stored<'a>| {
        let len = all.bytes.len() / experts;
        let bytes = all.bytes.slice(expert * len..(expert + 1) * len);
        let bytes = bytes.unwrap_or_else(|| Vec::new().into());
        Stored { shape: all.shape.get(1..).unwrap_or_default(), bytes, ..all }
    };
    let scale_name = scales_of_stack(name);
    let missing = || WeightsError::Missing { path: stack.path.into(), name: scale_name.clone() };
    let scales = shards.get(&scale_name).ok_or_else(missing)?;
    if scales.shape.first() != Some(&experts) {
        let [down, across] = fp8::blocks(shape, method.block);
        return Err(shape_error(&scales, &scale_name, &[experts, down, across]));
    }
    let scales = Grid::new(&part(scales), &scale_name, shape, method.block, false)?;
    let form = Form::Bytes { codes: part(stack), scales };
    Ok(Quantized { form, shape, names: vec![name.into(), scale_name] })
}

impl<'a> Finder<'a> {
    fn optional(&mut self, name: String) -> Option<Stored<'a>> {
        let stored = self.shards.get(&name)?;
        self.names.push(name);
        Some(stored)
    }

    fn required(&mut self, name: String) -> Result<Stored<'a>, WeightsError> {
        let missing = WeightsError::Missing { path: self.folder.into(), name: name.clone() };
        self.optional(name).ok_or(missing)
    }

    fn form(
        &mut self,
        name: &str,
        base: &str,
        shape: [usize; 2],
    ) -> Result<Option<Form<'a>>, WeightsError> {
        let packed = format!("{base}.weight_packed");
        if let Some(codes) = self.optional(packed.clone()) {
            return match codes.dtype {
                Dtype::I32 => Integers::compressed(self, codes, base, shape).map(Form::Integers),
                _ => self.fp4(codes, &packed, base, shape),
            }
            .map(Some);
        }
        if let Some(codes) = self.optional(format!("{base}.qweight")) {
            return Integers::qweight(self, codes, base, shape).map(Form::Integers).map(Some);
        }
        let Some(codes) = self.shards.get(name) else { return Ok(None) };
        let form = match codes.dtype {
            Dtype::F8_E4M3 => self.bytes(codes, name, base, shape)?,
            Dtype::I8 if codes.shape == shape => self.bytes(codes, name, base, shape)?,
            Dtype::U8 | Dtype::I8 | Dtype::F4 => self.fp4(codes, name, base, shape)?,
            _ => return Ok(None),
        };
        self.names.push(name.into());
        Ok(Some(form))
    }

    fn bytes(
        &mut self,
        codes: Stored<'a>,
        name: &str,
        base: &str,
        shape: [usize; 2],
    ) -> Result<Form<'a>, WeightsError> {
        check_shape(&codes, name, &shape)?;
        let names =
            [format!("{name}_scale_inv"), format!("{base}.weight_scale"), format!("{base}.scale")];
        let scale_name = names.iter().find(|name| self.shards.get(name).is_some());
        let scale_name = scale_name.unwrap_or(&names[0]).clone();
        let stored = self.required(scale_name.clone())?;
        // DeepSeek's scales are of any type and leave the weights in single precision; elsewhere the
        // type of the scales is that of the weights.
        let ours = scale_name.ends_with("weight_scale");
        let scales = Grid::new(&stored, &scale_name, shape, self.method.block, ours)?;
        Ok(Form::Bytes { codes, scales })
    }

    fn fp4(
        &mut self,
        codes: Stored<'a>,
        name: &str,
        base: &str,
        [rows, cols]: [usize; 2],
    ) -> Result<Form<'a>, WeightsError> {
        if !matches!(codes.dtype, Dtype::U8 | Dtype::I8 | Dtype::F4) {
            return Err(type_error(&codes, name, "U8, two FP4 numbers in each"));
        }
        // The type F4 counts numbers, the others bytes.
        let across = if codes.dtype == Dtype::F4 { cols } else { cols / 2 };
        check_shape(&codes, name, &[rows, across])?;
        let scale_name = [format!("{base}.weight_scale"), format!("{base}.scale")];
        let [usual, short] = scale_name;
        let scale_name = if self.shards.get(&usual).is_some() { usual } else { short };
        let stored = self.required(scale_name.clone())?;
        if matches!(stored.dtype, Dtype::U8 | Dtype::F8_E8M0) {
            if !cols.is_multiple_of(GROUP) {
                return Err(shape_error(&codes, name, &[rows, cols]));
            }
            check_shape(&stored, &scale_name, &[rows, cols / GROUP])?;
            return Ok(Form::Mxfp4 { codes, exponents: stored });
        }
        if stored.dtype != Dtype::F8_E4M3 || !cols.is_multiple_of(NVFP4_GROUP) {
            return Err(type_error(
                &stored,
                &scale_name,
                "F8_E4M3 per 16 weights, or exponents per 32",
            ));
        }
        check_shape(&stored, &scale_name, &[rows, cols / NVFP4_GROUP])?;
        // compressed-tensors divides by the scale of the tensor, ModelOpt multiplies by it.
        let (global_name, divides) = match name.ends_with("weight_packed") {
            true => (format!("{base}.weight_global_scale"), true),
            false => (format!("{base}.weight_scale_2"), false),
        };
        let global = self.required(global_name.clone())?;
        check_shape(&global, &global_name, &[])?;
        let global = scales::to_f32(&global, &global_name)?;
        let [global] = global[..] else { return Err(shape_error(&codes, name, &[1])) };
        let scales = scales::to_f32(&stored, &scale_name)?;
        let relative = |scale: f32| if divides { scale / global } else { scale * global };
        Ok(Form::Nvfp4 { codes, scales: scales.into_iter().map(relative).collect() })
    }
}

impl Quantized<'_> {
    /// The weights, in the type that the method computes them in. Where `keep_blocks` is set and a
    /// block type holds the codes as they are, they are moved and not decoded.
    pub fn read(&self, keep_blocks: bool) -> (BlockType, Vec<u8>) {
        match &self.form {
            Form::Bytes { codes, scales } => {
                let weights = match codes.dtype {
                    Dtype::I8 => {
                        scales.times(&codes.bytes, self.shape, |byte| f32::from(byte as i8))
                    }
                    _ => scales.times(&codes.bytes, self.shape, fp8::value),
                };
                codes.bytes.release();
                encoded(&weights, scales.rounds_to)
            }
            Form::Integers(integers) => integers.read(self.shape),
            Form::Nvfp4 { codes, scales } => {
                let groups = codes.bytes.chunks_exact(NVFP4_GROUP / 2).zip(scales);
                let weights = groups.flat_map(|(codes, scale)| {
                    e2m1(codes).map(move |value| bf16::from_f32(value * scale).to_le_bytes())
                });
                let weights = weights.flatten().collect();
                codes.bytes.release();
                (BlockType::BF16, weights)
            }
            Form::Mxfp4 { codes, exponents } if keep_blocks => {
                let blocks = rearrange::mxfp4(&codes.bytes, &exponents.bytes);
                codes.bytes.release();
                (BlockType::Mxfp4, blocks)
            }
            Form::Mxfp4 { codes, exponents } => {
                let groups = codes.bytes.chunks_exact(GROUP / 2).zip(exponents.bytes.iter());
                let weights = groups.flat_map(|(codes, exponent)| {
                    let scale = fp8::exponent(*exponent);
                    e2m1(codes).map(move |value| (value * scale).to_le_bytes())
                });
                let weights = weights.flatten().collect();
                codes.bytes.release();
                (BlockType::F32, weights)
            }
        }
    }
}

/// The numbers of a run of bytes, two in each, the lower half first.
fn e2m1(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let value = |code: u8| {
        let magnitude = E2M1[usize::from(code & 7)];
        if code & 8 == 0 { magnitude } else { -magnitude }
    };
    bytes.iter().flat_map(move |byte| [value(byte & 15), value(byte >> 4)])
}

/// Checks a shape. Extents of 1 do not count: vectors have one dimension where a matrix of one row
/// has two, convolutions have an extra middle dimension, and single numbers have one or none.
pub(super) fn check_shape(
    stored: &Stored,
    name: &str,
    expected: &[usize],
) -> Result<(), WeightsError> {
    let wide = |dims: &[usize]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    if wide(stored.shape) == wide(expected) {
        return Ok(());
    }
    Err(shape_error(stored, name, expected))
}

pub(super) fn shape_error(stored: &Stored, name: &str, expected: &[usize]) -> WeightsError {
    WeightsError::Shape {
        path: stored.path.to_path_buf(),
        name: name.into(),
        found: stored.shape.to_vec(),
        expected: expected.to_vec(),
    }
}

pub(super) fn type_error(stored: &Stored, name: &str, allowed: &str) -> WeightsError {
    WeightsError::Type {
        path: stored.path.to_path_buf(),
        name: name.into(),
        found: stored.dtype.to_string(),
        allowed: allowed.into(),
    }
}
