//! Shunting: flows that have become large are counted by the capture, and their packets merged into them here.
//!
//! | part | noun |
//! |---|---|
//! | [`Shunting`] | a worker's side: which flows, and what was counted of them |
//! | [`ShuntTracker`] | a tracker with it |
//! | [`yard`] | the thread that asks the kernel |
//!
//! Contract: a worker makes no system call for it and waits for nobody, until the end. It tells the yard which flows became
//! large, and which are over; the yard tells it several times a second what came, and a last time when a flow was taken out.
//! What is told is merged at the next batch, so that every frame that was counted is in a flow. Everything is bounded: what does
//! not fit is not shunted, and comes as ever.

pub mod yard;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::SeedableRandomState;

use super::direct::Tracking;
use crate::capture::Upcoming;
use crate::capture::shunt::{SHUNTS_MAX, ShuntPorts};
use crate::event::{EndReason, EventSink};
use crate::export::RecordWriter;
use crate::flow::{
    ByFiveTuple, FlowId, FlowKey, FlowObserver, FlowStats, FlowTracker, Packet, Verdict,
};
use crate::frame::Frame;
use crate::net::{End, IpProto, TcpFlags};
use crate::obs::Hooks;
use crate::time::Timestamp;
use yard::{Answer, Line, Request};

/// Flows of a worker that are shunted or to be.
const FLOWS_MAX: usize = SHUNTS_MAX as usize;

/// Flows of a batch that are looked at: frames of a batch, and fragments that waited.
const TOUCHED_MAX: usize = 512;

/// Flows that a batch may ask to shunt.
const ASKED_MAX: usize = 16;

/// How long nothing is asked for after there was no room.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the last counts are waited for at the end. What the kernel takes for it are milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_STEP: Duration = Duration::from_millis(1);

/// What is to be shunted, and where.
#[derive(Clone, Debug)]
pub struct ShuntWanted {
    /// Flows of so many bytes or more.
    pub above_bytes: u64,
    /// Whether a VLAN that differs is a different flow.
    pub by_vlan: bool,
    /// The interfaces as they are opened.
    pub ports: ShuntPorts,
}

/// What a worker's shunting came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShuntCounts {
    /// Frames that were counted and merged into flows.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Flows that were to be shunted.
    pub flows: u64,
    /// Those of them that could not be, for want of room.
    pub refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Shunted,
    /// To be taken out; its last counts are still to come.
    Leaving,
}

/// A worker's side of it. As an observer, it learns which flows packets came of, and which ended.
#[derive(Debug)]
pub struct Shunting {
    above_bytes: u64,
    line: Arc<Line>,
    flows: HashMap<FlowKey, Phase, SeedableRandomState>,
    /// Those that the yard is yet to be told to take out.
    leaving: Vec<FlowKey>,
    /// Flows that had packets in this batch; the same one may be there again.
    touched: Vec<FlowId>,
    /// Shunted flows of which a SYN, FIN or RST came in this batch: the program counts no more of them.
    closing: Vec<FlowKey>,
    /// Until when nothing is asked for.
    pause: Option<Instant>,
    counts: ShuntCounts,
}

impl Shunting {
    fn new(above_bytes: u64, line: Arc<Line>) -> Self {
        let hasher = SeedableRandomState::random();
        Self {
            above_bytes,
            line,
            flows: HashMap::with_capacity_and_hasher(FLOWS_MAX, hasher),
            leaving: Vec::with_capacity(FLOWS_MAX),
            touched: Vec::with_capacity(TOUCHED_MAX),
            closing: Vec::with_capacity(TOUCHED_MAX),
            pause: None,
            counts: ShuntCounts::default(),
        }
    }

    fn release(&mut self, key: &FlowKey) {
        if let Some(phase @ Phase::Shunted) = self.flows.get_mut(key) {
            *phase = Phase::Leaving;
            self.leaving.push(*key);
        }
    }

    /// It is not shunted any more, and nothing more is to be told of it.
    fn forget(&mut self, key: &FlowKey) {
        self.flows.remove(key);
        self.leaving.retain(|leaving| leaving != key);
    }

    /// Asks for what became large in this batch, and for the end of what was closed in it.
    fn after_batch(&mut self, tracker: &FlowTracker<ByFiveTuple>) {
        let mut asked = 0;
        for index in 0..self.touched.len() {
            let Some(key) = tracker.large(self.touched[index], self.above_bytes) else { continue };
            if !matches!(key.proto(), IpProto::TCP | IpProto::UDP) || self.flows.contains_key(&key)
            {
                continue;
            }
            if asked == ASKED_MAX || self.flows.len() == FLOWS_MAX || self.is_paused() {
                break;
            }
            if self.line.requests.push(Request::Shunt(key)).is_err() {
                break;
            }
            asked += 1;
            self.counts.flows += 1;
            self.flows.insert(key, Phase::Shunted);
        }
        self.touched.clear();
        while let Some(key) = self.closing.pop() {
            // If nobody believes it, the flow is still large, and is asked for anew.
            self.release(&key);
        }
    }

