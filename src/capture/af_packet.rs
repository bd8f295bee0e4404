//! Live frames by AF_PACKET: copies of what an interface receives, in blocks that we share with the kernel (TPACKET_V3).
//!
//! | part | noun |
//! |---|---|
//! | [`Config`] | what is wanted, checked before anything is opened |
//! | `refuse` | what cannot be, and what to do about it |
//! | `outgoing` | what a group is to leave out |
//! | `socket` | the packet socket and its options |
//! | [`FanoutProgram`] | our way to spread frames over several sockets |
//! | `ring` | the blocks: whose they are, and whose turn it is |
//! | `block` | bytes of a block → frames |
//!
//! Contract: one [`AfPacket`] is one socket of one interface, for one thread. The host goes on getting its frames, and what it
//! sends is not captured. A frame that is longer than a block, or than the filter lets through, is delivered cut, with its
//! length on the wire. A VLAN tag that the kernel or the NIC took off is where it was.

mod block;
mod config;
mod outgoing;
mod refuse;
mod ring;
mod socket;
mod spread;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub use config::{Builder, Config, ConfigError, Fanout, Times};
pub use spread::FanoutProgram;

pub use super::bpf::Instruction;
pub use super::fanout::FanoutMode;
use super::live::{DropReason, LiveCapture, QueueCounts};
use super::nic::{HardwareTimes, Nic, Rights};
use super::refuse::{error, gone, unknown};
use super::sys::{
    hardware_type, interface_index, socket_error, wait_for_packet_paths, wait_readable,
};
use super::{Capture, CaptureError, gate};
use crate::frame::{Frame, LinkType};
use ring::Ring;
use socket::PacketSocket;

/// How long the last block may take to be closed: the kernel looks at it once every `retire`, and closes it when it finds it
/// as it was. That is two looks; the rest is for a busy machine.
const CLOSING_RETIRES: u32 = 10;
const CLOSING_EXTRA: Duration = Duration::from_millis(500);
const CLOSING_STEP: Duration = Duration::from_millis(1);

/// One packet socket with its ring.
pub struct AfPacket {
    socket: PacketSocket,
    ring: Ring,
    interface: String,
    config: Config,
    _times: Option<HardwareTimes>,
    life: Life,
    /// Why it ended, until that was told.
    failure: Option<io::Error>,
    /// Frames that passed the filter, up to the last look.
    offered: u64,
    /// Those of them that found no room.
    ring_full: u64,
}

/// From the first frame to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Frames come.
    Open,
    /// No more come; there may be some in the ring.
    Stopped,
    /// The last one was handed out.
    Ended,
}

impl AfPacket {
    /// Opens `interface`. Its frames are of interface number `id`. For several sockets that share them, see
    /// [`open_group`](Self::open_group).
    ///
    /// # Errors
    /// [`CaptureError::Live`], with what to do about it; nothing is left open then.
    pub fn open(interface: &str, id: u16, config: &Config) -> Result<Self, CaptureError> {
        // One was asked for.
        Ok(Self::open_group(interface, id, config, 1)?.swap_remove(0))
    }

    /// Opens all `sockets` of a group, the first with the lowest number: none takes a frame before all have joined, so that a flow
    /// does not change sockets while they do. What comes meanwhile is not counted.
    ///
    /// # Panics
    /// When there are to be none, or several without [`Builder::fanout`]: each would have every frame.
    ///
    /// # Errors
    /// [`CaptureError::Live`], with what to do about it; nothing is left open then.
    pub fn open_group(
        interface: &str,
        id: u16,
        config: &Config,
        sockets: usize,
    ) -> Result<Vec<Self>, CaptureError> {
        assert!(sockets == 1 || sockets > 1 && config.fanout.is_some(), "{sockets} sockets");
        let name = interface;
        if let Some(refusal) = refuse::too_long(name) {
            return Err(refusal);
        }
        interface_index(name).map_err(|error| unknown(name, error))?;
        if config.times == Times::Hardware {
            let nic = Nic::open(name).map_err(|error| unknown(name, error))?;
            if let Some(refusal) = refuse::no_stamps(name, nic.stamps()) {
                return Err(refusal);
            }
        }
        let by_program = config.fanout.is_some_and(|fanout| fanout.mode == FanoutMode::Ebpf);
        if by_program && let Some(refusal) = refuse::missing_rights(name, Rights::effective()) {
            return Err(refusal);
        }
        let group: Result<Vec<_>, _> =
            (0..sockets).map(|_| Self::shut_in_its_group(name, id, config)).collect();
        let group = group?;
        if by_program {
            let told = |what| move |error| refuse::not_spread(name, what, error);
            FanoutProgram::load(sockets as u32)
                .map_err(told("loading the program that spreads its frames"))?
                .with_fd(|program| group[0].socket.spread_by(program))
                .map_err(told("having its fanout group spread by our program"))?;
        }
        let of_group = (config.fanout.is_some() && !outgoing::group_is_told())
            .then(|| outgoing::left_out(&config.filter));
        let filter = of_group.as_ref().unwrap_or(&config.filter);
        for capture in &group {
            gate::let_in(capture.socket.as_fd(), filter)
                .map_err(|error| refuse::no_filter(name, filter.len(), error))?;
        }
        Ok(group)
    }

