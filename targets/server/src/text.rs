//! One thread for tokenizing, templates and grammars: the cores of the model stay with the model,
//! and connections never wait for a long prompt of another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{ApiError, Result};

/// Jobs that may wait.
const WAITING: usize = 64;
/// Stack in bytes: templates recurse.
const STACK: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// The thread.
#[derive(Clone)]
pub(crate) struct TextThread {
    jobs: SyncSender<Job>,
}

impl TextThread {
    /// Starts the thread; it ends with the last clone of this.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(WAITING);
        let work = move || waiting.into_iter().for_each(|job| job());
        thread::Builder::new().name("vaquita-text".into()).stack_size(STACK).spawn(work)?;
        Ok(Self { jobs })
    }

    /// Runs a job and waits for its result.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, result) = oneshot::channel();
        let job = move || {
            // A panic is a bug; it fails this request alone.
            let result = catch_unwind(AssertUnwindSafe(job));
            let _ = done.send(result.unwrap_or_else(|_| Err(ApiError::internal("a bug"))));
        };
        self.jobs.try_send(Box::new(job)).map_err(|_| {
            let message = "too many requests are being read; try again later";
            ApiError::unavailable(message, Duration::from_secs(2))
        })?;
        result.await.unwrap_or_else(|_| Err(ApiError::internal("the text thread has ended")))
    }
}
