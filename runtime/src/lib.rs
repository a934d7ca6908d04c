//! Everything a device needs to run a DeepSeek-class mixture-of-experts model: the GGUF container,
//! block types, kernels, the model itself, the expert store, sessions and tokenizers.
//!
//! A chat on the terminal:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use vaquita_runtime::{AppError, AppModel, Event, GenerationOptions, ModelOptions};
//!
//! fn main() -> Result<(), AppError> {
//!     let model = AppModel::open("model.gguf", &ModelOptions::default())?;
//!     let mut conversation = model.conversation()?;
//!     for line in std::io::stdin().lines().map_while(Result::ok) {
//!         conversation.answer(Some(&line), &GenerationOptions::default(), &mut |event| {
//!             if let Event::Answer(text) = event {
//!                 print!("{text}");
//!             }
//!             ControlFlow::Continue(())
//!         })?;
//!         println!();
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`ModelOptions`] set the memory budget, the context and the threads; [`GenerationOptions`] the
//! sampling and the length of an answer. [`app`] documents this interface. Below it,
//! [`model::Model`] is the network and [`session::Session`] one sequence of tokens. This crate only
//! reads model files; `vaquita-quantize` makes them from checkpoints.
//!
//! Features, all off by default: `structured` holds answers to JSON schemas and grammars; `tracing`
//! emits events of the crate `tracing` when a model is opened, when a layer waits for experts, when
//! experts are evicted, and when prefetch is turned off.

pub mod app;
pub mod blocks;
pub mod bytes;
pub mod checkpoint;
pub mod cores;
pub mod doctor;
pub mod engine;
pub mod experts;
pub mod gguf;
pub mod host;
pub mod isa;
pub mod kernels;
pub mod measure;
pub mod model;
pub mod opening;
pub mod session;
#[cfg(feature = "structured")]
pub mod structured;
pub mod svg;
pub mod threads;
pub mod tokenizer;
pub mod trace;

pub use app::{
    AppError, AppModel, Canceller, Conversation, ErrorKind, LoadedModel, ModelOptions, Turn,
};
pub use gguf::Gguf;
pub use model::Model;
pub use opening::budget::MemoryBudget;
pub use session::chat::Message;
pub use session::generate::{Event, Generation, GenerationOptions, StopReason};
pub use session::sampler::SamplingOptions;
pub use session::{Session, SessionOptions};
pub use tokenizer::Tokenizer;
