//! [`FlowTracker`]: frames with their times in, events out.

use std::ops::Range;

use super::config::{ConfigError, TrackerConfig};
use super::extract::FlowExtractor;
use super::flows::{Ears, Flows};
use super::ingest::{Ingest, IngestCounters};
use super::observer::{FlowId, FlowObserver};
use super::packet::Packet;
use super::shunted::Shunted;
use super::stats::FlowStats;
use super::table::NONE;
use crate::event::{EndReason, EventSink};
use crate::frame::Frame;
use crate::obs::{Hooks, hook};
use crate::time::Timestamp;

/// Frames or packets that are looked up together, so that their cache misses overlap.
const BATCH: usize = 128;
/// Packets of which the same is asked for before the next thing is done.
const STEP: usize = 16;
/// Where fewer packets of a batch than this were out of the common, nothing is asked for that only such ones change.
const UNCOMMON_MIN: u32 = 3;
/// What accounting a packet is of all that is done for it, in eighths.
const EIGHTHS: usize = 5;
/// What one call of [`FlowTracker::handle_timeout`] may spend on due flows: 64 of them end, or 128 are put back.
const EXPIRE_BATCH: usize = 128;

/// Where the packets went, for the ledger: plain numbers that are always kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerCounters {
    /// Frames counted into flows.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Flows that began.
    pub created: u64,
    /// Flows that ended, by [`EndReason`] in the order of its numbers.
    pub ended: [u64; EndReason::ALL.len()],
    /// Interim updates.
    pub updates: u64,
    /// Packets in the flows that ended.
    pub packets_ended: u64,
    /// ICMP errors related to the flow that they quote.
    pub icmp_related: u64,
    /// RSTs outside the window.
    pub rst_out_of_window: u64,
}

/// The flow table, its timers and its state machines.
///
/// Time moves with the frames: each call accounts its frames and then lets a bounded number of
/// flows expire, so that a caller with a steady stream need not do anything else. A caller whose stream
/// may pause calls [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout)
/// says so.
pub struct FlowTracker<E: FlowExtractor> {
    ingest: Ingest<E>,
    flows: Flows<E::Key>,
    config: TrackerConfig,
    hooks: Hooks,
    /// Recycled.
    packets: Vec<Packet<E::Key>>,
}

