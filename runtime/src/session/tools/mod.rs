//! Calls of tools: what a model is offered, how it writes calls, and how they are read from its answer.
//!
//! [`offer`] reads tools and `tool_choice`; [`Format`] is how a family writes calls, known by its chat template; [`ToolParser`]
//! takes an answer apart as it streams. [`replay`] keeps what a model wrote for its calls, so that a prompt that holds them
//! again is the same to the byte.

mod cursor;
mod format;
mod ids;
mod json;
pub mod offer;
mod python;
mod read;
mod stream;
mod value;

pub use format::Format;
pub use stream::{Answer, Call, ToolEvent, ToolParser};
