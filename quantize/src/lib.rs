//! Turns full-precision checkpoints into vaquita's expert-major files.
//!
//! [`sources`] read a checkpoint, [`plan`] assigns a block type to every matrix, [`encoders`]
//! convert weights to the bytes of a type, and [`quantize`] produces a file that appears only once
//! it is complete and has been read back. [`parts`] of a file can be made separately and joined.
//! [`convert`] keeps the weights of a GGUF file and only rearranges them; [`export`] writes the
//! layout of other programs. Work runs on rayon's pool, which the caller installs.

pub mod container;
pub mod convert;
pub mod encoders;
mod error;
pub mod export;
pub mod hessian;
pub mod importance;
pub mod journal;
mod labels;
pub mod partial;
pub mod parts;
pub mod pipeline;
pub mod plan;
mod progress;
pub mod report;
pub mod sources;
mod stop;
mod verify;

pub use error::QuantizeError;
pub use parts::{JoinError, Part, join};
pub use pipeline::{Job, quantize, quantize_part, quantize_until};
pub use plan::{Allocation, DenseTypes, Material, Plan, PlanError, Survey, Target, mixed};
pub use progress::{Progress, Stage};
pub use report::{LayerReport, Report, TensorReport};
pub use stop::Stop;
