//! What is asked of memory before packets come to it.

use std::hint::select_unpredictable;

use super::super::entry::Entry;
use super::super::key::TableKey;
use super::super::observer::{FlowId, FlowObserver};
use super::super::packet::Packet;
use super::super::table::tag;
use super::Flows;
use crate::pages::clear;
use crate::prefetch::prefetch;

impl<K: TableKey> Flows<K> {
    /// Asks for the bucket where the search for a key begins.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.table.prefetch(tag(hash));
    }

    /// Asks for what a packet looks at first: the entry's first line, its second one for a segment of TCP, which is no branch, for
    /// it would be guessed wrongly; and the wide part of a key that has one.
    #[inline]
    fn prefetch_entry(&self, slot: u32, packet: &Packet<K>) {
        let Some(entry) = self.entries.get(slot as usize) else { return };
        prefetch(entry);
        // One in the second line and one in the first.
        prefetch(select_unpredictable(packet.tcp.is_some(), &entry.first, &entry.last));
        if packet.key.is_wide() {
            self.wides.prefetch(slot);
        }
    }

    /// Asks for both lines of an entry.
    #[inline]
    pub(super) fn prefetch_whole(&self, slot: u32) {
        if let Some(entry) = self.entries.get(slot as usize) {
            prefetch(entry);
            prefetch(&entry.track);
        }
    }

    /// Asks for what a packet will change beyond that.
    ///
    /// Whether it will is no branch, which would be guessed wrongly here and once more when the packet is accounted: for one
    /// that will not, what is asked for is at hand.
    #[inline]
    pub fn prefetch_timer(&self, slot: u32, packet: &Packet<K>) {
        let Some(entry) = self.entries.get(slot as usize) else { return };
        let Some(tcp) = &packet.tcp else {
            // The second packet moves it in the wheel.
            if entry.packets_or_many() == 1 {
                prefetch(&entry.track);
                self.wheel.prefetch(slot);
            }
            return;
        };
        let is_common = entry.track.looks_common(packet.end, tcp, packet.payload.wire);
        self.wheel.prefetch(select_unpredictable(is_common, 0, slot));
    }

    /// Puts down which slot probably has each packet's key, or `NONE`, and asks for what the packet looks at first there. Looks at
    /// buckets only. A call, as [`account_all`](Self::account_all) is: in one function with all else a loop has too few registers.
    #[inline(never)]
    pub fn look_ahead<O: FlowObserver<K>>(
        &self,
        packets: &[Packet<K>],
        found: &mut [u32],
        observer: &mut O,
    ) {
        for (slot, packet) in found.iter_mut().zip(packets) {
            *slot = self.table.peek(tag(packet.hash));
            self.prefetch_entry(*slot, packet);
            observer.prefetch(FlowId(*slot));
        }
    }

    /// So many entries are cleared at a time: 64 KiB.
    pub(super) const CLEARED: usize =
        (64 << 10) / size_of::<Entry<K::Narrow>>().next_power_of_two();

    /// Has memory cleared for the flows that begin next. As it is whole pages that are, twice as much is asked for.
    #[cold]
    #[inline(never)]
    pub(super) fn clear_ahead(&mut self) {
        let room = self.entries.spare_capacity_mut();
        let next = room.len().min(2 * Self::CLEARED);
        clear(&mut room[..next]);
    }
}
