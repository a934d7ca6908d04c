//! Whether and how tokens are drafted.

use std::fmt;

/// Most drafts per step.
pub const MOST_DRAFTS: usize = 8;

/// Source of drafts, and the most drafts per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DraftMode {
    /// No drafts.
    #[default]
    Off,
    /// The multi-token-prediction layer where the file has one, otherwise none.
    Auto,
    /// The multi-token-prediction layer, chained.
    Mtp(usize),
    /// The continuation of the longest earlier occurrence of the last tokens.
    Lookup(usize),
}

/// A text that is not a draft mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not a way to draft; allowed: off, auto, mtp:DEPTH, lookup:DEPTH, with a DEPTH of 1 \
     to {MOST_DRAFTS}"
)]
pub struct DraftModeError {
    /// The text.
    pub found: String,
}

impl DraftMode {
    /// Parses `off`, `auto`, `mtp:2` or `lookup:4`.
    pub fn parse(text: &str) -> Result<Self, DraftModeError> {
        let error = || DraftModeError { found: text.into() };
        let (name, depth) = text.split_once(':').unwrap_or((text, ""));
        let depth = || match depth.parse() {
            Ok(depth) if (1..=MOST_DRAFTS).contains(&depth) => Ok(depth),
            _ => Err(error()),
        };
        match (name, text) {
            (_, "off") => Ok(Self::Off),
            (_, "auto") => Ok(Self::Auto),
            ("mtp", _) => Ok(Self::Mtp(depth()?)),
            ("lookup", _) => Ok(Self::Lookup(depth()?)),
            _ => Err(error()),
        }
    }

    /// Effective mode for a model with or without a multi-token-prediction layer.
    pub fn resolve(self, has_mtp: bool) -> Self {
        match self {
            Self::Auto if has_mtp => Self::Mtp(2),
            Self::Auto => Self::Off,
            mode => mode,
        }
    }

    /// Whether the multi-token-prediction layer is used if there is one.
    pub fn uses_mtp(self) -> bool {
        matches!(self, Self::Auto | Self::Mtp(_))
    }

    /// Most drafts per step.
    pub fn depth(self) -> usize {
        match self {
            Self::Off | Self::Auto => 0,
            Self::Mtp(depth) | Self::Lookup(depth) => depth.min(MOST_DRAFTS),
        }
    }
}

impl fmt::Display for DraftMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
            Self::Mtp(depth) => write!(f, "mtp:{depth}"),
            Self::Lookup(depth) => write!(f, "lookup:{depth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_shown_and_nothing_else_is_read() {
        for mode in [DraftMode::Off, DraftMode::Auto, DraftMode::Mtp(2), DraftMode::Lookup(8)] {
            assert_eq!(DraftMode::parse(&mode.to_string()), Ok(mode));
        }
        for text in ["", "on", "mtp", "mtp:", "mtp:0", "mtp:9", "lookup:-1", "off:1", "auto:2"] {
            assert!(DraftMode::parse(text).is_err(), "{text}");
        }
    }
}
