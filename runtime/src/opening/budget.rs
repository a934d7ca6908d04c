//! Memory of the whole process: the user's budget, the model's footprint, and the rest, which is
//! left for experts.

use std::fmt;
use std::ops::Range;

use super::memory_info::MemoryInfo;
use crate::checkpoint::config::{AttentionConfig, HeadShape, LayerType, Recurrence};
use crate::checkpoint::{Config, GgufWeights, Weights, WeightsError};
use crate::experts::ExpertIndex;
use crate::host::Host;
use crate::model::cache::{CacheType, layer_bytes};
use crate::model::moe::SLOTS_AT_ONCE;
use crate::session::draft::MOST_DRAFTS;

/// Percentage of the available memory that `auto` takes; other programs need room to grow.
const AUTO_PERCENT: u64 = 90;
/// Stacks, allocator slack and other small state of a process that computes.
const FIXED_BYTES: u64 = 16 << 20;

/// The user's memory budget for the whole process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryBudget {
    /// A number of bytes.
    Bytes(u64),
    /// A percentage of the machine's memory, or of the cgroup's limit if that is lower.
    Percent(f64),
    /// Most of the memory that is available now.
    Auto,
}

/// Error of parsing or resolving a memory budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetTextError {
    /// The text is not a budget.
    #[error("{found:?} is not a memory budget; write it like 2GiB, 800M, 60% or auto")]
    Text {
        /// The text.
        found: String,
    },
    /// The system does not report its memory.
    #[error("this system does not say how much memory it has; give the budget in bytes, like 2GiB")]
    Unknown,
}

impl MemoryBudget {
    /// Parses `2GiB`, `2G` (the same), `1.5GB` (powers of ten), `60%`, `auto`, or a number of
    /// bytes.
    pub fn parse(text: &str) -> Result<Self, BudgetTextError> {
        let error = || BudgetTextError::Text { found: text.into() };
        let text = text.trim();
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| error())?;
        let unit = unit.trim().to_ascii_lowercase();
        if unit == "%" {
            let fits = number > 0.0 && number <= 100.0;
            return if fits { Ok(Self::Percent(number)) } else { Err(error()) };
        }
        let factor = match unit.as_str() {
            "" | "b" => 1.0,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024.0 * 1024.0,
            "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            _ => return Err(error()),
        };
        let bytes = number * factor;
        if bytes >= 1.0 && bytes < (1u64 << 53) as f64 {
            Ok(Self::Bytes(bytes as u64))
        } else {
            Err(error())
        }
    }

    /// The budget in bytes on this machine.
    pub fn resolve(self) -> Result<u64, BudgetTextError> {
        self.resolve_on(MemoryInfo::read(&Host::live()))
    }

    /// The budget in bytes on a machine with this memory.
    pub fn resolve_on(self, machine: Option<MemoryInfo>) -> Result<u64, BudgetTextError> {
        match (self, machine) {
            (Self::Bytes(bytes), _) => Ok(bytes),
            (_, None) => Err(BudgetTextError::Unknown),
            (Self::Percent(percent), Some(machine)) => {
                Ok((machine.total as f64 * percent / 100.0) as u64)
            }
            (Self::Auto, Some(machine)) => {
                let most = machine.process.saturating_add(machine.available / 100 * AUTO_PERCENT);
                // Pages of the program may be counted elsewhere, so the sum can exceed a limit.
                Ok(most.min(machine.total / 100 * AUTO_PERCENT))
            }
        }
    }
}

/// Workload parameters that determine memory use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Capacity of a sequence's KV cache, in tokens; 0 means the model's maximum.
    pub context: usize,
    /// Tokens of a prompt that are computed together.
    pub prefill_chunk: usize,
    /// Element type of the KV cache.
    pub cache: CacheType,
    /// Number of concurrent sequences.
    pub sessions: usize,
}

/// Memory that a model needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The process before anything was loaded, and the overhead that every process needs.
    pub process: u64,
    /// Dense weights: all but the routed experts.
    pub dense: u64,
    /// The full KV caches of all sequences.
    pub cache: u64,
    /// Tokens of each sequence that `cache` holds.
    pub context: usize,
    /// Tokens of a prompt that are computed together.
    pub prefill_chunk: usize,
    /// Scratch memory of such a chunk.
    pub scratch: u64,
    /// One token's experts in the largest layer.
    pub layer: u64,
    /// One token's experts in all layers.
    pub cycle: u64,
    /// All experts.
    pub experts: u64,
}

