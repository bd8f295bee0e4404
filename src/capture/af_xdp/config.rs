//! What an AF_XDP capture is told: a [`Config`] that was checked before anything is opened.

use std::time::Duration;

use crate::capture::OutOfRange;
use crate::capture::range::{millis, within};
use crate::capture::shunt::{SHUNTS_MAX, ShuntConfig};

/// Sizes of a frame of the UMEM that the kernel takes: a power of two, at most a page.
const FRAME_BYTES: [u32; 2] = [2048, PAGE_BYTES];
const PAGE_BYTES: u32 = 4096;

/// What many NICs count their buffers in, rounding down (`SRRCTL.BSIZEPKT` of Intel's igb, igc and 82599).
const NIC_UNIT_BYTES: u32 = 1024;

/// What the kernel keeps free in front of each frame (`XDP_PACKET_HEADROOM`).
const HEADROOM_BYTES: u32 = 256;

/// Shortest and longest ring.
const RING_ENTRIES_MIN: u32 = 64;
const RING_ENTRIES_MAX: u32 = 1 << 20;

/// Most sockets on one queue: more than that many cores are not served by one queue.
const SOCKETS_PER_QUEUE_MAX: u32 = 64;

/// Longest wait for frames: after it, an empty batch lets the caller do what is due.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Longest spin. More is a core burnt for nothing.
const SPIN_MAX: Duration = Duration::from_millis(10);

/// Longest busy poll at a time: as for the spin.
const BUSY_POLL_MICROS_MAX: u32 = 10_000;

/// How frames come from the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Without a copy where the driver can, else with one; the program runs in the driver either way.
    #[default]
    Native,
    /// Without a copy, or not at all.
    ZeroCopy,
    /// With a copy, even where the driver can do without.
    Copy,
    /// Behind the driver, on socket buffers, with any driver: slower than AF_PACKET.
    Generic,
}

/// Polling a driver from the thread that reads, instead of by interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long the driver is polled, over and over, before the thread sleeps: up to 10 000, and never longer than the
    /// [wait](Builder::wait). At least once.
    pub micros: u32,
    /// Frames that the driver may hand on in one poll.
    pub budget: u16,
}

impl BusyPoll {
    /// The budget that the kernel itself polls drivers with.
    pub const BUDGET_USUAL: u16 = 64;
}

/// A configuration that was checked. Made by [`Config::builder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(super) queues: Vec<u32>,
    pub(super) sockets_per_queue: u32,
    pub(super) mode: Mode,
    pub(super) frames: u32,
    pub(super) frame_bytes: u32,
    pub(super) rx_ring: u32,
    pub(super) huge_pages: bool,
    pub(super) multi_buffer: bool,
    pub(super) ip_only: bool,
    pub(super) kernel_time: bool,
    pub(super) take_traffic: bool,
    pub(super) promiscuous: bool,
    pub(super) wait: Duration,
    pub(super) spin: Duration,
    pub(super) busy_poll: Option<BusyPoll>,
    pub(super) shunt: Option<ShuntConfig>,
}

impl Config {
    /// The defaults: every queue, one socket each, promiscuous, 32 768 frames of 2 048 bytes a queue (64 MiB; pages and
    /// 128 MiB without a copy), a ring of 16 384, so that 1 M packets/s are taken without loss even if the reader is off its core for 16 ms.
    pub fn builder() -> Builder {
        Builder {
            config: Self {
                queues: Vec::new(),
                sockets_per_queue: 1,
                mode: Mode::Native,
                frames: 32_768,
                frame_bytes: 2048,
                rx_ring: 16_384,
                huge_pages: false,
                multi_buffer: true,
                ip_only: false,
                kernel_time: false,
                take_traffic: false,
                promiscuous: true,
                wait: Duration::from_millis(100),
                spin: Duration::from_micros(50),
                busy_poll: None,
                shunt: None,
            },
        }
    }

    /// Bytes of a frame that one frame of the UMEM has room for. Of a page, whole KiB: such a frame may be written to by a
    /// NIC that counts in these.
    pub fn room_bytes(&self) -> u32 {
        let room = self.frame_bytes - HEADROOM_BYTES;
        if self.frame_bytes == PAGE_BYTES { room - room % NIC_UNIT_BYTES } else { room }
    }

    /// The same, with a page for each frame, if it is not that already. What is left of 2 048 bytes is one whole KiB, and igb
    /// hands on what is longer as two frames, 82599 not at all.
    pub(super) fn in_pages(&self) -> Option<Self> {
        (self.frame_bytes < PAGE_BYTES).then(|| Self { frame_bytes: PAGE_BYTES, ..self.clone() })
    }

