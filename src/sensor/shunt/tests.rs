use std::io;
use std::sync::{Mutex, MutexGuard};

use super::yard::Yard;
use super::*;
use crate::capture::shunt::{ShuntSlot, Shunts};
use crate::export::WhenFull;
use crate::flow::{Counted, TrackerConfig};
use crate::frame::LinkType;

/// A table as the kernel has it, and what a test says that its programs count.
#[derive(Debug, Default)]
struct Table(Mutex<Kernel>);

#[derive(Debug, Default)]
struct Kernel {
    room: usize,
    /// By slot; a slot is used once.
    counted: Vec<Counted>,
    shunted: Vec<(FlowKey, u32, usize)>,
    /// Found by a program before it was taken out, which counts only now.
    late: Vec<(usize, u64)>,
    freed: Vec<u32>,
    inserted_unsettled: bool,
    is_settled: bool,
}

impl Table {
    fn with_room(room: usize) -> Arc<Self> {
        let kernel = Kernel { room, is_settled: true, ..Kernel::default() };
        Arc::new(Self(Mutex::new(kernel)))
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }

    /// So many packets of 100 bytes come for every shunted flow, by end A.
    fn receive(&self, packets: u64) {
        let mut kernel = self.kernel();
        let slots: Vec<_> = kernel.shunted.iter().map(|&(.., slot)| slot).collect();
        slots.iter().for_each(|&slot| kernel.count(slot, packets));
    }

    fn len(&self) -> usize {
        self.kernel().shunted.len()
    }
}

impl Kernel {
    fn count(&mut self, slot: usize, packets: u64) {
        let side = &mut self.counted[slot].sides[0];
        side.packets += packets;
        side.bytes += 100 * packets;
        side.last = Timestamp::new(1_000, 0);
    }
}

impl Shunts for Table {
    fn insert(&self, key: &FlowKey, reader: u32) -> io::Result<Option<ShuntSlot>> {
        let mut kernel = self.kernel();
        kernel.inserted_unsettled |= !kernel.is_settled;
        if kernel.shunted.len() == kernel.room {
            return Ok(None);
        }
        let slot = kernel.counted.len();
        kernel.counted.push(Counted::default());
        kernel.shunted.push((*key, reader, slot));
        Ok(Some(ShuntSlot(slot as u32)))
    }

    fn read(&self, slot: ShuntSlot) -> io::Result<Counted> {
        Ok(self.kernel().counted[slot.0 as usize])
    }

    fn remove(&self, key: &FlowKey, reader: u32) -> io::Result<()> {
        let mut kernel = self.kernel();
        let is_it = |shunted: &&(FlowKey, u32, usize)| shunted.0 == *key && shunted.1 == reader;
        let slot = kernel.shunted.iter().find(is_it).expect("it is there").2;
        kernel.shunted.retain(|shunted| shunted.2 != slot);
        kernel.late.push((slot, 1));
        kernel.is_settled = false;
        Ok(())
    }

    fn settle(&self) {
        let mut kernel = self.kernel();
        for (slot, packets) in std::mem::take(&mut kernel.late) {
            kernel.count(slot, packets);
        }
        kernel.is_settled = true;
    }

    fn free(&self, slot: ShuntSlot) {
        let mut kernel = self.kernel();
        assert!(kernel.is_settled && kernel.shunted.iter().all(|s| s.2 != slot.0 as usize));
        kernel.freed.push(slot.0);
    }
}

/// A worker, a yard that is turned by hand, and two ports.
struct Stage {
    yard: Yard,
    worker: ShuntTracker,
    ports: ShuntPorts,
    records: RecordWriter,
    now: Timestamp,
}

