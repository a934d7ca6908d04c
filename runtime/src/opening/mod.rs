//! Opening a model file within a memory budget: mapped if everything fits, otherwise streamed.
//!
//! [`budget`] computes a plan from the user's budget, the model's footprint and the machine's
//! memory ([`memory_info`]). [`open()`] executes the plan. [`MemoryControl`] changes it while the
//! model runs, and [`pressure`] does so when the system runs short of memory.

pub mod budget;
mod control;
pub mod memory_info;
mod open;
pub mod pressure;

pub use control::{MemoryControl, TrimLevel};
pub use open::{OpenModelError, OpenOptions, Opened, open, open_gguf};