impl<E: FlowExtractor> FlowTracker<E> {
    /// Takes the memory for `config.max_flows` flows.
    pub fn new(extractor: E, config: TrackerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            ingest: Ingest::new(extractor, &config),
            flows: Flows::new(&config),
            config,
            hooks: Hooks::default(),
            packets: Vec::with_capacity(2 * BATCH),
        })
    }

    /// Another idle timeout than the configured ones for some keys: `None` leaves a key as it is.
    /// Called when a flow is scheduled and after a silence, not per packet of a busy flow.
    #[must_use]
    pub fn with_idle_override(
        mut self,
        chosen: impl Fn(&E::Key) -> Option<std::time::Duration> + Send + 'static,
    ) -> Self {
        self.flows.set_idle_override(Box::new(chosen));
        self
    }

    /// Reports to these hooks instead of the default ones.
    #[must_use]
    pub fn with_hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// What it reports to, for observers that have something to tell between packets. What they
    /// tell is published with the next call that takes frames or time.
    pub fn hooks_mut(&mut self) -> &mut Hooks {
        &mut self.hooks
    }

    /// Hashes with a fixed seed: for measurements that must repeat. Never on untrusted traffic.
    #[must_use]
    pub fn with_fixed_seed(mut self) -> Self {
        self.ingest.set_fixed_seed();
        self
    }

    /// Accounts a batch of frames. Any length; best in the hundreds.
    pub fn process<S: EventSink<E::Key>>(&mut self, frames: &[Frame<'_>], sink: &mut S) {
        self.process_observed(frames, &mut (), sink);
    }

    /// [`process`](Self::process), with an observer.
    pub fn process_observed<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        observer: &mut O,
        sink: &mut S,
    ) {
        self.process_meanwhile(frames, observer, sink, &mut |_| ());
    }

    /// [`process_observed`](Self::process_observed), during which `meanwhile` is called every few frames, with how much of the work
    /// on them was done or is about to be, in eighths of that on a frame. So memory is best asked for what comes next, as by
    /// `capture::Upcoming::ask`: it answers while frames are worked on, and what is asked for at once is waited for.
    pub fn process_meanwhile<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        observer: &mut O,
        sink: &mut S,
        meanwhile: &mut impl FnMut(usize),
    ) {
        for frames in frames.chunks(BATCH) {
            let mut packets = std::mem::take(&mut self.packets);
            let unmatched = self.ingest.counters().unmatched;
            self.ingest.batch_meanwhile(frames, &mut packets, meanwhile);
            let unmatched = self.ingest.counters().unmatched - unmatched;
            if unmatched > 0 {
                hook!(self.hooks.unmatched(unmatched));
            }
            self.account(&packets, frames, observer, sink, meanwhile);
            packets.clear();
            self.packets = packets;
        }
    }

    /// Accounts packets that an [`Ingest`] made elsewhere.
    pub fn process_packets<S: EventSink<E::Key>>(
        &mut self,
        packets: &[Packet<E::Key>],
        sink: &mut S,
    ) {
        self.process_packets_observed(packets, &[], &mut (), sink);
    }

    /// [`process_packets`](Self::process_packets), with an observer, which is shown the packets' frames: those that
    /// [`Packet::frame`] counts in.
    pub fn process_packets_observed<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        packets: &[Packet<E::Key>],
        frames: &[Frame<'_>],
        observer: &mut O,
        sink: &mut S,
    ) {
        self.account(packets, frames, observer, sink, &mut |_| ());
    }

    fn account<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        packets: &[Packet<E::Key>],
        frames: &[Frame<'_>],
        observer: &mut O,
        sink: &mut S,
        meanwhile: &mut impl FnMut(usize),
    ) {
        let flows = &mut self.flows;
        let counted = (flows.counters.packets, flows.counters.bytes);
        let mut ears = Ears { frames, observer, sink, hooks: &mut self.hooks };
        for packets in packets.chunks(BATCH) {
            let mut clock = flows.clock;
            // A step ahead buckets are asked for, then entries, and what else a packet will change; the packets in
            // their order come last, when all of it is there.
            let are_common = std::mem::take(&mut flows.uncommon) < UNCOMMON_MIN;
            let mut found = [NONE; BATCH];
            let steps = packets.len().div_ceil(STEP);
            let step = |number: usize| {
                let from = (number * STEP).min(packets.len());
                from..(from + STEP).min(packets.len())
            };
            for number in 0..steps + 2 {
                for packet in &packets[step(number)] {
                    flows.prefetch_bucket(packet.hash);
                }
                let Some(number) = number.checked_sub(1) else { continue };
                let ahead = step(number);
                flows.look_ahead(&packets[ahead.clone()], &mut found[ahead], ears.observer);
                let Some(number) = number.checked_sub(1) else { continue };
                let found = &found[step(number)];
                let packets = &packets[step(number)];
                meanwhile(packets.len() * EIGHTHS);
                if !are_common {
                    for (slot, packet) in found.iter().zip(packets) {
                        flows.prefetch_timer(*slot, packet);
                    }
                }
                clock = flows.account_all(packets, found, clock, &mut ears);
            }
            flows.clock = clock;
            flows.expire(flows.clock, 2 * packets.len(), &mut ears);
        }
        let (packets, bytes) = counted;
        hook!(self.hooks.batch(
            flows.counters.packets - packets,
            flows.counters.bytes - bytes,
            flows.len(),
        ));
    }

    /// When [`handle_timeout`](Self::handle_timeout) next has work: changes with every call that
    /// takes frames or time. `None` with nothing due ever.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match (self.flows.next_due(), self.ingest.poll_timeout()) {
            (Some(flow), Some(datagram)) => Some(flow.min(datagram)),
            (flow, datagram) => flow.or(datagram),
        }
    }

    /// Ends what is due at `now`, a bounded number of flows a call: `true` when more is due, so
    /// call again.
    pub fn handle_timeout<S: EventSink<E::Key>>(&mut self, now: Timestamp, sink: &mut S) -> bool {
        self.handle_timeout_observed(now, &mut (), sink)
    }

    /// [`handle_timeout`](Self::handle_timeout), with an observer.
    pub fn handle_timeout_observed<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        now: Timestamp,
        observer: &mut O,
        sink: &mut S,
    ) -> bool {
        let mut packets = std::mem::take(&mut self.packets);
        self.ingest.handle_timeout(now, &mut packets);
        if !packets.is_empty() {
            self.account(&packets, &[], observer, sink, &mut |_| ());
            packets.clear();
        }
        self.packets = packets;
        let mut ears = Ears { frames: &[], observer, sink, hooks: &mut self.hooks };
        let more = self.flows.expire(now, EXPIRE_BATCH, &mut ears);
        hook!(self.hooks.batch(0, 0, self.flows.len()));
        more
    }

    /// Ends every flow: closed connections as such, the rest as [`EndReason::Drained`].
    pub fn drain<S: EventSink<E::Key>>(&mut self, sink: &mut S) {
        self.drain_observed(&mut (), sink);
    }

    /// [`drain`](Self::drain), with an observer.
    pub fn drain_observed<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        observer: &mut O,
        sink: &mut S,
    ) {
        let mut packets = std::mem::take(&mut self.packets);
        self.ingest.drain(&mut packets);
        self.account(&packets, &[], observer, sink, &mut |_| ());
        packets.clear();
        self.packets = packets;
        let mut ears = Ears { frames: &[], observer, sink, hooks: &mut self.hooks };
        self.flows.drain(EndReason::Drained, &mut ears);
        hook!(self.hooks.batch(0, 0, 0));
    }

    /// The key of a live flow that has `above` bytes or more and goes on: a TCP connection only while it is established and
    /// nobody has closed. What an observer was told of is looked up after the call that told it.
    pub fn large(&self, flow: FlowId, above: u64) -> Option<E::Key> {
        self.flows.large(flow.0, above)
    }

    /// Adds packets to a flow that were only counted, elsewhere: they are tracked now. A record that is due comes first; where
    /// the flow has ended meanwhile, another one begins.
    ///
    /// Totals, times and the union of flags are as if the packets had come. What is not known of them is left out:
    /// retransmissions, order, and what a RST would be judged by, so that the next one is believed.
    pub fn merge<O: FlowObserver<E::Key>, S: EventSink<E::Key>>(
        &mut self,
        shunted: &Shunted<E::Key>,
        observer: &mut O,
        sink: &mut S,
    ) {
        let hash = self.ingest.hash(&shunted.key);
        let (packets, bytes) = (self.flows.counters.packets, self.flows.counters.bytes);
        let mut ears = Ears { frames: &[], observer, sink, hooks: &mut self.hooks };
        self.flows.merge(shunted, hash, &mut ears);
        let counters = &self.flows.counters;
        hook!(self.hooks.batch(
            counters.packets - packets,
            counters.bytes - bytes,
            self.flows.len(),
        ));
    }

    /// Ends one flow with [`EndReason::Forgotten`]; `false` when it is not there.
    pub fn forget<S: EventSink<E::Key>>(&mut self, key: &E::Key, sink: &mut S) -> bool {
        let Some(slot) = self.flows.find(self.ingest.hash(key), key) else { return false };
        let mut ears = Ears { frames: &[], observer: &mut (), sink, hooks: &mut self.hooks };
        self.flows.end(slot, EndReason::Forgotten, &mut ears);
        hook!(self.hooks.batch(0, 0, self.flows.len()));
        true
    }

    /// The most flows that lived at once since the start or the last drain: memory has been touched for so many.
    #[inline]
    pub fn flows_most(&self) -> usize {
        self.flows.flows_most()
    }

    /// Touches the first huge page (2 MiB) in which no flow has lain yet, so that its memory comes now and not with a packet. Returns which of
    /// the flows to come will lie in it, the next one being 0; `None`, with nothing done, when it is behind the table's end.
    ///
    /// How long it took tells whether huge pages are at hand: where a host has to give back their memory first, a table that grows is better
    /// off [without](Self::use_small_pages).
    pub fn touch_huge_page(&mut self) -> Option<Range<usize>> {
        self.flows.touch_huge_page()
    }

    /// Has the memory for all flows but the next `ahead` ones come in small pages, as far as it was not touched yet. Only Linux can be asked.
    pub fn use_small_pages(&mut self, ahead: usize) {
        self.flows.use_small_pages(ahead);
    }

    /// Changes how many flows may live, up to what memory was taken for; what is too many is evicted.
    pub fn set_max_flows<S: EventSink<E::Key>>(
        &mut self,
        max_flows: usize,
        sink: &mut S,
    ) -> Result<(), ConfigError> {
        if !(1..=self.config.max_flows).contains(&max_flows) {
            return Err(ConfigError::Resize { asked: max_flows, taken: self.config.max_flows });
        }
        let mut ears = Ears { frames: &[], observer: &mut (), sink, hooks: &mut self.hooks };
        while self.flows.len() > max_flows {
            self.flows.evict(&mut ears);
        }
        self.flows.set_max_flows(max_flows);
        hook!(self.hooks.batch(0, 0, self.flows.len()));
        Ok(())
    }

    /// The statistics of a live flow.
    pub fn get(&self, key: &E::Key) -> Option<FlowStats> {
        let slot = self.flows.find(self.ingest.hash(key), key)?;
        Some(self.flows.stats(slot))
    }

    /// Every live flow, in no order. Walks the whole slab: not for the packet path.
    pub fn iter(&self) -> impl Iterator<Item = (E::Key, FlowStats)> {
        self.flows.slots()
    }

    /// Live flows.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is no live flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many flows may live at once.
    pub fn max_flows(&self) -> usize {
        self.flows.max_flows()
    }

    /// Where the frames went before the table.
    pub fn ingest_counters(&self) -> &IngestCounters {
        self.ingest.counters()
    }

    /// Where the packets went.
    pub fn counters(&self) -> &TrackerCounters {
        &self.flows.counters
    }

    /// What it was configured with.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }
}

/// Flows that are still live are forgotten, and counted as such.
impl<E: FlowExtractor> Drop for FlowTracker<E> {
    fn drop(&mut self) {
        let mut sink = |_| {};
        let mut ears =
            Ears { frames: &[], observer: &mut (), sink: &mut sink, hooks: &mut self.hooks };
        self.flows.drain(EndReason::Forgotten, &mut ears);
        hook!(self.hooks.batch(0, 0, 0));
    }
}

impl<E: FlowExtractor> std::fmt::Debug for FlowTracker<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTracker")
            .field("len", &self.len())
            .field("ingest", &self.ingest)
            .field("counters", self.counters())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