    /// Bytes of memory that each queue takes.
    pub fn queue_bytes(&self) -> u64 {
        u64::from(self.frames) * u64::from(self.frame_bytes)
    }

    /// Twice as many entries as there are frames, so that a frame can always be given back. One for each would not do: the
    /// kernel hands frames to us before it says that it has taken them off this ring, and without a copy drivers say so only
    /// when they have used up all that was there when they last looked, while all of those may have come back.
    pub(super) fn fill_ring(&self) -> u32 {
        (2 * self.frames).next_power_of_two()
    }
}

/// Builds a [`Config`].
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// Which queues of the interface; none means all of them (the default).
    pub fn queues(mut self, queues: &[u32]) -> Self {
        self.config.queues = queues.to_vec();
        self.config.queues.sort_unstable();
        self
    }

    /// How many sockets each queue is spread over, by flow. For interfaces with fewer queues than there are workers.
    pub fn sockets_per_queue(mut self, sockets: u32) -> Self {
        self.config.sockets_per_queue = sockets;
        self
    }

    /// How frames come from the driver.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Frames of the UMEM, for each queue. Those that are not in the ring to us are where the kernel writes next.
    pub fn frames(mut self, frames: u32) -> Self {
        self.config.frames = frames;
        self
    }

    /// Bytes of each: 2048 or 4096, 256 of which the kernel keeps for itself. Where no copy is made it is 4096, unless
    /// frames come in several buffers anyway.
    pub fn frame_bytes(mut self, bytes: u32) -> Self {
        self.config.frame_bytes = bytes;
        self
    }

    /// Entries of the ring to us, for each socket: a power of two.
    pub fn rx_ring(mut self, entries: u32) -> Self {
        self.config.rx_ring = entries;
        self
    }

    /// Whether the UMEM is made of huge pages, which must have been set aside: 20 to 33 % faster.
    pub fn huge_pages(mut self, huge: bool) -> Self {
        self.config.huge_pages = huge;
        self
    }

    /// Whether frames that are longer than a frame of the UMEM may come in several (the default), which is used
    /// when the MTU asks for it. They are put together again, at the price of a copy.
    pub fn multi_buffer(mut self, multi: bool) -> Self {
        self.config.multi_buffer = multi;
        self
    }

    /// Whether what is not IP is left to the kernel.
    pub fn ip_only(mut self, only: bool) -> Self {
        self.config.ip_only = only;
        self
    }

    /// Whether each frame has the time at which the driver had it, not that at which its batch was read. Costs 15
    /// to 24 %.
    pub fn kernel_time(mut self, kernel: bool) -> Self {
        self.config.kernel_time = kernel;
        self
    }

    /// Whether frames may be taken from an interface that the host itself talks through. What the capture takes never
    /// gets to the host.
    pub fn take_traffic(mut self, take: bool) -> Self {
        self.config.take_traffic = take;
        self
    }

    /// Whether frames to other hosts are taken as well (the default).
    pub fn promiscuous(mut self, promiscuous: bool) -> Self {
        self.config.promiscuous = promiscuous;
        self
    }

    /// How long a batch is waited for before an empty one is given.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.config.wait = wait;
        self
    }

    /// How much of that wait is spent looking at the ring before the thread sleeps.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.config.spin = spin;
        self
    }

    /// Whether the driver is polled by the thread that reads (`SO_PREFER_BUSY_POLL`, Linux 5.11) and not by interrupts; takes
    /// the place of the spin. It is the driver's own core that this spares, so that it pays where the driver and the reader share one.
    /// Interrupts go on until they are put off: `napi_defer_hard_irqs` and `gro_flush_timeout` of the interface, which are left as
    /// they are. Drivers without a poll of their own take the options, and nothing else changes.
    pub fn busy_poll(mut self, busy_poll: Option<BusyPoll>) -> Self {
        self.config.busy_poll = busy_poll;
        self
    }

    /// Whether flows can be [shunted](crate::capture::shunt): their frames are counted by the program and do not come.
    pub fn shunt(mut self, shunt: Option<ShuntConfig>) -> Self {
        self.config.shunt = shunt;
        self
    }

    /// Checks it all.
    ///
    /// # Errors
    /// [`ConfigError`] for the first value that cannot be.
    pub fn build(self) -> Result<Config, ConfigError> {
        let c = self.config;
        if !FRAME_BYTES.contains(&c.frame_bytes) {
            return Err(ConfigError::FrameBytes { found: c.frame_bytes });
        }
        let what = "entries of the receive ring";
        within(what, c.rx_ring, RING_ENTRIES_MIN, RING_ENTRIES_MAX)?;
        if !c.rx_ring.is_power_of_two() {
            return Err(ConfigError::NotPowerOfTwo { found: c.rx_ring });
        }
        within("frames", c.frames, RING_ENTRIES_MIN, RING_ENTRIES_MAX)?;
        within("sockets per queue", c.sockets_per_queue, 1u32, SOCKETS_PER_QUEUE_MAX)?;
        if let Some(pair) = c.queues.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::QueueTwice { queue: pair[0] });
        }
        within("milliseconds to wait", millis(c.wait), 0u32, millis(WAIT_MAX))?;
        let spin_micros = u64::try_from(c.spin.as_micros()).unwrap_or(u64::MAX);
        within("microseconds to spin", spin_micros, 0u32, SPIN_MAX.as_micros() as u64)?;
        if let Some(BusyPoll { micros, budget }) = c.busy_poll {
            within("microseconds of busy polling", micros, 1u32, BUSY_POLL_MICROS_MAX)?;
            within("frames for one busy poll", budget, 1u32, u16::MAX)?;
        }
        if let Some(ShuntConfig { readers, flows_max, .. }) = c.shunt {
            within("flows to shunt", flows_max, 1u32, SHUNTS_MAX)?;
            within("readers", readers, 1u32, u16::MAX)?;
        }
        Ok(c)
    }
}

