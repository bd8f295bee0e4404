//! The memory of a queue, its sockets and their rings, as safe as they can be made.
//!
//! Contract: a [`Socket`] reads only frames that the kernel gave it and that it has not given back. All sockets of a queue
//! share its memory and its one fill ring, which is behind a lock that is taken once a batch: the kernel wants one
//! producer at a time, and a ring of a socket of its own would tie all others to that one's pace.
#![allow(unsafe_code)]

use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
};
use xsk_rs::socket::Socket as XskSocket;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue, Umem};

use super::config::{Config, Mode};
use super::held::Rings;
use super::sys;

/// Entries of the rings that sending takes, which nobody uses: the fewest that the library makes rings of.
const UNUSED_RING: u32 = 64;

/// The program's `struct stamp`, in front of the frame.
const STAMP_BYTES: usize = 16;
const STAMP_MARK: u64 = 0x666c_6f77_7365_6e73;

/// One queue's memory, with the frames that no socket has yet.
pub(super) struct QueueMemory {
    umem: Umem,
    /// Every frame there is, until the first socket brings the ring to put them on.
    frames: Vec<FrameDesc>,
    fill: Option<Arc<Mutex<Fill>>>,
    config: SocketConfig,
}

/// The ring on which frames go back, and the one that comes with it.
struct Fill {
    ring: FillQueue,
    _completion: CompQueue,
}

/// One socket of a queue.
pub(super) struct Socket {
    umem: Umem,
    rx: RxQueue,
    _tx: TxQueue,
    fill: Arc<Mutex<Fill>>,
    stamped: bool,
}

impl QueueMemory {
    /// Takes the memory for one queue.
    pub(super) fn new(config: &Config, multi_buffer: bool) -> io::Result<Self> {
        let umem = UmemConfig::builder()
            .frame_size(FrameSize::new(config.frame_bytes).map_err(invalid)?)
            .fill_queue_size(QueueSize::new(config.fill_ring()).map_err(invalid)?)
            .comp_queue_size(QueueSize::new(UNUSED_RING).map_err(invalid)?)
            .build()
            .map_err(invalid)?;
        let frames = NonZeroU32::new(config.frames).ok_or(io::ErrorKind::InvalidInput)?;
        let (umem, frames) = Umem::new(umem, frames, config.huge_pages).map_err(cause)?;
        let mut bind = BindFlags::XDP_USE_NEED_WAKEUP;
        match config.mode {
            // Neither flag: the kernel asks the driver first and copies if it says no.
            Mode::Native => {}
            Mode::ZeroCopy => bind |= BindFlags::XDP_ZEROCOPY,
            Mode::Copy | Mode::Generic => bind |= BindFlags::XDP_COPY,
        }
        if multi_buffer {
            bind |= BindFlags::XDP_USE_SG;
        }
        let config = SocketConfig::builder()
            .rx_queue_size(QueueSize::new(config.rx_ring).map_err(invalid)?)
            .tx_queue_size(QueueSize::new(UNUSED_RING).map_err(invalid)?)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(bind)
            .build();
        Ok(Self { umem, frames, fill: None, config })
    }

    /// Binds one more socket to the queue. The first one puts every frame on the fill ring.
    pub(super) fn bind(
        &mut self,
        interface: &str,
        queue: u32,
        stamped: bool,
    ) -> io::Result<Socket> {
        let name: Interface = interface.parse().map_err(invalid)?;
        // SAFETY:
        // - the library's own program is inhibited in `config`, as it asks for when a queue is bound more than once.
        let bound = unsafe { XskSocket::new(self.config, &self.umem, &name, queue) };
        let (tx, rx, rings) = bound.map_err(cause)?;
        let fill = match (rings, &self.fill) {
            (Some((mut ring, completion)), None) => {
                // SAFETY:
                // - the frames are of this UMEM, and nobody had any of them until now.
                // - each is in the list once, and the list is emptied.
                let put = unsafe { ring.produce(&self.frames) };
                if put != self.frames.len() {
                    return Err(io::Error::other("the fill ring has no room for all frames"));
                }
                self.frames = Vec::new();
                let fill = Arc::new(Mutex::new(Fill { ring, _completion: completion }));
                self.fill = Some(Arc::clone(&fill));
                fill
            }
            (None, Some(fill)) => Arc::clone(fill),
            _ => return Err(io::Error::other("the queue's fill ring is not where it should be")),
        };
        Ok(Socket { umem: self.umem.clone(), rx, _tx: tx, fill, stamped })
    }
}

