//! Turns full-precision checkpoints into vaquita's expert-major files.
//!
//! [`sources`] read a checkpoint, [`plan`] says which block type everything gets, [`encoders`] turn weights
//! into the bytes of a type, and [`quantize`] puts it together into a file that appears only when it is whole
//! and has been read back; [`parts`] of it can be made apart and joined. [`convert`] keeps the weights of a GGUF file as they
//! are and only rearranges them; [`export`] writes the layout that other programs know. Work is spread with rayon, over the pool that the caller installs.

pub mod container;
pub mod convert;
pub mod encoders;
pub mod export;
pub mod hessian;
pub mod importance;
pub mod journal;
pub mod partial;
pub mod parts;
pub mod pipeline;
pub mod plan;
mod progress;
pub mod report;
pub mod sources;
mod stop;

pub use parts::{JoinError, Part, join};
pub use pipeline::{Job, QuantizeError, quantize, quantize_part, quantize_until};
pub use plan::{Allocation, Material, Plan, PlanError, Survey, Target, Trunk, mixed};
pub use progress::{Progress, Stage};
pub use report::{LayerReport, Report, TensorReport};
pub use stop::Stop;
