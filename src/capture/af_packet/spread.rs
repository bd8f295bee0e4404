//! Our program that spreads a fanout group: which socket a frame goes to.
//!
//! Contract: the worker that `sensor::rss` names, from the first frame that a group takes. The kernel keeps
//! the program as long as the group, whatever becomes of ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::programs::{ProgramError, SocketFilter, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};

use crate::capture::ebpf::{missing, system_error};

/// The compiled program; `scripts/build-bpf.sh` makes it from the sources beside it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/fanout.bpf.o");

const ENTRY: &str = "fanout";

/// The program, loaded.
pub struct FanoutProgram {
    ebpf: Ebpf,
}

impl FanoutProgram {
    /// Loads it for a group of `sockets`; the verifier of the running kernel looks at it now.
    ///
    /// # Errors
    /// What the kernel said; with the verifier's log, if that was what refused.
    pub fn load(sockets: u32) -> io::Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("workers", &sockets, true)
            .load(OBJECT)
            .map_err(system_error)?;
        let program = ebpf.program_mut(ENTRY).ok_or_else(|| missing(ENTRY))?;
        let program: &mut SocketFilter =
            program.try_into().map_err(|error: ProgramError| system_error(error))?;
        program.load().map_err(system_error)?;
        Ok(Self { ebpf })
    }

    fn program(&self) -> io::Result<&SocketFilter> {
        let program = self.ebpf.program(ENTRY).ok_or_else(|| missing(ENTRY))?;
        program.try_into().map_err(|error: ProgramError| system_error(error))
    }

    /// Runs the program on an Ethernet frame and says which socket it chose.
    ///
    /// # Errors
    /// What the kernel said; it takes no frame that has nothing behind its Ethernet header.
    pub fn try_on(&self, frame: &[u8]) -> io::Result<u32> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        self.program()?.test_run(options).map(|result| result.return_value).map_err(system_error)
    }

    /// Calls `f` with the descriptor of the program.
    pub(super) fn with_fd(
        &self,
        f: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        f(self.program()?.fd().map_err(system_error)?.as_fd())
    }
}

impl std::fmt::Debug for FanoutProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FanoutProgram").finish_non_exhaustive()
    }
}
