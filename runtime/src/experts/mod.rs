//! The expert store: where a layer's routed experts come from when tokens need them.
//!
//! [`Resident`] keeps every expert; stores that read from flash within a budget implement the same trait.
//! What to evict is decided by [`policies`], which [`replay`] compares on recorded [`trace`]s.

pub mod policies;
pub mod replay;
mod resident;
pub mod trace;

pub use resident::Resident;

use crate::model::{Expert, ExpertId, LayerId, WeightsError};

/// Gives out experts.
pub trait ExpertStore: Send + Sync {
    /// Calls `visit` once for each expert of `wanted`, in whatever order they are ready.
    fn for_each(
        &self,
        layer: LayerId,
        wanted: &[ExpertId],
        visit: &mut dyn FnMut(ExpertId, &Expert),
    ) -> Result<(), WeightsError>;
}
