//! Live frames by AF_XDP: from the driver through our XDP program into memory of ours.
//!
//! | part | noun |
//! |---|---|
//! | [`Config`] | what is wanted, checked before anything is opened |
//! | `refuse` | whether what is there will do |
//! | [`Program`] | our XDP program (`bpf/`): which frames, to which socket, and how many |
//! | `shunts` | flows that it counts, and whose frames do not come |
//! | `umem`, `held` | the frames: whose they are, and that nobody has one twice |
//! | `batch` | descriptors → frames |
//! | `sys` | system calls |
//!
//! Contract: one [`AfXdp`] is one socket of one queue, for one thread. Nothing is attached before every socket stands ready,
//! and what is attached goes with the process, however it ends. Frames that the program does not send to a socket go
//! on to the kernel; what it sends, the kernel does not see. Tags that a NIC takes off on receiving (`ethtool -K … rxvlan
//! off` keeps it from doing so) are not seen by XDP.

mod batch;
mod config;
mod held;
mod program;
mod refuse;
mod shunts;
mod sys;
mod umem;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use config::{Builder, BusyPoll, Config, ConfigError, Mode};
pub use program::{Program, ProgramConfig, Verdicts};
pub use umem::Statistics;

use super::live::{DropReason, LiveCapture, QueueCounts};
use super::nic::{Interface, Promiscuous, Rights};
use super::refuse::{error, unknown};
use super::shunt::Shunts;
use super::sys::{socket_error, wait_for_packet_paths, wait_readable};
use super::{Capture, CaptureError};
use crate::frame::Frame;
use batch::Batch;
use umem::{QueueMemory, Socket};

/// How long a queue may be busy: a socket that was just closed gives it free only after a while.
const BUSY_MAX: Duration = Duration::from_secs(1);
const BUSY_STEP: Duration = Duration::from_millis(20);

/// How frames turned out to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeInForce {
    /// The NIC writes them into our memory.
    ZeroCopy,
    /// The kernel copies them there, in the driver.
    Copy,
    /// The kernel copies them there, behind the driver.
    Generic,
}

impl ModeInForce {
    /// As metrics and messages spell it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero_copy",
            Self::Copy => "copy",
            Self::Generic => "generic",
        }
    }
}

/// One socket of one queue of one interface.
pub struct AfXdp {
    // Dropped first: no frame is sent to a socket that is about to close.
    program: Arc<Mutex<Program>>,
    /// Of the interface; open as long as any of its captures is.
    socket: Socket,
    batch: Batch,
    interface: String,
    queue: u32,
    /// Among the sockets of the queue.
    number: u32,
    slot: u32,
    mode: ModeInForce,
    multi_buffer: bool,
    config: Arc<Config>,
    _promiscuous: Option<Arc<Promiscuous>>,
    life: Life,
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

impl AfXdp {
    /// Looks whether [`open`](Self::open) would refuse the interface as it is now, and changes nothing. Whether its driver runs
    /// the program shows only when it is attached.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(interface: &str, config: &Config) -> Result<(), CaptureError> {
        Self::look(interface, config).map(drop)
    }

    fn look(name: &str, config: &Config) -> Result<Interface, CaptureError> {
        let found = Interface::find(name).map_err(|error| unknown(name, error))?;
        let refusal = refuse::missing_rights(name, Rights::effective())
            .or_else(|| refuse::unfit(name, &found, config));
        refusal.map_or(Ok(found), Err)
    }

    /// Opens `interface`: one capture for each socket of each queue, by queue and then by socket. Their frames are of
    /// interface number `id`.
    ///
    /// Where a queue has several sockets, flows are spread over them by the Toeplitz hash of `sensor::rss`, both
    /// directions alike, fragments by their addresses: with one queue a flow's socket is its worker there. What is not
    /// IP comes to the first socket of its queue.
    ///
    /// # Errors
    /// [`CaptureError::Live`], with what to do about it; nothing is attached then.
    pub fn open(interface: &str, id: u16, config: &Config) -> Result<Vec<Self>, CaptureError> {
        let name = interface;
        let found = Self::look(name, config)?;
        let mut config = config.clone();
        let Bound { mut program, sockets, multi_buffer } = loop {
            let bound = Bound::new(name, &found, &config)?;
            match config.in_pages() {
                // Only now is it known that the NIC itself writes; at most once, for pages are as large as it gets.
                Some(pages) if bound.needs_pages() => {
                    drop(bound);
                    config = pages;
                }
                _ => break bound,
            }
        };
        // A NIC hands on no frame to another host unless it is told to, and no program sees what it keeps.
        let promiscuous = config.promiscuous.then(|| Promiscuous::hold(found.index));
        let promiscuous =
            promiscuous.transpose().map_err(|error| refuse::not_promiscuous(name, error))?;
        // Last, so that the first frame already has where to go.
        program
            .attach(found.index, config.mode == Mode::Generic)
            .map_err(|error| refuse::not_attached(name, &config, error))?;

        let (program, config) = (Arc::new(Mutex::new(program)), Arc::new(config));
        let promiscuous = promiscuous.map(Arc::new);
        let captures =
            sockets.into_iter().map(|BoundSocket { socket, queue, number, slot, mode }| Self {
                program: Arc::clone(&program),
                _promiscuous: promiscuous.clone(),
                socket,
                batch: Batch::new(id, multi_buffer),
                interface: name.to_owned(),
                queue,
                number,
                slot,
                mode,
                multi_buffer,
                config: Arc::clone(&config),
                life: Life::Open,
            });
        Ok(captures.collect())
    }

