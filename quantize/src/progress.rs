//! Progress of long work.

/// Stage of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Measuring the error of each type.
    Planning,
    /// Running calibration texts.
    Calibrating,
    /// Encoding and writing.
    Writing,
    /// Reading the file back.
    Verifying,
}

impl Stage {
    /// Name for a progress bar.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Calibrating => "calibrating",
            Self::Writing => "quantizing",
            Self::Verifying => "verifying",
        }
    }
}

/// Progress of a stage, in weights, or in bytes during verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Stage of the work.
    pub stage: Stage,
    /// Amount done.
    pub done: u64,
    /// Total amount.
    pub total: u64,
}

impl Progress {
    /// Reports this progress, and later additions to it, to a callback.
    pub(crate) fn with(self, callback: &mut dyn FnMut(Progress)) -> Reporter<'_> {
        callback(self);
        Reporter { progress: self, callback }
    }
}

/// Reports each step.
pub(crate) struct Reporter<'a> {
    progress: Progress,
    callback: &'a mut dyn FnMut(Progress),
}

impl Reporter<'_> {
    /// The callback, for other work that reports in between.
    pub fn callback(&mut self) -> &mut dyn FnMut(Progress) {
        self.callback
    }

    /// Adds to the amount done.
    pub fn add(&mut self, done: u64) {
        self.progress.done += done;
        (self.callback)(self.progress);
    }
}
