//! Releases memory while the system is short of it. On Linux, `/proc/pressure/memory` (pressure
//! stall information, PSI) reports the share of recent time in which tasks stalled on memory. When
//! the pressure has gone, the budget is restored in steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{MemoryControl, TrimLevel};

/// Interval between readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// `some` pressure, in percent, from which part of the memory is released.
const SOME: f64 = 10.0;
/// `full` pressure, in percent, from which all releasable memory is released.
const FULL: f64 = 5.0;
/// `some` pressure, in percent, below which a reading counts as calm.
const CALM: f64 = 1.0;
/// Consecutive calm readings before the budget rises.
const PATIENCE: u32 = 10;
/// Number of steps in which the whole budget is restored.
const STEPS: u64 = 8;

/// A reading of `/proc/pressure/memory`, in percent of the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// PSI `some`: at least one task stalled on memory.
    pub some: f64,
    /// PSI `full`: all non-idle tasks stalled on memory.
    pub full: f64,
}

impl Pressure {
    /// Reads the pressure from the system rooted at `root`; `None` if it does not report any.
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

/// Action that a reading calls for.
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

/// Watches the system's memory pressure and adjusts a model's budget, until dropped.
#[must_use = "memory is watched until this is dropped"]
pub struct PressureWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl PressureWatch {
    /// Starts to watch; `None` if the model is mapped or the system does not report its pressure.
    pub fn start(memory: Arc<MemoryControl>) -> Option<Self> {
        Self::start_on(memory, PathBuf::from("/"), INTERVAL)
    }

    /// Starts to watch the system whose `/proc` is below `root`.
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

/// Raises the budget one step toward `full`.
fn raise(memory: &MemoryControl, full: u64) {
    let Some(plan) = memory.plan().filter(|plan| plan.budget < full) else { return };
    let floor = plan.footprint.floor();
    let step = full.saturating_sub(floor).div_ceil(STEPS);
    let budget = plan.budget.saturating_add(step).clamp(floor.min(full), full);
    // Refused only below the floor, to which trimming reduced it: then the budget stays as it is.
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
