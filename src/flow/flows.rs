//! The flows of a tracker: slab, table and wheel, and what one packet or one deadline does to them.
//!
//! Invariants: a slot is live exactly when its tag and index are in the table, and then it is in the
//! wheel exactly once and its entry has counted packets. `live packets + packets in ended flows = packets
//! accounted`.

mod ahead;
mod ending;
mod merging;

use std::ops::Range;
use std::time::Duration;

use super::by_slot::BySlot;
use super::config::TrackerConfig;
use super::entry::{
    Entry, NEVER, UNSET, coarse, coarse_duration, coarse_end, from_coarse, is_before_coarse,
    is_skewed, nanos_or_many, touch, touch_one,
};
use super::extra::{Extra, ExtraOf, Extras};
use super::history::History;
use super::key::TableKey;
use super::observer::{FlowId, FlowObserver, Verdict};
use super::packet::{Packet, Role};
use super::stats::FlowStats;
use super::table::{Inserted, NONE, PROBES_MAX, Table, tag};
use super::tcp::{Common, Seen, TcpState};
use super::tracker::TrackerCounters;
use super::wheel::{Class, Wheel};
use crate::event::{AnomalyKind, EndReason, EventSink, FlowEvent};
use crate::frame::Frame;
use crate::net::L4;
use crate::obs::{Hooks, hook};
use crate::pages::{HUGE_BYTES, ask_for_small, room, to_huge};
use crate::time::{Timestamp, duration_ns};
use ending::over;

/// An idle timeout of the caller's choice for a key, instead of the configured ones.
pub(super) type IdleOverride<K> = Box<dyn Fn(&K) -> Option<Duration> + Send>;

/// Idle timeouts in nanoseconds, looked up by class and state.
#[derive(Clone, Debug)]
struct Idle {
    tcp: [u64; TcpState::ALL.len()],
    udp: u64,
    other: u64,
    /// The shortest of them: a gap below it needs no look-up.
    least: u64,
}

impl Idle {
    fn new(config: &TrackerConfig) -> Self {
        let of = |l4, state| duration_ns(config.idle_timeout(l4, state));
        let tcp = TcpState::ALL.map(|state| of(L4::Tcp, state));
        let (udp, other) = (of(L4::Udp, TcpState::default()), of(L4::Other, TcpState::default()));
        // Half of all time is more than any gap that does not go back in time.
        let least = tcp.into_iter().fold(udp.min(other), u64::min).min(u64::MAX >> 1);
        Self { tcp, udp, other, least }
    }

    fn of(&self, l4: L4, state: TcpState) -> u64 {
        match l4 {
            L4::Tcp => self.tcp[state as usize],
            L4::Udp => self.udp,
            L4::Other => self.other,
        }
    }
}

/// Where a packet goes and who hears of it: what every step below needs.
pub(super) struct Ears<'a, O, S> {
    /// Where [`Packet::frame`] counts.
    pub frames: &'a [Frame<'a>],
    pub observer: &'a mut O,
    pub sink: &'a mut S,
    pub hooks: &'a mut Hooks,
}

/// Live flows.
pub(super) struct Flows<K: TableKey> {
    entries: Vec<Entry<K::Narrow>>,
    /// The wide parts of keys that have one.
    wides: BySlot<K::Wide>,
    /// The slot below `entries.len()` that was freed last: its tag is the one freed before it, and so on to [`NONE`].
    free: u32,
    table: Table,
    wheel: Wheel,
    extras: Extras,
    idle: Idle,
    pub idle_override: Option<IdleOverride<K>>,
    /// Active timeout in coarse units; `NEVER` without.
    active: u32,
    max_flows: usize,
    emit_packets: bool,
    /// The latest time seen.
    pub clock: Timestamp,
    pub counters: TrackerCounters,
    /// Packets out of the common since somebody last looked.
    pub uncommon: u32,
}

