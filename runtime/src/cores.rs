//! CPU cores, grouped into clusters of equal speed. A thread on a slow core delays all others at
//! each barrier, so work belongs on the fastest cluster.

use std::marker::PhantomData;

use serde::Serialize;

use crate::host::Host;

const FOLDER: &str = "sys/devices/system/cpu";
/// Speed relative to the fastest core, in percent, from which a core belongs to its cluster:
/// "favoured" cores differ by a few percent.
const SAME_SPEED_PERCENT: u64 = 85;

/// Cores of about the same speed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Core numbers, ascending.
    pub cores: Vec<usize>,
    /// Highest `cpuinfo_max_freq`, in kHz; `None` if the system does not report it.
    pub max_khz: Option<u64>,
    /// Highest `cpu_capacity`, relative to 1024 for the machine's fastest core; `None` if the
    /// system does not report it.
    pub capacity: Option<u64>,
}

struct Core {
    number: usize,
    max_khz: Option<u64>,
    capacity: Option<u64>,
}

/// The clusters of a machine, fastest first; empty if it does not report its cores.
pub fn clusters(host: &Host) -> Vec<Cluster> {
    let mut cores: Vec<Core> =
        host.list(FOLDER).iter().filter_map(|name| core(host, name)).collect();
    // Capacity accounts for the kind of core; frequency alone does not.
    let by_capacity = !cores.is_empty() && cores.iter().all(|core| core.capacity.is_some());
    let speed = |core: &Core| match by_capacity {
        true => core.capacity.unwrap_or(0),
        false => core.max_khz.unwrap_or(0),
    };
    cores.sort_by_key(|core| (std::cmp::Reverse(speed(core)), core.number));
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut fastest = 0;
    for core in cores {
        let same = speed(&core).saturating_mul(100) >= fastest * SAME_SPEED_PERCENT;
        match clusters.last_mut().filter(|_| same) {
            Some(cluster) => {
                cluster.cores.push(core.number);
                cluster.cores.sort_unstable();
            }
            None => {
                fastest = speed(&core);
                let Core { number, max_khz, capacity } = core;
                clusters.push(Cluster { cores: vec![number], max_khz, capacity });
            }
        }
    }
    clusters
}

/// Reads a core; `None` if it is absent or offline.
fn core(host: &Host, name: &str) -> Option<Core> {
    let number = name.strip_prefix("cpu")?.parse().ok()?;
    let folder = format!("{FOLDER}/{name}");
    if host.number(format!("{folder}/online")) == Some(0) {
        return None;
    }
    let limit = |khz: &u64| *khz > 0 && *khz < 100_000_000;
    let max_khz = host.number(format!("{folder}/cpufreq/cpuinfo_max_freq")).filter(limit);
    let capacity =
        host.number(format!("{folder}/cpu_capacity")).filter(|c| (1..=1 << 20).contains(c));
    Some(Core { number, max_khz, capacity })
}

impl Cluster {
    fn speed(&self) -> u64 {
        self.capacity.or(self.max_khz).unwrap_or(0)
    }
}

/// The cores to compute on: the `allowed` ones of the fastest cluster that has any. If that is a
/// single core, the next cluster is added where it is at least half as fast, since two threads are
/// faster than one. All allowed cores if the machine does not report its cores.
pub fn fastest(clusters: &[Cluster], allowed: &[usize]) -> Vec<usize> {
    let within = |cluster: &Cluster| -> Vec<usize> {
        cluster.cores.iter().copied().filter(|core| allowed.contains(core)).collect()
    };
    let found = clusters.iter().map(|cluster| (cluster.speed(), within(cluster)));
    let mut found = found.filter(|(_, cores)| !cores.is_empty());
    let Some((speed, mut cores)) = found.next() else { return allowed.to_vec() };
    let alone = cores.len() == 1;
    if let Some((_, more)) =
        found.next().filter(|(next, _)| alone && next.saturating_mul(2) >= speed)
    {
        cores.extend(more);
        cores.sort_unstable();
    }
    cores
}

/// Which cores compute. The default is the policy of all programs: one thread per core of the
/// fastest cluster, bound to that cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreOptions {
    /// Number of threads; 0 takes one per core.
    pub threads: usize,
    /// Cores to bind the threads to; `None` takes those of the fastest cluster.
    pub cores: Option<Vec<usize>>,
}

