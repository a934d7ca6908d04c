//! Gives memory back while the system is short of it, on Linux where it says so: `/proc/pressure/memory` has the
//! share of time that programs lately waited for memory (PSI). When the pressure has gone, the budget comes
//! back in steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{MemoryControl, TrimLevel};

/// How often pressure is read.
const INTERVAL: Duration = Duration::from_secs(1);
/// Percent of the last ten seconds in which some program waited for memory: time to give some back.
const SOME: f64 = 10.0;
/// Percent in which all did: time to give all back.
const FULL: f64 = 5.0;
/// Below this, there is no pressure.
const CALM: f64 = 1.0;
/// Calm readings in a row before the budget rises.
const PATIENCE: u32 = 10;
/// Steps in which the whole budget comes back.
const STEPS: u64 = 8;

/// A reading of `/proc/pressure/memory`, in percent of the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Some program waited.
    pub some: f64,
    /// All programs did.
    pub full: f64,
}

impl Pressure {
    /// Reads it under `root`; `None` where the system does not say.
    pub fn read(root: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(root.join("proc/pressure/memory")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let average = |kind: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
            let average = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
            average.parse().ok().filter(|share: &f64| share.is_finite())
        };
        Some(Self { some: average("some")?, full: average("full")? })
    }
}

/// What a reading calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Trim(TrimLevel),
    Raise,
}

/// Turns readings into actions.
#[derive(Default)]
struct Judge {
    calm: u32,
}

impl Judge {
    fn act(&mut self, pressure: Pressure) -> Action {
        if pressure.some >= CALM {
            self.calm = 0;
        }
        if pressure.full >= FULL {
            return Action::Trim(TrimLevel::Critical);
        }
        if pressure.some >= SOME {
            return Action::Trim(TrimLevel::Background);
        }
        self.calm += u32::from(pressure.some < CALM);
        if self.calm >= PATIENCE {
            self.calm = 0;
            return Action::Raise;
        }
        Action::Nothing
    }
}

/// Watches the system's memory and controls a model's, until it is dropped.
pub struct PressureWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl PressureWatch {
    /// Watches; `None` where the model is mapped, or the system does not say what its pressure is.
    pub fn start(memory: Arc<MemoryControl>) -> Option<Self> {
        Self::start_on(memory, PathBuf::from("/"), INTERVAL)
    }

    /// Watches the system whose `/proc` lies under `root`.
    pub fn start_on(memory: Arc<MemoryControl>, root: PathBuf, interval: Duration) -> Option<Self> {
        memory.store()?;
        Pressure::read(&root)?;
        let full = memory.plan()?.budget;
        let (stop, stopped) = channel();
        let watch = move || {
            let mut judge = Judge::default();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let Some(pressure) = Pressure::read(&root) else { return };
                match judge.act(pressure) {
                    Action::Nothing => {}
                    Action::Trim(level) => memory.trim(level),
                    Action::Raise => raise(&memory, full),
                }
            }
        };
        let builder = std::thread::Builder::new().name("vaquita-pressure".into());
        let thread = builder.spawn(watch).ok()?;
        Some(Self { stop: Some(stop), thread: Some(thread) })
    }
}

/// One step back towards the `full` budget.
fn raise(memory: &MemoryControl, full: u64) {
    let Some(plan) = memory.plan().filter(|plan| plan.budget < full) else { return };
    let floor = plan.footprint.floor();
    let step = full.saturating_sub(floor).div_ceil(STEPS);
    let budget = plan.budget.saturating_add(step).clamp(floor.min(full), full);
    // Refused only below the floor, where trimming had left it: then it stays as it is.
    let _ = memory.set_memory_budget(budget);
}

impl Drop for PressureWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it only reads and sets limits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read_and_other_text_is_not() {
        let text = "some avg10=12.50 avg60=3.10 avg300=0.90 total=123\n\
                    full avg10=1.25 avg60=0.10 avg300=0.00 total=45\n";
        assert_eq!(Pressure::parse(text), Some(Pressure { some: 12.5, full: 1.25 }));
        for text in ["", "some avg10=12.50\n", "some avg10=x\nfull avg10=0\n", "some\nfull\n"] {
            assert_eq!(Pressure::parse(text), None, "{text}");
        }
    }

    #[test]
    fn pressure_trims_at_once_and_calm_raises_slowly() {
        let mut judge = Judge::default();
        let mut act = |some, full| judge.act(Pressure { some, full });
        assert_eq!(act(12.0, 0.0), Action::Trim(TrimLevel::Background));
        assert_eq!(act(60.0, 20.0), Action::Trim(TrimLevel::Critical));
        assert_eq!(act(5.0, 0.0), Action::Nothing);
        for _ in 1..PATIENCE {
            assert_eq!(act(0.0, 0.0), Action::Nothing);
        }
        assert_eq!(act(0.0, 0.0), Action::Raise);
        assert_eq!(act(0.0, 0.0), Action::Nothing);
    }
}
