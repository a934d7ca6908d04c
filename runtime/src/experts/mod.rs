//! Streamed experts: read from flash as tokens are routed to them, within a memory budget.
//!
//! [`Streaming`] is the store. `fetch` is one visit of a layer, `reader` the parallel read lanes
//! over a [`source`](crate::checkpoint::source) of bytes, `slab` the memory, and `table` the record
//! of what is resident. One of the [`policies`] decides what to evict, and `prefetch` what to read
//! ahead.

mod counters;
mod fetch;
mod index;
mod loader;
mod options;
pub mod policies;
mod prefetch;
pub mod probe;
mod reader;
mod slab;
mod streaming;
mod table;

pub use index::{ExpertExtent, ExpertIndex};
pub use options::{BudgetError, OpenStoreError, StreamingOptions};
pub use prefetch::{PrefetchMode, Recall};
pub use streaming::Streaming;
