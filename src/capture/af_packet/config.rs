//! What an AF_PACKET capture is told: a [`Config`] that was checked before anything is opened.

use std::time::Duration;

use crate::capture::OutOfRange;
use crate::capture::bpf::{INSTRUCTIONS_MAX, Instruction};
use crate::capture::fanout::FanoutMode;
use crate::capture::range::{millis, within};

/// Smallest and largest block. A frame is never longer than its block, less some dozens of bytes.
const BLOCK_BYTES_MIN: u32 = 64 * 1024;
const BLOCK_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// With one block there would be nowhere to write while it is read.
const BLOCKS_MIN: u32 = 2;
const BLOCKS_MAX: u32 = 65_536;

/// Largest ring. The kernel does not count this memory against any limit of the process: one that is too large is taken
/// from everybody.
const RING_BYTES_MAX: u64 = 4 << 30;

/// Shortest and longest time that a block is kept open. The kernel counts whole milliseconds, and takes 0 for "choose".
const RETIRE_MIN: Duration = Duration::from_millis(1);
const RETIRE_MAX: Duration = Duration::from_secs(1);

/// Longest wait for frames: after it, an empty batch lets the caller do what is due.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A fanout group: each frame goes to one of its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// Its number, the same for all its sockets, and no other program's in this network namespace.
    pub group: u16,
    /// How frames are spread.
    pub mode: FanoutMode,
}

/// Whose time frames have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// The kernel's, when it gets the frame from the driver.
    #[default]
    Kernel,
    /// The NIC's own, when the frame comes to it: by the NIC's clock, which is the host's only where something keeps it so (phc2sys).
    /// It is told to stamp every frame for as long as it is captured, which takes `CAP_NET_ADMIN`, unless it does already.
    Hardware,
}

/// A configuration that was checked. Made by [`Config::builder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(super) block_bytes: u32,
    pub(super) blocks: u32,
    pub(super) retire: Duration,
    pub(super) promiscuous: bool,
    pub(super) fanout: Option<Fanout>,
    pub(super) wait: Duration,
    pub(super) filter: Vec<Instruction>,
    pub(super) times: Times,
}

impl Config {
    /// The defaults: 64 blocks of 1 MiB, given to us when full or after 10 ms; promiscuous; alone; no filter.
    pub fn builder() -> Builder {
        Builder {
            config: Self {
                block_bytes: 1 << 20,
                blocks: 64,
                retire: Duration::from_millis(10),
                promiscuous: true,
                fanout: None,
                wait: Duration::from_millis(100),
                filter: Vec::new(),
                times: Times::Kernel,
            },
        }
    }

    /// Bytes of memory that the ring takes.
    pub fn ring_bytes(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.block_bytes)
    }
}

/// Builds a [`Config`].
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// Bytes of a block: a power of two, at least 64 KiB. The kernel gives frames to us by the block.
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.config.block_bytes = bytes;
        self
    }

    /// Blocks of the ring.
    pub fn blocks(mut self, blocks: u32) -> Self {
        self.config.blocks = blocks;
        self
    }

    /// How long a block that is not full waits for more frames before we get it: what a frame is late at most. It
    /// takes a block of the ring all the same, so that `blocks` times this is how long we may be away.
    pub fn retire(mut self, retire: Duration) -> Self {
        self.config.retire = retire;
        self
    }

    /// Whether frames to other hosts are taken as well (the default).
    pub fn promiscuous(mut self, promiscuous: bool) -> Self {
        self.config.promiscuous = promiscuous;
        self
    }

    /// The group of sockets to share the frames with.
    pub fn fanout(mut self, fanout: Option<Fanout>) -> Self {
        self.config.fanout = fanout;
        self
    }

    /// How long a batch is waited for before an empty one is given.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.config.wait = wait;
        self
    }

    /// The program that says in the kernel which frames are meant for us, and how many bytes of each; empty takes all, whole.
    /// It sees frames without their outer VLAN tag, which it finds beside them (`SKF_AD_VLAN_TAG`).
    pub fn filter(mut self, filter: Vec<Instruction>) -> Self {
        self.config.filter = filter;
        self
    }

    /// Whose time frames have. A NIC that cannot stamp every frame is refused.
    pub fn times(mut self, times: Times) -> Self {
        self.config.times = times;
        self
    }

    /// Checks it all. What a filter's instructions do is for the kernel to check.
    ///
    /// # Errors
    /// [`ConfigError`] for the first value that cannot be.
    pub fn build(self) -> Result<Config, ConfigError> {
        let c = self.config;
        within("bytes in a block", c.block_bytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)?;
        if !c.block_bytes.is_power_of_two() {
            return Err(ConfigError::NotPowerOfTwo { found: c.block_bytes });
        }
        within("blocks", c.blocks, BLOCKS_MIN, BLOCKS_MAX)?;
        let (ring, block) = (c.ring_bytes(), u64::from(c.block_bytes));
        within("bytes in the ring", ring, u64::from(BLOCKS_MIN) * block, RING_BYTES_MAX)?;
        let what = "milliseconds until a block is given";
        within(what, millis(c.retire), millis(RETIRE_MIN), millis(RETIRE_MAX))?;
        within("milliseconds to wait", millis(c.wait), 0u32, millis(WAIT_MAX))?;
        let most = INSTRUCTIONS_MAX as u64;
        within("instructions in the filter", c.filter.len() as u64, 0u32, most)?;
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
    /// A block that is no power of two.
    #[error(
        "{found} bytes in a block: it must be a power of two, choose {}",
        .found.next_power_of_two()
    )]
    NotPowerOfTwo {
        /// As given.
        found: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::builder().build().expect("valid");
        assert_eq!(config.ring_bytes(), 64 << 20);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let refused = |builder: Builder| builder.build().expect_err("refused").to_string();
        let new = Config::builder;
        assert_eq!(
            refused(new().block_bytes(32_768)),
            "32768 bytes in a block: choose 65536 to 16777216"
        );
        assert_eq!(
            refused(new().block_bytes(100_000)),
            "100000 bytes in a block: it must be a power of two, choose 131072"
        );
        assert_eq!(refused(new().blocks(1)), "1 blocks: choose 2 to 65536");
        assert_eq!(
            refused(new().blocks(65_536)),
            "68719476736 bytes in the ring: choose 2097152 to 4294967296"
        );
        assert_eq!(
            refused(new().retire(Duration::ZERO)),
            "0 milliseconds until a block is given: choose 1 to 1000"
        );
        assert_eq!(
            refused(new().wait(Duration::from_secs(61))),
            "61000 milliseconds to wait: choose 0 to 60000"
        );
        let pass = Instruction { code: 6, jt: 0, jf: 0, k: u32::MAX };
        assert_eq!(
            refused(new().filter(vec![pass; 4097])),
            "4097 instructions in the filter: choose 0 to 4093"
        );
    }
}
