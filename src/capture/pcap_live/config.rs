//! What a capture by libpcap is told: a [`Config`] that was checked before anything is opened.

use std::time::Duration;

use crate::capture::OutOfRange;
use crate::capture::range::{millis, within};

/// Fewest and most bytes kept of a frame. libpcap has no use for more.
const FRAME_BYTES_MIN: u32 = 64;
const FRAME_BYTES_MAX: u32 = 256 * 1024;

/// Smallest and largest buffer: libpcap takes blocks of 256 KiB, and their sum as a signed number.
const BUFFER_BYTES_MIN: u32 = 1 << 20;
const BUFFER_BYTES_MAX: u32 = 1 << 30;

/// Shortest and longest time that frames are held back for others. libpcap takes whole milliseconds, and 0 for "for ever".
const RETIRE_MIN: Duration = Duration::from_millis(1);
const RETIRE_MAX: Duration = Duration::from_secs(1);

/// Longest wait for frames: after it, an empty batch lets the caller do what is due.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A configuration that was checked. Made by [`Config::builder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(super) frame_bytes: u32,
    pub(super) buffer_bytes: u32,
    pub(super) retire: Duration,
    pub(super) wait: Duration,
    pub(super) promiscuous: bool,
    pub(super) filter: Option<String>,
}

impl Config {
    /// The defaults: frames of up to 64 KiB, a buffer of 64 MiB, given to us when a part of it is full or after 10 ms;
    /// promiscuous; no filter.
    pub fn builder() -> Builder {
        Builder {
            config: Self {
                frame_bytes: 64 * 1024,
                buffer_bytes: 64 << 20,
                retire: Duration::from_millis(10),
                wait: Duration::from_millis(100),
                promiscuous: true,
                filter: None,
            },
        }
    }
}

/// Builds a [`Config`].
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// How many bytes of a frame are kept (the snapshot length). A longer one is delivered cut, with its length on the wire. Of
    /// address space, 256 times this is taken; of memory, what the frames of a batch fill.
    pub fn frame_bytes(mut self, bytes: u32) -> Self {
        self.config.frame_bytes = bytes;
        self
    }

    /// Bytes of the system's buffer.
    pub fn buffer_bytes(mut self, bytes: u32) -> Self {
        self.config.buffer_bytes = bytes;
        self
    }

    /// How long a frame waits at most for others to be given to us with it (libpcap's timeout).
    pub fn retire(mut self, retire: Duration) -> Self {
        self.config.retire = retire;
        self
    }

    /// How long a batch is waited for before an empty one is given.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.config.wait = wait;
        self
    }

    /// Whether frames to other hosts are taken as well (the default).
    pub fn promiscuous(mut self, promiscuous: bool) -> Self {
        self.config.promiscuous = promiscuous;
        self
    }

    /// Which frames are meant for us, in tcpdump's syntax; `None` takes all. It means what it means on a file of these
    /// frames. Where the system can say so itself, what is not wanted never reaches the buffer; it is not counted either way.
    pub fn filter(mut self, expression: Option<String>) -> Self {
        self.config.filter = expression;
        self
    }

    /// Checks the numbers. The filter is compiled when the interface is opened, before all else.
    ///
    /// # Errors
    /// [`OutOfRange`] for the first value that cannot be.
    pub fn build(self) -> Result<Config, OutOfRange> {
        let c = self.config;
        within("bytes of a frame", c.frame_bytes, FRAME_BYTES_MIN, FRAME_BYTES_MAX)?;
        within("bytes in the buffer", c.buffer_bytes, BUFFER_BYTES_MIN, BUFFER_BYTES_MAX)?;
        let what = "milliseconds until frames are given";
        within(what, millis(c.retire), millis(RETIRE_MIN), millis(RETIRE_MAX))?;
        within("milliseconds to wait", millis(c.wait), 0u32, millis(WAIT_MAX))?;
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::builder().build().expect("valid");
        assert_eq!((config.frame_bytes, config.buffer_bytes), (1 << 16, 1 << 26));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let refused = |builder: Builder| builder.build().expect_err("refused").to_string();
        let new = Config::builder;
        assert_eq!(
            refused(new().frame_bytes(262_145)),
            "262145 bytes of a frame: choose 64 to 262144"
        );
        assert_eq!(
            refused(new().buffer_bytes(1000)),
            "1000 bytes in the buffer: choose 1048576 to 1073741824"
        );
        assert_eq!(
            refused(new().retire(Duration::ZERO)),
            "0 milliseconds until frames are given: choose 1 to 1000"
        );
        assert_eq!(
            refused(new().wait(Duration::from_secs(61))),
            "61000 milliseconds to wait: choose 0 to 60000"
        );
    }
}