    /// Its queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Its number among the sockets of its queue.
    pub fn socket(&self) -> u32 {
        self.number
    }

    /// How its frames come, as the kernel says.
    pub fn mode(&self) -> ModeInForce {
        self.mode
    }

    /// What the kernel counted for the socket.
    ///
    /// # Errors
    /// [`CaptureError::Live`] when it does not tell.
    pub fn statistics(&self) -> Result<Statistics, CaptureError> {
        self.socket.statistics().map_err(|error| self.unreadable("reading XDP_STATISTICS", error))
    }

    /// What the program counted for the socket, frames that it passed on included.
    ///
    /// # Errors
    /// [`CaptureError::Live`] when the kernel does not tell.
    pub fn verdicts(&self) -> Result<Verdicts, CaptureError> {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program
            .verdicts(self.slot)
            .map_err(|error| self.unreadable("reading the XDP program's counters", error))
    }

    /// The interface's table of shunted flows, if it was configured. It can be read when the captures are gone.
    pub fn shunts(&self) -> Option<Arc<dyn Shunts>> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).shunts()
    }

    fn unreadable(&self, what: &str, system: io::Error) -> CaptureError {
        let what = format!("queue {}: {what}", self.queue);
        error(&self.interface, what, system, "please report this")
    }

    /// Has the driver polled until there are frames, or for as long as was asked for. Whether some came. Where the driver has
    /// nothing that could be polled, this looks at the ring over and over, by system calls that do nothing.
    fn poll_driver(&mut self, BusyPoll { micros, .. }: BusyPoll) -> bool {
        // Who waits for nothing has other queues to look at.
        let long = Duration::from_micros(micros.into()).min(self.config.wait);
        let start = Instant::now();
        loop {
            sys::wake_up(self.socket.fd());
            if self.batch.receive(&mut self.socket) {
                return true;
            }
            if start.elapsed() >= long {
                return false;
            }
        }
    }

    /// Waits for frames, as long as the configuration says. Whether some came.
    fn wait(&mut self) -> io::Result<bool> {
        if let Some(busy_poll) = self.config.busy_poll {
            if self.poll_driver(busy_poll) {
                return Ok(true);
            }
        } else if !self.config.spin.is_zero() {
            let start = Instant::now();
            while start.elapsed() < self.config.spin {
                (0..32).for_each(|_| std::hint::spin_loop());
                if self.batch.receive(&mut self.socket) {
                    return Ok(true);
                }
            }
        }
        // Also wakes up a driver that waits for us.
        wait_readable(self.socket.fd(), self.config.wait)?;
        if self.batch.receive(&mut self.socket) {
            return Ok(true);
        }
        socket_error(self.socket.fd()).map(|()| false)
    }
}

/// Sockets that are bound to their queues and in the program's map, which is attached to nothing yet.
struct Bound {
    // Dropped first, as in `AfXdp`.
    program: Program,
    sockets: Vec<BoundSocket>,
    multi_buffer: bool,
}

struct BoundSocket {
    socket: Socket,
    queue: u32,
    number: u32,
    slot: u32,
    mode: ModeInForce,
}

impl Bound {
    fn new(name: &str, found: &Interface, config: &Config) -> Result<Self, CaptureError> {
        let multi_buffer = refuse::needs_multi_buffer(found, config);
        let mut program = Program::load(&ProgramConfig {
            queues: found.queues,
            sockets_per_queue: config.sockets_per_queue,
            ip_only: config.ip_only,
            stamped: config.kernel_time,
            room_bytes: (!multi_buffer).then(|| config.room_bytes()),
            shunt: config.shunt,
        })
        .map_err(|error| refuse::not_loaded(name, error))?;

        let queues = match &config.queues[..] {
            [] => (0..found.queues).collect(),
            queues => queues.to_vec(),
        };
        let mut sockets = Vec::new();
        for queue in queues {
            let mut memory = QueueMemory::new(config, multi_buffer)
                .map_err(|error| refuse::no_memory(name, queue, config, error))?;
            for number in 0..config.sockets_per_queue {
                let socket = patiently(|| memory.bind(name, queue, config.kernel_time))
                    .map_err(|error| refuse::not_bound(name, queue, config, error))?;
                if let Some(busy_poll) = config.busy_poll {
                    sys::set_busy_poll(socket.fd(), busy_poll)
                        .map_err(|error| refuse::no_busy_poll(name, queue, busy_poll, error))?;
                }
                let mode = match config.mode {
                    Mode::Generic => Ok(ModeInForce::Generic),
                    _ => sys::is_zero_copy(socket.fd()).map(|zero_copy| {
                        if zero_copy { ModeInForce::ZeroCopy } else { ModeInForce::Copy }
                    }),
                };
                let slot = queue * config.sockets_per_queue + number;
                let mode = program
                    .open_slot(slot, &socket.fd())
                    .and(mode)
                    .map_err(|error| refuse::not_bound(name, queue, config, error))?;
                sockets.push(BoundSocket { socket, queue, number, slot, mode });
            }
        }
        Ok(Self { program, sockets, multi_buffer })
    }

