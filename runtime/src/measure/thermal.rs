//! Temperature and thermal throttling. Linux exposes temperatures in `/sys/class/thermal` and
//! x86-64's throttling in `/sys/devices/system/cpu`; a Raspberry Pi reports it through `vcgencmd
//! get_throttled`.

use serde::Serialize;

use crate::host::Host;

/// ThermalState state; `None` where the machine does not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ThermalState {
    /// Temperature of the hottest sensor, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Whether the machine was throttled, because of heat or undervoltage.
    pub throttled: Option<bool>,
}

/// Baseline for a later comparison: machines report throttling as counters, or as flags that
/// persist until the next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling(Option<u64>);

/// Bits of `get_throttled`: undervoltage, frequency capped, throttled, soft temperature limit. The
/// same bits shifted by 16 mean that it has happened since boot.
const NOW: u64 = 0xf;

impl Throttling {
    /// The baseline now.
    pub fn read(host: &Host) -> Self {
        Self(raspberry_pi(host).or_else(|| events(host)))
    }
}

/// The current state, with throttling since `before`.
pub fn read(host: &Host, before: Throttling) -> ThermalState {
    let throttled = match (Throttling::read(host).0, before.0) {
        (Some(now), Some(before)) => Some(now != before || is_now(host)),
        _ => None,
    };
    ThermalState { temperature_c: temperature(host), throttled }
}

/// Temperature of the hottest zone.
pub fn temperature(host: &Host) -> Option<f64> {
    let zones = host.list("sys/class/thermal").into_iter();
    let zones = zones.filter(|name| name.starts_with("thermal_zone"));
    let read = |zone: String| -> Option<f64> {
        let milli: f64 = host.text(format!("sys/class/thermal/{zone}/temp"))?.parse().ok()?;
        // Disabled zones report absurd values.
        Some(milli / 1000.0).filter(|celsius| (-40.0..150.0).contains(celsius) && *celsius != 0.0)
    };
    zones.filter_map(read).reduce(f64::max)
}

fn raspberry_pi(host: &Host) -> Option<u64> {
    if !host.read("proc/device-tree/model").ok()?.starts_with("Raspberry Pi") {
        return None;
    }
    let said = host.run("vcgencmd", &["get_throttled"]).ok()?;
    u64::from_str_radix(said.trim().strip_prefix("throttled=0x")?, 16).ok()
}

fn is_now(host: &Host) -> bool {
    raspberry_pi(host).is_some_and(|bits| bits & NOW != 0)
}

/// Total number of throttling events of all cores and packages.
fn events(host: &Host) -> Option<u64> {
    let counters = host.list("sys/devices/system/cpu").into_iter().flat_map(|cpu| {
        let folder = format!("sys/devices/system/cpu/{cpu}/thermal_throttle");
        [format!("{folder}/core_throttle_count"), format!("{folder}/package_throttle_count")]
    });
    counters.filter_map(|counter| host.number(counter)).reduce(u64::saturating_add)
}
