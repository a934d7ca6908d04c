//! Evaluation and calibration. Quantization loss is measured as [`perplexity`], as [`divergence`]
//! from a reference, which a [`reference_file`] can replace, and by graded [`tasks`]; [`protocol`]
//! has published evaluations. Calibration collects the [`statistics`] that guide the quantizer.
//!
//! A [`Subject`] is a model under evaluation. Documents and questions run in parallel, each on one
//! thread.

pub mod cluster;
mod corpus;
pub mod divergence;
mod error;
pub mod perplexity;
pub mod protocol;
pub mod reference_file;
mod softmax;
pub mod statistics;
mod subject;
pub mod tasks;

pub use corpus::{read_documents, read_jsonl};
pub use error::EvalError;
pub use subject::Subject;

/// Progress callback with the number of finished documents or questions, and their total.
pub type OnProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);
