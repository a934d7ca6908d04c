//! Opening a model file within a memory budget: mapped where everything fits, streamed where it does
//! not.
//!
//! [`budget`] turns what the user allows and what the model needs into a plan, going by the
//! [`machine`]'s memory; [`open()`] carries it out; [`MemoryControl`] changes it while the model runs,
//! and [`pressure`] does so when the system runs short of memory.

pub mod budget;
mod control;
pub mod machine;
mod open;
pub mod pressure;

pub use control::{MemoryControl, TrimLevel};
pub use open::{OpenModelError, OpenOptions, Opened, open, open_gguf};