impl Stage {
    fn new(tables: &[&Arc<Table>]) -> Self {
        let ports = ShuntPorts::default();
        for (port, table) in tables.iter().enumerate() {
            ports.set(port, Arc::<Table>::clone(table));
        }
        let wanted = ShuntWanted { above_bytes: 1000, by_vlan: false, ports: ports.clone() };
        let (yard, mut sides) = Yard::new(&wanted, 1);
        let config = TrackerConfig { max_flows: 64, ..TrackerConfig::default() };
        let tracker = FlowTracker::new(ByFiveTuple::default(), config).unwrap();
        Self {
            yard,
            worker: ShuntTracker::new(tracker, sides.remove(0)),
            ports,
            records: RecordWriter::new(Vec::new(), false, WhenFull::Drop),
            now: Timestamp::new(1_000, 0),
        }
    }

    /// Datagrams of a flow, of 100 bytes each.
    fn udp(&mut self, port: u16, packets: usize) {
        let mut data = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(port, 5000);
        builder.write(&mut data, &[0; 58]).unwrap();
        let (ts, link) = (self.now, LinkType::ETHERNET);
        let frame = Frame { ts, wire_len: data.len() as u32, link, interface: 0, data: &data };
        assert_eq!(data.len(), 100);
        for _ in 0..packets {
            self.worker.process(&[frame], &mut Upcoming::default(), &mut self.records);
        }
    }

    /// The yard looks, and then the worker.
    fn turn(&mut self) {
        self.worker.handle_timeout(self.now, &mut self.records);
        self.yard.turn();
        self.worker.handle_timeout(self.now, &mut self.records);
    }

    /// What is tracked, and what of it was shunted.
    fn packets(&self) -> (u64, u64) {
        (self.worker.tracker.counters().packets, self.worker.shunted().packets)
    }
}

#[test]
fn a_flow_is_shunted_when_it_is_large_and_what_is_counted_is_merged() {
    let table = Table::with_room(8);
    let mut stage = Stage::new(&[&table]);
    stage.udp(1, 9);
    stage.turn();
    assert_eq!(table.len(), 0, "900 bytes");
    stage.udp(1, 1);
    stage.udp(2, 3);
    stage.turn();
    assert_eq!(table.len(), 1);
    for _ in 0..3 {
        table.receive(1000);
        stage.turn();
    }
    assert_eq!(stage.packets(), (13 + 3000, 3000));
    assert_eq!(stage.worker.shunted().bytes, 300_000);
    assert_eq!(stage.worker.tracker.len(), 2, "merged into the flow that it was");
}

#[test]
fn one_that_falls_silent_is_taken_out_and_what_was_on_its_way_is_not_lost() {
    let table = Table::with_room(8);
    let mut stage = Stage::new(&[&table]);
    stage.udp(1, 10);
    stage.turn();
    table.receive(5);
    stage.turn();
    // Past the idle timeout.
    stage.now = Timestamp::new(1_070, 0);
    stage.turn();
    stage.turn();
    assert_eq!((table.len(), table.kernel().freed.len()), (0, 1));
    // One packet was counted after it was taken out: it began another flow.
    assert_eq!(stage.packets(), (10 + 5 + 1, 6));
    assert_eq!(stage.worker.tracker.len(), 1);
    assert!(stage.worker.shunting.flows.is_empty());
}

#[test]
fn without_room_a_flow_is_not_shunted_and_nothing_is_asked_for_a_second() {
    let table = Table::with_room(1);
    let mut stage = Stage::new(&[&table]);
    stage.udp(1, 10);
    stage.udp(2, 10);
    stage.turn();
    assert_eq!(table.len(), 1);
    stage.udp(2, 10);
    stage.udp(3, 10);
    stage.turn();
    let ShuntCounts { flows, refused, .. } = stage.worker.shunted();
    assert_eq!((flows, refused), (2, 1));
    stage.worker.shunting.pause = Some(Instant::now());
    stage.udp(3, 1);
    stage.turn();
    assert_eq!(stage.worker.shunted().refused, 2);
    assert_eq!(stage.packets(), (41, 0));
}

