//! Which core a worker runs on: as asked for, else near the NIC, else as the system lists them.
//!
//! Contract: numbers end below [`CORE_IDS_END`]. A list that was asked for is followed or refused, and never followed in
//! part. What the system was told is read back, on the thread that it is about.

use core_affinity::CoreId;

use super::shard::Thread;

/// Core numbers from here on would overflow the system's affinity mask.
pub const CORE_IDS_END: usize = 1024;

/// Cores in the order of the workers: `2-5,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(Vec<usize>);

/// A list of cores that is no such list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Neither a number nor a range.
    #[error("{0:?} is no core: give numbers and ranges with commas, such as 2-5,8")]
    NotACore(String),
    /// A range whose end lies before its start.
    #[error("{0:?} goes backwards: give the lower core first")]
    Backwards(String),
    /// A number that the system's mask has no room for.
    #[error("core {0}: cores from {CORE_IDS_END} on cannot be pinned to")]
    TooHigh(usize),
    /// The same core for two workers.
    #[error("core {0} is given twice: give each worker one of its own")]
    Twice(usize),
}

impl CoreList {
    /// Parses numbers and ranges, as the kernel writes them too.
    ///
    /// # Errors
    /// [`ListError`], with the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ListError> {
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            match part.parse::<usize>() {
                Ok(core) if plain && core < CORE_IDS_END => Ok(core),
                Ok(core) if plain => Err(ListError::TooHigh(core)),
                _ => Err(ListError::NotACore(part.to_owned())),
            }
        };
        let mut cores = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(ListError::Backwards(part.to_owned()));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(ListError::Twice(core));
                }
                cores.push(core);
            }
        }
        Ok(Self(cores))
    }

    /// The cores, in the order of the workers.
    pub fn cores(&self) -> &[usize] {
        &self.0
    }

    /// Whether this machine has them all and lets us use them.
    ///
    /// # Errors
    /// [`CoreError`] for the first that it does not.
    pub fn check(&self) -> Result<(), CoreError> {
        let allowed = [allowed(), sysfs("/sys/devices/system/cpu/isolated")].concat();
        check(&self.0, &sysfs("/sys/devices/system/cpu/online"), &allowed)
    }
}

impl std::fmt::Display for CoreList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&listed(&self.0))
    }
}

/// Why a list of cores is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// A core that is not there, or switched off.
    #[error("--cores: core {core} is not online: {online} are")]
    Offline {
        /// Asked for.
        core: usize,
        /// Those that are.
        online: String,
    },
    /// A core that this process is kept from.
    #[error(
        "--cores: core {core} is not allowed to this process, {allowed} are: widen its cpuset or affinity (AllowedCPUs= and \
         CPUAffinity= of systemd, taskset), or choose among them"
    )]
    NotAllowed {
        /// Asked for.
        core: usize,
        /// Those that are.
        allowed: String,
    },
    /// Fewer cores than workers.
    #[error(
        "--cores names {cores} of the {workers} cores that the workers take: name one for each, or ask for fewer --workers"
    )]
    Fewer {
        /// Cores given.
        cores: usize,
        /// Workers that there are.
        workers: usize,
    },
    /// Fewer cores than workers and their reader.
    #[error(
        "--cores names {cores} of the {threads} cores that the reader and the workers take: name one for each, the reader's first, or \
         ask for fewer --workers"
    )]
    FewerSteered {
        /// Cores given.
        cores: usize,
        /// Threads that there are.
        threads: usize,
    },
}

/// An empty list of cores that are online is one that the system does not tell.
fn check(cores: &[usize], online: &[usize], allowed: &[usize]) -> Result<(), CoreError> {
    for &core in cores {
        if !online.is_empty() && !online.contains(&core) {
            return Err(CoreError::Offline { core, online: listed(online) });
        }
        if !allowed.contains(&core) {
            return Err(CoreError::NotAllowed { core, allowed: listed(allowed) });
        }
    }
    Ok(())
}

/// Which core each worker has, and the reader where one reads for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinning {
    reader: Option<usize>,
    workers: Vec<usize>,
}

