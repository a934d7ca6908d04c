//! Control over the memory of an open model.

use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{MemoryPlan, TooSmall};
use crate::experts::Streaming;

/// How much memory to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimLevel {
    /// Experts beyond one token's, because the application is in the background.
    Background,
    /// All that is not needed to compute, because the system is about to kill processes.
    Critical,
}

/// Changes the memory of an open model, also while it generates. Changes take effect by the next
/// layer.
pub struct MemoryControl {
    plan: Mutex<Option<MemoryPlan>>,
    store: Option<Arc<Streaming>>,
}

impl MemoryControl {
    /// Control over a model that was opened with `plan`, whose experts `store` streams.
    pub(super) fn new(plan: Option<MemoryPlan>, store: Option<Arc<Streaming>>) -> Self {
        Self { plan: Mutex::new(plan), store }
    }

    /// Control over a model that keeps all its weights, without a budget.
    pub(crate) fn unlimited() -> Self {
        Self::new(None, None)
    }

    /// The current plan; `None` without a budget.
    pub fn plan(&self) -> Option<MemoryPlan> {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streaming store; `None` if the file is mapped.
    pub fn store(&self) -> Option<&Arc<Streaming>> {
        self.store.as_ref()
    }

    /// Changes the memory budget of the whole process. No effect on a mapped model, which holds no
    /// memory that it could release.
    pub fn set_memory_budget(&self, bytes: u64) -> Result<(), TooSmall> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(plan), Some(store)) = (plan.as_mut(), &self.store) else { return Ok(()) };
        let footprint = plan.footprint;
        let too_small = TooSmall { budget: bytes, footprint };
        if bytes < footprint.floor() {
            return Err(too_small);
        }
        let experts = (bytes - footprint.fixed()).min(footprint.experts.max(footprint.layer));
        let bytes_for_experts = usize::try_from(experts).unwrap_or(usize::MAX);
        store.set_budget(bytes_for_experts).map_err(|_| too_small)?;
        plan.budget = bytes;
        plan.experts = Some(experts);
        Ok(())
    }

    /// Releases memory and stays within the reduced budget until the next
    /// [`MemoryControl::set_memory_budget`]. No effect on a mapped model.
    pub fn trim(&self, level: TrimLevel) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(plan), Some(store)) = (plan.as_mut(), &self.store) else { return };
        let footprint = plan.footprint;
        let experts = match level {
            TrimLevel::Background => footprint.cycle.max(footprint.layer),
            TrimLevel::Critical => footprint.layer,
        };
        let experts = experts.min(plan.experts.unwrap_or(experts)).max(footprint.layer);
        if store.set_budget(usize::try_from(experts).unwrap_or(usize::MAX)).is_ok() {
            plan.budget = footprint.fixed().saturating_add(experts);
            plan.experts = Some(experts);
        }
    }
}