/// The budget is below the least that the model needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TooSmall {
    /// The budget in bytes.
    pub budget: u64,
    /// The memory that the model needs.
    pub footprint: Footprint,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Footprint { dense, cache, context, cycle, .. } = self.footprint;
        let (unit, name) =
            if self.footprint.floor() < 1 << 30 { (1u64 << 20, "MiB") } else { (1 << 30, "GiB") };
        let show = |bytes: u64| bytes as f64 / unit as f64;
        write!(f, "{:.2} {name} of memory are too few: ", show(self.budget))?;
        write!(f, "this model needs at least {:.2} {name}: ", show(self.footprint.floor()))?;
        write!(f, "dense {:.2}, cache for {context} tokens {:.2}, ", show(dense), show(cache))?;
        write!(f, "one token's experts {:.2}, ", show(cycle))?;
        write!(
            f,
            "program and scratch {:.2}; ",
            show(self.footprint.process + self.footprint.scratch)
        )?;
        write!(f, "raise the budget, or lower the context")
    }
}

impl Footprint {
    /// The footprint of a file under a workload, in a process that occupies `process` bytes.
    pub fn of(
        weights: &GgufWeights,
        index: &ExpertIndex,
        workload: &Workload,
        process: u64,
    ) -> Result<Self, WeightsError> {
        let config = weights.config();
        let context = match workload.context {
            0 => config.max_position_embeddings,
            context => context,
        };
        let sessions = workload.sessions.max(1) as u64;
        let product = |a: u64, b: u64| a.saturating_mul(b);
        Ok(Self {
            process: process.saturating_add(FIXED_BYTES),
            dense: dense_bytes(weights, 0..config.num_hidden_layers),
            cache: product(cache_bytes(config, context, workload), sessions),
            context,
            prefill_chunk: workload.prefill_chunk.max(1),
            scratch: product(scratch_bytes(config, workload.prefill_chunk), sessions),
            layer: index.least_bytes() as u64,
            cycle: index.cycle_bytes() as u64,
            experts: index.total_bytes() as u64,
        })
    }

    /// Adds the multi-token-prediction layer, which drafts.
    pub fn add_mtp(&mut self, weights: &GgufWeights, index: &ExpertIndex, workload: &Workload) {
        let config = weights.config();
        let (layer, sessions) = (config.num_hidden_layers, workload.sessions.max(1) as u64);
        let chunk = workload.prefill_chunk.max(1);
        let cache = layer_bytes(config, layer, workload.cache, self.context, chunk);
        self.dense += dense_bytes(weights, layer..layer + 1);
        self.cache = self.cache.saturating_add(cache.saturating_mul(sessions));
        // States of a chunk, their norm and the combined inputs, and the logits of drafted tokens.
        let (width, vocab_size) = (config.hidden_size, config.vocab_size);
        let states = 4 * (5 * chunk * width + 2 * (1 + MOST_DRAFTS) * vocab_size) as u64;
        self.scratch = self.scratch.saturating_add(states.saturating_mul(sessions));
        let [cycle, all] = index.draft_bytes().map(|bytes| bytes as u64);
        self.cycle += cycle;
        self.experts += all;
    }

    /// Everything except the experts.
    pub fn fixed(&self) -> u64 {
        [self.dense, self.cache, self.scratch]
            .iter()
            .fold(self.process, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The smallest accepted budget.
    pub fn floor(&self) -> u64 {
        self.fixed().saturating_add(self.cycle)
    }

    /// Plans the memory for a budget of `budget` bytes.
    pub fn plan(self, budget: u64) -> Result<MemoryPlan, TooSmall> {
        if budget < self.floor() {
            return Err(TooSmall { budget, footprint: self });
        }
        let left = budget - self.fixed();
        let experts = (left < self.experts).then_some(left);
        Ok(MemoryPlan { budget, footprint: self, experts })
    }
}

/// How the memory of a process is divided within a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Budget of the whole process, in bytes.
    pub budget: u64,
    /// The memory that the model needs.
    pub footprint: Footprint,
    /// Bytes for streamed experts; `None` if everything fits, so that the file is mapped and
    /// nothing is copied.
    pub experts: Option<u64>,
}

/// A model's footprints with several sizes of prompt chunks, the smallest first: at least one.
#[derive(Clone, Debug)]
pub(super) struct Footprints(Vec<Footprint>);

impl Footprints {
    /// The smallest, and those with twice its chunk, four times and so on as far as `more` gives them.
    pub(super) fn new<E>(
        least: Footprint,
        mut more: impl FnMut(usize) -> Result<Option<Footprint>, E>,
    ) -> Result<Self, E> {
        let mut all = vec![least];
        let mut chunk = least.prefill_chunk.saturating_mul(2);
        while let Some(larger) = more(chunk)? {
            all.push(larger);
            chunk = chunk.saturating_mul(2);
        }
        Ok(Self(all))
    }

