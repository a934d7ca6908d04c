//! How far long work has come.

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Measuring what each type would lose.
    Planning,
    /// Reading texts.
    Calibrating,
    /// Encoding and writing.
    Writing,
    /// Reading the file back.
    Verifying,
}

impl Stage {
    /// For a progress bar.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Calibrating => "calibrating",
            Self::Writing => "quantizing",
            Self::Verifying => "verifying",
        }
    }
}

/// So much of so much: weights, or bytes where a file is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Done so far.
    pub done: u64,
    /// To be done in all.
    pub total: u64,
}

impl Progress {
    /// Reports this, and what is added to it later, to a callback.
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
    /// Where other work reports meanwhile.
    pub fn callback(&mut self) -> &mut dyn FnMut(Progress) {
        self.callback
    }

    /// So much more is done.
    pub fn add(&mut self, done: u64) {
        self.progress.done += done;
        (self.callback)(self.progress);
    }
}
