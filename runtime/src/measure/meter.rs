//! What a meter is, and which ones this machine has.

use std::sync::Arc;
use std::time::Duration;

use super::{battery, ina3221, pmic, rapl};
use crate::host::Host;

/// Something that measures power or counts energy.
pub trait Meter: Send {
    /// Where the figure comes from, such as `RAPL`.
    fn name(&self) -> &str;

    /// What it covers: the processor, the board, the whole machine.
    fn scope(&self) -> &str;

    /// Reads it. Counters wrap, so it must be called every few minutes.
    fn read(&mut self) -> Result<Reading, MeterError>;

    /// How often there is something new to read.
    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// Whether nothing is measured: its figures come from what somebody stated.
    fn is_estimate(&self) -> bool {
        false
    }
}

/// What a meter says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// Joules since the reading before, or since the meter was made.
    Joules(f64),
    /// Power now.
    Watts(f64),
}

/// Why a meter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{meter}: {reason}")]
pub struct MeterError {
    /// Which.
    pub meter: String,
    /// Why, and what helps.
    pub reason: String,
}

impl MeterError {
    /// For a meter of a name.
    pub fn new(meter: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { meter: meter.into(), reason: reason.into() }
    }
}

/// A kind of meter that is looked for on machines.
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
    /// All, those first that are preferred where a machine has several: they cover more of the board, or are
    /// read more finely.
    pub const ALL: [Self; 4] = [Self::Ina3221, Self::Pmic, Self::Rapl, Self::Battery];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ina3221 => "ina3221",
            Self::Pmic => "pmic",
            Self::Rapl => "rapl",
            Self::Battery => "battery",
        }
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Looks for it; `None` where the machine has none.
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

/// The meters of a machine, the preferred one first, and why others cannot be read.
pub struct Meters {
    /// Those that can be read.
    pub found: Vec<Box<dyn Meter>>,
    /// Those that are there, but cannot.
    pub refused: Vec<MeterError>,
}

impl Meters {
    /// Looks for all kinds.
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

    /// The preferred one, or in words why there is none.
    pub fn into_best(self) -> Result<Box<dyn Meter>, String> {
        let refused: Vec<String> = self.refused.iter().map(ToString::to_string).collect();
        self.found.into_iter().next().ok_or_else(|| match refused.is_empty() {
            true => "this machine has no energy meter that is known".into(),
            false => refused.join("; "),
        })
    }
}
