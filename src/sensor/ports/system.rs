//! What the machine lets us do, and how: rights, limits, the compiler of BPF, the clock.

use std::fs::read_to_string;

use super::findings::Finding;
use crate::capture::nic::{Capability, Rights};

/// Memory that AF_XDP takes for a queue by default.
const QUEUE_BYTES: u64 = 64 << 20;

/// Clocks that are read by a call into the kernel, or over a bus: microseconds instead of nanoseconds.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The kernel's release.
    pub kernel: Option<String>,
    /// What this process may do.
    pub rights: Rights,
    /// Bytes of memory that it may lock; `None` for no limit, or one that is not told.
    pub locked_bytes_max: Option<u64>,
    /// `net.core.bpf_jit_enable`; root alone is told, and in the first network namespace alone.
    pub jit: Option<u8>,
    /// The kernel's source of time.
    pub clock: Option<String>,
    /// Whether this build has AF_XDP.
    pub has_af_xdp: bool,
}

impl System {
    /// Reads it; changes nothing.
    pub fn read() -> Self {
        let line = |file| read_to_string(file).ok().map(|text| text.trim().to_owned());
        let limits = read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            rights: Rights::effective(),
            locked_bytes_max: locked_bytes_max(&limits),
            jit: line("/proc/sys/net/core/bpf_jit_enable").and_then(|text| text.parse().ok()),
            clock: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            has_af_xdp: cfg!(feature = "af-xdp"),
        }
    }

    /// What is well, worth knowing, or wrong.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.kernel.as_ref().map(|kernel| Finding::ok("kernel", kernel)));
        found.push(self.rights());
        if self.has_af_xdp {
            found.push(self.locked());
            found.extend(self.jit.map(jit));
        }
        found.extend(self.clock.as_deref().map(clock));
        found
    }

    fn rights(&self) -> Finding {
        const MEND: &str =
            "give it by AmbientCapabilities= of systemd or setcap on the binary, or start as root";
        let missing = |needed: &[Capability]| self.rights.missing(needed);
        if !self.rights.has(Capability::NET_RAW) {
            let why = "without it no port can be captured";
            return Finding::warning("rights", "no CAP_NET_RAW", why).mend(MEND);
        }
        let missing = missing(&[Capability::NET_ADMIN, Capability::BPF, Capability::PERFMON]);
        if missing.is_empty() || !self.has_af_xdp {
            return Finding::ok("rights", "those that capturing takes");
        }
        let found = format!("no {}", missing.join(" and no "));
        Finding::note("rights", found, "without it AF_PACKET is taken, and not AF_XDP").mend(MEND)
    }

    fn locked(&self) -> Finding {
        let limit = match self.locked_bytes_max {
            _ if self.rights.has(Capability::IPC_LOCK) => {
                return Finding::ok("locked memory", "no limit, by CAP_IPC_LOCK");
            }
            None => return Finding::ok("locked memory", "no limit"),
            Some(limit) => limit,
        };
        let found = format!("{} MiB", limit >> 20);
        if limit >= QUEUE_BYTES {
            return Finding::ok("locked memory", found);
        }
        Finding::note("locked memory", found, "AF_XDP takes 64 MiB a queue, and is refused")
            .mend("give CAP_IPC_LOCK, or LimitMEMLOCK=infinity of systemd (`ulimit -l`)")
    }
}

fn jit(enabled: u8) -> Finding {
    if enabled != 0 {
        return Finding::ok("bpf compiler", "on");
    }
    let why = "filters and the XDP program are interpreted, several times slower";
    Finding::warning("bpf compiler", "off", why).mend("sysctl net.core.bpf_jit_enable=1")
}

fn clock(name: &str) -> Finding {
    if !SLOW_CLOCKS.contains(&name) {
        return Finding::ok("clock", name);
    }
    let why = "reading it takes a microsecond, once a batch and, in the kernel, once a frame";
    Finding::warning("clock", name, why).mend(
        "see /sys/devices/system/clocksource/clocksource0/available_clocksource for a faster one",
    )
}

/// The soft limit of a table as `/proc/self/limits` has it.
fn locked_bytes_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::findings::{Severity, worst};
    use super::*;

    fn root() -> System {
        System {
            kernel: Some("6.18".to_owned()),
            rights: Rights::from_bits(u64::MAX),
            locked_bytes_max: Some(8 << 20),
            jit: Some(1),
            clock: Some("tsc".to_owned()),
            has_af_xdp: true,
        }
    }

    fn complaint(system: System) -> (Severity, String) {
        let findings = system.findings();
        let text = findings.iter().filter(|f| f.severity != Severity::Ok);
        let text: Vec<_> = text.map(|f| format!("{}: {}", f.what, f.found)).collect();
        (worst(&findings), text.join("; "))
    }

    #[test]
    fn root_on_a_usual_machine_has_nothing_to_mend() {
        assert_eq!(complaint(root()), (Severity::Ok, String::new()));
        assert_eq!(
            complaint(System { locked_bytes_max: None, jit: None, clock: None, ..root() }),
            (Severity::Ok, String::new())
        );
    }

    #[test]
    fn each_right_is_missed_by_name_and_only_one_is_indispensable() {
        let with = |bits| complaint(System { rights: Rights::from_bits(bits), ..root() });
        assert_eq!(with(0).0, Severity::Warning);
        assert!(with(0).1.contains("no CAP_NET_RAW"));
        let (severity, text) = with(1 << 13 | 1 << 12 | 1 << 14 | 1 << 38);
        assert_eq!((severity, text.as_str()), (Severity::Note, "rights: no CAP_BPF"));
        let (severity, text) = with(1 << 13 | 1 << 12 | 1 << 39 | 1 << 38);
        assert_eq!((severity, text.as_str()), (Severity::Note, "locked memory: 8 MiB"));
    }

    #[test]
    fn an_interpreter_and_a_slow_clock_are_warnings() {
        let (severity, text) = complaint(System { jit: Some(0), ..root() });
        assert_eq!((severity, text.as_str()), (Severity::Warning, "bpf compiler: off"));
        let (severity, text) = complaint(System { clock: Some("hpet".to_owned()), ..root() });
        assert_eq!((severity, text.as_str()), (Severity::Warning, "clock: hpet"));
    }

    #[test]
    fn a_limit_is_read_from_the_kernels_table() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(locked_bytes_max(table), Some(8 << 20));
        assert_eq!(locked_bytes_max(&table.replace("8388608", "unlimited")), None);
        assert_eq!(locked_bytes_max(""), None);
    }
}
