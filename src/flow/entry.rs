//! What the table keeps of a flow: an entry of two cache lines, of which most packets of most flows touch the first and those of TCP
//! both. What few flows have (losses, updates, ICMP errors, more than 2^32 packets) is in [`super::extra`], the wide part of a
//! key lies apart.
//!
//! ```text
//!   0 bytes[2]  16 last  24 packets[2]  32 tag  36 active_due  40 skew  44 extra  48 narrow part of the key (16 of the 5-tuple)
//!  64 TCP track (40)  104 first  112 history (13)  125 protocol  126 VLAN
//! ```

use std::mem::{MaybeUninit, offset_of};

use super::extra::{Extra, ExtraId};
use super::history::{History, Mark};
use super::key::{FlowKey, TableKey};
use super::packet::Packet;
use super::stats::{FlowStats, SideStats, Totals};
use super::tcp::Track;
use crate::net::{End, IpProto, L4, Side};
use crate::time::Timestamp;

/// No active timeout will ever be over.
pub const NEVER: u32 = u32::MAX;
/// The active timeout begins with the next packet. A time that no packet is before: nothing else needs to be asked of a
/// packet that is before its flow's.
pub const UNSET: u32 = 0;
/// Active timeouts are kept in units of 2^30 ns, about 1.07 s, since the epoch: 146 years.
const COARSE_SHIFT: u32 = 30;

/// A time in coarse units; never [`NEVER`].
#[inline]
pub fn coarse(ts: Timestamp) -> u32 {
    (ts.as_nanos() >> COARSE_SHIFT).min(u64::from(NEVER - 1)) as u32
}

/// Whether a time is before the begin of a coarse one. Never of those beyond the end of all coarse time.
#[inline]
pub fn is_before_coarse(ts: Timestamp, units: u32) -> bool {
    ts.as_nanos() >> COARSE_SHIFT < u64::from(units)
}

/// Whether a flow whose own time is `last` is behind the clock by a coarse unit.
#[inline]
pub fn is_skewed(last: Timestamp, now: Timestamp) -> bool {
    nanos_or_many(last, now) >> COARSE_SHIFT != 0
}

/// From `last` to `now` in nanoseconds; more than any timeout where that is back in time.
#[inline]
pub fn nanos_or_many(last: Timestamp, now: Timestamp) -> u64 {
    now.as_nanos().wrapping_sub(last.as_nanos())
}

/// When a coarse time begins.
pub fn from_coarse(units: u32) -> Timestamp {
    Timestamp::from_nanos(u64::from(units) << COARSE_SHIFT)
}

/// When a timeout in coarse units that begins `now` is over; [`NEVER`] past the end of all coarse time.
pub fn coarse_end(now: u32, timeout: u32) -> u32 {
    match now.saturating_add(timeout) {
        end if end >= NEVER - 1 => NEVER,
        end => end,
    }
}

/// A duration in coarse units, at least one; [`NEVER`] when it is too long.
pub fn coarse_duration(nanos: u64) -> u32 {
    u32::try_from(nanos.div_ceil(1 << COARSE_SHIFT)).unwrap_or(NEVER).max(1)
}

/// Writes to every page of the memory that a slab has to spare.
pub fn touch<T: Copy>(slab: &mut Vec<T>) {
    const PAGE_BYTES: usize = 4096;
    let step = (PAGE_BYTES / size_of::<T>().max(1)).max(1);
    // Otherwise the compiler may take memory that is zero for memory that need not be written.
    std::hint::black_box(&mut *slab);
    for place in slab.spare_capacity_mut().iter_mut().step_by(step) {
        *place = MaybeUninit::zeroed();
    }
    std::hint::black_box(&mut *slab);
}

/// Writes to a place in such memory.
pub fn touch_one<T: Copy>(place: &mut MaybeUninit<T>) {
    *place = MaybeUninit::zeroed();
    std::hint::black_box(place);
}

/// A flow. `N` is the narrow part of its key; pairs are indexed by [`End`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Entry<N> {
    pub bytes: [u64; 2],
    pub last: Timestamp,
    /// Of a live flow never both 0. Those beyond 32 bits are spilled into [`Extra`].
    pub packets: [u32; 2],
    /// The part of the key's hash that the table keeps; of a slot that is free, the next one.
    pub tag: u32,
    /// When a record is due although the flow goes on, in coarse units of the flow's time; or [`UNSET`], or [`NEVER`].
    pub active_due: u32,
    /// How far the flow's own time is behind the tracker's clock, in coarse units: 0 but for
    /// captures whose time goes back. Expiry counts from the clock, records from the flow's time.
    pub skew: u32,
    pub extra: ExtraId,
    pub key: N,
    pub track: Track,
    pub first: Timestamp,
    pub history: History,
    pub proto: IpProto,
    /// Outermost VLAN plus one.
    pub vlan: u16,
}