impl Pinning {
    /// Cores for `workers` workers: those `asked` for, else all that there are, those in `near` first.
    ///
    /// # Errors
    /// [`CoreError::Fewer`]: whoever names cores names enough of them.
    pub fn choose(
        workers: usize,
        asked: Option<&CoreList>,
        near: &[usize],
    ) -> Result<Self, CoreError> {
        if let Some(CoreList(cores)) = asked
            && cores.len() < workers
        {
            return Err(CoreError::Fewer { cores: cores.len(), workers });
        }
        let of_workers = deal(workers, asked, near);
        match of_workers[..] {
            [] => {}
            [core] => tracing::info!("the worker runs on core {core}"),
            _ => {
                tracing::info!("workers 0 to {} run on cores {}", workers - 1, listed(&of_workers))
            }
        }
        Ok(Self { reader: None, workers: of_workers })
    }

    /// The same, with the first core for a reader.
    ///
    /// # Errors
    /// [`CoreError::FewerSteered`].
    pub fn with_reader(
        workers: usize,
        asked: Option<&CoreList>,
        near: &[usize],
    ) -> Result<Self, CoreError> {
        let threads = workers + 1;
        if let Some(CoreList(cores)) = asked
            && cores.len() < threads
        {
            return Err(CoreError::FewerSteered { cores: cores.len(), threads });
        }
        let mut of_workers = deal(threads, asked, near);
        if of_workers.is_empty() {
            return Ok(Self::default());
        }
        let reader = of_workers.remove(0);
        let of = if workers == 1 { "its worker on core" } else { "its workers on cores" };
        tracing::info!("the reader runs on core {reader}, {of} {}", listed(&of_workers));
        Ok(Self { reader: Some(reader), workers: of_workers })
    }

    /// Pins this thread, which is `thread`, to its core, and looks whether that is in force.
    pub fn pin(&self, thread: Thread) {
        let core = match thread {
            Thread::Worker(worker) => self.workers.get(worker).copied(),
            Thread::Reader => self.reader,
        };
        let Some(core) = core else { return };
        let told = core_affinity::set_for_current(CoreId { id: core });
        let found = allowed();
        if !told || found != [core] {
            let found = listed(&found);
            tracing::warn!(core, found, "{thread} is not pinned, the system moves it about");
        }
    }
}

/// A core for each of `threads`: those that were asked for, which are enough, else all that there are, which may be shared.
fn deal(threads: usize, asked: Option<&CoreList>, near: &[usize]) -> Vec<usize> {
    let cores = match asked {
        Some(CoreList(cores)) => cores.clone(),
        None => near_first(&allowed(), near),
    };
    if cores.is_empty() {
        tracing::warn!("the system does not tell which cores there are: workers are not pinned");
    } else if cores.len() < threads {
        let cores = cores.len();
        tracing::warn!(threads, cores, "fewer cores than threads: cores are shared");
    }
    cores.into_iter().cycle().take(threads).collect()
}

/// The cores that this thread may run on, those whose number can be told to the system.
pub fn allowed() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.iter().map(|core| core.id).filter(|id| *id < CORE_IDS_END).collect()
}

fn near_first(cores: &[usize], near: &[usize]) -> Vec<usize> {
    let (mut first, rest): (Vec<_>, Vec<_>) = cores.iter().partition(|core| near.contains(core));
    first.extend(rest);
    first
}

/// The cores of a NUMA node; none where the system does not tell.
pub fn of_node(node: u32) -> Vec<usize> {
    sysfs(&format!("/sys/devices/system/node/node{node}/cpulist"))
}

/// The NUMA node of a core; `None` where the system does not tell.
pub fn node_of(core: usize) -> Option<u32> {
    /// More nodes than Linux has.
    const NODES_MAX: u32 = 1024;
    let nodes = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")).ok()?;
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    let number = |name: String| name.strip_prefix("node")?.parse().ok();
    nodes.flatten().filter_map(name).find_map(number).filter(|node| *node < NODES_MAX)
}

fn sysfs(file: &str) -> Vec<usize> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    CoreList::parse(text.trim()).map(|list| list.0).unwrap_or_default()
}

