//! The program's table of shunted flows.
//!
//! Contract: a flow is taken out of `shunts` before its counters are read for the last time, and no other flow is put in its
//! place until every program has ended that may have found it: an element of a hash map that was deleted may be another's at
//! once.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;

use super::sys;
use crate::capture::ebpf::{missing, system_error};
use crate::capture::shunt::{ShuntConfig, ShuntSlot, Shunts};
use crate::capture::sys::wait_for_packet_paths;
use crate::flow::{Counted, CountedSide, FlowKey};
use crate::net::TcpFlags;
use crate::time::Timestamp;

/// As the program's `struct shunt_key`.
type RawKey = [u8; 44];

/// As the program's `struct shunt_counts`: packets, bytes, time of the last one, what was seen; by end.
type RawCounts = [u64; 8];

const SEEN_DATA: u64 = 1 << 8;
const SEEN_ACK: u64 = 1 << 9;
const SEEN_ZERO_WINDOW: u64 = 1 << 10;

/// The maps outlive the program: what was counted can be read when it is gone.
#[derive(Debug)]
pub(super) struct ShuntTable(Mutex<Maps>);

struct Maps {
    places: HashMap<MapData, RawKey, u32>,
    counters: PerCpuArray<MapData, RawCounts>,
    free: Vec<u32>,
    cpus: usize,
}

impl ShuntTable {
    pub(super) fn take(ebpf: &mut Ebpf, config: &ShuntConfig) -> io::Result<Self> {
        let places = ebpf.take_map("shunts").ok_or_else(|| missing("map shunts"))?;
        let counters =
            ebpf.take_map("shunt_counters").ok_or_else(|| missing("map shunt_counters"))?;
        Ok(Self(Mutex::new(Maps {
            places: places.try_into().map_err(system_error)?,
            counters: counters.try_into().map_err(system_error)?,
            free: (0..config.flows_max).rev().collect(),
            cpus: nr_cpus().map_err(|(_, error)| error)?,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shunts for ShuntTable {
    fn insert(&self, key: &FlowKey, reader: u32) -> io::Result<Option<ShuntSlot>> {
        const BPF_NOEXIST: u64 = 1;
        let mut maps = self.lock();
        let Some(slot) = maps.free.pop() else { return Ok(None) };
        let zero = PerCpuValues::try_from(vec![[0; 8]; maps.cpus]);
        let set = zero.map_err(io::Error::other).and_then(|zero| {
            maps.counters.set(slot, zero, 0).map_err(system_error)?;
            maps.places.insert(raw_key(key, reader), slot, BPF_NOEXIST).map_err(system_error)
        });
        match set {
            Ok(()) => Ok(Some(ShuntSlot(slot))),
            Err(error) => {
                maps.free.push(slot);
                match error.raw_os_error() {
                    // Full, or there already.
                    Some(libc::E2BIG | libc::EEXIST) => Ok(None),
                    _ => Err(error),
                }
            }
        }
    }

    fn read(&self, slot: ShuntSlot) -> io::Result<Counted> {
        let by_cpu = self.lock().counters.get(&slot.0, 0).map_err(system_error)?;
        let (real_ns, monotonic_ns) = sys::clocks_ns();
        let mut counted = Counted::default();
        for counts in by_cpu.iter() {
            let mut one = Counted::default();
            for (side, raw) in one.sides.iter_mut().zip(counts.chunks_exact(4)) {
                *side = counted_side(raw, real_ns.wrapping_sub(monotonic_ns));
            }
            counted.add(&one);
        }
        Ok(counted)
    }

    fn remove(&self, key: &FlowKey, reader: u32) -> io::Result<()> {
        let removed = self.lock().places.remove(&raw_key(key, reader)).map_err(system_error);
        removed.or_else(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(()),
            _ => Err(error),
        })
    }

    fn settle(&self) {
        // Nothing may be put in a place that was just left.
        let _maps = self.lock();
        wait_for_packet_paths();
    }

    fn free(&self, slot: ShuntSlot) {
        self.lock().free.push(slot.0);
    }
}

fn counted_side(raw: &[u64], real_minus_monotonic_ns: u64) -> CountedSide {
    let &[packets, bytes, last_ns, seen] = raw else { return CountedSide::default() };
    if packets == 0 {
        return CountedSide::default();
    }
    CountedSide {
        packets,
        bytes,
        last: Timestamp::from_nanos(last_ns.wrapping_add(real_minus_monotonic_ns)),
        tcp_flags: TcpFlags(seen as u8),
        has_data: seen & SEEN_DATA != 0,
        has_ack: seen & SEEN_ACK != 0,
        has_zero_window: seen & SEEN_ZERO_WINDOW != 0,
    }
}

/// The interface is not in it: each has a table of its own.
fn raw_key(key: &FlowKey, reader: u32) -> RawKey {
    let mut raw = [0; 44];
    raw[..16].copy_from_slice(&key.a().0);
    raw[16..32].copy_from_slice(&key.b().0);
    raw[32..34].copy_from_slice(&key.port_a().to_ne_bytes());
    raw[34..36].copy_from_slice(&key.port_b().to_ne_bytes());
    raw[36..38].copy_from_slice(&[key.proto().0, key.version() as u8]);
    let words = [key.scope().vlans[0], key.scope().vlans[1], reader as u16];
    for (place, word) in raw[38..].chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    raw
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("free", &self.free.len()).finish_non_exhaustive()
    }
}
