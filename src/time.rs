//! Time as the core knows it: nanoseconds since the Unix epoch, always an argument.
//!
//! Arithmetic saturates: a hostile capture can write any time it likes, and a clock that wraps
//! would be a bug of ours.

use std::time::Duration;

/// A point in time: whole nanoseconds since 1970-01-01 00:00:00 UTC, up to the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);
    /// The last point in time that can be told.
    pub const MAX: Self = Self(u64::MAX);

    /// From nanoseconds since the epoch.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From whole seconds and nanoseconds, saturating.
    #[inline]
    pub const fn new(secs: u64, nanos: u32) -> Self {
        Self(secs.saturating_mul(1_000_000_000).saturating_add(nanos as u64))
    }

    /// Nanoseconds since the epoch.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to here; 0 when `earlier` is later.
    #[inline]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to here; zero when `earlier` is later.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// `nanos` later, saturating.
    #[inline]
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// A duration in nanoseconds, saturating at about 584 years.
pub(crate) fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::new(u64::MAX, 1), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus_nanos(1), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO.nanos_since(Timestamp::MAX), 0);
        assert_eq!(duration_ns(Duration::MAX), u64::MAX);
    }
}
