//! Frames → packets: decode, attribute fragments, extract keys, hash; in batches.
//!
//! A tracker has one of its own. With software steering the reader has the only one, and sends
//! packets to trackers on other cores.

use super::config::TrackerConfig;
#[cfg(any(feature = "sensor", test))]
use super::extract::ByFiveTuple;
use super::extract::{FlowExtractor, request_type};
use super::fragments::{FragmentTable, Held, Placed};
use super::hash::{HashKey, KeyHasher};
#[cfg(any(feature = "sensor", test))]
use super::key::FlowKey;
use super::packet::{Packet, PacketSink, Role};
#[cfg(any(feature = "sensor", test))]
use crate::decode::glance::Glance;
use crate::decode::{
    Fault, Layers, OnLayers, Payload, Transport, decode_any, decode_for, decode_quoted,
    decode_wider,
};
use crate::frame::Frame;
use crate::net::IpProto;
use crate::prefetch::prefetch_ends;
use crate::time::{Timestamp, duration_ns};

/// Headers of a frame are fetched so many frames ahead.
const FRAMES_AHEAD: usize = 8;
/// So many frames are looked at before what else there is to do goes on.
const FRAMES_A_CALL: usize = 16;
/// What looking at a frame is of all that is done for it, in eighths.
const EIGHTHS: usize = 3;

/// Frames that are no further apart on average are close.
const CLOSE_BYTES: usize = 96;

/// Ethernet, IPv4, and TCP without options: what is looked at of nearly every frame.
const HEADERS_BYTES: usize = 14 + 20 + 20;

/// [`Packet::frame`] where no frame is at hand.
const NO_FRAME: u32 = u32::MAX;

/// Turns frames into packets with keys.
pub struct Ingest<E: FlowExtractor> {
    extractor: E,
    hasher: KeyHasher,
    fragments: FragmentTable,
    /// The latest time seen.
    clock: Timestamp,
    /// When the fragment table next has work: before the first frame at or after it, so that it does not matter how frames
    /// are cut into batches.
    due: Timestamp,
    counters: IngestCounters,
}

/// Where the frames went. `frames = unmatched + held + packets`, at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounters {
    /// Frames taken in.
    pub frames: u64,
    /// Frames that the extractor has no key for.
    pub unmatched: u64,
    /// Bytes on the wire of those.
    pub unmatched_bytes: u64,
    /// Unmatched frames by [`Fault`], in the order of its numbers; those
    /// without a fault are simply not of the kind that the key wants.
    pub faults: [u64; 7],
    /// Frames handed on, fragments included.
    pub packets: u64,
    /// Later fragments waiting for their first one.
    pub held: u64,
    /// Later fragments whose first one did not come in time.
    pub fragments_unattributed: u64,
    /// ICMP errors that quote a packet.
    pub icmp_quotes: u64,
}

/// A frame of a batch of which not all are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chosen {
    /// Its place in the batch.
    pub index: u16,
    /// The latest time that it and all frames before it showed, those that are not looked at included.
    pub latest: Timestamp,
}

impl<E: FlowExtractor> Ingest<E> {
    /// `max_datagrams` and `fragment_timeout` of the configuration bound the fragment table, which is to be
    /// [valid](TrackerConfig::validate); keys are hashed by its `key_hash`.
    pub fn new(extractor: E, config: &TrackerConfig) -> Self {
        let timeout_ns = duration_ns(config.fragment_timeout);
        Self {
            extractor,
            hasher: KeyHasher::random(config.key_hash),
            fragments: FragmentTable::new(config.max_datagrams, timeout_ns),
            clock: Timestamp::ZERO,
            due: Timestamp::MAX,
            counters: IngestCounters::default(),
        }
    }

    /// The same with a fixed seed: for measurements that must repeat. Never on untrusted traffic.
    pub fn set_fixed_seed(&mut self) {
        self.hasher.fix();
    }