    /// Those that an open model may change to: chunks of at most `opened`'s, and its caches, which
    /// exist already.
    pub(super) fn within(mut self, opened: &Footprint) -> Self {
        self.0.retain(|footprint| footprint.prefill_chunk <= opened.prefill_chunk);
        for footprint in &mut self.0 {
            footprint.cache = opened.cache;
        }
        self
    }

    /// The one with the smallest chunk.
    pub(super) fn least(&self) -> Footprint {
        self.0[0]
    }

    /// Plans the memory for a budget of `budget` bytes, with the largest chunk that is worth its
    /// memory.
    pub(super) fn plan(&self, budget: u64) -> Result<MemoryPlan, TooSmall> {
        let least = self.least().plan(budget)?;
        let mut best = least;
        for larger in &self.0[1..] {
            match larger.plan(budget) {
                Ok(larger) if larger.is_worth(&least) => best = larger,
                _ => break,
            }
        }
        Ok(best)
    }
}

/// Part of the experts' memory that a larger chunk of prompts may take.
const CHUNK_SHARE: u64 = 16;

impl MemoryPlan {
    /// Whether this plan is better than `smaller`, whose prompts have smaller chunks. A prompt
    /// computes with an expert, and reads it, once per chunk; but what larger chunks take of the
    /// experts' memory is missing in every token.
    fn is_worth(&self, smaller: &Self) -> bool {
        match (self.experts, smaller.experts) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(left), Some(before)) => before - left <= before / CHUNK_SHARE,
        }
    }
}

/// Table of per-layer embeddings.
const PER_LAYER_TABLE: &str = "per_layer_token_embd.weight";

/// Bytes of the dense weights of some layers when copied to anonymous memory; those that belong to
/// no layer count with the first one.
fn dense_bytes(weights: &GgufWeights, layers: Range<usize>) -> u64 {
    let config = weights.config();
    // A model without experts is mapped, and rows of this table are read from the file.
    let stays = weights.gguf().is_mapped() && config.moe.n_routed_experts == 0;
    let tensors = config.family.tensors(config).into_iter();
    let tensors = tensors.filter(|spec| !(stays && spec.name == PER_LAYER_TABLE));
    let loaded = tensors.filter(|spec| layers.contains(&spec.layer().unwrap_or(0)));
    let bytes = loaded.filter_map(|spec| weights.tensor_bytes(&spec));
    // A tensor may begin anywhere in its first page.
    bytes.map(|len| len.saturating_add(8192) / 4096 * 4096).sum()
}

/// Bytes of the KV cache of a sequence of `context` tokens.
fn cache_bytes(config: &Config, context: usize, workload: &Workload) -> u64 {
    let layer =
        |layer| layer_bytes(config, layer, workload.cache, context, workload.prefill_chunk.max(1));
    (0..config.num_cached_layers()).map(layer).fold(0, u64::saturating_add)
}