impl<K: TableKey> Flows<K> {
    pub fn new(config: &TrackerConfig) -> Self {
        let max = config.max_flows;
        let active = config.active_timeout.map_or(NEVER, |t| coarse_duration(duration_ns(t)));
        let (mut entries, mut wides) = (room(max), BySlot::new(max));
        let (mut table, mut wheel) = (Table::new(max), Wheel::new(max));
        if config.touch_memory {
            touch(&mut entries);
            wides.touch();
            table.touch();
            wheel.touch();
        }
        Self {
            entries,
            wides,
            free: NONE,
            table,
            wheel,
            extras: Extras::new(max),
            idle: Idle::new(config),
            idle_override: None,
            active,
            max_flows: max,
            emit_packets: config.emit_packets,
            clock: Timestamp::ZERO,
            counters: TrackerCounters::default(),
            uncommon: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn max_flows(&self) -> usize {
        self.max_flows
    }

    /// The most flows that lived at once.
    #[inline]
    pub fn flows_most(&self) -> usize {
        self.entries.len()
    }

    /// Touches the first huge page that no flow lies in yet; which of the flows to come will.
    pub fn touch_huge_page(&mut self) -> Option<Range<usize>> {
        let room = self.entries.spare_capacity_mut();
        let ahead = to_huge(room);
        touch_one(room.get_mut(ahead)?);
        Some(ahead..ahead + HUGE_BYTES / size_of::<Entry<K::Narrow>>())
    }

    /// What begins so many flows from here is to come in small pages.
    pub fn use_small_pages(&mut self, ahead: usize) {
        ask_for_small(self.entries.spare_capacity_mut().get_mut(ahead..).unwrap_or_default());
        self.wheel.use_small_pages(ahead);
    }

    /// Whether a slot that was found before is the live flow with this key.
    #[inline]
    pub fn is(&self, slot: u32, key: &K) -> bool {
        let entry = self.entries.get(slot as usize);
        entry.is_some_and(|entry| entry.packets_or_many() != 0) && self.has(slot, key)
    }

    /// Whether a slot's key is this one.
    #[inline]
    fn has(&self, slot: u32, key: &K) -> bool {
        self.entries[slot as usize].key == key.narrow()
            && (!key.is_wide() || has_wide(&self.wides, slot, key))
    }

    /// A slot's key.
    fn key(&self, slot: u32) -> K {
        let wide = || self.wides.get(slot).copied().unwrap_or_default();
        K::of_parts(self.entries[slot as usize].key, wide)
    }

    #[inline]
    pub fn find(&self, hash: u64, key: &K) -> Option<u32> {
        self.table.find(tag(hash), |slot| self.has(slot, key))
    }

    /// Accounts packets, of which `found` says in what slots they probably belong; returns the later one of `clock` and theirs.
    #[inline(never)]
    pub fn account_all<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        packets: &[Packet<K>],
        found: &[u32],
        mut clock: Timestamp,
        ears: &mut Ears<'_, O, S>,
    ) -> Timestamp {
        for (&slot, packet) in found.iter().zip(packets) {
            clock = clock.max(packet.clock);
            self.account(packet, slot, ears);
        }
        clock
    }

    /// Accounts a packet, but for what it says of the [clock](Self::clock). `slot` is where its key probably is; what was
    /// found may be another flow by now, or have been one from the beginning.
    #[inline]
    fn account<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        packet: &Packet<K>,
        slot: u32,
        ears: &mut Ears<'_, O, S>,
    ) {
        if self.account_common(packet, slot) {
            self.after(slot, packet, ears);
        } else {
            self.account_any(packet, slot, ears);
        }
    }