    /// A socket that is ready and lets nothing in.
    fn shut_in_its_group(name: &str, id: u16, config: &Config) -> Result<Self, CaptureError> {
        let mut socket = PacketSocket::new().map_err(|error| refuse::no_socket(name, error))?;
        let memory = socket.ring(config).map_err(|error| refuse::no_ring(name, config, error))?;
        // The filter is a gate: shut until all is ready, so that the socket has no frame twice, once for itself before it joins its
        // group and once by another member.
        gate::shut(socket.as_fd()).map_err(|error| refuse::no_filter(name, 1, error))?;
        socket
            .bind(name, config.promiscuous)
            // An interface that is down can be bound to; the kernel says so afterwards.
            .and_then(|()| socket_error(socket.as_fd()))
            .map_err(|error| refuse::not_bound(name, error))?;
        let hardware = socket.hardware().map_err(|error| refuse::not_bound(name, error))?;
        let link = link_of(hardware).ok_or_else(|| refuse::unknown_link(name, hardware))?;
        if let Some(fanout) = config.fanout {
            socket.join(fanout).map_err(|error| refuse::not_joined(name, fanout, error))?;
        }
        let times = match config.times {
            Times::Kernel => None,
            Times::Hardware => {
                let held = socket.take_hardware_times().and_then(|()| HardwareTimes::hold(name));
                Some(held.map_err(|error| refuse::not_stamped(name, error))?)
            }
        };
        Ok(Self {
            ring: Ring::new(memory, config, link, id),
            socket,
            interface: name.to_owned(),
            config: config.clone(),
            _times: times,
            life: Life::Open,
            failure: None,
            offered: 0,
            ring_full: 0,
        })
    }

    /// Frames handed out with the kernel's time although the NIC's was asked for.
    pub fn without_hardware_time(&self) -> u64 {
        match self.config.times {
            Times::Kernel => 0,
            Times::Hardware => self.ring.delivered - self.ring.by_hardware,
        }
    }

    /// Adds up what the kernel counted since the last look: it counts from 0 again after each, in 32 bits.
    fn look(&mut self) -> io::Result<()> {
        let found = self.socket.statistics()?;
        self.offered += u64::from(found.tp_packets);
        self.ring_full += u64::from(found.tp_drops);
        Ok(())
    }

    fn tally(&self) -> QueueCounts {
        let mut counts = QueueCounts {
            offered: self.offered,
            delivered: self.ring.delivered,
            ..QueueCounts::default()
        };
        counts.dropped[DropReason::RingFull as usize] = self.ring_full;
        counts.dropped[DropReason::InvalidDescriptor as usize] = self.ring.broken;
        counts
    }

    /// Waits for frames, as long as the configuration says.
    fn wait(&mut self) -> io::Result<()> {
        wait_readable(self.socket.as_fd(), self.config.wait)?;
        // What came before the interface went is handed out first.
        if self.ring.has_frames() { Ok(()) } else { socket_error(self.socket.as_fd()) }
    }

    /// Lets nothing in any more, and returns when nothing is on its way.
    fn shut(&mut self) -> io::Result<()> {
        gate::shut(self.socket.as_fd())?;
        // A processor may be between the filter and the ring, or before the counter.
        wait_for_packet_paths();
        Ok(())
    }

    /// After it was shut: waits for the kernel to close the block that has the last frames. Whether there are any.
    fn wait_for_rest(&mut self) -> io::Result<bool> {
        self.look()?;
        let until = Instant::now() + self.config.retire * CLOSING_RETIRES + CLOSING_EXTRA;
        while self.tally().underway() > 0 {
            if self.ring.has_frames() {
                return Ok(true);
            }
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(CLOSING_STEP);
        }
        Ok(false)
    }