#[test]
fn a_flow_of_two_ports_is_counted_on_both_and_a_port_that_comes_back_counts_on() {
    let (first, second) = (Table::with_room(8), Table::with_room(8));
    let mut stage = Stage::new(&[&first, &second]);
    stage.udp(1, 10);
    stage.turn();
    assert_eq!((first.len(), second.len()), (1, 1));
    first.receive(10);
    second.receive(7);
    stage.turn();
    assert_eq!(stage.packets(), (27, 17));
    let again = Table::with_room(8);
    second.receive(3);
    stage.ports.set(1, Arc::<Table>::clone(&again));
    stage.turn();
    assert_eq!((first.len(), second.len(), again.len()), (1, 0, 1));
    // What the lost one had counted, and one that was on its way.
    assert_eq!(stage.packets(), (31, 21));
    again.receive(100);
    stage.turn();
    assert_eq!(stage.packets(), (131, 121));
}

#[test]
fn where_the_only_port_was_lost_a_flow_is_asked_for_again() {
    let table = Table::with_room(8);
    let mut stage = Stage::new(&[&table]);
    stage.udp(1, 10);
    stage.turn();
    table.receive(4);
    let again = Table::with_room(8);
    stage.ports.set(0, Arc::<Table>::clone(&again));
    stage.turn();
    assert_eq!((stage.packets(), again.len()), ((15, 5), 0));
    stage.udp(1, 1);
    stage.turn();
    assert_eq!(again.len(), 1);
}

#[test]
fn at_the_end_everything_is_told_and_nobody_waits_for_a_yard_that_is_gone() {
    let table = Table::with_room(100);
    let mut stage = Stage::new(&[&table]);
    (0..20).for_each(|port| stage.udp(port, 10));
    stage.turn();
    table.receive(50);
    let Stage { mut yard, mut worker, mut records, .. } = stage;
    let turning = std::thread::spawn(move || {
        for _ in 0..20 {
            yard.turn();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    worker.drain(&mut records);
    let packets = worker.tracker.counters().packets;
    assert_eq!((packets, worker.shunted().packets), (20 * 61, 20 * 51));
    assert_eq!(worker.tracker.counters().packets_ended, packets);
    turning.join().unwrap();
    assert!(!table.kernel().inserted_unsettled);

    let mut stage = Stage::new(&[&table]);
    stage.udp(1, 10);
    stage.turn();
    let Stage { yard, mut worker, mut records, .. } = stage;
    drop(yard);
    let start = Instant::now();
    worker.drain(&mut records);
    assert!(start.elapsed() < PATIENCE / 2);
}

/// Many flows begin, grow, pause and end while everything has too little room: each packet is in one flow, once.
#[test]
fn whatever_happens_every_packet_is_tracked_once() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (first, mut second) = (Table::with_room(4), Table::with_room(6));
    let mut stage = Stage::new(&[&first, &second]);
    let mut tables = vec![Arc::clone(&first), Arc::clone(&second)];
    let mut sent = 0;
    for _ in 0..3000 {
        match random(8) {
            0..3 => {
                let packets = random(15);
                stage.udp(random(40) as u16, packets as usize);
                sent += packets;
            }
            3 | 4 => [&first, &second][random(2) as usize].receive(random(20)),
            5 => stage.turn(),
            6 => stage.now = stage.now.plus_nanos(random(20) * 1_000_000_000),
            _ if random(10) == 0 => {
                second = Table::with_room(random(8) as usize);
                stage.ports.set(1, Arc::<Table>::clone(&second));
                tables.push(Arc::clone(&second));
            }
            _ => {
                stage.worker.shunting.pause = None;
            }
        }
    }
    let Stage { mut yard, mut worker, mut records, .. } = stage;
    let turning = std::thread::spawn(move || {
        for _ in 0..10 {
            yard.turn();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    worker.drain(&mut records);
    turning.join().unwrap();
    let of_table =
        |table: &Arc<Table>| table.kernel().counted.iter().map(Counted::packets).sum::<u64>();
    let counted: u64 = tables.iter().map(of_table).sum();
    assert!(counted > 1000, "{counted}");
    assert_eq!(worker.shunted().packets, counted);
    assert_eq!(worker.tracker.counters().packets, sent + counted);
    assert_eq!(worker.tracker.counters().packets_ended, sent + counted);
    assert!(tables.iter().all(|table| !table.kernel().inserted_unsettled && table.len() == 0));
}
