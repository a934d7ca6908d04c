//! Reads a meter periodically in a thread of its own and accumulates the readings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::memory;
use super::meter::{Meter, MeterError, Meters, Reading};
use crate::host::Host;

/// Limit on the samples kept for drawing; a longer run keeps every second one, then every fourth,
/// and so on.
const MOST_SAMPLES: usize = 4096;

/// A sample of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Time since the host was created.
    pub at: Duration,
    /// Joules since the sampler started; `None` without a meter, or once it has failed.
    pub joules: Option<f64>,
    /// Values received from the meter.
    pub values: u64,
    /// Tokens since the sampler started, as reported by [`MeterSampler::count`].
    pub tokens: u64,
    /// Resident bytes of this process; `None` if the system does not report them.
    pub resident: Option<u64>,
}

/// Time and energy between two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Duration.
    pub time: Duration,
    /// Energy used; `None` if it was not measured.
    pub joules: Option<f64>,
    /// Whether the meter delivered a value in this time. If not, `joules` is an extrapolation of the
    /// last one.
    pub fresh: bool,
}

impl Sample {
    /// Time and energy since an earlier sample.
    pub fn since(&self, earlier: &Self) -> Interval {
        let time = self.at.saturating_sub(earlier.at);
        let joules = self.joules.zip(earlier.joules).map(|(now, before)| now - before);
        Interval { time, joules, fresh: self.values > earlier.values }
    }
}

/// Samples a meter. Without a meter, it samples time and memory only.
pub struct MeterSampler {
    shared: Arc<Shared>,
    /// Dropped to stop the thread.
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
    /// Time and value of the previous power reading; energy is integrated by the trapezoidal rule.
    power: Option<(Duration, f64)>,
    joules: f64,
    failed: Option<MeterError>,
    readings: u64,
    samples: Vec<Sample>,
    /// One of every `keep` samples is kept.
    keep: u64,
}

impl MeterSampler {
    /// Starts to read a meter at its interval. A recorded host is read only at marks, since they
    /// advance its time.
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

    /// A sampler of this machine's preferred meter, if there is one.
    pub fn auto() -> Self {
        let host = Arc::new(Host::live());
        Self::start(Meters::find(&host).into_best().ok(), host)
    }

    /// Takes a sample now.
    pub fn mark(&self) -> Sample {
        self.shared.host.advance();
        self.shared.sample(true)
    }

    /// Stops the thread and takes the last sample: the meter is not read after it.
    pub fn finish(mut self) -> Sample {
        self.stop();
        self.mark()
    }

    /// Adds tokens that were read or generated.
    pub fn count(&self, tokens: u64) {
        self.shared.tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Joules since the start; `None` without a meter, or if it failed.
    pub fn joules(&self) -> Option<f64> {
        self.mark().joules
    }

    /// Number of values received from the meter so far.
    pub fn values(&self) -> u64 {
        self.shared.state().values()
    }

    /// The error of the meter, if it failed.
    pub fn failure(&self) -> Option<MeterError> {
        self.shared.state().failed.clone()
    }

    /// The samples, for drawing.
    pub fn samples(&self) -> Vec<Sample> {
        self.shared.state().samples.clone()
    }

    fn stop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // where a meter panicked, there is no figure to save
        }
    }
}

impl Drop for MeterSampler {
    fn drop(&mut self) {
        self.stop();
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
            values: state.values(),
            tokens: self.tokens.load(Ordering::Relaxed),
            resident: memory::current().map(|memory| memory.resident),
        };
        state.note(sample, keep);
        sample
    }
}

impl State {
    /// Reads the meter and returns the time of the reading.
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

    /// Number of values received from the meter.
    fn values(&self) -> u64 {
        self.meter.as_ref().and_then(|meter| meter.received()).unwrap_or(self.readings)
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
