//! Batteries that Linux exposes under `/sys/class/power_supply`, in watts or in amperes and volts.
//! They measure the whole machine, but only while it runs on battery, and update only every few
//! seconds, so they suit long runs.

use std::sync::Arc;
use std::time::Duration;

use super::meter::{Meter, MeterError, Reading};
use crate::host::Host;

const FOLDER: &str = "sys/class/power_supply";

/// All batteries that power a machine.
pub struct Battery {
    host: Arc<Host>,
    name: String,
    folders: Vec<String>,
}

/// Finds the batteries of a machine; `None` if it has none.
pub fn find(host: &Arc<Host>) -> Option<Result<Battery, MeterError>> {
    let folders = host.list(FOLDER).into_iter().map(|name| format!("{FOLDER}/{name}"));
    let of_the_machine = |folder: &String| {
        let text = |name| host.text(format!("{folder}/{name}"));
        // Batteries of mice and pens have the scope "Device".
        text("type").as_deref() == Some("Battery") && text("scope").as_deref() != Some("Device")
    };
    let folders: Vec<String> = folders.filter(of_the_machine).collect();
    let names: Vec<&str> = folders.iter().filter_map(|folder| folder.rsplit('/').next()).collect();
    let name = format!("battery {}", names.join(", "));
    if folders.is_empty() {
        return None;
    }
    let mut meter = Battery { host: host.clone(), name, folders };
    Some(meter.read().map(|_| meter))
}

impl Battery {
    fn watts(&self, folder: &str) -> Result<f64, String> {
        let micro = |name: &str| {
            let path = format!("{folder}/{name}");
            let text = self.host.read(&path).map_err(|error| format!("/{path}: {error}"))?;
            // Some drivers report discharge as negative.
            let value = text.trim().parse::<i64>().map(|value| value.unsigned_abs() as f64 / 1e6);
            value.map_err(|_| format!("/{path} is {:?}; allowed: millionths", text.trim()))
        };
        match micro("power_now") {
            Ok(watts) => Ok(watts),
            Err(reason) if self.host.text(format!("{folder}/power_now")).is_some() => Err(reason),
            Err(_) => Ok(micro("current_now")? * micro("voltage_now")?),
        }
    }
}

impl Meter for Battery {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> &str {
        "whole machine"
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        let refused = |reason| MeterError::new(self.name.clone(), reason);
        let mut watts = None;
        for folder in &self.folders {
            let status = self.host.text(format!("{folder}/status")).unwrap_or_default();
            if status == "Discharging" {
                let own = self.watts(folder).map_err(refused)?;
                watts = Some(watts.unwrap_or(0.0) + own);
            } else if status == "Charging" {
                watts = None;
                break;
            }
        }
        let plugged = "it measures only while the machine runs from it: unplug the power supply";
        watts.map(Reading::Watts).ok_or_else(|| refused(plugged.into()))
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}
