//! A worker's end of the export: events in, full buffers out.
//!
//! Contract: every `Updated` and `Ended` event becomes one record, formatted once; a buffer is handed over
//! when it is full or when [`flush`](RecordWriter::flush) says so. Summary counts are kept beside, so
//! that events are looked at in one place.

use std::time::Instant;

use super::jsonl::{self, Outcome};
use super::sink::{Chunk, SinkHandle};
use super::text::{Line, Seconds};
use crate::event::{EndReason, EventSink, FlowEvent};
use crate::flow::{FlowKey, FlowStats};
use crate::net::L4;
use crate::obs::end_reason_label;

/// What the events of one worker added up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Records produced, interim ones included.
    pub records: u64,
    /// Flows that began, by [`L4`].
    pub started: [u64; L4::ALL.len()],
    /// Flows that ended, by [`EndReason`].
    pub ended: [u64; EndReason::ALL.len()],
    /// Packets in the flows that ended.
    pub packets_ended: u64,
    /// Packets that the records told.
    pub packets_told: u64,
    /// Interim records.
    pub interim: u64,
    /// Anomalies.
    pub anomalies: u64,
}

/// What is done when an output is slower than what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Wait: a file does not run away.
    Wait,
    /// Drop records, and count them: the wire does.
    Drop,
}

/// Turns events into records.
#[derive(Debug)]
pub struct RecordWriter {
    sinks: Vec<SinkHandle>,
    chunk: Chunk,
    seconds: Seconds,
    chunk_since: Instant,
    with_community_id: bool,
    when_full: WhenFull,
    counts: EventCounts,
}

impl RecordWriter {
    /// Writes to all of `sinks`; with none, records are only counted.
    pub fn new(sinks: Vec<SinkHandle>, with_community_id: bool, when_full: WhenFull) -> Self {
        let chunk = sinks.first().map(SinkHandle::chunk).unwrap_or_default();
        Self {
            sinks,
            chunk,
            seconds: Seconds::default(),
            chunk_since: Instant::now(),
            with_community_id,
            when_full,
            counts: EventCounts::default(),
        }
    }

    /// What the events added up to.
    pub fn counts(&self) -> &EventCounts {
        &self.counts
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        self.chunk_since = Instant::now();
        let Some((first, others)) = self.sinks.split_first() else { return };
        if self.chunk.records() == 0 {
            return;
        }
        let push = |sink: &SinkHandle, chunk| match self.when_full {
            WhenFull::Wait => sink.push(chunk),
            WhenFull::Drop => sink.push_or_drop(chunk),
        };
        for other in others {
            let mut chunk = other.chunk();
            chunk.copy_from(&self.chunk);
            push(other, chunk);
        }
        push(first, std::mem::replace(&mut self.chunk, first.chunk()));
    }

    /// Hands over what has waited for a second, so that a slow replay does not sit on its records.
    pub fn flush_if_old(&mut self) {
        if self.chunk_since.elapsed().as_secs() >= 1 {
            self.flush();
        }
    }

    fn record(&mut self, key: &FlowKey, stats: &FlowStats, outcome: Outcome) {
        self.counts.records += 1;
        let totals = stats.unreported();
        self.counts.packets_told += totals.packets.iter().sum::<u64>();
        if self.sinks.is_empty() {
            return;
        }
        // There is some: a full one was handed over.
        let Some(room) = self.chunk.room() else { return };
        let mut line = Line::new(room, &mut self.seconds);
        jsonl::put_record(&mut line, key, stats, &totals, outcome, self.with_community_id);
        debug_assert!(!line.is_cut(), "a test holds the longest record to the line's room");
        let bytes = line.as_bytes().len();
        self.chunk.add(bytes);
        if self.chunk.is_full() {
            self.flush();
        }
    }
}

impl EventSink<FlowKey> for RecordWriter {
    #[inline]
    fn event(&mut self, event: FlowEvent<FlowKey>) {
        match event {
            FlowEvent::Started { l4, .. } => self.counts.started[l4 as usize] += 1,
            FlowEvent::Updated { key, stats } => {
                self.counts.interim += 1;
                self.record(&key, &stats, Outcome { reason: "active", interim: true });
            }
            FlowEvent::Ended { key, reason, stats } => {
                self.counts.ended[reason as usize] += 1;
                self.counts.packets_ended += stats.packets();
                let outcome = Outcome { reason: end_reason_label(reason), interim: false };
                self.record(&key, &stats, outcome);
            }
            FlowEvent::Anomaly { .. } => self.counts.anomalies += 1,
            _ => {}
        }
    }
}
