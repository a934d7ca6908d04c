//! Advice on how to run a model on a machine, with an estimate of the speed.

use serde::Serialize;

use crate::opening::budget::{Footprint, MemoryBudget};
use crate::opening::memory_info::MemoryInfo;

/// Advised budgets are multiples of this.
const STEP_BYTES: u64 = 64 << 20;

/// Memory and bandwidth that a model demands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelDemand {
    /// Memory by part.
    pub footprint: Footprint,
    /// Bytes read from memory per generated token: the dense weights (of the embedding, one row
    /// only) and one token's experts.
    pub token: u64,
}

impl ModelDemand {
    /// The demand of the same model with weights that are `factor` times as large, an estimate for
    /// another quantization of it.
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |bytes: u64| (bytes as f64 * factor) as u64;
        let Footprint { dense, layer, cycle, experts, .. } = self.footprint;
        let footprint = Footprint {
            dense: scale(dense),
            layer: scale(layer),
            cycle: scale(cycle),
            experts: scale(experts),
            ..self.footprint
        };
        Self { footprint, token: scale(self.token) }
    }
}

/// Read rates of a machine, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Memory, read by all decoding threads together.
    pub memory: f64,
    /// Storage; `None` if unknown.
    pub storage: Option<f64>,
}

/// Advice on how to run the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Advice {
    /// Everything fits: run without `--memory`.
    Mapped {
        /// Upper estimate of the tokens per second.
        tokens_per_second: f64,
    },
    /// Experts must be streamed from storage.
    Streamed {
        /// Budget for `--memory`, in bytes.
        budget_bytes: u64,
        /// Fraction of the experts that fit.
        experts_share: f64,
        /// Estimated tokens per second; `None` if the storage's rate is unknown.
        tokens_per_second: Option<f64>,
        /// Whether storage, rather than memory, is the bottleneck.
        storage_bound: Option<bool>,
    },
    /// The model does not fit.
    TooLarge {
        /// Least memory with the given `--context`, in bytes.
        floor_bytes: u64,
        /// Available memory, in bytes.
        available_bytes: u64,
    },
}

/// Advises on a model.
///
/// Decoding is bound by bandwidth: `token` bytes are read from memory, and the experts that are not
/// resident from storage. Routing is assumed to be uniform, so that the miss rate is the fraction
/// of experts that do not fit; real routing is skewed and does better.
pub fn advise(model: &ModelDemand, machine: MemoryInfo, rates: Rates) -> Advice {
    let MemoryInfo { available, process, .. } = machine;
    let budget =
        MemoryBudget::Auto.resolve_on(Some(machine)).unwrap_or(0) / STEP_BYTES * STEP_BYTES;
    let Ok(plan) = model.footprint.plan(budget) else {
        let available_bytes = available.saturating_add(process);
        return Advice::TooLarge { floor_bytes: model.footprint.floor(), available_bytes };
    };
    let computing = model.token as f64 / rates.memory.max(1.0);
    let Some(slab) = plan.experts else {
        return Advice::Mapped { tokens_per_second: 1.0 / computing };
    };
    let experts_share = slab as f64 / model.footprint.experts as f64;
    let missed = model.footprint.cycle as f64 * (1.0 - experts_share);
    let reading = rates.storage.map(|rate| missed / rate.max(1.0));
    Advice::Streamed {
        budget_bytes: budget,
        experts_share,
        tokens_per_second: reading.map(|reading| 1.0 / reading.max(computing)),
        storage_bound: reading.map(|reading| reading > computing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn model() -> ModelDemand {
        let footprint = Footprint {
            process: 32 * MIB,
            dense: 512 * MIB,
            cache: 256 * MIB,
            context: 4096,
            prefill_chunk: 128,
            scratch: 224 * MIB,
            layer: 8 * MIB,
            cycle: 200 * MIB,
            experts: 4096 * MIB,
        };
        ModelDemand { footprint, token: 600 * MIB }
    }

    fn machine(available: u64) -> MemoryInfo {
        MemoryInfo { total: 8192 * MIB, available, process: 0 }
    }

    const RATES: Rates = Rates { memory: 6000.0 * MIB as f64, storage: Some(400.0 * MIB as f64) };

    #[test]
    fn what_fits_is_mapped_at_the_rate_of_memory() {
        let advice = advise(&model(), machine(8000 * MIB), RATES);
        assert_eq!(advice, Advice::Mapped { tokens_per_second: 10.0 });
    }

    #[test]
    fn what_does_not_is_streamed_at_the_slower_of_storage_and_memory() {
        // 90% of 2276 MiB is 2048 MiB in steps of 64; 1024 MiB of them are left for experts, a
        // quarter. Misses are 150 MiB per token at 400 MiB/s.
        let advice = advise(&model(), machine(2280 * MIB), RATES);
        let expected = Advice::Streamed {
            budget_bytes: 2048 * MIB,
            experts_share: 0.25,
            tokens_per_second: Some(1.0 / 0.375),
            storage_bound: Some(true),
        };
        assert_eq!(advice, expected);
        let unknown = advise(&model(), machine(2280 * MIB), Rates { storage: None, ..RATES });
        let Advice::Streamed { tokens_per_second: None, storage_bound: None, .. } = unknown else {
            panic!("{unknown:?}");
        };
    }

    #[test]
    fn another_quantization_scales_weights_but_not_the_cache() {
        let half = model().scaled(0.5);
        assert_eq!((half.token, half.footprint.experts), (300 * MIB, 2048 * MIB));
        assert_eq!((half.footprint.cache, half.footprint.process), (256 * MIB, 32 * MIB));
        assert_eq!(model().scaled(1.0), model());
    }

    #[test]
    fn what_is_too_large_is_told_with_the_figures() {
        let advice = advise(&model(), machine(1000 * MIB), RATES);
        let (floor_bytes, available_bytes) = (1224 * MIB, 1000 * MIB);
        assert_eq!(advice, Advice::TooLarge { floor_bytes, available_bytes });
    }
}