const _: () = assert!(size_of::<Entry<<FlowKey as TableKey>::Narrow>>() == 128);
const _: () = assert!(offset_of!(Entry<<FlowKey as TableKey>::Narrow>, track) == 64);

impl<N> Entry<N> {
    /// An entry with nothing counted yet.
    pub fn new<K: TableKey<Narrow = N>>(packet: &Packet<K>, tag: u32) -> Self {
        let l4 = match packet.proto.l4() {
            // Without a header there is no connection to follow.
            L4::Tcp if packet.tcp.is_none() => L4::Other,
            l4 => l4,
        };
        let mut track = Track::untracked(packet.end, l4);
        track.reply_first = packet.is_reply;
        Self {
            packets: [0; 2],
            bytes: [0; 2],
            last: packet.ts,
            tag,
            active_due: UNSET,
            skew: 0,
            extra: ExtraId::NONE,
            key: packet.key.narrow(),
            track,
            first: packet.ts,
            history: History::default(),
            proto: packet.proto,
            vlan: packet.vlan,
        }
    }

    /// Frames of both ends; of a flow with more than 2^32 of them, some number beyond 1.
    #[inline]
    pub fn packets_or_many(&self) -> u64 {
        u64::from(self.packets[0]) + u64::from(self.packets[1])
    }

    /// Frames by end.
    fn all_packets(&self, extra: &Extra) -> [u64; 2] {
        [0, 1].map(|at| u64::from(self.packets[at]) + extra.spilled[at])
    }

    /// The time that expiry counts from.
    #[inline]
    pub fn touched(&self) -> Timestamp {
        self.last.plus_nanos(u64::from(self.skew) << COARSE_SHIFT)
    }

    /// Whether a record is due, when the flow's time is `now`.
    #[inline]
    pub fn is_due(&self, now: u32) -> bool {
        self.active_due != UNSET && now >= self.active_due
    }

    /// Remembers a packet's time, seen when the clock said `now`.
    #[inline]
    pub fn touch(&mut self, ts: Timestamp, now: Timestamp) {
        self.last = self.last.max(ts);
        // `now` is at least `ts`; a whole unit behind it is rare.
        let skew = now.nanos_since(self.last) >> COARSE_SHIFT;
        self.skew = 0;
        if skew != 0 {
            self.skew = u32::try_from(skew + 1).unwrap_or(u32::MAX);
        }
    }

    /// Everything a flow adds up to.
    pub fn stats(&self, extra: &Extra) -> FlowStats {
        let initiator_end = self.track.initiator();
        let packets = self.all_packets(extra);
        let side = |end: End| SideStats {
            packets: packets[end as usize],
            bytes: self.bytes[end as usize],
            tcp_flags: self.track.flags(end),
            retransmitted: extra.loss.retransmitted[end as usize],
            out_of_order: extra.loss.out_of_order[end as usize],
        };
        let is_tcp = self.track.l4() == L4::Tcp;
        let by_side = |pair: [u64; 2]| match initiator_end {
            End::A => pair,
            End::B => [pair[1], pair[0]],
        };
        FlowStats {
            first: self.first,
            last: self.last,
            initiator_end,
            initiator: side(initiator_end),
            responder: side(initiator_end.other()),
            proto: self.proto,
            vlan: self.vlan.checked_sub(1),
            tcp_state: is_tcp.then(|| self.track.state()),
            midstream: self.track.is_midstream(),
            history: self.history.seen_from(initiator_end),
            reply_first: self.track.reply_first,
            icmp_errors: extra.icmp_errors,
            reported: Totals {
                packets: by_side(extra.reported.packets),
                bytes: by_side(extra.reported.bytes),
                ..extra.reported
            },
            updates: extra.updates,
        }
    }

    /// Totals so far, by end, as an update tells them.
    pub fn totals(&self, extra: &Extra) -> Totals {
        let packets = self.all_packets(extra);
        Totals { first: self.first, last: self.last, packets, bytes: self.bytes }
    }

    /// Which side an end is.
    pub fn side(&self, end: End) -> Side {
        end.side(self.track.initiator())
    }

    /// Appends what a common segment was the first of: a call, for a flow has four of them at most.
    #[inline(never)]
    pub fn mark_first(&mut self, mark: Mark, end: End) {
        self.history = self.history.with([mark], end);
    }

    /// Appends to the history.
    pub fn mark(&mut self, marks: impl Iterator<Item = Mark>, end: End) {
        self.history = self.history.with(marks, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_times_saturate_below_never() {
        assert_eq!(coarse(Timestamp::MAX), NEVER - 1);
        assert_eq!(coarse_duration(u64::MAX), NEVER);
        assert_eq!(coarse_duration(0), 1);
        assert!(
            from_coarse(coarse(Timestamp::new(1_700_000_000, 0)))
                <= Timestamp::new(1_700_000_000, 0)
        );
    }
}
