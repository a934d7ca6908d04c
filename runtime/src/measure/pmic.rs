//! Power management chip of the Raspberry Pi 5, through `vcgencmd pmic_read_adc`: current and
//! voltage of its rails, one per line, such as `VDD_CORE_A current(7)=0.97A` and `VDD_CORE_V
//! volt(15)=0.72V`.
//!
//! These rails include neither what USB devices, fans and hats draw from the 5 V input, nor the
//! losses of the chip itself, so the power at the socket is higher. Earlier boards have no sensor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::meter::{Meter, MeterError, Reading};
use crate::host::Host;

const NAME: &str = "Raspberry Pi PMIC";

/// Rails of a board.
pub struct Pmic {
    host: Arc<Host>,
}

/// Finds the chip of a machine; `None` if it has none.
pub fn find(host: &Arc<Host>) -> Option<Result<Pmic, MeterError>> {
    let model = host.read("proc/device-tree/model").ok()?;
    if !model.starts_with("Raspberry Pi 5") && !model.starts_with("Raspberry Pi Compute Module 5") {
        return None;
    }
    let mut meter = Pmic { host: host.clone() };
    Some(meter.read().map(|_| meter))
}

/// Total power in watts of the rails that report both current and voltage.
fn watts(text: &str) -> Result<f64, String> {
    let (mut amperes, mut volts) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let bad = || {
            format!(
                "vcgencmd says {line:?}; allowed: NAME_A current(N)=0.97A or NAME_V volt(N)=0.72V"
            )
        };
        let (name, rest) = line.split_once(' ').ok_or_else(bad)?;
        let (kind, value) = rest.split_once('=').ok_or_else(bad)?;
        let (of, unit, rails) = match kind.trim().split_once('(').map(|(kind, _)| kind) {
            Some("current") => ("_A", 'A', &mut amperes),
            Some("volt") => ("_V", 'V', &mut volts),
            _ => return Err(bad()),
        };
        let name = name.strip_suffix(of).ok_or_else(bad)?;
        let value: f64 =
            value.strip_suffix(unit).and_then(|value| value.parse().ok()).ok_or_else(bad)?;
        if !(0.0..1000.0).contains(&value) {
            return Err(bad());
        }
        rails.insert(name, value);
    }
    let rails = amperes.iter().filter_map(|(name, amperes)| Some(amperes * volts.get(name)?));
    let rails: Vec<f64> = rails.collect();
    match rails.is_empty() {
        true => Err("vcgencmd lists no rail with both amperes and volts".into()),
        false => Ok(rails.iter().sum()),
    }
}

impl Meter for Pmic {
    fn name(&self) -> &str {
        NAME
    }

    fn scope(&self) -> &str {
        "the board's rails, without USB, fan and losses in conversion"
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        let said = self.host.run("vcgencmd", &["pmic_read_adc"]).map_err(|error| {
            format!(
                "vcgencmd pmic_read_adc: {error}; install raspi-utils, and join the group video"
            )
        });
        let watts = said.and_then(|text| watts(&text));
        watts.map(Reading::Watts).map_err(|reason| MeterError::new(NAME, reason))
    }

    /// Each reading starts a process.
    fn interval(&self) -> Duration {
        Duration::from_millis(250)
    }
}
