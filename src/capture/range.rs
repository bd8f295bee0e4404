//! Numbers of a live capture's configuration, and between what they have to be.

use std::time::Duration;

/// A number outside of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} {what}: choose {min} to {max}")]
pub struct OutOfRange {
    /// Of what.
    pub what: &'static str,
    /// As given.
    pub found: u64,
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// Refuses what is less than `min` or more than `max`.
pub(super) fn within(
    what: &'static str,
    found: impl Into<u64>,
    min: impl Into<u64>,
    max: impl Into<u64>,
) -> Result<(), OutOfRange> {
    let (found, min, max) = (found.into(), min.into(), max.into());
    if (min..=max).contains(&found) { Ok(()) } else { Err(OutOfRange { what, found, min, max }) }
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
