//! A server from its start to its end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::http::accept::Acceptor;
use crate::http::listen::{Address, Listener};
use crate::options::ServerOptions;
use crate::prompt_log::{self, PromptLog};
use crate::router::router;
use crate::served::Served;
use crate::state::State;
use crate::systemd;

/// Time that connections get to end after the last answer.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Reason why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// Other machines could use the server without a key.
    #[error(
        "{address} is open to other machines, and the server has no key: give it one with --api-key-file, listen \
         on 127.0.0.1, or accept that everyone who reaches it can use it with --insecure-no-key"
    )]
    Open {
        /// The address.
        address: String,
    },
    /// Prompts cannot be logged.
    #[error("--log-prompts: {path}: {source}")]
    Log {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Slots cannot be saved.
    #[error("--slot-save-path: {path}: {source}")]
    Slots {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A thread or the runtime cannot be started.
    #[error("the server cannot be started: {0}")]
    Start(io::Error),
}

/// A server that listens, but does not serve yet.
pub struct Server {
    runtime: Runtime,
    listeners: Vec<Listener>,
    state: State,
    ending: watch::Sender<bool>,
}

/// Ends a server from another thread.
#[derive(Clone)]
pub struct Handle(watch::Sender<bool>);

impl Handle {
    /// Ends the server: running answers get the time that the options say.
    pub fn end(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Listens on one or several addresses.
    pub fn listen(addresses: &[Address], options: ServerOptions) -> Result<Self, ServeError> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(ServeError::Start)?;
        let guard = runtime.enter();
        let listeners = Listener::open_all(addresses)
            .map_err(|(address, source)| ServeError::Listen { address, source })?;
        drop(guard);
        let open = listeners.iter().find(|listener| !listener.is_local());
        if let Some(open) = open.filter(|_| options.keys.is_empty() && !options.insecure_no_key) {
            return Err(ServeError::Open { address: open.url() });
        }
        let log = |path: &PathBuf| {
            let failed = |source| ServeError::Log { path: path.clone(), source };
            PromptLog::start(path).map_err(failed)
        };
        let log = options.log_prompts.as_ref().map(log).transpose()?;
        if let Some(path) = &options.slot_save_path {
            let failed = |source| ServeError::Slots { path: path.clone(), source };
            prompt_log::private_folder(path).map_err(failed)?;
        }
        let state = State::new(options, open.is_none(), log).map_err(ServeError::Start)?;
        Ok(Self { runtime, listeners, state, ending: watch::channel(false).0 })
    }

    /// Addresses of the server.
    pub fn urls(&self) -> Vec<String> {
        self.listeners.iter().map(Listener::url).collect()
    }

    /// A handle that ends the server.
    pub fn handle(&self) -> Handle {
        Handle(self.ending.clone())
    }

    /// Serves until SIGTERM, Ctrl-C or [`Handle::end`]. `load` opens the model on a thread of its
    /// own; until then, requests are answered with 503.
    pub fn run<E: Send + 'static>(
        self,
        load: impl FnOnce() -> Result<Served, E> + Send + 'static,
    ) -> Result<(), RunError<E>> {
        let Self { runtime, listeners, state, ending } = self;
        let served = runtime.block_on(serve(listeners, state, ending, load));
        // Threads that still compute must not hold up the end.
        runtime.shutdown_background();
        served
    }
}

/// Reason why a server ended early.
#[derive(Debug)]
pub enum RunError<E> {
    /// The server failed.
    Serve(ServeError),
    /// The model could not be opened.
    Load(E),
}

async fn serve<E: Send + 'static>(
    listeners: Vec<Listener>,
    state: State,
    ending: watch::Sender<bool>,
    load: impl FnOnce() -> Result<Served, E> + Send + 'static,
) -> Result<(), RunError<E>> {
    let start = |error| RunError::Serve(ServeError::Start(error));
    let (loaded, loading) = oneshot::channel();
    let work = move || drop(loaded.send(load()));
    thread::Builder::new().name("vaquita-load".into()).spawn(work).map_err(start)?;
    let limits = &state.options.limits;
    let (closing, closed) = watch::channel(false);
    let acceptor = Acceptor::new(router(state.clone()), limits, closed);
    for listener in listeners {
        tokio::spawn(acceptor.clone().run(listener));
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start)?;
    let mut ended = ending.subscribe();
    let mut watchdog = std::pin::pin!(watchdog());
    let mut loading = std::pin::pin!(loading);
    let mut is_open = false;
    loop {
        tokio::select! {
            model = &mut loading, if !is_open => match model {
                Ok(Ok(model)) => {
                    state.open(Arc::new(model));
                    systemd::notify("READY=1");
                    is_open = true;
                }
                Ok(Err(error)) => return Err(RunError::Load(error)),
                Err(_) => return Err(start(io::Error::other("opening the model failed"))),
            },
            () = &mut watchdog => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ended.wait_for(|ended| *ended) => break,
        }
    }
    systemd::notify("STOPPING=1");
    let drained = drain(&state, &acceptor, &closing);
    tokio::select! {
        () = drained => {}
        // A second signal: at once.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Tells systemd that the server is alive, for ever.
async fn watchdog() {
    let Some(every) = systemd::watchdog() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        systemd::notify("WATCHDOG=1");
    }
}

/// Accepts no requests, lets the engine end its answers, then ends the connections.
async fn drain(state: &State, acceptor: &Acceptor, closing: &watch::Sender<bool>) {
    if let Some(model) = state.drain().cloned() {
        let grace = state.options.grace;
        let drained = tokio::task::spawn_blocking(move || model.engine.drain(grace));
        let _ = drained.await; // a panic there ends the server as well
    }
    closing.send_replace(true);
    let all = u32::try_from(state.options.limits.connections).unwrap_or(u32::MAX);
    // Every connection has ended once all permits are free.
    let _ = tokio::time::timeout(LAST_WORDS, acceptor.open.acquire_many(all)).await;
}