    /// Whether a NIC may cut what its buffers, rounded down, have no room for.
    fn needs_pages(&self) -> bool {
        let zero_copy = |bound: &BoundSocket| bound.mode == ModeInForce::ZeroCopy;
        !self.multi_buffer && self.sockets.iter().any(zero_copy)
    }
}

impl Capture for AfXdp {
    fn with_batch<R>(
        &mut self,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError> {
        if !self.batch.receive(&mut self.socket) {
            match self.life {
                Life::Open => {}
                Life::Stopped | Life::Ended => {
                    self.life = Life::Ended;
                    return Ok(None);
                }
            }
            if let Err(system) = self.wait() {
                self.life = Life::Ended;
                let what = format!("queue {}: no more frames come", self.queue);
                let mend = "the interface was removed, or its driver gave up: open it again when it is back";
                return Err(error(&self.interface, what, system, mend));
            }
        }
        Ok(Some(self.batch.lend(&mut self.socket, self.config.kernel_time, f)))
    }
}

impl LiveCapture for AfXdp {
    fn counts(&mut self) -> Result<QueueCounts, CaptureError> {
        let statistics = self.statistics()?;
        let verdicts = self.verdicts()?;
        let mut counts = QueueCounts {
            offered: verdicts.redirected + verdicts.too_long + verdicts.shunted,
            delivered: self.batch.delivered,
            shunted: verdicts.shunted,
            shunted_bytes: verdicts.shunted_bytes,
            ..QueueCounts::default()
        };
        let mut drop = |reason: DropReason, frames: u64| counts.dropped[reason as usize] += frames;
        drop(DropReason::RingFull, statistics.rx_ring_full);
        // What is longer than the socket takes was turned away by the program, so what the socket itself dropped, it
        // dropped for want of a frame to write to.
        drop(DropReason::FillRingEmpty, statistics.rx_dropped);
        drop(DropReason::Socket, verdicts.too_long);
        drop(DropReason::InvalidDescriptor, self.batch.broken);
        if self.life == Life::Ended {
            // Sent to the socket and neither come nor counted by it: lost on the way, in the driver.
            let lost = counts.underway();
            counts.dropped[DropReason::Driver as usize] += lost;
        }
        Ok(counts)
    }

    fn stop(&mut self) -> Result<(), CaptureError> {
        if self.life != Life::Open {
            return Ok(());
        }
        let closed = {
            let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
            program.close_slot(self.slot)
        };
        closed.map_err(|error| {
            self.unreadable("taking the socket out of the program's map", error)
        })?;
        // A driver may be between the program's verdict and the socket.
        wait_for_packet_paths();
        self.life = Life::Stopped;
        Ok(())
    }

    fn description(&self) -> String {
        let Config {
            frames,
            frame_bytes,
            rx_ring,
            sockets_per_queue,
            huge_pages,
            promiscuous,
            busy_poll,
            ..
        } = *self.config;
        let polled = busy_poll.map(|BusyPoll { micros, budget }| {
            format!(", busy polling for {micros} µs, {budget} frames at a time")
        });
        let mebibytes = self.config.queue_bytes().div_ceil(1 << 20);
        format!(
            "{} queue {} socket {} of {sockets_per_queue}: AF_XDP, {}{}, {frames} frames of {frame_bytes} bytes \
             ({mebibytes} MiB{}), ring of {rx_ring}{}{}",
            self.interface,
            self.queue,
            self.number,
            match self.mode {
                ModeInForce::ZeroCopy => "zero-copy",
                ModeInForce::Copy => "native with a copy",
                ModeInForce::Generic => "generic with a copy",
            },
            if self.multi_buffer { ", long frames in several buffers" } else { "" },
            if huge_pages { " in huge pages" } else { "" },
            polled.unwrap_or_default(),
            if promiscuous { ", promiscuous" } else { "" },
        )
    }
}

impl std::fmt::Debug for AfXdp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AfXdp")
            .field("interface", &self.interface)
            .field("queue", &self.queue)
            .field("socket", &self.number)
            .field("mode", &self.mode)
            .field("delivered", &self.batch.delivered)
            .finish_non_exhaustive()
    }
}

/// Tries again while the queue is busy, for a second.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < BUSY_MAX =>
            {
                std::thread::sleep(BUSY_STEP);
            }
            result => return result,
        }
    }
}
