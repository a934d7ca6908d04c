//! Control over the memory of an open model.

use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{Plan, TooSmall};
use crate::experts::Streaming;

/// How much memory to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimLevel {
    /// Experts beyond one token's: the application is in the background.
    Background,
    /// All that is not needed to compute at all: the system is about to end processes.
    Critical,
}

/// Control over the memory of an open model, while it generates. Changes take effect by the next layer.
pub struct MemoryControl {
    plan: Mutex<Option<Plan>>,
    store: Option<Arc<Streaming>>,
}

impl MemoryControl {
    /// Control over a model with this plan; `store` is the one that streams its experts.
    pub(super) fn new(plan: Option<Plan>, store: Option<Arc<Streaming>>) -> Self {
        Self { plan: Mutex::new(plan), store }
    }

    /// What was planned; `None` without a budget.
    pub fn plan(&self) -> Option<Plan> {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store; `None` where the file is mapped.
    pub fn store(&self) -> Option<&Arc<Streaming>> {
        self.store.as_ref()
    }

    /// Changes the memory of the whole process. A mapped model keeps nothing of its own that it could give
    /// back: there it changes nothing.
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

    /// Gives memory back and keeps to what remains until [`MemoryControl::set_memory_budget`] says
    /// otherwise. A mapped model has nothing to give back.
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
