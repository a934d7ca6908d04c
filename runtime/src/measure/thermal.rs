//! How hot the machine is, and whether it slows down for that. Linux shows temperatures in `/sys/class/thermal` and
//! x86-64's throttling in `/sys/devices/system/cpu`; a Raspberry Pi says it through `vcgencmd get_throttled`.

use serde::Serialize;

use crate::host::Host;

/// What could be read; `None` where the machine does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Thermal {
    /// The hottest sensor, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Whether the machine has slowed down, for heat or want of power.
    pub throttled: Option<bool>,
}

/// What to compare with later: throttling is told in counters, or in marks that stay until the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling(Option<u64>);

/// Bits of `get_throttled`: under voltage, frequency capped, throttled, soft temperature limit. Those 16 higher say
/// that it has happened since the start.
const NOW: u64 = 0xf;

impl Throttling {
    /// So far.
    pub fn read(host: &Host) -> Self {
        Self(raspberry_pi(host).or_else(|| events(host)))
    }
}

/// The state now, with throttling as seen since `before`.
pub fn read(host: &Host, before: Throttling) -> Thermal {
    let throttled = match (Throttling::read(host).0, before.0) {
        (Some(now), Some(before)) => Some(now != before || is_now(host)),
        _ => None,
    };
    Thermal { temperature_c: temperature(host), throttled }
}

/// The hottest of all zones.
pub fn temperature(host: &Host) -> Option<f64> {
    let zones = host.list("sys/class/thermal").into_iter();
    let zones = zones.filter(|name| name.starts_with("thermal_zone"));
    let read = |zone: String| -> Option<f64> {
        let milli: f64 = host.text(format!("sys/class/thermal/{zone}/temp"))?.parse().ok()?;
        // Zones that are switched off read as absurd values.
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

/// How often cores and packages were slowed down, all added up.
fn events(host: &Host) -> Option<u64> {
    let counters = host.list("sys/devices/system/cpu").into_iter().flat_map(|cpu| {
        let folder = format!("sys/devices/system/cpu/{cpu}/thermal_throttle");
        [format!("{folder}/core_throttle_count"), format!("{folder}/package_throttle_count")]
    });
    counters.filter_map(|counter| host.number(counter)).reduce(u64::saturating_add)
}
