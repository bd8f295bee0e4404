//! How the kernel spreads the frames of an interface over several sockets, where it does (AF_PACKET's fanout groups).

/// How frames are spread over the sockets of a group, by the kernel's names (packet(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FanoutMode {
    /// By flow as the kernel sees it, both directions alike. The kernel puts the fragments of a datagram together first, so that
    /// they go where their flow goes: the whole datagram is one frame then, and fragments that miss others are not seen and not
    /// counted.
    #[default]
    Hash,
    /// By flow as we see it: our own program, which finds addresses and ports as the tracker does, and the hash and table of
    /// `sensor::rss`. Fragments of IPv4 as with [`Hash`](Self::Hash).
    Ebpf,
    /// By the queue that they came on: flows stay together as the NIC has it.
    Qm,
    /// By the processor that took them.
    Cpu,
}

impl FanoutMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hash, Self::Ebpf, Self::Qm, Self::Cpu];

    /// Its name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Ebpf => "ebpf",
            Self::Qm => "qm",
            Self::Cpu => "cpu",
        }
    }
}

impl std::fmt::Display for FanoutMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}
