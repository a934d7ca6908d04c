//! Memory of this process, as the system counts it.

use std::fs;

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most so far.
    pub peak: u64,
    /// Now, of what is not backed by a file.
    pub anonymous: u64,
    /// Now, of mapped files: the system can take it back at any time.
    pub file_backed: u64,
}

/// This process's memory; `None` where the system does not say.
pub fn current() -> Option<Memory> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Bytes of this process's share: pages that it has with others count by how many have them. `None` where the
/// system does not say.
pub fn proportional() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/smaps_rollup").ok()?, "Pss")
}

/// Page faults of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Those that waited for a disk.
    pub major: u64,
    /// The others.
    pub minor: u64,
}

impl Faults {
    /// What happened after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let major = self.major.saturating_sub(earlier.major);
        Self { major, minor: self.minor.saturating_sub(earlier.minor) }
    }
}

/// Page faults so far; `None` where the system does not say.
pub fn faults() -> Option<Faults> {
    parse_faults(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// proc(5): after the name, which is in brackets and may hold anything, minor faults are the 8th field, major
/// ones the 10th.
fn parse_faults(stat: &str) -> Option<Faults> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(7);
    let minor = fields.next()?.parse().ok()?;
    Some(Faults { minor, major: fields.nth(1)?.parse().ok()? })
}

/// The bytes of a line like `VmRSS:  1024 kB`.
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