    /// When the ring has nothing for us. Whether there is another batch, if only an empty one.
    fn more(&mut self) -> Result<bool, CaptureError> {
        if self.life == Life::Open {
            let Err(system) = self.wait() else { return Ok(true) };
            // Should the interface come back, it is not ours any more: what was lost meanwhile nobody counted.
            self.failure = Some(self.shut().err().unwrap_or(system));
            self.life = Life::Stopped;
        }
        if self.life == Life::Stopped {
            match self.wait_for_rest() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(system) => self.failure = self.failure.take().or(Some(system)),
            }
            self.life = Life::Ended;
        }
        let Some(system) = self.failure.take() else { return Ok(false) };
        Err(gone(&self.interface, system))
    }
}

impl Capture for AfPacket {
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        if !self.ring.has_frames() && !self.more()? {
            return Ok(None);
        }
        Ok(Some(self.ring.lend(f)))
    }
}

impl LiveCapture for AfPacket {
    /// The kernel counts in 32 bits: ask at least once in 4 billion frames.
    fn counts(&mut self) -> Result<QueueCounts, CaptureError> {
        self.look().map_err(|system| {
            error(&self.interface, "reading PACKET_STATISTICS", system, "please report this")
        })?;
        let mut counts = self.tally();
        if self.life == Life::Ended {
            // Of a block that the kernel did not close in time: none, in all tests.
            let left = counts.underway();
            counts.dropped[DropReason::Socket as usize] += left;
        }
        Ok(counts)
    }

    fn stop(&mut self) -> Result<(), CaptureError> {
        if self.life != Life::Open {
            return Ok(());
        }
        self.shut().map_err(|system| {
            let mend = "raise net.core.optmem_max, or close the capture without stopping it";
            error(&self.interface, "attaching a filter that takes nothing", system, mend)
        })?;
        self.life = Life::Stopped;
        Ok(())
    }

    fn description(&self) -> String {
        let Config { block_bytes, blocks, retire, promiscuous, fanout, filter, times, .. } =
            &self.config;
        let group =
            fanout.map(|Fanout { group, mode }| format!(", fanout group {group} by {mode}"));
        let instructions =
            (!filter.is_empty()).then(|| format!(", filter of {} instructions", filter.len()));
        format!(
            "{}: AF_PACKET, ring of {} MiB ({blocks} blocks of {} KiB, given after {} ms){}{}{}{}",
            self.interface,
            self.config.ring_bytes().div_ceil(1 << 20),
            block_bytes >> 10,
            retire.as_millis(),
            if *promiscuous { ", promiscuous" } else { "" },
            match times {
                Times::Kernel => "",
                Times::Hardware => ", the NIC's own times",
            },
            instructions.unwrap_or_default(),
            group.unwrap_or_default(),
        )
    }

    fn remark(&self) -> Option<String> {
        let (without, delivered) = (self.without_hardware_time(), self.ring.delivered);
        (without > 0).then(|| {
            format!(
                "{}: {without} of {delivered} frames came without the NIC's time and have the kernel's",
                self.interface
            )
        })
    }
}

impl std::fmt::Debug for AfPacket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AfPacket")
            .field("interface", &self.interface)
            .field("life", &self.life)
            .field("delivered", &self.ring.delivered)
            .finish_non_exhaustive()
    }
}

/// How the frames of an interface begin, for who has to compile a filter before it is opened.
///
/// # Errors
/// [`CaptureError::Live`], when there is no such interface, or none that [`AfPacket`] reads.
pub fn link_type(interface: &str) -> Result<LinkType, CaptureError> {
    let hardware = hardware_type(interface).map_err(|error| unknown(interface, error))?;
    link_of(hardware).ok_or_else(|| refuse::unknown_link(interface, hardware))
}

/// What frames begin with on interfaces of a hardware type, where we can read it.
fn link_of(hardware: u16) -> Option<LinkType> {
    /// `ARPHRD_RAWIP`, which libc does not have.
    const ARPHRD_RAWIP: u16 = 519;
    match hardware {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(LinkType::ETHERNET),
        // Tunnels whose frames begin with their IP header.
        libc::ARPHRD_NONE | ARPHRD_RAWIP => Some(LinkType::RAW),
        _ => None,
    }
}