/// Number of threads and the cores that they are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Number of threads, at least 1.
    pub threads: usize,
    /// Cores, ascending; `None` leaves the choice to the system.
    pub cores: Option<Vec<usize>>,
}

impl CoreOptions {
    /// Chooses for a machine on which the process may use the `allowed` cores; `None`: the system
    /// does not say. Threads stay unbound where no core is slower than the others, or where there
    /// are to be more threads than fast cores.
    pub fn assign(&self, host: &Host, allowed: Option<&[usize]>) -> Assignment {
        let or_given = |default: usize| match self.threads {
            0 => default.max(1),
            threads => threads,
        };
        if let Some(cores) = &self.cores {
            return Assignment { threads: or_given(cores.len()), cores: Some(cores.clone()) };
        }
        let Some(allowed) = allowed else {
            let all = std::thread::available_parallelism().map_or(1, |n| n.get());
            return Assignment { threads: or_given(all), cores: None };
        };
        let cores = fastest(&clusters(host), allowed);
        let threads = or_given(cores.len());
        let bound = cores.len() < allowed.len() && threads <= cores.len();
        Assignment { threads, cores: bound.then_some(cores) }
    }

    /// Chooses for this machine.
    pub fn assign_here(&self) -> Assignment {
        self.assign(&Host::live(), allowed().as_deref())
    }
}

/// Threads cannot run as they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoresRefused {
    /// Threads cannot be bound to these cores.
    #[error("the system allows these cores: {allowed:?}; threads were to run on {found:?}")]
    Cores {
        /// The cores that were asked for.
        found: Vec<usize>,
        /// The cores that this thread may run on.
        allowed: Vec<usize>,
    },
    /// More threads than the machine can have any use for. Threads spin while they wait for each
    /// other, so that thousands would bring a machine to a standstill.
    #[error(
        "{found} threads are not possible; this machine takes up to {most}, and is fastest with one per core"
    )]
    Threads {
        /// The number that was asked for.
        found: usize,
        /// The most for this machine.
        most: usize,
    },
}

/// Threads per core that are accepted, and the number that every machine accepts.
const MOST_PER_CORE: usize = 4;
const MOST_ANYWHERE: usize = 16;

/// The most threads that a pool has on this machine.
pub fn most_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    cores.saturating_mul(MOST_PER_CORE).max(MOST_ANYWHERE)
}

/// Parses a list of cores such as `0-3,6`, or a mask such as `0xf0`.
pub fn parse_mask(text: &str) -> Option<Vec<usize>> {
    let bit = |mask: u128| (0..128).filter(|at| mask >> at & 1 == 1).collect::<Vec<_>>();
    let mut cores = match text.strip_prefix("0x") {
        Some(digits) => bit(u128::from_str_radix(digits, 16).ok()?),
        None => {
            let mut cores = Vec::new();
            for part in text.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
                if first > last || last >= MOST_CORES {
                    return None;
                }
                cores.extend(first..=last);
            }
            cores
        }
    };
    cores.sort_unstable();
    cores.dedup();
    (!cores.is_empty()).then_some(cores)
}

/// Number of cores in the system's affinity mask.
pub const MOST_CORES: usize = 1024;

/// The cores that the calling thread may run on; `None` if the system does not report them.
pub fn allowed() -> Option<Vec<usize>> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let set = rustix::thread::sched_getaffinity(None).ok()?;
        Some((0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    None
}

/// Binds the calling thread to `cores`. Returns whether the mask, read back, is as requested.
pub fn keep_to(cores: &[usize]) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut set = rustix::thread::CpuSet::new();
        cores.iter().filter(|core| **core < MOST_CORES).for_each(|core| set.set(*core));
        rustix::thread::sched_setaffinity(None, &set).is_ok() && allowed().as_deref() == Some(cores)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = cores;
        false
    }
}

/// The calling thread is bound to cores; dropping this restores its earlier mask.
#[derive(Debug)]
#[must_use = "the thread is released when this is dropped"]
pub struct Binding {
    before: Vec<usize>,
    /// Masks are those of one thread.
    _thread: PhantomData<*const ()>,
}

