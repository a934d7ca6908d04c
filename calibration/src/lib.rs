//! What quantization costs: [`perplexity`], [`divergence`] from a reference, which
//! a [`reference_file`] can stand for, and graded [`tasks`]; and calibration: the
//! [`statistics`] that quantizing goes by.
//!
//! A [`Subject`] is what is measured. Documents and questions run in parallel, each with one thread.

pub mod cluster;
mod corpus;
pub mod divergence;
mod error;
pub mod perplexity;
pub mod reference_file;
mod softmax;
pub mod statistics;
mod subject;
pub mod tasks;

pub use corpus::{read_documents, read_jsonl};
pub use error::EvalError;
pub use subject::Subject;

/// Hears how many of how many documents or questions are done.
pub type OnProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);
