//! Reads a meter over time, in a thread of its own, and adds the readings up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::memory;
use super::meter::{Meter, MeterError, Meters, Reading};
use crate::host::Host;

/// Samples that are kept for drawing; a longer run keeps every other one, then every fourth, and so on.
const MOST_SAMPLES: usize = 4096;

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Since the host was made.
    pub at: Duration,
    /// Joules since the sampler was started; `None` without a meter, or once it has failed.
    pub joules: Option<f64>,
    /// Tokens since then, as [`Sampler::count`] was told.
    pub tokens: u64,
    /// Resident bytes of this process; `None` where the system does not say.
    pub resident: Option<u64>,
}

/// What passed between two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// How long it was.
    pub time: Duration,
    /// What was used; `None` where it was not measured.
    pub joules: Option<f64>,
}

impl Sample {
    /// What passed since an earlier sample.
    pub fn since(&self, earlier: &Self) -> Interval {
        let time = self.at.saturating_sub(earlier.at);
        let joules = self.joules.zip(earlier.joules).map(|(now, before)| now - before);
        Interval { time, joules }
    }
}

/// A meter under observation. Without a meter it still knows time and memory.
pub struct Sampler {
    shared: Arc<Shared>,
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    host: Arc<Host>,
    tokens: AtomicU64,
    state: Mutex<State>,
}

struct State {
    meter: Option<Box<dyn Meter>>,
    /// The last reading of power, which holds until the next: energy is the area of the trapezoid between.
    power: Option<(Duration, f64)>,
    joules: f64,
    failed: Option<MeterError>,
    readings: u64,
    samples: Vec<Sample>,
    /// One sample in so many is kept.
    keep: u64,
}

impl Sampler {
    /// Starts to read a meter as often as it has something new. A recorded host is read at marks only, since its
    /// time goes on with them.
    pub fn start(meter: Option<Box<dyn Meter>>, host: Arc<Host>) -> Self {
        let every = meter.as_ref().map_or(Duration::from_millis(100), |meter| meter.interval());
        let live = host.is_live();
        let state = State {
            meter,
            power: None,
            joules: 0.0,
            failed: None,
            readings: 0,
            samples: Vec::new(),
            keep: 1,
        };
        let tokens = AtomicU64::new(0);
        let shared = Arc::new(Shared { host, tokens, state: Mutex::new(state) });
        shared.sample(false);
        shared.state().joules = 0.0; // what a counter had counted before
        let (end, ended) = channel::<()>();
        let thread = live.then(|| {
            let shared = shared.clone();
            let read = move || {
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
                    shared.sample(false);
                }
            };
            std::thread::Builder::new().name("vaquita-meter".into()).spawn(read).ok()
        });
        Self { shared, end: Some(end), thread: thread.flatten() }
    }

    /// The preferred meter of this machine, if there is one.
    pub fn auto() -> Self {
        let host = Arc::new(Host::live());
        Self::start(Meters::find(&host).into_best().ok(), host)
    }

    /// A sample now.
    pub fn mark(&self) -> Sample {
        self.shared.host.advance();
        self.shared.sample(true)
    }

    /// Notes tokens that were read or generated.
    pub fn count(&self, tokens: u64) {
        self.shared.tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Joules since the start; `None` where there is no meter, or it failed.
    pub fn joules(&self) -> Option<f64> {
        self.mark().joules
    }

    /// Readings of the meter so far.
    pub fn readings(&self) -> u64 {
        self.shared.state().readings
    }

    /// Why the meter failed, if it did.
    pub fn failure(&self) -> Option<MeterError> {
        self.shared.state().failed.clone()
    }

    /// The samples, for drawing.
    pub fn samples(&self) -> Vec<Sample> {
        self.shared.state().samples.clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // where a meter panicked, there is no figure to save
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample(&self, keep: bool) -> Sample {
        let mut state = self.state();
        let at = state.read(&self.host);
        let sample = Sample {
            at,
            joules: (state.meter.is_some() && state.failed.is_none()).then_some(state.joules),
            tokens: self.tokens.load(Ordering::Relaxed),
            resident: memory::current().map(|memory| memory.resident),
        };
        state.note(sample, keep);
        sample
    }
}

impl State {
    /// Reads the meter; says when that was.
    fn read(&mut self, host: &Host) -> Duration {
        let meter = self.meter.as_mut().filter(|_| self.failed.is_none());
        let Some(meter) = meter else { return host.now() };
        let reading = meter.read();
        let now = host.now();
        self.readings += 1;
        match reading {
            Ok(Reading::Joules(joules)) => self.joules += joules,
            Ok(Reading::Watts(watts)) => {
                let (before, last) = self.power.replace((now, watts)).unwrap_or((now, watts));
                self.joules += (last + watts) / 2.0 * now.saturating_sub(before).as_secs_f64();
            }
            Err(error) => self.failed = Some(error),
        }
        now
    }

    fn note(&mut self, sample: Sample, keep: bool) {
        if self.samples.len() >= MOST_SAMPLES {
            self.keep *= 2;
            let mut at = 0u64;
            self.samples.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        if keep || self.readings.is_multiple_of(self.keep) {
            self.samples.push(sample);
        }
    }
}
