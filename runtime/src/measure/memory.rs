//! Memory of this process, as reported by the system.

use std::fs;

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Current resident memory.
    pub resident: u64,
    /// Peak resident memory.
    pub peak: u64,
    /// Currently resident anonymous memory.
    pub anonymous: u64,
    /// Currently resident pages of mapped files, which the system can reclaim at any time.
    pub file_backed: u64,
}

/// Memory of this process; `None` if the system does not report it.
pub fn current() -> Option<Memory> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Proportional set size of this process, in bytes: shared pages are divided by the number of
/// processes that share them. `None` if the system does not report it.
pub fn proportional() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/smaps_rollup").ok()?, "Pss")
}

/// Page faults of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Major faults, which waited for storage.
    pub major: u64,
    /// Minor faults.
    pub minor: u64,
}

impl Faults {
    /// The faults after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let major = self.major.saturating_sub(earlier.major);
        Self { major, minor: self.minor.saturating_sub(earlier.minor) }
    }
}

/// Page faults so far; `None` if the system does not report them.
pub fn faults() -> Option<Faults> {
    parse_faults(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// proc(5): after the name, which is in brackets and may contain anything, minor faults are the 8th
/// field, major faults the 10th.
fn parse_faults(stat: &str) -> Option<Faults> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(7);
    let minor = fields.next()?.parse().ok()?;
    Some(Faults { minor, major: fields.nth(1)?.parse().ok()? })
}

/// Parses the bytes of a line like `VmRSS:  1024 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn parse(status: &str) -> Option<Memory> {
    let field = |name: &str| kilobytes(status, name);
    Some(Memory {
        resident: field("VmRSS")?,
        peak: field("VmHWM")?,
        anonymous: field("RssAnon")?,
        file_backed: field("RssFile")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_become_bytes() {
        let status = "Name:\tvaquita\nVmPeak:\t  9000 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n\
                      RssAnon:\t  150 kB\nRssFile:\t   50 kB\n";
        let expected =
            Memory { resident: 204_800, peak: 307_200, anonymous: 153_600, file_backed: 51_200 };
        assert_eq!(parse(status), Some(expected));
    }

    #[test]
    fn page_faults_are_found_behind_any_name() {
        let stat = "17 (a ) 9 (b) S 1 17 17 0 -1 4194304 123 0 4 0 5 6 0 0 20 0 3 0";
        assert_eq!(parse_faults(stat), Some(Faults { minor: 123, major: 4 }));
        assert_eq!(parse_faults("17 (vaquita) S 1"), None);
    }

    #[test]
    fn what_is_not_said_is_not_made_up() {
        assert_eq!(parse("Name:\tvaquita\n"), None);
        assert_eq!(parse("VmHWM: many kB\nVmRSS: 1 kB\nRssAnon: 1 kB\nRssFile: 1 kB\n"), None);
    }
}
