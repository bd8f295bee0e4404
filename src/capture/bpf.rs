//! Classic BPF, as the kernel takes it for a socket's filter.

/// One instruction of a classic BPF program, as `struct sock_filter` has it and `tcpdump -dd` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How far to jump when true.
    pub jt: u8,
    /// How far to jump when false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The longest program: what a kernel takes (`BPF_MAXINSNS`, 4096), less what may have to stand in front of it.
pub const INSTRUCTIONS_MAX: usize = 4096 - 3;
