//! What all requests share.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{ApiError, Result};
use crate::http::body::Bodies;
use crate::http::guard::Guard;
use crate::http::metrics::Metrics;
use crate::openai::control::Controls;
use crate::options::ServerOptions;
use crate::prompt_log::PromptLog;
use crate::resume::Streams;
use crate::served::Served;
use crate::text::TextThread;

/// The server.
#[derive(Clone)]
pub(crate) struct State(Arc<Shared>);

/// Shared parts of the server.
pub(crate) struct Shared {
    pub options: ServerOptions,
    pub guard: Guard,
    pub metrics: Arc<Metrics>,
    pub text: TextThread,
    pub bodies: Bodies,
    pub streams: Streams,
    pub controls: Controls,
    /// The log of texts, if there is one.
    pub prompt_log: Option<PromptLog>,
    model: OnceLock<Arc<Served>>,
    draining: AtomicBool,
}

impl Deref for State {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl State {
    /// A server whose model is not open yet.
    pub fn new(
        options: ServerOptions,
        loopback: bool,
        prompt_log: Option<PromptLog>,
    ) -> std::io::Result<Self> {
        let guard = Guard::new(options.clone(), loopback);
        let (metrics, text) = (Arc::default(), TextThread::start()?);
        let bodies = Bodies::new(options.limits.body_bytes);
        let (streams, controls) = (Streams::default(), Controls::default());
        let (model, draining) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared {
            options,
            guard,
            metrics,
            text,
            bodies,
            streams,
            controls,
            prompt_log,
            model,
            draining,
        })))
    }

    /// Sets the model, once.
    pub fn open(&self, model: Arc<Served>) {
        let _ = self.model.set(model); // there is one model
    }

    /// The model, once it is open and until the server ends.
    pub fn model(&self) -> Result<&Arc<Served>> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("draining", Duration::from_secs(10)));
        }
        let loading = || ApiError::unavailable("Loading model", Duration::from_secs(5));
        self.model.get().ok_or_else(loading)
    }

    /// Accepts nothing more, and returns the model if it is open.
    pub fn drain(&self) -> Option<&Arc<Served>> {
        self.draining.store(true, Ordering::Relaxed);
        self.model.get()
    }
}