/// As a list of numbers and ranges, in its order.
pub(super) fn listed(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|core, next| core + 1 == *next);
    let run = |run: &[usize]| match run {
        [core] => core.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order() {
        assert_eq!(CoreList::parse("2-5,8"), Ok(CoreList(vec![2, 3, 4, 5, 8])));
        assert_eq!(CoreList::parse("8, 2-3"), Ok(CoreList(vec![8, 2, 3])));
        assert_eq!(CoreList::parse("8,2-3").unwrap().to_string(), "8,2-3");
        assert_eq!(CoreList::parse("1023"), Ok(CoreList(vec![1023])));
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_part_that_is_wrong() {
        let refused = |text| CoreList::parse(text).unwrap_err().to_string();
        for text in ["", "a", "1,,2", "-1", "1-", "+1", "0x1", "1.5"] {
            assert!(refused(text).contains("is no core"), "{text:?}: {}", refused(text));
        }
        assert!(refused("5-2").contains("\"5-2\" goes backwards"));
        assert!(refused("1024").contains("core 1024"));
        // Refused by its end, and not after so many steps.
        assert!(refused("0-18446744073709551615").contains("core 18446744073709551615"));
        assert!(refused("2-5,4").contains("core 4 is given twice"));
    }

    #[test]
    fn cores_that_are_off_or_forbidden_are_refused_by_number() {
        let (online, allowed) = ([0, 1, 2, 3], [0, 1, 3]);
        assert_eq!(check(&[3, 0], &online, &allowed), Ok(()));
        let text = check(&[0, 4], &online, &allowed).unwrap_err().to_string();
        assert!(text.contains("core 4 is not online: 0-3 are"), "{text}");
        let text = check(&[2], &online, &allowed).unwrap_err().to_string();
        assert!(text.contains("core 2 is not allowed to this process, 0-1,3 are"), "{text}");
        assert_eq!(check(&[1], &[], &allowed), Ok(()), "what is not told is not held against it");
    }

    #[test]
    fn cores_near_the_nic_come_first_and_the_others_follow() {
        assert_eq!(near_first(&[0, 1, 2, 3], &[2, 3, 9]), [2, 3, 0, 1]);
        assert_eq!(near_first(&[0, 1], &[]), [0, 1]);
    }

    #[test]
    fn named_cores_are_enough_or_refused_and_others_are_shared() {
        let asked = CoreList(vec![7, 5, 6]);
        let pinning = Pinning::choose(2, Some(&asked), &[]).unwrap();
        assert_eq!(pinning, Pinning { reader: None, workers: vec![7, 5] });
        assert_eq!(
            Pinning::choose(4, Some(&asked), &[]),
            Err(CoreError::Fewer { cores: 3, workers: 4 })
        );
        let all = Pinning::choose(allowed().len() + 1, None, &[]).unwrap();
        assert_eq!(all.workers.first(), all.workers.last());
        let steered = Pinning::with_reader(2, Some(&asked), &[]).unwrap();
        assert_eq!(steered, Pinning { reader: Some(7), workers: vec![5, 6] });
        assert_eq!(
            Pinning::with_reader(3, Some(&asked), &[]),
            Err(CoreError::FewerSteered { cores: 3, threads: 4 })
        );
        let all = Pinning::with_reader(allowed().len(), None, &[]).unwrap();
        assert_eq!(all.workers.last(), all.reader.as_ref());
    }

    #[test]
    fn a_pinned_thread_is_where_it_was_told_to_be() {
        let last = *allowed().last().expect("a core to run on");
        let there = std::thread::spawn(move || {
            Pinning { workers: vec![last], ..Pinning::default() }.pin(Thread::Worker(0));
            allowed()
        });
        assert_eq!(there.join().unwrap(), [last]);
        let reader = std::thread::spawn(move || {
            Pinning { reader: Some(last), workers: vec![0] }.pin(Thread::Reader);
            allowed()
        });
        assert_eq!(reader.join().unwrap(), [last]);
        let elsewhere = std::thread::spawn(|| {
            let before = allowed();
            Pinning { workers: vec![0], ..Pinning::default() }.pin(Thread::Worker(1));
            (before, allowed())
        });
        let (before, after) = elsewhere.join().unwrap();
        assert_eq!(before, after, "a worker without a core is left alone");
    }
}