    fn is_paused(&mut self) -> bool {
        let Some(until) = self.pause else { return false };
        let is_paused = Instant::now() < until;
        if !is_paused {
            self.pause = None;
        }
        is_paused
    }

    /// Tells the yard what is over, and merges what it has told.
    fn exchange(
        &mut self,
        tracker: &mut FlowTracker<ByFiveTuple>,
        sink: &mut impl EventSink<FlowKey>,
    ) {
        while let Some(&key) = self.leaving.last() {
            if self.line.requests.push(Request::Release(key)).is_err() {
                break;
            }
            self.leaving.pop();
        }
        // All that waits, so that no flow is taken for silent whose packets are in it.
        for _ in 0..yard::ANSWERS_MAX {
            match self.line.answers.pop() {
                None => return,
                Some(Answer::Refused(key)) => {
                    self.forget(&key);
                    self.counts.refused += 1;
                    self.pause = Some(Instant::now() + PAUSE);
                }
                Some(Answer::Counted { shunted, is_last }) => {
                    if is_last {
                        self.forget(&shunted.key);
                    }
                    self.counts.packets += shunted.counted.packets();
                    self.counts.bytes += shunted.counted.bytes();
                    tracker.merge(&shunted, self, sink);
                }
            }
        }
    }

    /// Takes all flows out and merges what was counted last. No frames come any more.
    fn finish(
        &mut self,
        tracker: &mut FlowTracker<ByFiveTuple>,
        sink: &mut impl EventSink<FlowKey>,
    ) {
        let all: Vec<_> = self.flows.keys().copied().collect();
        all.iter().for_each(|key| self.release(key));
        let start = Instant::now();
        loop {
            let is_open = self.line.is_open();
            self.exchange(tracker, sink);
            if self.flows.is_empty() {
                return;
            }
            if !is_open || start.elapsed() > PATIENCE {
                let flows = self.flows.len();
                tracing::error!(
                    "the last counts of {flows} shunted flows did not come: please report this"
                );
                return;
            }
            std::thread::sleep(PATIENCE_STEP);
        }
    }
}

impl FlowObserver<FlowKey> for Shunting {
    #[inline]
    fn on_packet<S: EventSink<FlowKey>>(
        &mut self,
        flow: FlowId,
        _: End,
        packet: &Packet<FlowKey>,
        _: Option<&Frame<'_>>,
        _: &mut S,
        _: &mut Hooks,
    ) -> Verdict {
        if self.touched.last() != Some(&flow) && self.touched.len() < TOUCHED_MAX {
            self.touched.push(flow);
        }
        const CLOSES: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;
        if packet.tcp.is_some_and(|tcp| tcp.flags.0 & CLOSES != 0)
            && self.closing.len() < TOUCHED_MAX
            && self.flows.contains_key(&packet.key)
        {
            self.closing.push(packet.key);
        }
        Verdict::Keep
    }

    fn on_end<S: EventSink<FlowKey>>(
        &mut self,
        _: FlowId,
        key: &FlowKey,
        _: &FlowStats,
        _: EndReason,
        _: &mut S,
        _: &mut Hooks,
    ) {
        self.release(key);
    }
}

/// A tracker whose large flows are shunted.
#[derive(Debug)]
pub struct ShuntTracker {
    tracker: FlowTracker<ByFiveTuple>,
    shunting: Shunting,
}

impl ShuntTracker {
    /// Of a tracker that has seen nothing.
    pub fn new(tracker: FlowTracker<ByFiveTuple>, shunting: Shunting) -> Self {
        Self { tracker, shunting }
    }
}

impl Tracking for ShuntTracker {
    fn process(
        &mut self,
        frames: &[Frame<'_>],
        upcoming: &mut Upcoming<'_>,
        records: &mut RecordWriter,
    ) {
        let ask = &mut |eighths| upcoming.ask(eighths);
        self.tracker.process_meanwhile(frames, &mut self.shunting, records, ask);
        self.shunting.after_batch(&self.tracker);
    }

    fn handle_timeout(&mut self, now: Timestamp, records: &mut RecordWriter) -> bool {
        self.shunting.exchange(&mut self.tracker, records);
        self.tracker.handle_timeout_observed(now, &mut self.shunting, records)
    }

    fn drain(&mut self, records: &mut RecordWriter) {
        self.shunting.finish(&mut self.tracker, records);
        self.tracker.drain_observed(&mut self.shunting, records);
    }

    fn tracker(&self) -> &FlowTracker<ByFiveTuple> {
        &self.tracker
    }

    fn tracker_mut(&mut self) -> &mut FlowTracker<ByFiveTuple> {
        &mut self.tracker
    }

    fn shunted(&self) -> ShuntCounts {
        self.shunting.counts
    }
}

#[cfg(test)]
mod tests;