    /// Counts a packet that changes nothing but what is remembered for every packet: of a flow that has at least two,
    /// is not over, not to be reported and not behind the clock. `false`: it is of another kind, and nothing was changed.
    #[inline(always)]
    fn account_common(&mut self, packet: &Packet<K>, slot: u32) -> bool {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        let at = packet.end as usize;
        // What is as late as the clock is later than all of its flow that the clock has not left behind.
        let mut last = packet.ts;
        if last != packet.clock {
            last = last.max(entry.last);
            if is_skewed(last, packet.clock) {
                return false;
            }
        }
        let (packets, overflows) = entry.packets[at].overflowing_add(packet.frames);
        let is_common = (entry.key == packet.key.narrow())
            & (entry.packets[0].wrapping_add(entry.packets[1]) > 1)
            & !overflows
            & (packet.role == Role::Packet)
            & (entry.skew == 0)
            & (nanos_or_many(entry.last, packet.clock) <= self.idle.least)
            & (is_before_coarse(packet.ts, entry.active_due));
        if !is_common || packet.key.is_wide() && !has_wide(&self.wides, slot, &packet.key) {
            return false;
        }
        if let Some(tcp) = &packet.tcp {
            match entry.track.observe_common(packet.end, tcp, packet.payload.wire) {
                Common::Yes => {}
                Common::Marked(mark) => entry.mark_first(mark, packet.end),
                Common::No => return false,
            }
        }
        entry.packets[at] = packets;
        entry.bytes[at] += packet.wire_bytes;
        entry.last = last;
        self.counters.packets += u64::from(packet.frames);
        self.counters.bytes += packet.wire_bytes;
        true
    }

