//! Our XDP program in the kernel: loaded, given its sockets, attached, asked what it counted.
//!
//! Contract: nothing is attached until [`Program::attach`], and what is attached is a link that the kernel takes away with
//! the last descriptor of it: when the program is dropped, and when the process ends in any way.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::shunts::ShuntTable;
use crate::capture::ebpf::{missing, system_error};
use crate::capture::shunt::{ShuntConfig, Shunts};

/// The compiled program; `scripts/build-bpf.sh` makes it from the sources beside it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/flowscope.bpf.o");

/// What it was told for its kernel's symbol of the program.
const PLAIN: &str = "flowscope";
const MULTI_BUFFER: &str = "flowscope_frags";

/// What a program is told before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Queues that the NIC spreads flows over.
    pub queues: u32,
    /// Sockets on each of them.
    pub sockets_per_queue: u32,
    /// Whether what is not IP is passed on.
    pub ip_only: bool,
    /// Whether the kernel's time is written in front of each frame.
    pub stamped: bool,
    /// The longest frame that is taken; `None` when longer ones are split, by the driver.
    pub room_bytes: Option<u32>,
    /// Whether flows can be shunted.
    pub shunt: Option<ShuntConfig>,
}

/// What became of frames of one socket: `seen = redirected + too_long + closed + not_ip + shunted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Frames that the program ran on and that were this socket's.
    pub seen: u64,
    /// Sent to the socket.
    pub redirected: u64,
    /// Longer than the socket has room for; passed on to the kernel.
    pub too_long: u64,
    /// The socket was not ready, or not any more; passed on to the kernel.
    pub closed: u64,
    /// Not IP, where only IP was wanted; passed on to the kernel.
    pub not_ip: u64,
    /// Counted for a flow that is shunted, and gone.
    pub shunted: u64,
    /// Their bytes.
    pub shunted_bytes: u64,
}

/// As the program's `struct counts` has them.
type RawCounts = [u64; 7];

/// A loaded program.
pub struct Program {
    sockets: XskMap<MapData>,
    counts: PerCpuArray<MapData, RawCounts>,
    shunts: Option<Arc<ShuntTable>>,
    link: Option<FdLink>,
    /// Owns the program itself.
    ebpf: Ebpf,
    entry: &'static str,
}

impl Program {
    /// Loads it; the verifier of the running kernel looks at it now.
    ///
    /// # Errors
    /// What the kernel said; with the verifier's log, if that was what refused.
    pub fn load(config: &ProgramConfig) -> io::Result<Self> {
        let slots = config.queues * config.sockets_per_queue;
        let shunt_readers = config.shunt.map_or(0, |shunt| shunt.readers.max(1));
        let shunts_max = config.shunt.map_or(1, |shunt| shunt.flows_max.max(1));
        let shunt_vlan = config.shunt.is_some_and(|shunt| shunt.by_vlan);
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("queues", &config.queues, true)
            .override_global("sockets_per_queue", &config.sockets_per_queue, true)
            .override_global("ip_only", &u8::from(config.ip_only), true)
            .override_global("stamped", &u8::from(config.stamped), true)
            .override_global("room_bytes", &config.room_bytes.unwrap_or(0), true)
            .override_global("shunt_readers", &shunt_readers, true)
            .override_global("shunt_vlan", &u8::from(shunt_vlan), true)
            .map_max_entries("sockets", slots)
            .map_max_entries("counts", slots)
            .map_max_entries("shunts", shunts_max)
            .map_max_entries("shunt_counters", shunts_max)
            .load(OBJECT)
            .map_err(system_error)?;
        let entry = if config.room_bytes.is_some() { PLAIN } else { MULTI_BUFFER };
        let sockets = ebpf.take_map("sockets").ok_or_else(|| missing("map sockets"))?;
        let counts = ebpf.take_map("counts").ok_or_else(|| missing("map counts"))?;
        let shunts = config.shunt.map(|shunt| ShuntTable::take(&mut ebpf, &shunt)).transpose()?;
        let mut program = Self {
            shunts: shunts.map(Arc::new),
            sockets: sockets.try_into().map_err(system_error)?,
            counts: counts.try_into().map_err(system_error)?,
            link: None,
            ebpf,
            entry,
        };
        program.xdp()?.load().map_err(system_error)?;
        Ok(program)
    }

    /// Its table of shunted flows, if it was told to have one. It outlives the program.
    pub fn shunts(&self) -> Option<Arc<dyn Shunts>> {
        self.shunts.clone().map(|shunts| shunts as Arc<dyn Shunts>)
    }