impl Binding {
    /// Binds the calling thread; `None` where the system does not do so.
    pub fn new(cores: &[usize]) -> Option<Self> {
        // Dropped where the system refuses, which takes back a mask that it cut.
        let binding = Self { before: allowed()?, _thread: PhantomData };
        (binding.before == cores || keep_to(cores)).then_some(binding)
    }

    /// Leaves the thread bound.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if allowed().as_ref() != Some(&self.before) {
            keep_to(&self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cores: &[(u64, Option<u64>)]) -> Host {
        let files: Vec<String> = cores
            .iter()
            .enumerate()
            .map(|(core, (khz, capacity))| {
                let capacity =
                    capacity.map(|c| format!(r#","{FOLDER}/cpu{core}/cpu_capacity":"{c}""#));
                let capacity = capacity.unwrap_or_default();
                format!(r#""{FOLDER}/cpu{core}/cpufreq/cpuinfo_max_freq":"{khz}\n"{capacity}"#)
            })
            .collect();
        let other = format!(r#""{FOLDER}/cpufreq/x":"", "{FOLDER}/possible":"0-1""#);
        Host::recorded(&format!(r#"[{{"at":0,"files":{{{},{other}}}}}]"#, files.join(","))).unwrap()
    }

    fn cores(host: &Host) -> Vec<Vec<usize>> {
        clusters(host).into_iter().map(|cluster| cluster.cores).collect()
    }

    #[test]
    fn a_phone_has_three_clusters_and_work_goes_to_the_fastest() {
        let little = (1_800_000, Some(250));
        let middle = (2_400_000, Some(700));
        let phone = machine(&[
            little,
            little,
            little,
            little,
            middle,
            middle,
            middle,
            (2_900_000, Some(1024)),
        ]);
        assert_eq!(cores(&phone), [vec![7], vec![4, 5, 6], vec![0, 1, 2, 3]]);
        let found = clusters(&phone);
        assert_eq!(fastest(&found, &[0, 1, 5, 6]), [5, 6]);
        assert_eq!(fastest(&found, &[0, 1, 2, 3, 4, 5, 6, 7]), [4, 5, 6, 7]);
        assert_eq!(fastest(&found, &[0, 1, 7]), [7], "the little ones are too slow for it");
        assert_eq!(fastest(&[], &[2, 3]), [2, 3]);
    }

    #[test]
    fn a_binding_ends_with_its_guard_and_a_refused_one_changes_nothing() {
        let Some(before) = allowed() else { return }; // no masks on this system
        let first = &before[..1];
        let binding = Binding::new(first).expect("a thread may give up cores");
        assert_eq!(allowed().as_deref(), Some(first));
        drop(binding);
        assert_eq!(allowed().as_ref(), Some(&before));
        assert!(Binding::new(&[before[0], MOST_CORES - 1]).is_none());
        assert_eq!(allowed().as_ref(), Some(&before));
    }

    #[test]
    fn favoured_cores_do_not_make_a_cluster_of_their_own() {
        let desktop = machine(&[(5_000_000, None), (5_700_000, None), (5_500_000, None)]);
        assert_eq!(cores(&desktop), [[0, 1, 2]]);
        let hybrid = machine(&[(5_200_000, None), (5_200_000, None), (3_900_000, None)]);
        assert_eq!(cores(&hybrid), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn cores_that_are_off_do_not_count_and_garbage_does_not_matter() {
        let text = r#"[{"at":0,"files":{"sys/devices/system/cpu/cpu0/cpu_capacity":"fast",
            "sys/devices/system/cpu/cpu1/online":"0\n","sys/devices/system/cpu/cpu2/online":"1\n"}}]"#;
        assert_eq!(cores(&Host::recorded(text).unwrap()), [[0, 2]]);
    }

    #[test]
    fn masks_are_lists_or_hexadecimal() {
        assert_eq!(parse_mask("0-2,6"), Some(vec![0, 1, 2, 6]));
        assert_eq!(parse_mask("0xf0"), Some(vec![4, 5, 6, 7]));
        for text in ["", "3-1", "0x", "0x0", "a", "1,,2", "0-99999999", "-1"] {
            assert_eq!(parse_mask(text), None, "{text}");
        }
    }
}
