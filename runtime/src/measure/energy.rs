//! Energy from the meters of the machine.

use std::path::Path;

use super::rapl;

/// Something that counts energy.
pub trait Meter: Send {
    /// Where the figure comes from, such as `RAPL package-0`.
    fn name(&self) -> &str;

    /// What it covers: the processor, the board, the whole machine.
    fn scope(&self) -> &str;

    /// Joules since the last call, or since the meter was made. Counters wrap, so it must be called
    /// every few minutes.
    fn joules(&mut self) -> Result<f64, MeterError>;
}

/// Why a meter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{meter}: {reason}")]
pub struct MeterError {
    /// Which.
    pub meter: String,
    /// Why, and what helps.
    pub reason: String,
}

/// The meters found, and why others are not there.
pub struct Meters {
    /// Those that can be read.
    pub found: Vec<Box<dyn Meter>>,
    /// Those that cannot.
    pub refused: Vec<MeterError>,
}

/// Looks for meters under `root`, which is `/` but for tests.
pub fn find(root: &Path) -> Meters {
    let mut meters = Meters { found: Vec::new(), refused: Vec::new() };
    for meter in rapl::find(root) {
        match meter {
            Ok(meter) => meters.found.push(Box::new(meter)),
            Err(error) => meters.refused.push(error),
        }
    }
    meters
}

/// Adds up the energy of a run.
pub struct Recorder {
    meters: Vec<Box<dyn Meter>>,
    joules: f64,
    failed: bool,
}

impl Recorder {
    /// Starts to count.
    pub fn start(root: &Path) -> Self {
        let mut recorder = Self { meters: find(root).found, joules: 0.0, failed: false };
        recorder.sample();
        recorder.joules = 0.0;
        recorder
    }

    /// Reads the meters: at least every few minutes, since counters wrap.
    pub fn sample(&mut self) {
        for meter in &mut self.meters {
            match meter.joules() {
                Ok(joules) => self.joules += joules,
                Err(_) => self.failed = true,
            }
        }
    }

    /// Joules since the start; `None` where there is no meter, or one went away.
    pub fn joules(&mut self) -> Option<f64> {
        self.sample();
        (!self.meters.is_empty() && !self.failed).then_some(self.joules)
    }
}
