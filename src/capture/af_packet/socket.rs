//! The packet socket: its options, one function each.
//!
//! Contract: the descriptor belongs to the afpacket crate's stream alone. That stream is never cloned, for dropping a clone
//! closes the descriptor of both, and it is not asked for its descriptor by value, for what it then gives is closed.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};

use afpacket::sync::RawPacketStream;
use libc::{c_int, c_uint};
use memmap2::{MmapOptions, MmapRaw};

use super::block::TAG_BYTES;
use super::config::{Config, Fanout};
use crate::capture::fanout::FanoutMode;
use crate::capture::sys::check;

/// What the kernel takes for the size of a frame. Blocks hold frames of any length, but it wants one to divide them by.
const FRAME_BYTES: u32 = 2048;

/// A packet socket. It has frames only after [`bind`](Self::bind).
#[derive(Debug)]
pub(super) struct PacketSocket(RawPacketStream);

impl PacketSocket {
    /// Of no protocol, so that no frame comes before all is ready.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY:
        // - the call takes no pointer.
        let fd = check(unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)
        })?;
        // SAFETY:
        // - the descriptor is new and nobody else's; from here on the stream closes it.
        Ok(Self(unsafe { RawPacketStream::from_raw_fd(fd) }))
    }

    /// Sets an option of the packet level.
    fn set<T: Copy>(&self, name: c_int, value: T) -> io::Result<()> {
        let bytes = size_of_val(&value) as libc::socklen_t;
        // SAFETY:
        // - pointer and length are those of `value`, which lives until the call returns; the kernel only reads it.
        check(unsafe {
            let fd = self.0.as_raw_fd();
            libc::setsockopt(fd, libc::SOL_PACKET, name, (&raw const value).cast(), bytes)
        })
        .map(drop)
    }

    /// Has frames come with the NIC's own time, where they have one.
    pub(super) fn take_hardware_times(&self) -> io::Result<()> {
        self.set(libc::PACKET_TIMESTAMP, libc::SOF_TIMESTAMPING_RAW_HARDWARE)
    }

    /// Makes the ring and maps it: blocks of the third version, with room for a tag in front of each frame, and without what this
    /// host sends.
    pub(super) fn ring(&self, config: &Config) -> io::Result<MmapRaw> {
        let version = libc::tpacket_versions::TPACKET_V3;
        self.set(libc::PACKET_VERSION, version as c_int)?;
        self.set::<c_int>(libc::PACKET_IGNORE_OUTGOING, 1)?;
        self.set(libc::PACKET_RESERVE, TAG_BYTES as c_uint)?;
        self.set(
            libc::PACKET_RX_RING,
            libc::tpacket_req3 {
                tp_block_size: config.block_bytes,
                tp_block_nr: config.blocks,
                tp_frame_size: FRAME_BYTES,
                tp_frame_nr: config.blocks * (config.block_bytes / FRAME_BYTES),
                tp_retire_blk_tov: config.retire.as_millis() as c_uint,
                tp_sizeof_priv: 0,
                tp_feature_req_word: 0,
            },
        )?;
        MmapOptions::new().len(config.ring_bytes() as usize).map_raw(self.0.as_raw_fd())
    }

    /// Binds to an interface, whose name has at most 15 bytes: the crate's own check is one too high.
    pub(super) fn bind(&mut self, name: &str, promiscuous: bool) -> io::Result<()> {
        debug_assert!(name.len() < libc::IFNAMSIZ);
        self.0.bind(name)?;
        if promiscuous { self.0.set_promisc(name, true) } else { Ok(()) }
    }

    /// Joins a group. The socket is bound.
    pub(super) fn join(&self, fanout: Fanout) -> io::Result<()> {
        let mode = match fanout.mode {
            FanoutMode::Hash => libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_DEFRAG,
            FanoutMode::Ebpf => libc::PACKET_FANOUT_EBPF | libc::PACKET_FANOUT_FLAG_DEFRAG,
            FanoutMode::Qm => libc::PACKET_FANOUT_QM,
            FanoutMode::Cpu => libc::PACKET_FANOUT_CPU,
        };
        // The kernel calls the group, not its sockets, so that what they ignore does not matter. See `outgoing` for those
        // that do not know the flag.
        let mode = mode | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
        self.set(libc::PACKET_FANOUT, c_uint::from(fanout.group) | mode << 16)
    }

    /// Has `program` say which socket of its group a frame goes to. Until then it is the first one.
    pub(super) fn spread_by(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        self.set::<c_int>(libc::PACKET_FANOUT_DATA, program.as_raw_fd())
    }

    /// The hardware type (`ARPHRD_…`) of the interface that it is bound to.
    pub(super) fn hardware(&self) -> io::Result<u16> {
        // SAFETY:
        // - all fields are integers or arrays of them.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut bytes = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY:
        // - `address` has as many bytes as `bytes` tells, and both live until the call returns.
        check(unsafe {
            libc::getsockname(self.0.as_raw_fd(), (&raw mut address).cast(), &raw mut bytes)
        })?;
        Ok(address.sll_hatype)
    }

    /// Frames that passed the filter, and those of them that found no room, since this was last asked.
    pub(super) fn statistics(&self) -> io::Result<libc::tpacket_stats_v3> {
        let mut found = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut bytes = size_of_val(&found) as libc::socklen_t;
        // SAFETY:
        // - `found` has as many bytes as `bytes` tells, and both live until the call returns.
        check(unsafe {
            let fd = self.0.as_raw_fd();
            let to = (&raw mut found).cast();
            libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, to, &raw mut bytes)
        })?;
        Ok(found)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY:
        // - the stream keeps the descriptor open as long as it lives, and the result does not outlive `self`.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
