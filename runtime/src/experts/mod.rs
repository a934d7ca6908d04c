//! Experts that are read from flash as tokens route to them, within a budget.
//!
//! [`Streaming`] is the store: a visit is a `fetch`, a [`source`](crate::checkpoint::source) reads
//! bytes, lanes of `reader` do so side by side, `slab` is the memory, `table` knows what is in it, and
//! one of the [`policies`] decides what is evicted; `guesses` says whether to prefetch.

mod fetch;
mod guesses;
mod loader;
mod meters;
mod options;
mod placement;
pub mod policies;
pub mod probe;
mod reader;
mod slab;
mod streaming;
mod table;

pub use guesses::{Guessing, Recall};
pub use options::{BudgetError, OpenStoreError, StreamingOptions};
pub use placement::{Placed, Placement};
pub use streaming::Streaming;
