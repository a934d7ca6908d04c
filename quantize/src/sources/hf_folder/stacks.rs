//! Experts that a checkpoint keeps in two tensors of a layer, `gate_up_proj` and `down_proj`:
//! gpt-oss's, and those of transformers 5, in which Qwen3.5 and 3.6 are published.

use safetensors::Dtype;
use vaquita_runtime::blocks::{BlockType, GROUP};
use vaquita_runtime::bytes::Bytes;
use vaquita_runtime::checkpoint::{Expert, ExpertId, ExpertSpec, WeightsError};

use super::super::quantized::{self, Quantized, check_shape, shape_error, type_error};
use super::super::rearrange;
use super::super::shards::Stored;
use super::{HfFolder, block_type};

const PLAIN: &str = "F32, F16, BF16 and F8_E4M3, for experts of a layer in one tensor";

/// All experts of a layer in one tensor.
enum Stack<'a> {
    /// Floating-point weights, inputs before outputs.
    Plain(Stored<'a>, BlockType),
    /// Codes and scales, outputs before inputs.
    Mxfp4 { blocks: Stored<'a>, scales: Stored<'a> },
}

/// Names of the stacks below a prefix, with the outputs and inputs of one expert in each.
fn stacks(prefix: &str, spec: &ExpertSpec) -> [(String, [usize; 2]); 2] {
    let [gate_up, down] = stack_shapes(spec);
    [(format!("{prefix}.gate_up_proj"), gate_up), (format!("{prefix}.down_proj"), down)]
}

/// Outputs and inputs of one expert in the stacks of gates and ups, and of downs.
fn stack_shapes(spec: &ExpertSpec) -> [[usize; 2]; 2] {
    let (width, hidden) = (spec.intermediate_size, spec.hidden_size);
    [[2 * width, hidden], [hidden, width]]
}

/// gpt-oss: inputs before outputs, and outputs of gate and up alternate.
impl HfFolder {
    /// Names of the tensors of a layer's experts, after a check.
    pub(super) fn names_of_stacks(
        &self,
        prefix: &str,
        spec: &ExpertSpec,
    ) -> Result<Vec<String>, WeightsError> {
        let mut names = Vec::new();
        for (name, shape) in stacks(prefix, spec) {
            match self.stack(&name, shape)? {
                Stack::Plain(..) => names.push(name),
                Stack::Mxfp4 { .. } => {
                    names.extend(["blocks", "scales"].map(|part| format!("{name}_{part}")));
                }
            }
        }
        Ok(names)
    }

    /// The stacked experts of a layer, each with `outputs` and `inputs`.
    fn stack(&self, name: &str, [outputs, inputs]: [usize; 2]) -> Result<Stack<'_>, WeightsError> {
        let experts = self.config.moe.n_routed_experts;
        let blocks_name = format!("{name}_blocks");
        let Some(blocks) = self.shards.get(&blocks_name) else {
            let stored = self.shards.get(name).ok_or_else(|| self.missing(name))?;
            check_shape(&stored, name, &[experts, inputs, outputs])?;
            return match block_type(stored.dtype) {
                Some(ty) => Ok(Stack::Plain(stored, ty)),
                None => Err(type_error(&stored, name, PLAIN)),
            };
        };
        let scales_name = format!("{name}_scales");
        let scales = self.shards.get(&scales_name).ok_or_else(|| self.missing(&scales_name))?;
        let groups = inputs / GROUP;
        if !inputs.is_multiple_of(GROUP) {
            return Err(shape_error(&blocks, &blocks_name, &[experts, outputs, inputs]));
        }
        check_shape(&blocks, &blocks_name, &[experts, outputs, groups, GROUP / 2])?;
        check_shape(&scales, &scales_name, &[experts, outputs, groups])?;
        for (stored, name) in [(&blocks, &blocks_name), (&scales, &scales_name)] {
            if stored.dtype != Dtype::U8 {
                return Err(type_error(stored, name, "U8"));
            }
        }
        Ok(Stack::Mxfp4 { blocks, scales })
    }

    /// One expert of a stack, as rows of outputs by inputs.
    fn of_stack(
        &self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        expert: ExpertId,
    ) -> Result<(BlockType, Vec<u8>), WeightsError> {
        // Derived bytes are a copy, so that the mapped pages can be released.
        let part = |stored: &Stored, copy: &dyn Fn(&[u8]) -> Vec<u8>| {
            let len = stored.bytes.len() / self.config.moe.n_routed_experts;
            let part = stored.bytes.slice(expert.0 * len..(expert.0 + 1) * len);
            let part = part.unwrap_or_else(|| Vec::new().into());
            let copied = copy(&part);
            part.release();
            copied
        };
        Ok(match self.stack(name, [outputs, inputs])? {
            Stack::Plain(stored, ty) => {
                let copy = |bytes: &[u8]| {
                    let width = bytes.len() / (outputs * inputs);
                    rearrange::transposed(bytes, [inputs, outputs], width)
                };
                (ty, part(&stored, &copy))
            }
            Stack::Mxfp4 { blocks, scales } => {
                let scales = part(&scales, &|bytes| bytes.to_vec());
                (BlockType::Mxfp4, part(&blocks, &|bytes| rearrange::mxfp4(bytes, &scales)))
            }
        })
    }

    pub(super) fn stacked_expert(
        &self,
        prefix: &str,
        spec: &ExpertSpec,
    ) -> Result<Expert, WeightsError> {
        let [(gate_up, gate_up_shape), (down, down_shape)] = stacks(prefix, spec);
        let (ty, rows) = self.of_stack(&gate_up, gate_up_shape, spec.expert)?;
        let row_bytes = rows.len() / gate_up_shape[0];
        let half = |first: usize| {
            let rows = rearrange::every_second(&rows, first, row_bytes);
            self.matrix(&gate_up, ty, [spec.intermediate_size, spec.hidden_size], rows.into())
        };
        let (gate, up) = (half(0)?, half(1)?);
        let (ty, rows) = self.of_stack(&down, down_shape, spec.expert)?;
        Ok(Expert { gate, up, down: self.matrix(&down, ty, down_shape, rows.into())? })
    }
}