    /// Gives the packets of `frames` to `packets`; [`Packet::frame`] counts from 0 in `frames`.
    pub fn batch<P: PacketSink<E::Key>>(&mut self, frames: &[Frame<'_>], packets: &mut P) {
        self.batch_meanwhile(frames, packets, &mut |_| ());
    }

    /// The same; [`meanwhile`](crate::FlowTracker::process_meanwhile) is called every few frames. A call, so that its loop has all registers.
    #[inline(never)]
    pub fn batch_meanwhile<P: PacketSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        packets: &mut P,
        meanwhile: &mut impl FnMut(usize),
    ) {
        let all = frames.iter().enumerate().inspect(|(index, _)| {
            if index % FRAMES_A_CALL == 0 {
                meanwhile(FRAMES_A_CALL * EIGHTHS);
            }
        });
        if are_close(frames) {
            self.each(all.map(whole), packets);
        } else {
            self.batch_far(frames, all, packets);
        }
    }

    /// The same of frames that the processor does not fetch by itself. A call: what it asks costs 2 % where they are at hand.
    #[inline(never)]
    fn batch_far<'a, 'f: 'a, P: PacketSink<E::Key>>(
        &mut self,
        frames: &'a [Frame<'f>],
        all: impl Iterator<Item = (usize, &'a Frame<'f>)>,
        packets: &mut P,
    ) {
        let all = all.inspect(|(index, _)| {
            if let Some(later) = frames.get(index + FRAMES_AHEAD) {
                prefetch_ends::<HEADERS_BYTES>(later.data);
            }
        });
        self.each(all.map(whole), packets);
    }

    /// The same of some of `frames`, in their order. The others are not counted here, and make no difference if no fragment is
    /// among them and none can be [given up on](Self::may_give_up) before their end.
    pub fn batch_of<P: PacketSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        chosen: &[Chosen],
        packets: &mut P,
    ) {
        let chosen = chosen.iter().filter_map(|&Chosen { index, latest }| {
            let index = usize::from(index);
            Some((index, frames.get(index)?, latest))
        });
        self.each(chosen, packets);
    }

    /// The same of `frames` between which others came that are not looked at; `latest` are the latest times that all up to each one
    /// showed.
    #[inline(never)]
    pub fn batch_between<P: PacketSink<E::Key>>(
        &mut self,
        frames: &[Frame<'_>],
        latest: impl Iterator<Item = Timestamp>,
        packets: &mut P,
    ) {
        let all = frames.iter().enumerate().zip(latest);
        self.each(all.map(|((index, frame), latest)| (index, frame, latest)), packets);
    }

    /// Frames with their places and the latest time that frames up to them showed.
    #[inline(always)]
    fn each<'a, 'f: 'a, P: PacketSink<E::Key>>(
        &mut self,
        frames: impl Iterator<Item = (usize, &'a Frame<'f>, Timestamp)>,
        packets: &mut P,
    ) {
        // Which hash it is, is looked at once a batch. A key that a call may want to see lies in memory.
        match self.hasher.clone() {
            KeyHasher::Fast(fast) => self.each_hashed(&fast, frames, packets),
            KeyHasher::Sip(sip) => self.each_hashed(&sip, frames, packets),
        }
        self.counters.held = self.fragments.held();
    }

    #[inline(always)]
    fn each_hashed<'a, 'f: 'a, P: PacketSink<E::Key>>(
        &mut self,
        hasher: &impl HashKey,
        frames: impl Iterator<Item = (usize, &'a Frame<'f>, Timestamp)>,
        packets: &mut P,
    ) {
        let mut taken = 0;
        for (index, frame, latest) in frames {
            taken += 1;
            self.pass(frame.ts, latest, packets);
            decode_for(frame, OneFrame { ingest: self, hasher, frame, index, packets });
        }
        self.counters.frames += taken;
    }

    /// The latest time is known of one frame more.
    #[inline(always)]
    fn pass(&mut self, ts: Timestamp, latest: Timestamp, packets: &mut impl PacketSink<E::Key>) {
        self.clock = self.clock.max(latest);
        if ts >= self.due {
            self.handle_timeout(ts, packets);
        }
    }

    #[inline(always)]
    fn one<P: PacketSink<E::Key>>(
        &mut self,
        hasher: &impl HashKey,
        frame: &Frame<'_>,
        index: usize,
        layers: &Layers,
        packets: &mut P,
    ) {
        let Some(extracted) = self.extractor.extract(layers) else {
            self.unmatched(frame.wire_len, layers.fault);
            return;
        };
        self.counters.packets += 1;
        let tcp = match layers.transport {
            Transport::Tcp(tcp) => Some(tcp),
            _ => None,
        };
        packets.push(Packet {
            key: extracted.key,
            hash: hasher.hash(&extracted.key),
            ts: frame.ts,
            clock: self.clock,
            wire_bytes: u64::from(frame.wire_len),
            frames: 1,
            end: extracted.end,
            role: Role::Packet,
            proto: layers.ip.map_or(IpProto(0), |ip| ip.proto),
            vlan: vlan(layers),
            is_reply: is_reply(layers),
            tcp,
            payload: layers.payload,
            frame: index as u32,
        });
    }

    /// A frame of a common stack that is not IPv4 right behind Ethernet.
    #[inline(never)]
    fn wider<P: PacketSink<E::Key>>(
        &mut self,
        hasher: &impl HashKey,
        frame: &Frame<'_>,
        index: usize,
        packets: &mut P,
    ) {
        decode_wider(frame, OneFrame { ingest: self, hasher, frame, index, packets });
    }

    /// A frame of no common stack.
    #[cold]
    #[inline(never)]
    fn general<P: PacketSink<E::Key>>(&mut self, frame: &Frame<'_>, index: usize, packets: &mut P) {
        let layers = decode_any(frame);
        let odd = layers.ip.is_some_and(|ip| ip.fragment.is_some())
            || matches!(layers.transport, Transport::Icmp(icmp) if icmp.quoted_at.is_some());
        if odd {
            self.odd(frame, index, layers, packets);
        } else {
            self.one_general(frame, index, &layers, packets);
        }
    }

    #[inline(never)]
    fn one_general<P: PacketSink<E::Key>>(
        &mut self,
        frame: &Frame<'_>,
        index: usize,
        layers: &Layers,
        packets: &mut P,
    ) {
        let hasher = self.hasher.clone();
        self.one(&hasher, frame, index, layers, packets);
    }

    #[cold]
    fn unmatched(&mut self, wire_len: u32, fault: Option<Fault>) {
        self.counters.unmatched += 1;
        self.counters.unmatched_bytes += u64::from(wire_len);
        if let Some(fault) = fault {
            self.counters.faults[fault as usize] += 1;
        }
    }

    /// Fragments, and ICMP errors with the packet that they quote.
    #[cold]
    fn odd<P: PacketSink<E::Key>>(
        &mut self,
        frame: &Frame<'_>,
        index: usize,
        mut layers: Layers,
        packets: &mut P,
    ) {
        let Self { extractor, hasher, fragments, clock, counters, .. } = self;
        let mut giver = Giver { extractor, hasher, clock: *clock, counters, packets };
        let mut room = |held| giver.give_up(held);
        let placed = fragments.place(&layers, frame.ts, frame.wire_len, &mut room);
        self.due = self.fragments.next_due().unwrap_or(Timestamp::MAX);
        match placed {
            None => self.one_general(frame, index, &layers, packets),
            Some(Placed::Waits) => return,
            Some(Placed::Known(proto, transport, waited)) => {
                layers.transport = transport;
                set_proto(&mut layers, proto);
                self.one_general(frame, index, &layers, packets);
                if let Some(mut held) = waited {
                    set_proto(&mut held.layers, proto);
                    // Their bytes are gone, so they are no TCP segments, but they have its ports.
                    held.layers.transport = match transport {
                        Transport::Tcp(tcp) => Transport::Ports { src: tcp.src, dst: tcp.dst },
                        Transport::Icmp(mut icmp) => {
                            icmp.quoted_at = None;
                            Transport::Icmp(icmp)
                        }
                        ports => ports,
                    };
                    let Self { extractor, hasher, clock, counters, .. } = self;
                    Giver { extractor, hasher, clock: *clock, counters, packets }
                        .push(&held, Role::Packet);
                }
            }
        }
        if let Transport::Icmp(icmp) = layers.transport
            && let Some(at) = icmp.quoted_at
        {
            self.quote(frame, &layers, at, packets);
        }
    }

    /// A note to the flow that an ICMP error quotes.
    fn quote<P: PacketSink<E::Key>>(
        &mut self,
        frame: &Frame<'_>,
        outer: &Layers,
        at: u32,
        packets: &mut P,
    ) {
        let quoted = Layers {
            macs: outer.macs,
            vlans: outer.vlans,
            interface: outer.interface,
            ..decode_quoted(frame, at)
        };
        self.counters.icmp_quotes += 1;
        let Some(extracted) = self.extractor.extract(&quoted) else { return };
        packets.push(Packet {
            key: extracted.key,
            hash: self.hasher.hash(&extracted.key),
            ts: frame.ts,
            clock: self.clock,
            wire_bytes: 0,
            frames: 0,
            end: extracted.end,
            role: Role::IcmpQuote,
            proto: quoted.ip.map_or(IpProto(0), |ip| ip.proto),
            vlan: 0,
            is_reply: false,
            tcp: None,
            payload: Payload::default(),
            frame: 0,
        });
    }

    /// Whether fragments may have to be given up on while frames of these times come, those that come with them included.
    pub fn may_give_up(&self, earliest: Timestamp, latest: Timestamp) -> bool {
        latest >= self.due || latest.nanos_since(earliest) >= self.fragments.timeout_ns()
    }

    /// When [`handle_timeout`](Self::handle_timeout) next has work.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.fragments.next_due()
    }

    /// Gives up on datagrams whose time is over, and hands on the fragments that waited.
    pub fn handle_timeout<P: PacketSink<E::Key>>(&mut self, now: Timestamp, packets: &mut P) {
        self.clock = self.clock.max(now);
        let Self { extractor, hasher, fragments, clock, counters, .. } = self;
        let mut giver = Giver { extractor, hasher, clock: *clock, counters, packets };
        fragments.expire(now, &mut |held| giver.give_up(held));
        counters.held = fragments.held();
        self.due = self.fragments.next_due().unwrap_or(Timestamp::MAX);
    }

    /// Gives up on all datagrams.
    pub fn drain<P: PacketSink<E::Key>>(&mut self, packets: &mut P) {
        let Self { extractor, hasher, fragments, clock, counters, .. } = self;
        let mut giver = Giver { extractor, hasher, clock: *clock, counters, packets };
        fragments.drain(&mut |held| giver.give_up(held));
        counters.held = fragments.held();
        self.due = Timestamp::MAX;
    }

    /// The hash that packets with this key carry.
    pub fn hash(&self, key: &E::Key) -> u64 {
        self.hasher.hash(key)
    }

    /// Where the frames went.
    pub fn counters(&self) -> &IngestCounters {
        &self.counters
    }
}

