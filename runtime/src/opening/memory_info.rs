//! Memory of the machine, under the limits of the process's cgroups.

use std::path::{Path, PathBuf};

use crate::host::Host;

/// Memory figures of the system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Total memory: the machine's, or the lowest cgroup limit if that is lower.
    pub total: u64,
    /// Memory available without swapping, under all cgroup limits.
    pub available: u64,
    /// Resident memory of this process.
    pub process: u64,
}

impl MemoryInfo {
    /// Reads the figures of a host; `None` if it does not report them.
    pub fn read(host: &Host) -> Option<Self> {
        let info = host.read("proc/meminfo").ok()?;
        let mut total = kilobytes(&info, "MemTotal")?;
        let mut available = kilobytes(&info, "MemAvailable")?;
        for cgroup in cgroups(host) {
            total = total.min(cgroup.limit);
            available = available.min(cgroup.limit.saturating_sub(cgroup.used));
        }
        let status = host.read("proc/self/status").unwrap_or_default();
        Some(Self { total, available, process: kilobytes(&status, "VmRSS").unwrap_or(0) })
    }
}

/// Parses the bytes of a line like `MemTotal:  1024 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

struct Cgroup {
    limit: u64,
    used: u64,
}

/// File names of a cgroup version.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: page cache that the kernel reclaims on demand.
    reclaimable: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
const V2: Names =
    Names { limit: "memory.max", used: "memory.current", reclaimable: "inactive_file" };

/// The cgroups with a memory limit that contain this process, including ancestors.
fn cgroups(host: &Host) -> Vec<Cgroup> {
    let membership = host.read("proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in membership.lines() {
        // `4:memory:/a/b` in version 1, `0::/a/b` in version 2
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let hierarchy = match (id, controllers) {
            ("0", "") => Some(("sys/fs/cgroup", V2)),
            (_, list) if list.split(',').any(|name| name == "memory") => {
                Some(("sys/fs/cgroup/memory", V1))
            }
            _ => None,
        };
        if let Some((mount, names)) = hierarchy {
            let folders = ancestors(Path::new(mount), path);
            found.extend(folders.filter_map(|folder| read(host, &folder, &names)));
        }
    }
    found
}

/// A cgroup's folder and its ancestors, up to the mount point. In a container the path may be the
/// host's, of which only the mount point exists.
fn ancestors(mount: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let below = mount.join(path.trim_start_matches('/'));
    let mount = mount.to_path_buf();
    let folders: Vec<PathBuf> = below
        .ancestors()
        .take_while(|folder| folder.starts_with(&mount))
        .map(Path::to_path_buf)
        .collect();
    folders.into_iter()
}

fn read(host: &Host, folder: &Path, names: &Names) -> Option<Cgroup> {
    let number = |name: &str| host.number(folder.join(name));
    let limit = number(names.limit)?; // `max` is not a number: no limit
    let stat = host.read(folder.join("memory.stat")).unwrap_or_default();
    let reclaimable = stat.lines().find_map(|line| {
        line.strip_prefix(names.reclaimable)?.strip_prefix(' ')?.trim().parse::<u64>().ok()
    });
    let used = number(names.used).unwrap_or(0).saturating_sub(reclaimable.unwrap_or(0));
    Some(Cgroup { limit, used })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn machine(files: &[(&str, &str)]) -> Option<MemoryInfo> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        MemoryInfo::read(&Host::under(root.path()))
    }

    const INFO: (&str, &str) =
        ("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n");

    #[test]
    fn without_a_cgroup_the_machine_counts() {
        let status = ("proc/self/status", "Name:\tx\nVmRSS:\t  2048 kB\n");
        let found = machine(&[INFO, status]).unwrap();
        assert_eq!(
            found,
            MemoryInfo { total: 8192 * MIB, available: 4096 * MIB, process: 2 * MIB }
        );
    }

    #[test]
    fn the_narrowest_cgroup_of_version_2_counts_and_its_file_cache_is_free() {
        let found = machine(&[
            INFO,
            ("proc/self/cgroup", "0::/app/job\n"),
            ("sys/fs/cgroup/app/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/app/memory.current", "536870912\n"),
            ("sys/fs/cgroup/app/memory.stat", "anon 1\ninactive_file 268435456\n"),
            ("sys/fs/cgroup/app/job/memory.max", "max\n"),
        ]);
        let found = found.unwrap();
        assert_eq!((found.total, found.available), (1024 * MIB, 768 * MIB));
    }

    #[test]
    fn version_1_and_a_path_that_exists_only_outside_the_container() {
        let found = machine(&[
            INFO,
            ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\n"),
        ]);
        let found = found.unwrap();
        assert_eq!((found.total, found.available), (512 * MIB, 412 * MIB));
    }

    #[test]
    fn no_limit_is_written_as_a_huge_number_in_version_1() {
        let found = machine(&[
            INFO,
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n"),
        ]);
        assert_eq!(found.unwrap().available, 4096 * MIB);
    }

    #[test]
    fn memory_is_unknown_if_the_system_does_not_report_it() {
        assert_eq!(machine(&[("proc/meminfo", "MemTotal: many kB\n")]), None);
        assert_eq!(machine(&[]), None);
    }
}