/// One expert's rows of a tensor of all.
enum Part<'a> {
    /// Floating-point weights.
    Plain(BlockType, Bytes),
    /// e4m3 numbers with scales.
    Quantized(Box<Quantized<'a>>),
}

impl Part<'_> {
    fn read(self) -> (BlockType, Bytes) {
        match self {
            Self::Plain(ty, rows) => (ty, rows),
            Self::Quantized(found) => {
                let (ty, rows) = found.read(false);
                (ty, rows.into())
            }
        }
    }
}

/// transformers 5: outputs before inputs, those of gate before those of up.
impl HfFolder {
    /// Names of the tensors of a layer's experts, if the checkpoint has them in this form instead
    /// of the tensors with these names.
    pub(super) fn joined_instead(
        &self,
        names: &[String; 3],
        expert: ExpertId,
    ) -> Option<[String; 2]> {
        let (prefix, _) = names[0].rsplit_once(&format!(".{}.", expert.0))?;
        let joined = ["gate_up_proj", "down_proj"].map(|name| format!("{prefix}.{name}"));
        let stored = self.shards.get(&joined[0]).is_some();
        (stored && !quantized::is_stored(&self.shards, &names[0])).then_some(joined)
    }

    /// The names, after a check of their tensors.
    pub(super) fn checked_joined(
        &self,
        names: &[String; 2],
        spec: &ExpertSpec,
    ) -> Result<Vec<String>, WeightsError> {
        let mut used = Vec::new();
        for (name, shape) in names.iter().zip(stack_shapes(spec)) {
            used.extend(match self.joined(name, shape, spec.expert)? {
                Part::Plain(..) => vec![name.clone()],
                Part::Quantized(found) => found.names,
            });
        }
        Ok(used)
    }

    /// An expert's rows of a tensor.
    fn joined(
        &self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        expert: ExpertId,
    ) -> Result<Part<'_>, WeightsError> {
        let stored = self.shards.get(name).ok_or_else(|| self.missing(name))?;
        let experts = self.config.moe.n_routed_experts;
        check_shape(&stored, name, &[experts, outputs, inputs])?;
        if stored.dtype == Dtype::F8_E4M3 {
            let (shards, shape) = (&self.shards, [outputs, inputs]);
            let found = quantized::of_stack(shards, &self.method, stored, name, expert.0, shape)?;
            return Ok(Part::Quantized(Box::new(found)));
        }
        let ty = block_type(stored.dtype).ok_or_else(|| type_error(&stored, name, PLAIN))?;
        let len = stored.bytes.len() / experts;
        let rows = stored.bytes.slice(expert.0 * len..(expert.0 + 1) * len);
        Ok(Part::Plain(ty, rows.ok_or_else(|| self.missing(name))?))
    }

    /// Reads an expert: as views of the mapped file, or codes as the weights that they stand for.
    pub(super) fn joined_expert(
        &self,
        [gate_up, down]: &[String; 2],
        spec: &ExpertSpec,
    ) -> Result<Expert, WeightsError> {
        let [gate_up_shape, down_shape] = stack_shapes(spec);
        let (ty, rows) = self.joined(gate_up, gate_up_shape, spec.expert)?.read();
        let middle = rows.len() / 2;
        let half = |range| {
            let rows = rows.slice(range).ok_or_else(|| self.missing(gate_up))?;
            self.matrix(gate_up, ty, [spec.intermediate_size, spec.hidden_size], rows)
        };
        let (gate, up) = (half(0..middle)?, half(middle..rows.len())?);
        let (ty, rows) = self.joined(down, down_shape, spec.expert)?.read();
        Ok(Expert { gate, up, down: self.matrix(down, ty, down_shape, rows)? })
    }
}
