//! How flows end: their time is over, another needs their room, a segment or the caller says so; and what is told then.
//!
//! Invariant: [`Flows::end`] and [`Flows::drain`] are the only ways out of the table, and both tell a reason.

use super::super::entry::{NEVER, UNSET, from_coarse};
use super::super::key::TableKey;
use super::super::observer::{FlowId, FlowObserver};
use super::super::tcp::TcpState;
use super::super::wheel::Class;
use super::{Ears, Flows, NONE, PROBES_MAX};
use crate::event::{AnomalyKind, EndReason, EventSink, FlowEvent};
use crate::net::L4;
use crate::obs::hook;
use crate::time::Timestamp;

/// How many lazily scheduled flows an eviction looks at to find one that is really the most idle.
const EVICTION_TRIES: usize = 8;

/// How many due flows are taken out of the wheel before the first of them is looked at.
const EXPIRED_TOGETHER: usize = 16;

/// What ending a due flow takes of a budget, where putting it back takes 1.
const END_COST: usize = 2;

impl<K: TableKey> Flows<K> {
    /// The active timeout: tells what there is so far. The next one starts with the next packet.
    #[inline(never)]
    pub(super) fn report<O, S: EventSink<K>>(&mut self, slot: u32, ears: &mut Ears<'_, O, S>) {
        let stats = self.stats(slot);
        let entry = &mut self.entries[slot as usize];
        entry.active_due = UNSET;
        let totals = entry.totals(self.extras.get(entry.extra));
        let extra = self.extra(slot);
        extra.reported = totals;
        extra.updates += 1;
        self.counters.updates += 1;
        ears.sink.event(FlowEvent::Updated { key: self.key(slot), stats });
    }

