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
pub mod replay;
mod stream;
mod value;

pub use format::Format;
pub use replay::Replay;
/// Parts of a format that may be tokens of their own.
#[cfg(feature = "structured")]
pub(crate) fn markers(format: Format) -> &'static [&'static str] {
    format.markers()
}

/// The marker by which calls begin; `None` where it is none, or text that is found elsewhere, too.
#[cfg(feature = "structured")]
pub(crate) fn opening(format: Format) -> Option<&'static str> {
    format.triggers().first().copied().filter(|text| format.markers().contains(text))
}

pub use stream::{Answer, Call, ToolEvent, ToolParser};