/// Upper bound on the scratch memory of a chunk of `tokens` tokens, in bytes: the residual stream
/// and the larger of attention and feed-forward, all in f32 with an int8 copy of each matrix input,
/// and the logits.
fn scratch_bytes(config: &Config, tokens: usize) -> u64 {
    let attention = match &config.attention {
        AttentionConfig::Mla(mla) => {
            let (rank, pe) = (mla.kv_lora_rank, mla.qk_rope_head_dim);
            let head = 3 * (mla.qk_nope_head_dim + pe) + 4 * rank + pe + 2 * mla.v_head_dim;
            mla.num_attention_heads * head + mla.q_lora_rank.unwrap_or(0) * 3
        }
        AttentionConfig::Grouped(gqa) => {
            // A gate on the output is as wide as it, or computed along with the queries.
            let per_head = if gqa.output_gate.is_some() { 8 } else { 4 };
            let conv = if gqa.conv_l_cache > 0 { 6 * config.hidden_size } else { 0 };
            let heads = |ty| {
                let HeadShape { head_dim, num_key_value_heads } = gqa.head_shape(ty);
                (per_head * gqa.num_attention_heads + 5 * num_key_value_heads) * head_dim
            };
            conv.max(heads(LayerType::Full)).max(heads(LayerType::Sliding))
        }
    };
    // Inputs of the convolution twice as rows, its outputs together and apart.
    let recurrent = match &config.recurrence {
        None => 0,
        Some(Recurrence::GatedDelta(delta)) => 5 * delta.conv_dim() + 6 * delta.value_dim(),
        Some(Recurrence::Mamba2(mamba)) => 5 * mamba.conv_dim() + 6 * mamba.inner_dim(),
        // Rows have the decays of all channels, too.
        Some(Recurrence::KimiDelta(delta)) => 26 * delta.inner_dim(),
    };
    let attention = attention.max(recurrent);
    let moe = &config.moe;
    let dense = config.intermediate_size * if config.double_wide_shared { 2 } else { 1 };
    let widest = moe.shared_expert_intermediate_size.max(dense);
    let routed = (moe.num_experts_per_tok + 2) * config.hidden_size + moe.n_routed_experts;
    let token = 5 * config.hidden_size + attention.max(3 * widest + routed);
    // Beside them, the inputs of router and experts, or per-layer embeddings three times.
    let token = token
        + if moe.parallel { 6 * config.hidden_size } else { 0 }
        + 3 * config.num_hidden_layers * config.per_layer_width;
    // Experts are computed in batches; the last expert of a batch may have all tokens.
    let tokens = tokens.max(1);
    let slots = (tokens * moe.num_experts_per_tok).min(SLOTS_AT_ONCE + tokens);
    let slot = 3 * (config.hidden_size + moe.moe_intermediate_size);
    4 * (tokens * token + slots * slot + 4 * config.vocab_size) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn budgets_are_read_as_people_write_them() {
        let parse = |text| MemoryBudget::parse(text).unwrap();
        for text in ["2GiB", "2g", " 2 GiB", "2048MiB", "2147483648"] {
            assert_eq!(parse(text), MemoryBudget::Bytes(2 * GIB), "{text}");
        }
        assert_eq!(parse("1.5GB"), MemoryBudget::Bytes(1_500_000_000));
        assert_eq!(parse("60%"), MemoryBudget::Percent(60.0));
        assert_eq!(parse("Auto"), MemoryBudget::Auto);
        for text in ["", "GiB", "-1G", "0", "0%", "101%", "2TB", "1e9", "1.2.3G", "99999999999G"] {
            assert!(MemoryBudget::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_of_the_machine_and_auto_leaves_some_to_others() {
        let machine = MemoryInfo { total: 8 * GIB, available: 4 * GIB, process: GIB };
        let on = |budget: MemoryBudget| budget.resolve_on(Some(machine)).unwrap();
        assert_eq!(on(MemoryBudget::Percent(50.0)), 4 * GIB);
        let auto = on(MemoryBudget::Auto);
        assert!(auto > 4 * GIB && auto < 5 * GIB, "{auto}");
        let small = MemoryInfo { total: GIB / 16, available: GIB / 16, process: GIB / 32 };
        assert!(MemoryBudget::Auto.resolve_on(Some(small)).unwrap() < GIB / 16);
        assert_eq!(MemoryBudget::Auto.resolve_on(None), Err(BudgetTextError::Unknown));
        assert_eq!(MemoryBudget::Bytes(7).resolve_on(None), Ok(7));
    }

    fn footprint() -> Footprint {
        Footprint {
            process: GIB / 64,
            dense: GIB / 2,
            cache: GIB / 8,
            context: 4096,
            prefill_chunk: 128,
            scratch: GIB / 64,
            layer: GIB / 32,
            cycle: GIB / 4,
            experts: 4 * GIB,
        }
    }

    #[test]
    fn below_the_floor_a_budget_is_refused_with_the_figures() {
        let error = footprint().plan(GIB / 2).unwrap_err().to_string();
        assert_eq!(
            error,
            "512.00 MiB of memory are too few: this model needs at least 928.00 MiB: dense 512.00, \
             cache for 4096 tokens 128.00, one token's experts 256.00, program and scratch 32.00; \
             raise the budget, or lower the context"
        );
        let floor = footprint().floor();
        assert!(footprint().plan(floor - 1).is_err());
        assert_eq!(footprint().plan(floor).unwrap().experts, Some(GIB / 4));
    }

    #[test]
    fn larger_chunks_may_take_little_of_the_experts_memory_and_do_not_end_mapping() {
        let larger = |scratch| Footprint { prefill_chunk: 512, scratch, ..footprint() };
        let plan =
            |footprint: Footprint, experts| footprint.plan(self::footprint().fixed() + experts);
        let small = plan(footprint(), 2 * GIB).unwrap();
        let worth = |scratch| plan(larger(scratch), 2 * GIB).unwrap().is_worth(&small);
        assert!(worth(GIB / 64 + GIB / 8));
        assert!(!worth(GIB / 64 + GIB / 8 + 1));
        let all = plan(footprint(), 4 * GIB).unwrap();
        assert!(!plan(larger(GIB / 32), 4 * GIB).unwrap().is_worth(&all));
        assert!(plan(larger(GIB / 32), 5 * GIB).unwrap().is_worth(&all));
    }

    #[test]
    fn what_fits_is_mapped() {
        let all = footprint().fixed() + 4 * GIB;
        assert_eq!(footprint().plan(all - 1).unwrap().experts, Some(4 * GIB - 1));
        assert_eq!(footprint().plan(all).unwrap().experts, None);
    }
}
