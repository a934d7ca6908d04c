//! Control over the memory of an open model.

use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{Footprints, MemoryPlan, TooSmall};
use crate::experts::{BudgetError, Streaming};
use crate::model::PassLimit;

/// How much memory to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimLevel {
    /// Experts beyond one token's, because the application is in the background.
    Background,
    /// All that is not needed to compute, because the system is about to kill processes.
    Critical,
}

/// Changes the memory of an open model, also while it generates. What experts take changes by the
/// next layer, what a prompt takes with its next pass.
pub struct MemoryControl {
    plan: Mutex<Option<MemoryPlan>>,
    streamed: Option<Streamed>,
}

/// A streamed model's store, its possible footprints, and the limit of its passes.
struct Streamed {
    store: Arc<Streaming>,
    footprints: Footprints,
    passes: Arc<PassLimit>,
}

impl MemoryControl {
    /// Control over a model that keeps all its weights.
    pub(crate) fn mapped(plan: Option<MemoryPlan>) -> Self {
        Self { plan: Mutex::new(plan), streamed: None }
    }

    /// Control over a model that was opened with `plan`, one of those of `footprints`, whose experts
    /// `store` streams.
    pub(super) fn streamed(
        plan: MemoryPlan,
        footprints: Footprints,
        store: Arc<Streaming>,
    ) -> Self {
        let footprints = footprints.within(&plan.footprint);
        let streamed = Streamed { store, footprints, passes: Arc::default() };
        Self { plan: Mutex::new(Some(plan)), streamed: Some(streamed) }
    }

    /// The limit of the passes of the model; `None` if it is mapped.
    pub(super) fn passes(&self) -> Option<&Arc<PassLimit>> {
        self.streamed.as_ref().map(|streamed| &streamed.passes)
    }

    /// The current plan; `None` without a budget.
    pub fn plan(&self) -> Option<MemoryPlan> {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streaming store; `None` if the file is mapped.
    pub fn store(&self) -> Option<&Arc<Streaming>> {
        self.streamed.as_ref().map(|streamed| &streamed.store)
    }

    /// Changes the memory budget of the whole process: experts get what is left, and prompts are read
    /// in chunks that fit, at most those of the opening. No effect on a mapped model, which holds no
    /// memory that it could release.
    pub fn set_memory_budget(&self, bytes: u64) -> Result<(), TooSmall> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(plan), Some(streamed)) = (plan.as_mut(), &self.streamed) else { return Ok(()) };
        let MemoryPlan { footprint, .. } = streamed.footprints.plan(bytes)?;
        let experts = (bytes - footprint.fixed()).min(footprint.experts.max(footprint.layer));
        let too_small = TooSmall { budget: bytes, footprint };
        streamed.set_budget(experts).map_err(|_| too_small)?;
        streamed.passes.set(footprint.prefill_chunk);
        *plan = MemoryPlan { budget: bytes, footprint, experts: Some(experts) };
        Ok(())
    }

    /// Releases memory and stays within the reduced budget until the next
    /// [`MemoryControl::set_memory_budget`]. No effect on a mapped model.
    pub fn trim(&self, level: TrimLevel) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(plan), Some(streamed)) = (plan.as_mut(), &self.streamed) else { return };
        let (footprint, experts) = match level {
            TrimLevel::Background => (plan.footprint, plan.footprint.cycle),
            TrimLevel::Critical => (streamed.footprints.least(), 0),
        };
        let experts = experts.min(plan.experts.unwrap_or(experts)).max(footprint.layer);
        if streamed.set_budget(experts).is_ok() {
            streamed.passes.set(footprint.prefill_chunk);
            let budget = footprint.fixed().saturating_add(experts);
            *plan = MemoryPlan { budget, footprint, experts: Some(experts) };
        }
    }
}

impl Streamed {
    /// Changes the bytes for experts.
    fn set_budget(&self, experts: u64) -> Result<(), BudgetError> {
        self.store.set_budget(usize::try_from(experts).unwrap_or(usize::MAX))
    }
}