    fn xdp(&mut self) -> io::Result<&mut Xdp> {
        let program = self.ebpf.program_mut(self.entry).ok_or_else(|| missing(self.entry))?;
        program.try_into().map_err(|error: ProgramError| system_error(error))
    }

    /// From now on frames of `slot` go to `socket`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open_slot(&mut self, slot: u32, socket: &impl AsRawFd) -> io::Result<()> {
        self.sockets.set(slot, socket.as_raw_fd(), 0).map_err(system_error)
    }

    /// From now on frames of `slot` are passed on to the kernel.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn close_slot(&mut self, slot: u32) -> io::Result<()> {
        self.sockets.unset(slot).map_err(system_error)
    }

    /// What was counted for `slot` so far, on all processors.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn verdicts(&self, slot: u32) -> io::Result<Verdicts> {
        let by_cpu = self.counts.get(&slot, 0).map_err(system_error)?;
        let mut sum = Verdicts::default();
        for &[seen, redirected, too_long, closed, not_ip, shunted, bytes] in by_cpu.iter() {
            sum.seen += seen;
            sum.redirected += redirected;
            sum.too_long += too_long;
            sum.closed += closed;
            sum.not_ip += not_ip;
            sum.shunted += shunted;
            sum.shunted_bytes += bytes;
        }
        Ok(sum)
    }

    /// Attaches it to an interface, in the driver or behind it.
    ///
    /// # Errors
    /// What the kernel said. Kernels before 5.9 have no links for XDP and are refused.
    pub fn attach(&mut self, interface_index: u32, generic: bool) -> io::Result<()> {
        let mode = if generic { XdpMode::Skb } else { XdpMode::Driver };
        let program = self.xdp()?;
        let id = program.attach_to_if_index(interface_index, mode).map_err(system_error)?;
        let link = program.take_link(id).map_err(system_error)?;
        // Anything but a link would stay behind after a kill -9.
        self.link = Some(FdLink::try_from(link).map_err(|_| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel has no BPF links for XDP, Linux 5.9 is needed",
            )
        })?);
        Ok(())
    }

    /// Runs the program on a frame as if it came in on queue 0 and says what it returned (`XDP_REDIRECT` is 4,
    /// `XDP_PASS` is 2). It counts, but the frame goes nowhere.
    ///
    /// # Errors
    /// What the kernel said; it takes no frame shorter than an Ethernet header.
    pub fn try_on(&mut self, frame: &[u8]) -> io::Result<u32> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        self.xdp()?.test_run(options).map(|result| result.return_value).map_err(system_error)
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let attached = self.link.is_some();
        f.debug_struct("Program")
            .field("entry", &self.entry)
            .field("attached", &attached)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the million that the verifier looks at before it gives up; others' may see fewer ways that are the same.
    const LOOKED_AT_MAX: u32 = 50_000;

    /// `None` where no program can be loaded. CI's can.
    fn loaded(config: &ProgramConfig) -> Option<Program> {
        match Program::load(config) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                let is_ci = std::env::var_os("CI").is_some();
                assert!(!is_ci, "CI, and no program can be loaded: {error}");
                eprintln!("SKIPPED: no program can be loaded, root is needed: {error}");
                None
            }
            loaded => Some(loaded.expect("it loads")),
        }
    }

    fn config(room_bytes: Option<u32>, shunt: Option<ShuntConfig>) -> ProgramConfig {
        ProgramConfig {
            queues: 4,
            sockets_per_queue: 3,
            ip_only: true,
            stamped: true,
            room_bytes,
            shunt,
        }
    }

    const SHUNT: ShuntConfig = ShuntConfig { readers: 3, by_vlan: true, flows_max: 16 };

    #[test]
    fn the_verifier_is_far_from_its_limit() {
        for room_bytes in [Some(1792), None] {
            let Some(mut program) = loaded(&config(room_bytes, Some(SHUNT))) else { return };
            let info = program.xdp().expect("the program").info().expect("its description");
            let looked_at = info.verified_instruction_count().expect("Linux 5.16 or newer");
            assert!(looked_at < LOOKED_AT_MAX, "{looked_at}");
        }
    }

    /// The verifier knows that a constant of the program is 0, and takes out what is never run.
    #[test]
    fn shunting_that_is_off_is_not_in_the_program() {
        for room_bytes in [Some(1792), None] {
            let bytes = |shunt| {
                let mut program = loaded(&config(room_bytes, shunt))?;
                let info = program.xdp().expect("the program").info().expect("its description");
                info.size_translated()
            };
            let (Some(off), Some(on)) = (bytes(None), bytes(Some(SHUNT))) else { return };
            eprintln!("bytes with shunting off, and on: {off}, {on}");
            assert!(off < on, "{off} bytes with shunting off, {on} with it on");
        }
    }
}