/// What there is of a frame.
#[cfg(any(feature = "sensor", test))]
pub(crate) enum Seen<'a, 'f> {
    /// What somebody else saw of it.
    Glance(&'a Glance),
    /// Its number in its batch, itself, and the latest time that all up to it showed.
    Frame(usize, &'a Frame<'f>, Timestamp),
}

#[cfg(any(feature = "sensor", test))]
impl Ingest<ByFiveTuple> {
    /// [`batch_between`](Self::batch_between) of frames of which somebody else saw some: packets of those have no frame.
    #[inline(never)]
    pub(crate) fn batch_seen<'a, 'f: 'a>(
        &mut self,
        seen: impl Iterator<Item = Seen<'a, 'f>>,
        packets: &mut impl PacketSink<FlowKey>,
    ) {
        match self.hasher.clone() {
            KeyHasher::Fast(fast) => self.each_seen(&fast, seen, packets),
            KeyHasher::Sip(sip) => self.each_seen(&sip, seen, packets),
        }
        self.counters.held = self.fragments.held();
    }

    #[inline(always)]
    fn each_seen<'a, 'f: 'a>(
        &mut self,
        hasher: &impl HashKey,
        seen: impl Iterator<Item = Seen<'a, 'f>>,
        packets: &mut impl PacketSink<FlowKey>,
    ) {
        let mut taken = 0;
        for seen in seen {
            taken += 1;
            match seen {
                Seen::Glance(glance) => {
                    let frame = &glance.frame();
                    self.pass(frame.ts, glance.latest(), packets);
                    let index = NO_FRAME as usize;
                    glance.tell(OneFrame { ingest: self, hasher, frame, index, packets });
                }
                Seen::Frame(index, frame, latest) => {
                    self.pass(frame.ts, latest, packets);
                    decode_for(frame, OneFrame { ingest: self, hasher, frame, index, packets });
                }
            }
        }
        self.counters.frames += taken;
    }
}

