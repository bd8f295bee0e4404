//! [`Teller`]: what a stream finds out, told to everyone who wants it. The one place where
//! reassembly counts, and where its anomalies are made.
//!
//! Contract: the counters and the drop hooks are right whether or not anomaly events are asked
//! for; each event that is emitted is counted by [`Hooks::anomaly`], and nothing else is.

use super::StreamSink;
use super::counters::ReassemblyCounters;
use super::holes::Owner;
use super::stream::{Cause, Note, Tell};
use crate::event::{AnomalyKind, EventSink, FlowEvent};
use crate::flow::FlowId;
use crate::net::Side;
use crate::obs::{Hooks, hook};
use crate::time::Timestamp;

/// What outlives the calls.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) counters: ReassemblyCounters,
    pub(crate) emit_anomalies: bool,
}

/// Who hears of the streams.
pub(crate) struct Ears<'a, C, S> {
    pub(crate) consumer: &'a mut C,
    pub(crate) sink: &'a mut S,
    pub(crate) hooks: &'a mut Hooks,
}

/// Tells of one side of one flow.
pub(crate) struct Teller<'a, 'e, K, C, S> {
    key: &'a K,
    flow: FlowId,
    side: Side,
    ts: Timestamp,
    emit_anomalies: bool,
    counters: &'a mut ReassemblyCounters,
    ears: &'a mut Ears<'e, C, S>,
}

impl<'a, 'e, K: Copy, C, S: EventSink<K>> Teller<'a, 'e, K, C, S> {
    pub(crate) fn new(
        owner: &Owner<&'a K>,
        ts: Timestamp,
        book: &'a mut Book,
        ears: &'a mut Ears<'e, C, S>,
    ) -> Self {
        let side = owner.end.side(owner.initiator_end);
        let Book { counters, emit_anomalies } = book;
        let emit_anomalies = *emit_anomalies;
        Self { key: owner.key, flow: owner.flow, side, ts, emit_anomalies, counters, ears }
    }

    fn anomaly(&mut self, kind: AnomalyKind) {
        if self.emit_anomalies {
            hook!(self.ears.hooks.anomaly(&kind));
            self.ears.sink.event(FlowEvent::Anomaly { key: Some(*self.key), kind, ts: self.ts });
        }
    }

    fn overflow(&mut self, bytes: u64) {
        let side = self.side;
        self.counters.0[side as usize].dropped_oversize_bytes += bytes;
        hook!(self.ears.hooks.dropped_oversize(side, bytes));
        self.anomaly(AnomalyKind::BufferOverflow { side, bytes });
    }
}

impl<K: Copy, C: StreamSink<K>, S: EventSink<K>> Tell for Teller<'_, '_, K, C, S> {
    #[inline]
    fn data(&mut self, offset: u64, bytes: &[u8]) {
        self.counters.0[self.side as usize].delivered_bytes += bytes.len() as u64;
        self.ears.consumer.data(self.key, self.flow, self.side, offset, bytes);
    }

    fn gap(&mut self, offset: u64, len: u64, cause: Cause) {
        let side = self.side;
        let counters = &mut self.counters.0[side as usize];
        match cause {
            // What was never captured is not lost traffic: told to the consumer, no anomaly.
            Cause::Cut => counters.cut_bytes += len,
            Cause::Late | Cause::Overflow => {
                counters.gaps += 1;
                counters.gap_bytes += len;
                if cause == Cause::Overflow {
                    self.overflow(len);
                }
                self.anomaly(AnomalyKind::StreamGap { side, bytes: len });
            }
        }
        self.ears.consumer.gap(self.key, self.flow, side, offset, len);
    }

    fn end(&mut self, offset: u64) {
        self.ears.consumer.end(self.key, self.flow, self.side, offset);
    }

    fn note(&mut self, note: Note) {
        let side = self.side;
        let counters = &mut self.counters.0[side as usize];
        match note {
            Note::Behind { bytes, whole } => {
                counters.behind_bytes += bytes;
                counters.retransmitted_segments += u64::from(whole);
            }
            Note::BeforeStart { bytes } => counters.before_start_bytes += bytes,
            Note::BeyondEnd { bytes } => counters.beyond_end_bytes += bytes,
            Note::Held => counters.out_of_order_segments += 1,
            Note::Far { seq } => {
                counters.dropped_ooo_segments += 1;
                hook!(self.ears.hooks.dropped_ooo(side, 1));
                self.anomaly(AnomalyKind::OutOfOrderSegment { side, seq });
            }
            Note::Conflict { bytes } => {
                counters.conflict_bytes += bytes;
                self.anomaly(AnomalyKind::OverlapConflict { side, bytes });
            }
            Note::Overflow { bytes } => self.overflow(bytes),
        }
    }
}
