//! How to run a model on a machine, and about how fast that will be.

use serde::Serialize;

use crate::opening::budget::{Footprint, MemoryBudget};
use crate::opening::machine::Machine;

/// Budgets are advised in steps of it.
const STEP_BYTES: u64 = 64 << 20;

/// What a model takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Of its parts.
    pub footprint: Footprint,
    /// Read from memory for each token that is generated: dense weights but for the embedding's other rows, and one
    /// token's experts.
    pub token: u64,
}

/// What a machine does, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Its memory, read by all threads that decode.
    pub memory: f64,
    /// Its storage; `None` where that is not known.
    pub storage: Option<f64>,
}

/// How to run it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Advice {
    /// Everything fits: no `--memory`.
    Mapped {
        /// About so many tokens per second, at most.
        tokens_per_second: f64,
    },
    /// Experts are read from storage.
    Streamed {
        /// `--memory`.
        budget_bytes: u64,
        /// The share of experts that fit.
        experts_share: f64,
        /// About so many tokens per second; `None` where the storage's rate is not known.
        tokens_per_second: Option<f64>,
        /// Whether storage, rather than memory, is what limits it.
        storage_bound: Option<bool>,
    },
    /// It does not fit.
    TooLarge {
        /// What it needs at least, with `--context` as given.
        floor_bytes: u64,
        /// What is available.
        available_bytes: u64,
    },
}

/// Advises on a model.
///
/// Decoding is bound by what it reads: `token` bytes of memory, and the bytes of the experts that are not in memory from
/// storage. Routing is taken to be even, so that the share of misses is that of the experts which do not fit; real
/// routing is uneven and does better.
pub fn advise(model: &Model, machine: Machine, rates: Rates) -> Advice {
    let Machine { available, process, .. } = machine;
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

    fn model() -> Model {
        let footprint = Footprint {
            process: 32 * MIB,
            dense: 512 * MIB,
            cache: 256 * MIB,
            context: 4096,
            scratch: 224 * MIB,
            layer: 8 * MIB,
            cycle: 200 * MIB,
            experts: 4096 * MIB,
        };
        Model { footprint, token: 600 * MIB }
    }

    fn machine(available: u64) -> Machine {
        Machine { total: 8192 * MIB, available, process: 0 }
    }

    const RATES: Rates = Rates { memory: 6000.0 * MIB as f64, storage: Some(400.0 * MIB as f64) };

    #[test]
    fn what_fits_is_mapped_at_the_rate_of_memory() {
        let advice = advise(&model(), machine(8000 * MIB), RATES);
        assert_eq!(advice, Advice::Mapped { tokens_per_second: 10.0 });
    }

    #[test]
    fn what_does_not_is_streamed_at_the_slower_of_storage_and_memory() {
        // 90% of 2276 MiB is 2048 MiB in steps of 64; 1024 MiB of them are left for experts, a quarter. Misses are
        // 150 MiB per token at 400 MiB/s.
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
    fn what_is_too_large_is_told_with_the_figures() {
        let advice = advise(&model(), machine(1000 * MIB), RATES);
        let (floor_bytes, available_bytes) = (1224 * MIB, 1000 * MIB);
        assert_eq!(advice, Advice::TooLarge { floor_bytes, available_bytes });
    }
}
