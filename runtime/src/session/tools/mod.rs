//! Tool calls: the offer to the model, the formats of calls, and their parsing from answers.
//!
//! [`offer`] reads tools and `tool_choice`; [`Format`] is the call format of a model family,
//! detected from its chat template; [`ToolParser`] splits a streamed answer. [`replay`] stores the
//! text that a model wrote for its calls, so that a prompt that contains them again is identical to
//! the byte.

mod cursor;
mod format;
mod gemma;
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
/// Parts of a format that may be separate tokens.
#[cfg(feature = "structured")]
pub(crate) fn markers(format: Format) -> &'static [&'static str] {
    format.markers()
}

/// The marker that begins calls; `None` if there is none, or if it is text that also occurs
/// elsewhere.
#[cfg(feature = "structured")]
pub(crate) fn opening(format: Format) -> Option<&'static str> {
    format.triggers().first().copied().filter(|text| format.markers().contains(text))
}

/// Mark before and after a text in Gemma 4's calls.
#[cfg(feature = "structured")]
pub(crate) const GEMMA_QUOTE: &str = gemma::QUOTE;

pub use stream::{Answer, Call, ToolEvent, ToolParser};