/// A frame of a batch of which all are looked at.
fn whole<'a, 'f>((index, frame): (usize, &'a Frame<'f>)) -> (usize, &'a Frame<'f>, Timestamp) {
    (index, frame, frame.ts)
}

/// Whether frames are so close to each other in memory that the processor fetches them by itself.
fn are_close(frames: &[Frame<'_>]) -> bool {
    let at = |frame: Option<&Frame<'_>>| frame.map_or(0, |frame| frame.data.as_ptr().addr());
    at(frames.last()).wrapping_sub(at(frames.first())) / CLOSE_BYTES <= frames.len()
}

/// A frame on its way to being a packet.
struct OneFrame<'a, 'f, E: FlowExtractor, H, P> {
    ingest: &'a mut Ingest<E>,
    hasher: &'a H,
    frame: &'a Frame<'f>,
    index: usize,
    packets: &'a mut P,
}

impl<E: FlowExtractor, H: HashKey, P: PacketSink<E::Key>> OnLayers for OneFrame<'_, '_, E, H, P> {
    type Out = ();

    #[inline(always)]
    fn plain(self, layers: &Layers) {
        self.ingest.one(self.hasher, self.frame, self.index, layers, self.packets);
    }

    #[inline(always)]
    fn wider(self, frame: &Frame<'_>) {
        self.ingest.wider(self.hasher, frame, self.index, self.packets);
    }

    /// A call with few arguments, all in registers: a frame on its way is never laid down in memory.
    #[inline(always)]
    fn general(self, frame: &Frame<'_>) {
        self.ingest.general(frame, self.index, self.packets);
    }
}

#[inline]
fn vlan(layers: &Layers) -> u16 {
    if layers.vlans.depth == 0 { 0 } else { layers.vlans.ids[0] + 1 }
}

fn set_proto(layers: &mut Layers, proto: IpProto) {
    if let Some(ip) = &mut layers.ip {
        ip.proto = proto;
    }
}

#[inline]
fn is_reply(layers: &Layers) -> bool {
    match (&layers.transport, &layers.ip) {
        (Transport::Icmp(icmp), Some(ip)) => request_type(ip.proto, icmp.ty) != icmp.ty,
        _ => false,
    }
}

/// Hands on fragments that waited.
struct Giver<'a, E: FlowExtractor, P> {
    extractor: &'a E,
    hasher: &'a KeyHasher,
    clock: Timestamp,
    counters: &'a mut IngestCounters,
    packets: &'a mut P,
}