    /// The one way out of the table, but for [`drain`](Self::drain).
    #[inline(never)]
    pub fn end<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        reason: EndReason,
        ears: &mut Ears<'_, O, S>,
    ) {
        let removed = self.table.remove(self.entries[slot as usize].tag, slot);
        debug_assert!(removed, "a live slot is in the table");
        self.leave(slot, reason, ears);
    }

    /// Ends a flow whose bucket another one has now.
    #[cold]
    pub(super) fn end_displaced<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        ears: &mut Ears<'_, O, S>,
    ) {
        let kind = AnomalyKind::FlowTableCollision { probes: PROBES_MAX };
        let (key, ts) = (self.key(slot), self.clock);
        hook!(ears.hooks.anomaly(&kind));
        ears.sink.event(FlowEvent::Anomaly { key: Some(key), kind, ts });
        self.leave(slot, EndReason::Evicted, ears);
    }

    /// Frees a slot that the table knows no more.
    #[inline]
    fn leave<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        reason: EndReason,
        ears: &mut Ears<'_, O, S>,
    ) {
        self.wheel.cancel(slot);
        self.tell_end(slot, reason, ears);
        let entry = &mut self.entries[slot as usize];
        entry.packets = [0; 2];
        entry.tag = std::mem::replace(&mut self.free, slot);
    }

    fn tell_end<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        reason: EndReason,
        ears: &mut Ears<'_, O, S>,
    ) {
        let stats = self.stats(slot);
        let key = self.key(slot);
        ears.observer.on_end(FlowId(slot), &key, &stats, reason, ears.sink, ears.hooks);
        self.extras.vacate(self.entries[slot as usize].extra);
        self.counters.ended[reason as usize] += 1;
        self.counters.packets_ended += stats.packets();
        hook!(ears.hooks.flow_ended(reason, &stats));
        ears.sink.event(FlowEvent::Ended { key, reason, stats });
    }

    /// Makes room: what is closed first, then what is slight, then what has been idle longest.
    #[inline(never)]
    pub fn evict<O: FlowObserver<K>, S: EventSink<K>>(&mut self, ears: &mut Ears<'_, O, S>) {
        let mut victim = None;
        for _ in 0..EVICTION_TRIES {
            let Some((slot, due)) = self.wheel.least() else { break };
            victim = Some(slot);
            if self.class(slot) != Class::Normal || self.deadline(slot) < due {
                break;
            }
            // Lazily scheduled: it has been seen since. Put it where it belongs and look again.
            self.reschedule(slot);
        }
        let Some(slot) = victim else { return };
        let entry = &self.entries[slot as usize];
        let closed = over(entry.track.l4(), entry.track.state());
        if closed.is_none() {
            let kind = AnomalyKind::FlowTableEviction { max_flows: self.max_flows };
            let (key, ts) = (self.key(slot), self.clock);
            hook!(ears.hooks.anomaly(&kind));
            ears.sink.event(FlowEvent::Anomaly { key: Some(key), kind, ts });
        }
        self.end(slot, closed.unwrap_or(EndReason::Evicted), ears);
    }

    /// Handles due flows until `budget` is used up; `true` when more may be due. One that is only put back costs 1, one that
    /// ends [`END_COST`]: what it costs are cache misses, and it has more of them.
    pub fn expire<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        now: Timestamp,
        budget: usize,
        ears: &mut Ears<'_, O, S>,
    ) -> bool {
        self.clock = self.clock.max(now);
        let mut left = budget;
        while left > 0 {
            let mut due = [0; EXPIRED_TOGETHER];
            let together = left.div_ceil(END_COST).min(EXPIRED_TOGETHER);
            let taken = self.pop_due(&mut due[..together], ears.observer);
            if taken == 0 {
                return false;
            }
            for &slot in &due[..taken] {
                left = left.saturating_sub(self.expire_one(slot, ears));
            }
        }
        true
    }

    /// Takes due flows out of the wheel, as many as `due` has room for, and asks for what ending them touches: they have
    /// been quiet for so long that none of it is in the cache.
    fn pop_due<O: FlowObserver<K>>(&mut self, due: &mut [u32], observer: &O) -> usize {
        let mut taken = 0;
        while let Some(room) = due.get_mut(taken)
            && let Some(slot) = self.wheel.pop_due(self.clock)
        {
            *room = slot;
            taken += 1;
            self.prefetch_whole(slot);
            observer.prefetch(FlowId(slot));
        }
        for &slot in &due[..taken] {
            let entry = &self.entries[slot as usize];
            self.table.prefetch(entry.tag);
            self.extras.prefetch(entry.extra);
            self.wides.prefetch(slot);
        }
        taken
    }

    /// A flow that the wheel had as due: it is over, or is to be reported, or was seen since. Says what it cost.
    fn expire_one<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        ears: &mut Ears<'_, O, S>,
    ) -> usize {
        match self.settle(slot, ears) {
            Some(reason) => {
                self.end(slot, reason, ears);
                END_COST
            }
            None => {
                self.reschedule(slot);
                1
            }
        }
    }

    /// Ends a flow whose idle timeout is over.
    pub(super) fn end_idle<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        slot: u32,
        ears: &mut Ears<'_, O, S>,
    ) {
        let reason = self.settle(slot, ears).unwrap_or(EndReason::Idle);
        self.end(slot, reason, ears);
    }

    /// Tells the record that is due of a flow, and says how the flow ended if its idle timeout is over by the clock. The
    /// records of a flow must not depend on when its tracker gets round to it: one that was due before the end comes
    /// first.
    fn settle<O, S: EventSink<K>>(
        &mut self,
        slot: u32,
        ears: &mut Ears<'_, O, S>,
    ) -> Option<EndReason> {
        let idle_ns = self.idle_ns(slot);
        let entry = &self.entries[slot as usize];
        let reason = over(entry.track.l4(), entry.track.state()).unwrap_or(EndReason::Idle);
        let is_over = self.clock.nanos_since(entry.touched()) > idle_ns;
        let until = if is_over { entry.last.plus_nanos(idle_ns) } else { self.clock };
        // A flow whose time is behind the clock is reported by its own packets.
        let is_told = is_over || entry.skew == 0;
        let is_due =
            !matches!(entry.active_due, UNSET | NEVER) && from_coarse(entry.active_due) <= until;
        if is_told && is_due {
            self.report(slot, ears);
        }
        is_over.then_some(reason)
    }

    /// Ends every flow, in the order of the slab: memory is walked once, from end to end.
    pub fn drain<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        otherwise: EndReason,
        ears: &mut Ears<'_, O, S>,
    ) {
        if self.entries.is_empty() {
            // Nothing of the table was used since it was cleared: its memory is left as it is, which may be untouched.
            return;
        }
        for slot in 0..self.entries.len() as u32 {
            if self.wheel.contains(slot) {
                // What is due by now and did not have its turn: the wheel is coarser than the clock.
                let settled = self.settle(slot, ears);
                let track = &self.entries[slot as usize].track;
                let reason =
                    settled.or_else(|| over(track.l4(), track.state())).unwrap_or(otherwise);
                self.tell_end(slot, reason, ears);
            }
        }
        self.table.clear();
        self.wheel.clear();
        self.entries.clear();
        self.free = NONE;
        self.extras.clear();
    }
}

/// How a connection that is over ended.
pub(super) fn over(l4: L4, state: TcpState) -> Option<EndReason> {
    match state {
        _ if l4 != L4::Tcp => None,
        TcpState::Closed => Some(EndReason::Rst),
        state if state.is_finished() => Some(EndReason::Fin),
        _ => None,
    }
}
