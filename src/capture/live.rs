//! What live captures have beyond [`Capture`]: an end, and an account of what they lost.
//!
//! Contract: a live capture counts every frame that its queue was offered exactly once. While it runs the counts
//! are those of the last look; once it was [stopped](LiveCapture::stop) and emptied,
//! `offered = delivered + shunted + dropped`, to the frame.

use super::{Capture, CaptureError};

/// A capture of frames as they come, of one queue of one interface.
pub trait LiveCapture: Capture {
    /// What became of the frames so far. Costs system calls: ask once a second, not once a batch.
    ///
    /// # Errors
    /// [`CaptureError`] when the system cannot tell.
    fn counts(&mut self) -> Result<QueueCounts, CaptureError>;

    /// Takes no new frames from now on. What is in the ring still comes out of
    /// [`with_batch`](Capture::with_batch), which says `None` once all of it did.
    ///
    /// # Errors
    /// [`CaptureError`] when the system refuses; nothing was changed then.
    fn stop(&mut self) -> Result<(), CaptureError>;

    /// What it turned out to be, for people: backend, mode in force, sizes of its rings.
    fn description(&self) -> String;

    /// What is to be known of the frames that it handed out, for people: that not all of them are as was asked for.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// Why a frame that was offered was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The ring to us was full: we were too slow.
    RingFull,
    /// The kernel had no frame of ours to write to: the fill ring was empty.
    FillRingEmpty,
    /// The kernel refused a descriptor of ours.
    InvalidDescriptor,
    /// The driver or the NIC dropped it before anybody saw it.
    Driver,
    /// The socket could not take it: no memory for its buffers, or longer than they are.
    Socket,
    /// The fanout group had no member for it.
    Fanout,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::RingFull,
        Self::FillRingEmpty,
        Self::InvalidDescriptor,
        Self::Driver,
        Self::Socket,
        Self::Fanout,
    ];

    /// As metrics and summaries spell it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::FillRingEmpty => "fill_ring_empty",
            Self::InvalidDescriptor => "invalid_descriptor",
            Self::Driver => "driver",
            Self::Socket => "socket",
            Self::Fanout => "fanout",
        }
    }
}

/// What became of the frames of one queue since its capture began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Frames meant for us that the queue had.
    pub offered: u64,
    /// Frames handed to the closure of [`with_batch`](Capture::with_batch).
    pub delivered: u64,
    /// Frames that were [shunted](super::shunt): counted for their flow, and not handed to anybody.
    pub shunted: u64,
    /// Their bytes on the wire.
    pub shunted_bytes: u64,
    /// Frames lost before that, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl QueueCounts {
    /// Frames lost, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// The sum with those of another capture of the same queue.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            offered: self.offered + other.offered,
            delivered: self.delivered + other.delivered,
            shunted: self.shunted + other.shunted,
            shunted_bytes: self.shunted_bytes + other.shunted_bytes,
            dropped: std::array::from_fn(|reason| self.dropped[reason] + other.dropped[reason]),
        }
    }

    /// Frames on their way: in a ring, or counted at another moment. 0 once the capture is stopped and empty.
    pub fn underway(&self) -> u64 {
        self.offered.saturating_sub(self.delivered + self.shunted + self.dropped_total())
    }
}