impl<E: FlowExtractor, P: PacketSink<E::Key>> Giver<'_, E, P> {
    /// Those whose first one never came: their flow is the one with ports 0.
    fn give_up(&mut self, held: Held) {
        self.counters.fragments_unattributed += u64::from(held.frames);
        self.push(&held, Role::Unattributed);
    }

    fn push(&mut self, held: &Held, role: Role) {
        let Some(extracted) = self.extractor.extract(&held.layers) else {
            self.counters.unmatched += u64::from(held.frames);
            self.counters.unmatched_bytes += held.wire_bytes;
            return;
        };
        self.counters.packets += u64::from(held.frames);
        self.packets.push(Packet {
            key: extracted.key,
            hash: self.hasher.hash(&extracted.key),
            ts: held.times.0,
            clock: self.clock,
            wire_bytes: held.wire_bytes,
            frames: held.frames,
            end: extracted.end,
            role,
            proto: held.layers.ip.map_or(IpProto(0), |ip| ip.proto),
            vlan: vlan(&held.layers),
            is_reply: is_reply(&held.layers),
            tcp: None,
            payload: Payload::default(),
            frame: NO_FRAME,
        });
    }
}

impl<E: FlowExtractor> std::fmt::Debug for Ingest<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("counters", &self.counters)
            .field("fragments", &self.fragments)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ByFiveTuple;
    use crate::frame::LinkType;

    /// A frame of UDP: number `n` of as many flows, with so many bytes behind its headers.
    fn udp(n: u8, payload: u16) -> Vec<u8> {
        let mut frame = [&[2; 12][..], &[8, 0, 0x45, 0]].concat();
        frame.extend((28 + payload).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, n, 192, 0, 2, 1, 0x9c, 0x40, 0, 80]);
        frame.extend((8 + payload).to_be_bytes());
        frame.resize(frame.len() + 2 + usize::from(payload), 0);
        frame
    }

    /// The packets of these frames, which lie one behind the other.
    fn packets(frames: &[Vec<u8>]) -> Vec<Packet<crate::flow::FlowKey>> {
        let bytes = frames.concat();
        let mut rest = &bytes[..];
        let frames: Vec<_> = (0..)
            .zip(frames)
            .map(|(index, frame)| {
                let (data, later) = rest.split_at(frame.len());
                rest = later;
                let ts = Timestamp::from_nanos(index);
                Frame { ts, wire_len: 0, link: LinkType::ETHERNET, interface: 0, data }
            })
            .collect();
        let mut ingest = Ingest::new(ByFiveTuple::default(), &TrackerConfig::default());
        ingest.set_fixed_seed();
        let mut packets = Vec::new();
        ingest.batch(&frames, &mut packets);
        assert_eq!(ingest.counters().frames, frames.len() as u64);
        packets
    }

    /// Some are too short for what is fetched ahead, and the last ones have none ahead of them.
    #[test]
    fn how_far_apart_frames_lie_makes_no_difference() {
        let all =
            |payload: u16| (0..40).map(|n| udp(n, payload * u16::from(n))).collect::<Vec<_>>();
        let (close, far) = (packets(&all(0)), packets(&all(100)));
        assert_eq!(close.len(), 40);
        for (close, far) in close.iter().zip(&far) {
            assert_eq!((close.key, close.hash, close.ts), (far.key, far.hash, far.ts));
            assert_eq!((close.clock, close.frame), (far.clock, far.frame));
        }
        assert_eq!(far.len(), 40);
    }

    /// Every third frame is seen by somebody else.
    #[test]
    fn what_was_seen_of_a_frame_makes_the_same_packet() {
        use crate::decode::glance::{OnGlance, look};

        struct Keep(Option<Glance>);

        impl OnGlance for Keep {
            fn told(&mut self, _: u16, glance: Glance) {
                self.0 = Some(glance);
            }

            fn untold(&mut self, _: Option<u16>) {}
        }

        let bytes: Vec<_> = (0..40).map(|n| udp(n, u16::from(n))).collect();
        let frames: Vec<_> = (0..)
            .zip(&bytes)
            .map(|(index, data)| {
                // Every fourth one is late.
                let ts =
                    Timestamp::from_nanos(1_000 + 10 * index - if index % 4 == 3 { 15 } else { 0 });
                Frame { ts, wire_len: 90, link: LinkType::ETHERNET, interface: 0, data }
            })
            .collect();
        let mut latest = Timestamp::ZERO;
        let seen: Vec<_> = frames
            .iter()
            .enumerate()
            .map(|(index, frame)| {
                latest = latest.max(frame.ts);
                let mut kept = Keep(None);
                if index % 3 == 0 {
                    look(frame, latest.nanos_since(frame.ts) as u32, &mut kept);
                    assert!(kept.0.is_some());
                }
                (kept.0, (index, frame, latest))
            })
            .collect();
        let ingest = || {
            let mut ingest = Ingest::new(ByFiveTuple::default(), &TrackerConfig::default());
            ingest.set_fixed_seed();
            ingest
        };
        let (mut all, mut some) = (ingest(), ingest());
        let (mut packets, mut seen_packets) = (Vec::new(), Vec::new());
        all.batch(&frames, &mut packets);
        let seen = seen.iter().map(|(glance, (index, frame, latest))| match glance {
            Some(glance) => Seen::Glance(glance),
            None => Seen::Frame(*index, frame, *latest),
        });
        some.batch_seen(seen, &mut seen_packets);
        for packet in packets.iter_mut().step_by(3) {
            packet.frame = NO_FRAME;
        }
        assert_eq!(packets, seen_packets);
        assert_eq!(packets.len(), 40);
        assert_eq!(format!("{:?}", all.counters()), format!("{:?}", some.counters()));
    }
}
