//! Intel's and AMD's RAPL counters, which Linux exposes as `/sys/class/powercap/intel-rapl:N`.
//!
//! The sum of all packages, and of memory if it has a counter of its own. Cores and graphics are
//! parts of a package, and `psys` includes the packages, so adding them would count energy twice.
//! (Linux: Documentation/power/powercap/powercap.rst)

use std::io;
use std::sync::Arc;

use super::meter::{Meter, MeterError, Reading};
use crate::host::Host;

const NAME: &str = "RAPL";
const FOLDER: &str = "sys/class/powercap";

/// All packages of a machine.
pub struct Rapl {
    host: Arc<Host>,
    scope: String,
    counters: Vec<Counter>,
}

struct Counter {
    path: String,
    /// Value in microjoules at which the counter wraps.
    range: u64,
    last: u64,
}

/// Finds the counters of a machine; `None` if it has none.
pub fn find(host: &Arc<Host>) -> Option<Result<Rapl, MeterError>> {
    let zones = host.list(FOLDER).into_iter().filter(|name| name.starts_with("intel-rapl:"));
    let named = zones.filter_map(|zone| Some((host.text(format!("{FOLDER}/{zone}/name"))?, zone)));
    let counted: Vec<(String, String)> =
        named.filter(|(name, _)| name.starts_with("package") || name == "dram").collect();
    if counted.is_empty() {
        return None;
    }
    Some(open(host, &counted))
}

fn open(host: &Arc<Host>, counted: &[(String, String)]) -> Result<Rapl, MeterError> {
    let counter = |(_, zone): &(String, String)| {
        let range = read(host, &format!("{FOLDER}/{zone}/max_energy_range_uj"))?;
        let path = format!("{FOLDER}/{zone}/energy_uj");
        Ok(Counter { range, last: read(host, &path)?, path })
    };
    let counters = counted.iter().map(counter).collect::<Result<_, MeterError>>()?;
    let scope = match counted.iter().any(|(name, _)| name == "dram") {
        true => "processor packages and memory, without the rest of the board",
        false => "processor packages, without memory and board",
    };
    Ok(Rapl { host: host.clone(), scope: scope.into(), counters })
}

fn read(host: &Host, path: &str) -> Result<u64, MeterError> {
    let text = host.read(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "/{path} can be read by root only: run as root, or `sudo chmod a+r /{FOLDER}/intel-rapl*/energy_uj` \
             until the next start"
        ),
        _ => format!("/{path}: {error}"),
    });
    let number = text.and_then(|text| {
        let bad = |_| format!("/{path} is {:?}; allowed: microjoules", text.trim());
        text.trim().parse().map_err(bad)
    });
    number.map_err(|reason| MeterError::new(NAME, reason))
}

impl Counter {
    /// Microjoules since the previous call.
    fn used(&mut self, host: &Host) -> Result<u64, MeterError> {
        let now = read(host, &self.path)?;
        let wrapped = || now.saturating_add(self.range).saturating_sub(self.last);
        let used = now.checked_sub(self.last).unwrap_or_else(wrapped);
        self.last = now;
        Ok(used)
    }
}

impl Meter for Rapl {
    fn name(&self) -> &str {
        NAME
    }

    fn scope(&self) -> &str {
        &self.scope
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        let mut joules = 0.0;
        for counter in &mut self.counters {
            joules += counter.used(&self.host)? as f64 / 1e6;
        }
        Ok(Reading::Joules(joules))
    }
}
