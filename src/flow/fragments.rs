//! Later fragments find the flow of their datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Contract: bounded by a number of datagrams, not of fragments: fragments that come before
//! their first one are held as a sum, never as bytes. A datagram is followed for a fixed time
//! from its first frame seen; when the table is full the oldest makes room. Whatever was held is handed
//! out again exactly once.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::SeedableRandomState;

use crate::decode::{Layers, Transport};
use crate::net::{Addr, IpProto, IpVersion, TcpFlags};
use crate::time::Timestamp;

/// What identifies a datagram, in one direction: the four fields of RFC 791, of which RFC 8200
/// leaves out the protocol, since extension headers may follow in the first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DatagramKey {
    src: Addr,
    dst: Addr,
    id: u32,
    proto: IpProto,
}

/// Fragments waiting for the first one of their datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The layers of the earliest of them; without ports, until they are known.
    pub layers: Layers,
    /// Time of the earliest and of the latest.
    pub times: (Timestamp, Timestamp),
    /// How many.
    pub frames: u32,
    /// Their bytes on the wire.
    pub wire_bytes: u64,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Its datagram is known: the protocol and transport to account it under, and what had waited
    /// for them.
    Known(IpProto, Transport, Option<Held>),
    /// It waits.
    Waits,
}

#[derive(Clone, Debug)]
struct Datagram {
    /// Protocol and transport header of the first fragment.
    first: Option<(IpProto, Transport)>,
    held: Option<Held>,
    born: u64,
}

/// The table of datagrams.
#[derive(Debug)]
pub struct FragmentTable {
    datagrams: HashMap<DatagramKey, Datagram, SeedableRandomState>,
    /// In order of age, hence of deadline. `born` tells a datagram from a later one of the same key.
    queue: VecDeque<(Timestamp, u64, DatagramKey)>,
    max: usize,
    timeout_ns: u64,
    births: u64,
    held: u64,
}

impl FragmentTable {
    /// Follows up to `max` datagrams, each for `timeout_ns`.
    pub fn new(max: usize, timeout_ns: u64) -> Self {
        Self {
            datagrams: HashMap::with_capacity_and_hasher(max, SeedableRandomState::random()),
            queue: VecDeque::with_capacity(max + 1),
            max,
            timeout_ns,
            births: 0,
            held: 0,
        }
    }

    /// Fragments that wait.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Datagrams followed.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Places a fragment; `None` when `layers` is not one. `room` takes what had waited in a datagram
    /// that had to make room.
    pub fn place(
        &mut self,
        layers: &Layers,
        ts: Timestamp,
        wire_len: u32,
        room: &mut impl FnMut(Held),
    ) -> Option<Placed> {
        let ip = layers.ip.as_ref()?;
        let fragment = ip.fragment?;
        let proto = if ip.version == IpVersion::V4 { ip.proto } else { IpProto::default() };
        let key = DatagramKey { src: ip.src, dst: ip.dst, id: fragment.id, proto };
        if !self.datagrams.contains_key(&key) {
            if self.datagrams.len() >= self.max {
                self.give_up_oldest(room);
            }
            self.births += 1;
            let born = self.births;
            self.datagrams.insert(key, Datagram { first: None, held: None, born });
            self.queue.push_back((ts.plus_nanos(self.timeout_ns), born, key));
        }
        let datagram = self.datagrams.get_mut(&key)?;
        if fragment.offset == 0 {
            datagram.first = Some((ip.proto, layers.transport));
            let waited = datagram.held.take();
            self.held -= waited.map_or(0, |held| u64::from(held.frames));
            let mut transport = layers.transport;
            if let Transport::Tcp(tcp) = &mut transport {
                // The FIN is after the last byte, which is in the last fragment.
                tcp.flags.0 &= !TcpFlags::FIN.0;
            }
            return Some(Placed::Known(ip.proto, transport, waited));
        }
        if let Some((proto, first)) = datagram.first {
            let transport = later(first, fragment.offset, fragment.more);
            return Some(Placed::Known(proto, transport, None));
        }
        self.held += 1;
        match &mut datagram.held {
            Some(held) => {
                held.frames = held.frames.saturating_add(1);
                held.wire_bytes += u64::from(wire_len);
                held.times = (held.times.0.min(ts), held.times.1.max(ts));
            }
            None => {
                datagram.held = Some(Held {
                    layers: *layers,
                    times: (ts, ts),
                    frames: 1,
                    wire_bytes: u64::from(wire_len),
                });
            }
        }
        Some(Placed::Waits)
    }