impl Socket {
    /// Its descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY:
        // - the socket stays open as long as its rings do, and those are borrowed from.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    /// What the kernel counted for it.
    pub(super) fn statistics(&self) -> io::Result<Statistics> {
        let found = self.rx.fd().xdp_statistics()?;
        Ok(Statistics {
            rx_dropped: found.rx_dropped(),
            rx_invalid_descs: found.rx_invalid_descs(),
            rx_ring_full: found.rx_ring_full(),
            rx_fill_ring_empty_descs: found.rx_fill_ring_empty_descs(),
        })
    }

    /// A frame that was received and not given back, and the time in front of it (`CLOCK_MONOTONIC`), if it has one.
    ///
    /// # Safety
    /// `desc` came from this socket's [`Rings::receive`], and is not given back while the bytes are borrowed.
    pub(super) unsafe fn frame(&self, desc: &FrameDesc) -> (&[u8], Option<u64>) {
        // SAFETY:
        // - the descriptor is of this UMEM and the frame is ours: what this function asks for.
        let data = unsafe { self.umem.data(desc) }.contents();
        if !self.stamped || desc.addr() < STAMP_BYTES {
            return (data, None);
        }
        let stamp: *mut [u64; 2] =
            std::ptr::with_exposed_provenance_mut(data.as_ptr().expose_provenance() - STAMP_BYTES);
        // SAFETY:
        // - the bytes lie in the UMEM, which was exposed when it was given to the kernel: the offset is at least
        //   their size.
        // - they are of the same frame as the data, whose first 256 bytes are kept free, so nobody else has them;
        //   `data` begins behind them.
        // - every pattern of bits is a number; the access does not ask for alignment.
        let [mark, nanos] = unsafe { stamp.read_unaligned() };
        if mark != STAMP_MARK {
            return (data, None);
        }
        // An old stamp must not be taken for a new one when this frame comes again without.
        // SAFETY:
        // - the same bytes as were just read, which nobody has borrowed.
        unsafe { stamp.write_unaligned([0, 0]) };
        (data, Some(nanos))
    }
}

/// A capture is opened by one thread and read by another.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Socket>();
};

/// Copied from the kernel's `struct xdp_statistics`, under its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames for which the kernel had no frame of ours.
    pub rx_dropped: u64,
    /// Frames of ours that the kernel did not take, of all sockets of the queue. None is lost by that.
    pub rx_invalid_descs: u64,
    /// Frames for which the ring to us had no room.
    pub rx_ring_full: u64,
    /// How often the fill ring was found empty, of all sockets of the queue. When frames are copied, each time is one
    /// frame of `rx_dropped`; when they are not, the driver asks in advance and tries again.
    pub rx_fill_ring_empty_descs: u64,
}

impl Rings for Socket {
    type Desc = FrameDesc;

    fn receive(&mut self, into: &mut [FrameDesc]) -> usize {
        // SAFETY:
        // - all frames on the ring are of the UMEM that the socket was made with.
        unsafe { self.rx.consume(into) }
    }

    unsafe fn give_back(&mut self, frames: &[FrameDesc]) {
        let mut fill = self.fill.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY:
        // - the frames are of this UMEM and ours: what this function asks for.
        let put = unsafe { fill.ring.produce(frames) };
        // `Config::fill_ring` says why.
        assert_eq!(put, frames.len(), "the fill ring always has room");
        if fill.ring.needs_wakeup() {
            sys::wake_up(self.fd());
        }
    }
}

fn invalid(error: impl Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// What the system said, under what the library says of it.
fn cause(error: impl Error) -> io::Error {
    let system = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match system.and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    }
}
