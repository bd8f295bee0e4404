//! Capabilities: what this thread may do.

/// A capability by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// As systemd and setcap spell it.
    pub name: &'static str,
    bit: u32,
}

impl Capability {
    /// Packet sockets.
    pub const NET_RAW: Self = Self { name: "CAP_NET_RAW", bit: 13 };
    /// Setting ports up; attaching programs.
    pub const NET_ADMIN: Self = Self { name: "CAP_NET_ADMIN", bit: 12 };
    /// Loading programs.
    pub const BPF: Self = Self { name: "CAP_BPF", bit: 39 };
    /// Programs that walk over headers: without it the verifier follows what a processor may guess as well, and refuses ours.
    pub const PERFMON: Self = Self { name: "CAP_PERFMON", bit: 38 };
    /// Memory beyond `RLIMIT_MEMLOCK`.
    pub const IPC_LOCK: Self = Self { name: "CAP_IPC_LOCK", bit: 14 };

    const SYS_ADMIN: u32 = 21;
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u64);

impl Rights {
    /// A set by its bits, as the kernel numbers them.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Those that this thread has; all of them, where the system does not tell, for it will say no itself.
    pub fn effective() -> Self {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(field.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX))
    }

    /// Whether it is one of them. `CAP_SYS_ADMIN` contains `CAP_BPF` and `CAP_PERFMON`.
    pub fn has(self, capability: Capability) -> bool {
        let has = |bit: u32| self.0 >> bit & 1 == 1;
        let contained = [Capability::BPF.bit, Capability::PERFMON.bit].contains(&capability.bit);
        has(capability.bit) || contained && has(Capability::SYS_ADMIN)
    }

    /// Those of `needed` that are not there, by name.
    pub fn missing(self, needed: &[Capability]) -> Vec<&'static str> {
        needed.iter().filter(|one| !self.has(**one)).map(|one| one.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_contains_bpf_and_perfmon_and_nothing_else_of_these() {
        let needed =
            [Capability::NET_RAW, Capability::NET_ADMIN, Capability::BPF, Capability::PERFMON];
        assert_eq!(Rights::from_bits(1 << 21).missing(&needed), ["CAP_NET_RAW", "CAP_NET_ADMIN"]);
        assert_eq!(
            Rights::from_bits(1 << 13 | 1 << 12).missing(&needed),
            ["CAP_BPF", "CAP_PERFMON"]
        );
        assert!(Rights::from_bits(u64::MAX).missing(&needed).is_empty());
    }
}
