//! INA3221 monitors of NVIDIA Jetson modules, which Linux exposes under `/sys/class/hwmon`: voltage
//! and current of up to three labelled rails each.
//!
//! On modules with a `VDD_IN` rail (Orin NX, Orin Nano, Xavier NX), that rail measures the whole
//! module. The AGX modules have one rail per consumer, to be added up, except rails that are fed by
//! another one. (NVIDIA Jetson Linux Developer Guide, "Software-Based Power Consumption Modeling":
//! rails and labels)

use std::sync::Arc;

use super::meter::{Meter, MeterError, Reading};
use crate::host::Host;

const NAME: &str = "INA3221";
const FOLDER: &str = "sys/class/hwmon";
/// Labels of rails that measure a whole module.
const WHOLE: [&str; 2] = ["VDD_IN", "POM_5V_IN"];
/// Labels of rails whose sum is the module's power: AGX Orin's, then AGX Xavier's. AGX Orin's
/// VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0.
const PARTS: [&str; 9] =
    ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"];

/// Rails of a module.
pub struct Ina3221 {
    host: Arc<Host>,
    scope: String,
    rails: Vec<Rail>,
}

struct Rail {
    label: String,
    /// File with millivolts.
    volts: String,
    /// File with milliamperes.
    amperes: String,
}

/// Finds the monitors of a machine; `None` if it has none.
pub fn find(host: &Arc<Host>) -> Option<Result<Ina3221, MeterError>> {
    let mut rails = Vec::new();
    for chip in host.list(FOLDER) {
        let chip = format!("{FOLDER}/{chip}");
        if host.text(format!("{chip}/name")).as_deref() != Some("ina3221") {
            continue;
        }
        for channel in 1..=3 {
            if let Some(label) = host.text(format!("{chip}/in{channel}_label")) {
                let volts = format!("{chip}/in{channel}_input");
                rails.push(Rail { label, volts, amperes: format!("{chip}/curr{channel}_input") });
            }
        }
    }
    (!rails.is_empty()).then(|| open(host, rails))
}

fn open(host: &Arc<Host>, mut rails: Vec<Rail>) -> Result<Ina3221, MeterError> {
    let labels: Vec<String> = rails.iter().map(|rail| rail.label.clone()).collect();
    let whole = rails.iter().position(|rail| WHOLE.contains(&rail.label.as_str()));
    let scope = match whole {
        Some(at) => {
            rails = vec![rails.swap_remove(at)];
            format!("whole module ({})", rails[0].label)
        }
        None => {
            rails.retain(|rail| PARTS.contains(&rail.label.as_str()));
            let summed: Vec<&str> = rails.iter().map(|rail| rail.label.as_str()).collect();
            format!("module, sum of {}", summed.join(", "))
        }
    };
    if rails.is_empty() {
        let reason = format!("none of its rails is known to add up: {}", labels.join(", "));
        return Err(MeterError::new(NAME, reason));
    }
    let mut meter = Ina3221 { host: host.clone(), scope, rails };
    meter.read()?; // refused now rather than in the middle of a run
    Ok(meter)
}

impl Rail {
    fn watts(&self, host: &Host) -> Result<f64, MeterError> {
        let milli = |path: &str, unit: &str| {
            let text = host.read(path).map_err(|error| format!("/{path}: {error}"))?;
            let value: Option<u32> = text.trim().parse().ok();
            value.map(f64::from).ok_or_else(|| {
                format!("/{path} is {:?}; allowed: {unit} of {}", text.trim(), self.label)
            })
        };
        let volts = milli(&self.volts, "millivolts");
        let watts = volts.and_then(|volts| Ok(volts * milli(&self.amperes, "milliamperes")? / 1e6));
        watts.map_err(|reason: String| MeterError::new(NAME, reason))
    }
}

impl Meter for Ina3221 {
    fn name(&self) -> &str {
        NAME
    }

    fn scope(&self) -> &str {
        &self.scope
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        let watts = self.rails.iter().map(|rail| rail.watts(&self.host));
        Ok(Reading::Watts(watts.sum::<Result<f64, _>>()?))
    }
}