    /// Accounts any packet, as one out of the common.
    #[inline(never)]
    fn account_any<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        packet: &Packet<K>,
        slot: u32,
        ears: &mut Ears<'_, O, S>,
    ) {
        self.uncommon = self.uncommon.saturating_add(1);
        self.clock = self.clock.max(packet.clock);
        let found = if self.is(slot, &packet.key) {
            Some(slot)
        } else {
            self.find(packet.hash, &packet.key)
        };
        let Some(slot) = found else {
            self.begin(packet, ears);
            return;
        };
        let entry = &mut self.entries[slot as usize];
        // By the same clock as expiry: it must not matter which of the two comes first.
        let quiet_ns = packet.clock.nanos_since(entry.touched());
        if quiet_ns > self.idle.least && quiet_ns > self.idle_ns(slot) {
            self.end_idle(slot, ears);
            self.begin(packet, ears);
            return;
        }
        if packet.role == Role::IcmpQuote {
            self.extra(slot).icmp_errors += 1;
            self.counters.icmp_related += 1;
            return;
        }
        let entry = &mut self.entries[slot as usize];
        let now = coarse(packet.ts);
        if entry.is_due(now) {
            self.report(slot, ears);
        }
        if let Some(tcp) = &packet.tcp {
            let entry = &mut self.entries[slot as usize];
            // A second packet may be a common segment that was not asked yet.
            let common = match entry.packets_or_many() {
                1 => entry.track.observe_common(packet.end, tcp, packet.payload.wire),
                _ => Common::No,
            };
            match common {
                Common::Yes => {}
                Common::Marked(mark) => entry.mark_first(mark, packet.end),
                Common::No if self.observe_tcp(slot, packet, ears) => {}
                Common::No => return,
            }
        }
        self.count(slot, packet, now);
        self.after(slot, packet, ears);
    }

    /// Everything that a TCP segment out of the common may do; `false` when it was accounted to another flow.
    fn observe_tcp<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        packet: &Packet<K>,
        ears: &mut Ears<'_, O, S>,
    ) -> bool {
        let Some(tcp) = &packet.tcp else { return true };
        let entry = &mut self.entries[slot as usize];
        let mut extra = ExtraOf { extras: &mut self.extras, id: &mut entry.extra };
        let (length, end) = (packet.payload.wire, packet.end);
        if entry.track.l4() != L4::Tcp {
            // So far there were only fragments without a header.
            let marks = entry.track.open(&mut extra, end, tcp, length);
            entry.mark(marks.iter(), end);
            self.reschedule(slot);
            return true;
        }
        let before = entry.track.state();
        let (seen, marks) = entry.track.observe(&mut extra, end, tcp, length);
        entry.mark(marks.iter(), end);
        match seen {
            Seen::Ordinary => {}
            Seen::Completed => {
                ears.sink.event(FlowEvent::Established { key: packet.key, ts: packet.ts });
            }
            Seen::StrayRst => {
                self.counters.rst_out_of_window += 1;
                let kind = AnomalyKind::RstOutOfWindow { side: entry.side(end), seq: tcp.seq };
                hook!(ears.hooks.anomaly(&kind));
                ears.sink.event(FlowEvent::Anomaly { key: Some(packet.key), kind, ts: packet.ts });
            }
            Seen::NewConnection => {
                let reason = over(entry.track.l4(), before).unwrap_or(EndReason::Superseded);
                self.end(slot, reason, ears);
                self.begin(packet, ears);
                return false;
            }
        }
        let after = self.entries[slot as usize].track.state();
        if before != after {
            // Deadlines that moved nearer must be known to the wheel; others it finds out. The
            // second packet moves a flow in any case, once it is counted.
            let (was, is) = (self.idle.of(L4::Tcp, before), self.idle.of(L4::Tcp, after));
            let slight = self.entries[slot as usize].packets_or_many() == 1;
            if (is < was || before == TcpState::SynSent) && !slight {
                // The packet counts for the deadline.
                self.entries[slot as usize].touch(packet.ts, packet.clock);
                self.reschedule(slot);
            }
        }
        true
    }

    #[inline(always)]
    fn count(&mut self, slot: u32, packet: &Packet<K>, now: u32) {
        let entry = &mut self.entries[slot as usize];
        let at = packet.end as usize;
        let before = entry.packets_or_many();
        match entry.packets[at].checked_add(packet.frames) {
            Some(packets) => entry.packets[at] = packets,
            None => {
                // Two stay, so that it never looks like a flow that begins.
                let spilled = u64::from(entry.packets[at]) + u64::from(packet.frames) - 2;
                entry.packets[at] = 2;
                self.extras.edit(&mut entry.extra).spilled[at] += spilled;
            }
        }
        entry.bytes[at] += packet.wire_bytes;
        entry.touch(packet.ts, packet.clock);
        self.counters.packets += u64::from(packet.frames);
        self.counters.bytes += packet.wire_bytes;
        if entry.active_due == UNSET {
            entry.active_due = coarse_end(now, self.active);
            if entry.active_due != NEVER && before != 0 {
                self.reschedule(slot);
            }
        } else if before == 1 {
            self.reschedule(slot);
        }
    }

    /// What comes after a packet was counted.
    #[inline]
    fn after<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        packet: &Packet<K>,
        ears: &mut Ears<'_, O, S>,
    ) {
        if packet.role == Role::Unattributed {
            let kind = AnomalyKind::FragmentsUnattributed { packets: packet.frames };
            hook!(ears.hooks.anomaly(&kind));
            ears.sink.event(FlowEvent::Anomaly { key: Some(packet.key), kind, ts: packet.ts });
        }
        let entry = &self.entries[slot as usize];
        if self.emit_packets {
            ears.sink.event(FlowEvent::Packet {
                key: packet.key,
                end: packet.end,
                ts: packet.ts,
                wire_len: u32::try_from(packet.wire_bytes).unwrap_or(u32::MAX),
            });
        }
        let initiator = entry.track.initiator();
        let flow = FlowId(slot);
        // None for what has none: fragments that waited, and what was steered here.
        let frame = ears.frames.get(packet.frame as usize);
        let verdict =
            ears.observer.on_packet(flow, initiator, packet, frame, ears.sink, ears.hooks);
        if verdict == Verdict::Drop {
            self.end(slot, EndReason::BufferOverflow, ears);
        }
    }

    /// The first packet of a flow.
    fn begin<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        packet: &Packet<K>,
        ears: &mut Ears<'_, O, S>,
    ) {
        if packet.role == Role::IcmpQuote {
            return;
        }
        while self.len() >= self.max_flows {
            self.evict(ears);
        }
        let tag = tag(packet.hash);
        let slot = match self.free {
            NONE => {
                if self.entries.len().is_multiple_of(Self::CLEARED) {
                    self.clear_ahead();
                }
                // Within the capacity taken at start: a slot is free whenever the table is not full.
                self.entries.push(Entry::new(packet, tag));
                (self.entries.len() - 1) as u32
            }
            slot => {
                let entry = &mut self.entries[slot as usize];
                self.free = entry.tag;
                *entry = Entry::new(packet, tag);
                // What the next flow will have; it was freed a while ago.
                self.prefetch_whole(self.free);
                self.wheel.prefetch(self.free);
                slot
            }
        };
        if let Some(tcp) = &packet.tcp {
            // In place, and its history anew: what was just written cannot be read in other pieces before all that was written earlier.
            let entry = &mut self.entries[slot as usize];
            let mut extra = ExtraOf { extras: &mut self.extras, id: &mut entry.extra };
            let marks = entry.track.open(&mut extra, packet.end, tcp, packet.payload.wire);
            entry.history = History::default().with(marks.iter(), packet.end);
        }
        if packet.key.is_wide()
            && let Some(wide) = self.wides.edit(slot)
        {
            *wide = packet.key.wide();
        }
        match self.table.insert(tag, slot) {
            Inserted::Done => {}
            Inserted::InPlaceOf(victim) => self.end_displaced(victim, ears),
            Inserted::Full => debug_assert!(false, "room was made before"),
        }
        self.counters.created += 1;
        let l4 = packet.proto.l4();
        hook!(ears.hooks.flow_created(l4));
        ears.sink.event(FlowEvent::Started { key: packet.key, l4, ts: packet.ts });
        self.count(slot, packet, coarse(packet.ts));
        self.reschedule(slot);
        self.after(slot, packet, ears);
    }

    #[inline]
    fn idle_ns(&self, slot: u32) -> u64 {
        if let Some(chosen) = &self.idle_override
            && let Some(timeout) = self.chosen_idle(slot, chosen)
        {
            return duration_ns(timeout);
        }
        let track = &self.entries[slot as usize].track;
        self.idle.of(track.l4(), track.state())
    }

    #[cold]
    #[inline(never)]
    fn chosen_idle(&self, slot: u32, chosen: &IdleOverride<K>) -> Option<Duration> {
        chosen(&self.key(slot))
    }

    /// The shortest idle timeout there can be, once the caller overrides them.
    pub fn set_idle_override(&mut self, chosen: IdleOverride<K>) {
        self.idle.least = 0;
        self.idle_override = Some(chosen);
    }

    fn class(&self, slot: u32) -> Class {
        let entry = &self.entries[slot as usize];
        let is_tcp = entry.track.l4() == L4::Tcp;
        if is_tcp && entry.track.state().is_over() {
            Class::Closed
        } else if entry.packets_or_many() <= 1 || is_tcp && entry.track.is_unanswered_syn() {
            Class::Slight
        } else {
            Class::Normal
        }
    }

    /// When a flow is next due: idle, or to be reported.
    fn deadline(&self, slot: u32) -> Timestamp {
        let entry = &self.entries[slot as usize];
        let idle = entry.touched().plus_nanos(self.idle_ns(slot));
        match entry.active_due {
            UNSET | NEVER => idle,
            _ if entry.skew != 0 => idle,
            due => idle.min(from_coarse(due)),
        }
    }

    fn reschedule(&mut self, slot: u32) {
        let (class, deadline) = (self.class(slot), self.deadline(slot));
        self.wheel.schedule(slot, class, deadline, self.clock);
    }

    fn extra(&mut self, slot: u32) -> &mut Extra {
        self.extras.edit(&mut self.entries[slot as usize].extra)
    }

    pub fn stats(&self, slot: u32) -> FlowStats {
        let entry = &self.entries[slot as usize];
        entry.stats(self.extras.get(entry.extra))
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.wheel.next_due()
    }

    pub fn set_max_flows(&mut self, max_flows: usize) {
        self.max_flows = max_flows;
    }

    pub fn slots(&self) -> impl Iterator<Item = (K, FlowStats)> {
        let live = (0..self.entries.len() as u32).filter(|&slot| self.wheel.contains(slot));
        live.map(|slot| (self.key(slot), self.stats(slot)))
    }
}

/// Whether a slot has the wide part of this key. A call: few keys have one.
#[inline(never)]
fn has_wide<K: TableKey>(wides: &BySlot<K::Wide>, slot: u32, key: &K) -> bool {
    wides.get(slot) == Some(&key.wide())
}
