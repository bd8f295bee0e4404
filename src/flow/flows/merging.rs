//! Packets that were counted elsewhere, merged into their flow.

use super::super::entry::coarse;
use super::super::key::TableKey;
use super::super::observer::FlowObserver;
use super::super::packet::{Packet, Role};
use super::super::shunted::Shunted;
use super::{Ears, Flows};
use crate::decode::Payload;
use crate::event::EventSink;
use crate::net::{End, L4};

impl<K: TableKey> Flows<K> {
    /// The flow's key, if it has `above` bytes or more and goes on: a TCP connection that is established and not half
    /// closed.
    pub fn large(&self, slot: u32, above: u64) -> Option<K> {
        let entry = self.entries.get(slot as usize)?;
        let goes_on = entry.track.l4() != L4::Tcp || entry.track.is_established();
        let is_large = entry.bytes[0] + entry.bytes[1] >= above && entry.packets_or_many() != 0;
        (is_large && goes_on).then(|| self.key(slot))
    }

    /// Adds what was counted to the flow; where it is gone, another one begins with it, as it would have with the
    /// packets themselves.
    pub fn merge<O: FlowObserver<K>, S: EventSink<K>>(
        &mut self,
        shunted: &Shunted<K>,
        hash: u64,
        ears: &mut Ears<'_, O, S>,
    ) {
        for end in [End::A, End::B] {
            let side = *shunted.counted.side(end);
            self.clock = self.clock.max(side.last);
            let (mut packets, mut bytes) = (side.packets, side.bytes);
            while packets > 0 {
                // As many as a packet can stand for: one turn, but after hours.
                let frames = u32::try_from(packets).unwrap_or(u32::MAX);
                packets -= u64::from(frames);
                let packet = Packet {
                    key: shunted.key,
                    hash,
                    ts: side.last,
                    clock: self.clock,
                    wire_bytes: std::mem::take(&mut bytes),
                    frames,
                    end,
                    role: Role::Packet,
                    proto: shunted.proto,
                    vlan: 0,
                    is_reply: false,
                    tcp: None,
                    payload: Payload::default(),
                    frame: u32::MAX,
                };
                let Some(slot) = self.find(hash, &shunted.key) else {
                    self.begin(&packet, ears);
                    continue;
                };
                let now = coarse(packet.ts);
                if self.entries[slot as usize].is_due(now) {
                    self.report(slot, ears);
                }
                let entry = &mut self.entries[slot as usize];
                let marks = entry.track.skip(end, &side);
                entry.mark(marks.iter(), end);
                self.count(slot, &packet, now);
            }
        }
    }
}
