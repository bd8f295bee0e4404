//! A capture in stretches: several readers of it find its frames together, each of them some, and tell each other where they are.
//!
//! Contract: places are numbers that grow along the capture; a frame is of the stretch that its place is in. A [`Scout`] looks through one
//! stretch without those before it, and may be wrong about where the first frame begins. So it says where it began and ended, and who
//! reads takes its word only for a stretch that begins where the one before it ends.

use std::ops::Range;

use super::{Capture, CaptureError};
use crate::frame::{Frame, LinkType};
use crate::time::Timestamp;

/// A capture that may be read in stretches.
pub trait Stretches: Capture {
    /// How much of the places is one stretch.
    const STRETCH: u64;

    /// What looks through its stretches.
    type Scout: Scout + Send;

    /// One that begins wherever it is told to; `None` where frames can only be found one after the other.
    fn scout(&self) -> Option<Self::Scout>;

    /// Where the next frame begins, or the end is; `None` once frames can only be [read](Capture::with_batch).
    fn place(&mut self) -> Option<u64>;

    /// [`with_batch`](Capture::with_batch), no further than to the frame that begins at `end` or behind it.
    ///
    /// # Errors
    /// As there.
    fn with_batch_before<R>(
        &mut self,
        end: u64,
        f: impl FnOnce(&[Frame<'_>]) -> R,
    ) -> Result<Option<R>, CaptureError>;

    /// Calls `f` with frames of which a scout said where they are, in batches; then all of the stretch is passed.
    fn pick(&mut self, picks: Picks<'_>, f: impl FnMut(&[Frame<'_>], &[Pick]));
}

/// Looks through stretches of a capture.
pub trait Scout {
    /// The link type of all frames.
    fn link(&self) -> LinkType;

    /// Gives the frames of a stretch to `take`, with where each begins as seen from the stretch's begin. Returns from where to where it found
    /// frames, one behind the other; `None` if it cannot tell where the first one begins.
    fn look_through(
        &mut self,
        stretch: u64,
        take: impl FnMut(&Frame<'_>, u32),
    ) -> Option<Range<u64>>;
}

/// A frame that was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pick {
    /// Where it begins, as seen from its stretch's begin.
    pub at: u32,
    /// How far its time is behind the latest time of its stretch up to it, in nanoseconds.
    pub late_ns: u32,
}

/// Some frames of a stretch, in order.
#[derive(Clone, Copy, Debug)]
pub struct Picks<'a> {
    /// Which stretch.
    pub stretch: u64,
    /// Those frames.
    pub picks: &'a [Pick],
    /// Where the stretch's last frame ends.
    pub end: u64,
    /// How many frames the stretch has.
    pub frames: u64,
}

/// What frames add up to that somebody looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub frames: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// The earliest time; [`Timestamp::MAX`] without frames.
    pub earliest: Timestamp,
    /// The latest time; [`Timestamp::ZERO`] without frames.
    pub latest: Timestamp,
}

impl Default for Tally {
    fn default() -> Self {
        Self { frames: 0, bytes: 0, earliest: Timestamp::MAX, latest: Timestamp::ZERO }
    }
}

impl Tally {
    /// Adds a frame.
    #[inline(always)]
    pub fn add(&mut self, frame: &Frame<'_>) {
        self.frames += 1;
        self.bytes += u64::from(frame.wire_len);
        self.earliest = self.earliest.min(frame.ts);
        self.latest = self.latest.max(frame.ts);
    }
}