/// What a [`Config`] cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number outside of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// A ring that is no power of two.
    #[error(
        "{found} entries of the receive ring: the kernel wants a power of two, choose {}",
        .found.next_power_of_two()
    )]
    NotPowerOfTwo {
        /// As given.
        found: u32,
    },
    /// A frame size that the kernel does not take.
    #[error("UMEM frames of {found} bytes: choose 2048 or 4096")]
    FrameBytes {
        /// As given.
        found: u32,
    },
    /// A queue named more than once.
    #[error("queue {queue} is named twice: name each once")]
    QueueTwice {
        /// Which.
        queue: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_hold_a_whole_ethernet_frame() {
        let config = Config::builder().build().expect("valid");
        assert_eq!(config.room_bytes(), 1792);
        assert_eq!(config.queue_bytes(), 64 << 20);
        assert!(config.fill_ring() == 2 * config.frames && config.frames > config.rx_ring);
    }

    #[test]
    fn a_page_has_room_for_whole_kibibytes_and_for_a_whole_ethernet_frame() {
        let pages = Config::builder().build().expect("valid").in_pages().expect("larger frames");
        assert_eq!((pages.frame_bytes, pages.room_bytes()), (4096, 3072));
        assert_eq!(pages.in_pages(), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let refused = |builder: Builder| builder.build().expect_err("refused").to_string();
        let new = Config::builder;
        assert_eq!(
            refused(new().rx_ring(1000)),
            "1000 entries of the receive ring: the kernel wants a power of two, choose 1024"
        );
        assert_eq!(
            refused(new().rx_ring(32)),
            "32 entries of the receive ring: choose 64 to 1048576"
        );
        assert_eq!(refused(new().frames(0)), "0 frames: choose 64 to 1048576");
        assert_eq!(
            refused(new().frame_bytes(3000)),
            "UMEM frames of 3000 bytes: choose 2048 or 4096"
        );
        assert_eq!(refused(new().sockets_per_queue(0)), "0 sockets per queue: choose 1 to 64");
        assert_eq!(refused(new().queues(&[1, 0, 1])), "queue 1 is named twice: name each once");
        assert_eq!(
            refused(new().spin(Duration::from_secs(1))),
            "1000000 microseconds to spin: choose 0 to 10000"
        );
        assert_eq!(
            refused(new().wait(Duration::from_secs(61))),
            "61000 milliseconds to wait: choose 0 to 60000"
        );
        let busy = |micros, budget| new().busy_poll(Some(BusyPoll { micros, budget }));
        for micros in [0, 10_001] {
            assert_eq!(
                refused(busy(micros, 64)),
                format!("{micros} microseconds of busy polling: choose 1 to 10000")
            );
        }
        assert_eq!(refused(busy(50, 0)), "0 frames for one busy poll: choose 1 to 65535");
    }
}
