//! The way to a request's sink: closed by one `Done`, whatever happens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::request::{EngineError, Finished, Notice, Sink};

/// A sink that gets exactly one [`Notice::Done`], also if the engine's thread panics.
#[derive(Clone)]
pub(super) struct Outlet(Arc<Mutex<Inner>>);

/// `None` after the end.
struct Inner(Option<Sink>);

impl Outlet {
    pub fn new(sink: Sink) -> Self {
        Self(Arc::new(Mutex::new(Inner(Some(sink)))))
    }

    pub fn send(&self, notice: Notice) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).send(notice);
    }

    pub fn done(&self, result: Result<Finished, EngineError>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.send(Notice::Done(result.map(Box::new)));
        inner.0 = None;
    }
}

impl Inner {
    /// A sink that panics gets nothing more; other requests are not affected.
    fn send(&mut self, notice: Notice) {
        let Some(sink) = &mut self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| sink(notice))).is_err() {
            self.0 = None;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.send(Notice::Done(Err(EngineError::Stopped)));
    }
}
