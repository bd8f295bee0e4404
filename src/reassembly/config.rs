//! How much is held, for how long, and what happens when that is too little.

use std::time::Duration;

use super::segments::BLOCK_BYTES;

/// What happens when a side's buffer, or the memory for all of them, is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverflowPolicy {
    /// The oldest hole is given up and the stream goes on behind it. Nothing that was captured
    /// is dropped, except what comes late for that hole; its length is counted as dropped.
    #[default]
    SlidingWindow,
    /// The segment is dropped and the flow ends with
    /// [`EndReason::BufferOverflow`](crate::EndReason::BufferOverflow).
    DropFlow,
}

/// How streams are reassembled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReassemblyConfig {
    /// Most bytes held for one side of a flow, in blocks of 2 KiB, 2 KiB to 1 GiB. A block counts
    /// whole however little is in it, so this bounds memory. Default 1 MiB.
    pub side_bytes_max: usize,
    /// Most bytes held for all flows together, at least `side_bytes_max`. Default 256 MiB. The
    /// blocks are allocated when they are first needed, and then kept for reuse.
    pub total_bytes_max: usize,
    /// How far ahead of what is in order, or of what the receiver acknowledged, a segment may
    /// end, 64 KiB to 1 GiB (the largest window, RFC 7323 section 2.3); one beyond is dropped.
    /// Default 16 MiB, more than what common receivers offer.
    pub window_bytes: u32,
    /// What happens when a buffer is full.
    pub overflow: OverflowPolicy,
    /// How old a hole grows, in capture time, before it is skipped. Default 3 s.
    pub gap_timeout: Duration,
    /// How old a hole grows once the receiver has acknowledged the bytes behind it: it got them,
    /// so nobody sends them again. Not zero, because the two directions may come out of order.
    /// Default 200 ms.
    pub acked_gap_timeout: Duration,
}

impl Default for ReassemblyConfig {
    fn default() -> Self {
        Self {
            side_bytes_max: 1 << 20,
            total_bytes_max: 256 << 20,
            window_bytes: 16 << 20,
            overflow: OverflowPolicy::SlidingWindow,
            gap_timeout: Duration::from_secs(3),
            acked_gap_timeout: Duration::from_millis(200),
        }
    }
}

/// What a reassembly configuration was refused for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassemblyConfigError {
    /// `side_bytes_max` is out of range.
    #[error("side_bytes_max is {0}: choose {min} to {max}",
        min = ReassemblyConfig::SIDE_BYTES_LEAST, max = ReassemblyConfig::SIDE_BYTES_MOST)]
    SideBytes(usize),
    /// `total_bytes_max` holds less than one side.
    #[error("total_bytes_max is {total}: choose at least side_bytes_max, {side}")]
    TotalBytes {
        /// What was asked for all flows.
        total: usize,
        /// What was asked for one side.
        side: usize,
    },
    /// `window_bytes` is out of range.
    #[error("window_bytes is {0}: choose {min} to {max}",
        min = ReassemblyConfig::WINDOW_BYTES_LEAST, max = ReassemblyConfig::WINDOW_BYTES_MOST)]
    WindowBytes(u32),
    /// A timeout is zero.
    #[error("the timeout {0} is zero: choose a positive time")]
    ZeroTimeout(&'static str),
}

impl ReassemblyConfig {
    /// Least memory for a side: one block.
    pub const SIDE_BYTES_LEAST: usize = BLOCK_BYTES;
    /// Most memory for a side.
    pub const SIDE_BYTES_MOST: usize = 1 << 30;
    /// The window without scaling (RFC 9293 section 3.1).
    pub const WINDOW_BYTES_LEAST: u32 = 1 << 16;
    /// The largest scaled window (RFC 7323 section 2.3).
    pub const WINDOW_BYTES_MOST: u32 = 1 << 30;

    /// Refuses what cannot work.
    pub fn validate(&self) -> Result<(), ReassemblyConfigError> {
        use ReassemblyConfigError as Error;
        let side = self.side_bytes_max;
        if !(Self::SIDE_BYTES_LEAST..=Self::SIDE_BYTES_MOST).contains(&side) {
            return Err(Error::SideBytes(side));
        }
        if self.total_bytes_max < side {
            return Err(Error::TotalBytes { total: self.total_bytes_max, side });
        }
        let window = Self::WINDOW_BYTES_LEAST..=Self::WINDOW_BYTES_MOST;
        if !window.contains(&self.window_bytes) {
            return Err(Error::WindowBytes(self.window_bytes));
        }
        let timeouts =
            [("gap_timeout", self.gap_timeout), ("acked_gap_timeout", self.acked_gap_timeout)];
        match timeouts.iter().find(|(_, timeout)| timeout.is_zero()) {
            Some((name, _)) => Err(Error::ZeroTimeout(name)),
            None => Ok(()),
        }
    }

    /// Blocks that one side may hold; at least one.
    pub(crate) fn side_blocks(&self) -> usize {
        self.side_bytes_max / BLOCK_BYTES
    }

    /// Blocks that all sides may hold; at least one.
    pub(crate) fn total_blocks(&self) -> usize {
        self.total_bytes_max / BLOCK_BYTES
    }
}