    /// How long a datagram is followed.
    pub fn timeout_ns(&self) -> u64 {
        self.timeout_ns
    }

    /// When the oldest datagram's time is over.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.queue.front().map(|&(deadline, ..)| deadline)
    }

    /// Forgets datagrams whose time is over at `now`, and hands out what waited in them.
    pub fn expire(&mut self, now: Timestamp, out: &mut impl FnMut(Held)) {
        while self.next_due().is_some_and(|deadline| deadline <= now) {
            self.give_up_oldest(out);
        }
    }

    /// Forgets every datagram, and hands out what waited in them.
    pub fn drain(&mut self, out: &mut impl FnMut(Held)) {
        while !self.queue.is_empty() {
            self.give_up_oldest(out);
        }
    }

    fn give_up_oldest(&mut self, out: &mut impl FnMut(Held)) {
        let Some((_, born, key)) = self.queue.pop_front() else { return };
        debug_assert_eq!(self.datagrams.get(&key).map(|datagram| datagram.born), Some(born));
        if let Some(held) = self.datagrams.remove(&key).and_then(|datagram| datagram.held) {
            self.held -= u64::from(held.frames);
            out(held);
        }
    }
}

/// The transport of a later fragment: that of the first one, moved on to its own bytes.
fn later(first: Transport, offset: u32, more: bool) -> Transport {
    match first {
        // A SYN or RST is one segment with its data: too odd to be taken apart.
        Transport::Tcp(tcp) if tcp.flags.0 & (TcpFlags::SYN.0 | TcpFlags::RST.0) != 0 => {
            Transport::Ports { src: tcp.src, dst: tcp.dst }
        }
        Transport::Tcp(mut tcp) => {
            let from_first = offset.wrapping_sub(u32::from(tcp.header_len));
            tcp.seq = tcp.seq.wrapping_add(from_first);
            if more {
                // The FIN is after the last byte, which is in the last fragment.
                tcp.flags.0 &= !TcpFlags::FIN.0;
            }
            Transport::Tcp(tcp)
        }
        Transport::Icmp(mut icmp) => {
            icmp.quoted_at = None;
            Transport::Icmp(icmp)
        }
        ports => ports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Fragment, IpLayer, Payload, TcpHeader, VlanStack};
    use proptest::prelude::*;

    fn fragment(id: u32, offset: u32, more: bool, transport: Transport) -> Layers {
        Layers {
            macs: None,
            vlans: VlanStack::default(),
            interface: 0,
            ip: Some(IpLayer {
                version: IpVersion::V4,
                proto: IpProto::UDP,
                src: Addr::v4([192, 0, 2, 1]),
                dst: Addr::v4([192, 0, 2, 2]),
                flow_label: 0,
                fragment: Some(Fragment { id, offset, more }),
            }),
            transport,
            payload: Payload::default(),
            fault: None,
        }
    }

    const PORTS: Transport = Transport::Ports { src: 1000, dst: 53 };

    fn at(secs: u64) -> Timestamp {
        Timestamp::new(secs, 0)
    }

    fn place(table: &mut FragmentTable, layers: &Layers, secs: u64) -> Option<Placed> {
        table.place(layers, at(secs), 100, &mut |_| ())
    }

    #[test]
    fn a_later_fragment_takes_the_ports_of_the_first() {
        let mut table = FragmentTable::new(4, 1);
        let first = place(&mut table, &fragment(7, 0, true, PORTS), 1);
        assert_eq!(first, Some(Placed::Known(IpProto::UDP, PORTS, None)));
        let last = place(&mut table, &fragment(7, 1480, false, Transport::None), 1);
        assert_eq!(last, Some(Placed::Known(IpProto::UDP, PORTS, None)));
        let other = place(&mut table, &fragment(8, 1480, false, Transport::None), 1);
        assert_eq!(other, Some(Placed::Waits));
    }

    #[test]
    fn fragments_before_the_first_one_wait_as_a_sum() {
        let mut table = FragmentTable::new(4, 1);
        for secs in [5, 3] {
            let waits = place(&mut table, &fragment(7, 1480, false, Transport::None), secs);
            assert_eq!(waits, Some(Placed::Waits));
        }
        assert_eq!(table.held(), 2);
        let Some(Placed::Known(IpProto::UDP, PORTS, Some(held))) =
            place(&mut table, &fragment(7, 0, true, PORTS), 6)
        else {
            panic!("the first fragment is known");
        };
        assert_eq!((held.frames, held.wire_bytes), (2, 200));
        assert_eq!(held.times, (at(3), at(5)));
        assert_eq!(table.held(), 0);
    }

    #[test]
    fn an_ipv6_datagram_is_of_the_protocol_behind_its_first_fragments_extensions() {
        let mut table = FragmentTable::new(4, 1);
        let v6 = |offset, proto, transport| {
            let mut layers = fragment(7, offset, true, transport);
            if let Some(ip) = &mut layers.ip {
                (ip.version, ip.proto) = (IpVersion::V6, proto);
            }
            layers
        };
        place(&mut table, &v6(0, IpProto::UDP, PORTS), 1);
        // Its own header says destination options, which only the first fragment has.
        let later = place(&mut table, &v6(1480, IpProto(60), Transport::None), 1);
        assert_eq!(later, Some(Placed::Known(IpProto::UDP, PORTS, None)));
    }

    #[test]
    fn a_tcp_fragment_continues_the_sequence_numbers() {
        let tcp = TcpHeader {
            src: 1,
            dst: 2,
            seq: u32::MAX,
            ack: 0,
            flags: TcpFlags(TcpFlags::ACK.0 | TcpFlags::FIN.0),
            window: 1,
            header_len: 32,
            window_scale: None,
        };
        let Transport::Tcp(moved) = later(Transport::Tcp(tcp), 1480, true) else {
            panic!("still TCP");
        };
        assert_eq!(moved.seq, u32::MAX.wrapping_add(1448));
        assert_eq!(moved.flags, TcpFlags::ACK);
        let Transport::Tcp(last) = later(Transport::Tcp(tcp), 2960, false) else {
            panic!("still TCP");
        };
        assert!(last.flags.has(TcpFlags::FIN));
    }

    proptest! {
        /// Every fragment is either placed at once or handed out once, whatever the order, and
        /// the table never grows past its bound.
        #[test]
        fn nothing_is_lost_and_nothing_grows(
            frames in prop::collection::vec((0..12u32, 0..3u32, 0..4u64), 0..300)
        ) {
            let mut table = FragmentTable::new(5, 2_000_000_000);
            let (mut placed, mut returned, mut now) = (0u64, 0u64, 0);
            let total = frames.len() as u64;
            for (id, offset, later) in frames {
                now += later / 3;
                let layers = fragment(id, offset * 8, true, if offset == 0 { PORTS } else { Transport::None });
                let mut given_up = 0;
                table.expire(at(now), &mut |held| given_up += u64::from(held.frames));
                let result = table.place(&layers, at(now), 60, &mut |held| given_up += u64::from(held.frames));
                match result {
                    Some(Placed::Known(_, transport, held)) => {
                        prop_assert_eq!(transport, PORTS);
                        placed += 1 + held.map_or(0, |held| u64::from(held.frames));
                    }
                    Some(Placed::Waits) => prop_assert!(offset > 0),
                    None => prop_assert!(false, "it is a fragment"),
                }
                returned += given_up;
                prop_assert!(table.len() <= 5);
            }
            table.drain(&mut |held| returned += u64::from(held.frames));
            prop_assert_eq!(placed + returned, total);
            prop_assert!(table.is_empty());
            prop_assert_eq!(table.held(), 0);
        }
    }
}
