//! Intel's and AMD's RAPL counters, which Linux shows as `/sys/class/powercap/intel-rapl:N`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::energy::{Meter, MeterError};

pub(super) struct Rapl {
    name: String,
    counter: PathBuf,
    /// Microjoules at which the counter wraps.
    range: u64,
    last: u64,
}

/// One meter per processor package under `root`.
pub(super) fn find(root: &Path) -> Vec<Result<Rapl, MeterError>> {
    let folder = root.join("sys/class/powercap");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // Packages are `intel-rapl:0`; parts of them, `intel-rapl:0:1`, would count twice.
    let package = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix("intel-rapl:").is_some_and(|rest| rest.parse::<u32>().is_ok())
    };
    let mut packages: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(package).collect();
    packages.sort();
    packages.iter().map(|package| open(package)).collect()
}

fn open(package: &Path) -> Result<Rapl, MeterError> {
    let part = fs::read_to_string(package.join("name")).unwrap_or_default();
    let name = format!("RAPL {}", part.trim());
    let refused = |reason: String| MeterError { meter: name.clone(), reason };
    let counter = package.join("energy_uj");
    let range = read(&package.join("max_energy_range_uj")).map_err(refused)?;
    let last = read(&counter).map_err(refused)?;
    Ok(Rapl { name, counter, range, last })
}

fn read(path: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{} can be read by root only: run as root, or chmod it", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    })?;
    let bad = |_| format!("{} is {:?}; allowed: microjoules", path.display(), text.trim());
    text.trim().parse().map_err(bad)
}

impl Meter for Rapl {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> &str {
        "processor package, without memory and board"
    }

    fn joules(&mut self) -> Result<f64, MeterError> {
        let refused = |reason| MeterError { meter: self.name.clone(), reason };
        let now = read(&self.counter).map_err(refused)?;
        let used = match now.checked_sub(self.last) {
            Some(used) => used,
            None => (now + self.range).saturating_sub(self.last),
        };
        self.last = now;
        Ok(used as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::super::energy::{Recorder, find};
    use super::*;

    fn machine(packages: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (package, energy) in packages {
            let folder = root.path().join("sys/class/powercap").join(package);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), "package-0\n").unwrap();
            fs::write(folder.join("max_energy_range_uj"), "1000000\n").unwrap();
            fs::write(folder.join("energy_uj"), energy).unwrap();
        }
        root
    }

    fn set(root: &tempfile::TempDir, energy: &str) {
        fs::write(root.path().join("sys/class/powercap/intel-rapl:0/energy_uj"), energy).unwrap();
    }

    #[test]
    fn energy_is_added_up_across_the_wrap() {
        let root = machine(&[("intel-rapl:0", "900000"), ("intel-rapl:0:0", "5")]);
        let mut recorder = Recorder::start(root.path());
        set(&root, "950000");
        recorder.sample();
        set(&root, "250000");
        let joules = recorder.joules().unwrap();
        assert!((joules - 0.35).abs() < 1e-9, "{joules}");
    }

    #[test]
    fn a_machine_without_meters_is_unmeasured() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Recorder::start(root.path()).joules(), None);
    }

    #[test]
    fn a_meter_that_goes_away_leaves_no_figure() {
        let root = machine(&[("intel-rapl:0", "1")]);
        let mut recorder = Recorder::start(root.path());
        fs::remove_dir_all(root.path().join("sys")).unwrap();
        recorder.sample();
        assert_eq!(recorder.joules(), None);
    }

    #[test]
    fn garbage_is_refused_with_the_file() {
        let meters = find(machine(&[("intel-rapl:0", "lots")]).path());
        assert!(meters.found.is_empty());
        let message = meters.refused[0].to_string();
        assert!(message.contains("energy_uj is \"lots\""), "{message}");
    }
}
