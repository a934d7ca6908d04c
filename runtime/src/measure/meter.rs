//! The interface of energy meters, and the meters of this machine.

use std::sync::Arc;
use std::time::Duration;

use super::{battery, ina3221, pmic, rapl};
use crate::host::Host;

/// Measures power or counts energy.
pub trait Meter: Send {
    /// Name of the meter, such as `RAPL`.
    fn name(&self) -> &str;

    /// What the meter covers: the processor, the board, the whole machine.
    fn scope(&self) -> &str;

    /// Reads the meter. Counters wrap, so it must be called every few minutes.
    fn read(&mut self) -> Result<Reading, MeterError>;

    /// Number of values received so far from a source that delivers them on its own. `None` if every
    /// reading is a new value.
    fn received(&self) -> Option<u64> {
        None
    }

    /// Interval at which new values appear.
    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// Whether the values come from a stated wattage instead of a measurement.
    fn is_estimate(&self) -> bool {
        false
    }
}

/// A reading of a meter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// Joules since the previous reading, or since the meter was created.
    Joules(f64),
    /// Current power.
    Watts(f64),
}

/// Error of reading a meter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{meter}: {reason}")]
pub struct MeterError {
    /// Name of the meter.
    pub meter: String,
    /// The reason, and what to do.
    pub reason: String,
}

impl MeterError {
    /// An error of the meter with that name.
    pub fn new(meter: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { meter: meter.into(), reason: reason.into() }
    }
}

/// A kind of meter that machines may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterKind {
    /// [`ina3221`].
    Ina3221,
    /// [`pmic`].
    Pmic,
    /// [`rapl`].
    Rapl,
    /// [`battery`].
    Battery,
}

impl MeterKind {
    /// All kinds, in order of preference: meters that cover more of the board, or have a finer
    /// resolution, come first.
    pub const ALL: [Self; 4] = [Self::Ina3221, Self::Pmic, Self::Rapl, Self::Battery];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ina3221 => "ina3221",
            Self::Pmic => "pmic",
            Self::Rapl => "rapl",
            Self::Battery => "battery",
        }
    }

    /// The kind with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Finds a meter of this kind; `None` if the machine has none.
    pub fn find(self, host: &Arc<Host>) -> Option<Result<Box<dyn Meter>, MeterError>> {
        fn boxed<M: Meter + 'static>(meter: M) -> Box<dyn Meter> {
            Box::new(meter)
        }
        match self {
            Self::Ina3221 => ina3221::find(host).map(|found| found.map(boxed)),
            Self::Pmic => pmic::find(host).map(|found| found.map(boxed)),
            Self::Rapl => rapl::find(host).map(|found| found.map(boxed)),
            Self::Battery => battery::find(host).map(|found| found.map(boxed)),
        }
    }
}

/// The meters of a machine in order of preference, and the errors of those that cannot be read.
pub struct Meters {
    /// Readable meters.
    pub found: Vec<Box<dyn Meter>>,
    /// Errors of meters that are present but cannot be read.
    pub refused: Vec<MeterError>,
}

impl Meters {
    /// Finds meters of all kinds.
    pub fn find(host: &Arc<Host>) -> Self {
        let mut meters = Self { found: Vec::new(), refused: Vec::new() };
        for kind in MeterKind::ALL {
            match kind.find(host) {
                Some(Ok(meter)) => meters.found.push(meter),
                Some(Err(error)) => meters.refused.push(error),
                None => {}
            }
        }
        meters
    }

    /// The preferred meter, or a text that explains why there is none.
    pub fn into_best(self) -> Result<Box<dyn Meter>, String> {
        let refused: Vec<String> = self.refused.iter().map(ToString::to_string).collect();
        self.found.into_iter().next().ok_or_else(|| match refused.is_empty() {
            true => "this machine has no energy meter that is known".into(),
            false => refused.join("; "),
        })
    }
}
