//! The metrics of `docs/OBSERVABILITY.md` through a real recorder, with real trackers.

#[path = "support/frames.rs"]
#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
mod frames;

use std::collections::BTreeMap;
use std::sync::{Barrier, mpsc};

use flowscope::driver::FlowDriver;
use flowscope::flow::{ByFiveTuple, FlowKey};
use flowscope::net::Side;
use flowscope::obs::*;
use flowscope::reassembly::{OverflowPolicy, ReassemblyConfig};
use flowscope::{AnomalyKind, EndReason, FlowEvent, FlowTracker, TrackerConfig};
use frames::{ACK, FIN, From, RST, SYN, Wire};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

type Tracker = FlowTracker<ByFiveTuple>;
type Event = FlowEvent<FlowKey>;

/// Bytes of a UDP frame without payload, a TCP frame without payload, and the GRE frame.
const UDP: u64 = 14 + 20 + 8;
const TCP: u64 = 14 + 20 + 20;
const GRE: u64 = 14 + 20 + 4;

fn tracker(registry: &Registry, max_flows: usize) -> Tracker {
    let config = TrackerConfig { max_flows, ..TrackerConfig::default() };
    FlowTracker::new(ByFiveTuple::default(), config).unwrap().with_hooks(Hooks::new(registry))
}

fn driver(registry: &Registry, reassembly: ReassemblyConfig) -> FlowDriver<ByFiveTuple> {
    let config = TrackerConfig { max_flows: 100, ..TrackerConfig::default() };
    FlowDriver::new(ByFiveTuple::default(), config, reassembly)
        .unwrap()
        .with_hooks(Hooks::new(registry))
}

fn process(tracker: &mut Tracker, wire: &mut Wire) -> Vec<Event> {
    let mut events = Vec::new();
    wire.send(|frames| tracker.process(frames, &mut |event| events.push(event)));
    events
}

/// Everything that a recorder hears when a registry is published: `name` or `name{label="value"}`.
struct Scrape(BTreeMap<String, DebugValue>);

impl Scrape {
    fn of(registry: &Registry) -> Self {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || Publisher::new(registry).publish());
        let series = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
            let key = key.key();
            let labels: String = key
                .labels()
                .map(|label| format!("{{{}=\"{}\"}}", label.key(), label.value()))
                .collect();
            (format!("{}{labels}", key.name()), value)
        });
        Self(series.collect())
    }

    fn counter(&self, series: &str) -> u64 {
        match self.0.get(series) {
            Some(DebugValue::Counter(value)) => *value,
            other => panic!("{series} is {other:?}"),
        }
    }

    fn with(&self, name: &str, label: &str, value: &str) -> u64 {
        self.counter(&format!("{name}{{{label}=\"{value}\"}}"))
    }

    fn active(&self) -> f64 {
        match self.0.get(METRIC_FLOWS_ACTIVE) {
            Some(DebugValue::Gauge(value)) => value.0,
            other => panic!("the gauge is {other:?}"),
        }
    }

    fn histogram(&self, name: &str) -> Vec<f64> {
        match self.0.get(name) {
            Some(DebugValue::Histogram(values)) => values.iter().map(|value| value.0).collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    fn ended(&self, reason: EndReason) -> u64 {
        self.with(METRIC_FLOWS_ENDED, "reason", end_reason_label(reason))
    }
}

#[test]
fn a_recorder_is_told_every_series_of_the_table_and_no_other() {
    let scrape = Scrape::of(&Registry::new());
    let mut expected: Vec<String> = Vec::new();
    for metric in METRICS {
        match metric.labels {
            [] => expected.push(metric.name.into()),
            [label] => expected.extend(
                label
                    .values
                    .iter()
                    .map(|value| format!("{}{{{}=\"{value}\"}}", metric.name, label.name)),
            ),
            more => panic!("{} has {} labels", metric.name, more.len()),
        }
    }
    expected.sort();
    assert_eq!(scrape.0.keys().cloned().collect::<Vec<_>>(), expected);
}

#[test]
fn descriptions_and_units_reach_the_recorder() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || Publisher::new(&Registry::new()).publish());
    for (key, unit, help, _) in snapshotter.snapshot().into_vec() {
        let metric = METRICS.iter().find(|metric| metric.name == key.key().name()).unwrap();
        assert_eq!(help.as_deref(), Some(metric.help));
        let unit = unit.unwrap();
        match metric.unit {
            "seconds" => assert_eq!(unit, metrics::Unit::Seconds),
            "bytes" => assert_eq!(unit, metrics::Unit::Bytes),
            _ => assert_eq!(unit, metrics::Unit::Count),
        }
    }
}

#[test]
fn flows_are_created_by_l4_live_at_once_and_ended_with_what_they_had() {
    let registry = Registry::new();
    let mut tracker = tracker(&registry, 100);
    let mut wire = Wire::new();
    wire.handshake(1).udp(From::Client(2), b"abc").udp(From::Server(2), b"").gre().arp().arp();
    process(&mut tracker, &mut wire);

    let scrape = Scrape::of(&registry);
    assert_eq!(scrape.with(METRIC_FLOWS_CREATED, "l4", "tcp"), 1);
    assert_eq!(scrape.with(METRIC_FLOWS_CREATED, "l4", "udp"), 1);
    assert_eq!(scrape.with(METRIC_FLOWS_CREATED, "l4", "other"), 1);
    assert_eq!(scrape.active(), 3.0);
    assert_eq!(scrape.counter(METRIC_PACKETS_UNMATCHED), 2);
    let bytes = 3 * TCP + 2 * UDP + 3 + GRE;
    assert_eq!(scrape.counter(METRIC_LIVE_PACKETS), 6);
    assert_eq!(scrape.counter(METRIC_LIVE_BYTES), bytes);
    // Nothing has ended, so nothing is told of ended flows.
    assert_eq!(scrape.with(METRIC_BYTES, "side", "initiator"), 0);
    assert!(scrape.histogram(METRIC_FLOW_BYTES).is_empty());

    wire.close(1);
    process(&mut tracker, &mut wire);
    tracker.drain(&mut |_| {});
    let scrape = Scrape::of(&registry);
    assert_eq!(scrape.active(), 0.0);
    assert_eq!(scrape.ended(EndReason::Fin), 1);
    assert_eq!(scrape.ended(EndReason::Drained), 2);
    // TCP: SYN, ACK, FIN, ACK against SYN-ACK, FIN.
    assert_eq!(scrape.with(METRIC_BYTES, "side", "initiator"), 4 * TCP + UDP + 3 + GRE);
    assert_eq!(scrape.with(METRIC_BYTES, "side", "responder"), 2 * TCP + UDP);
    let live = scrape.counter(METRIC_LIVE_BYTES);
    assert_eq!(live, bytes + 3 * TCP);
    // Means of buckets: GRE alone, then UDP with 2 and TCP with 6 packets.
    assert_eq!(scrape.histogram(METRIC_FLOW_PACKETS), [1.0, 4.0, 4.0]);
    let sum: f64 = scrape.histogram(METRIC_FLOW_BYTES).iter().sum();
    assert!((sum - live as f64).abs() < 1e-6, "{sum} bytes in the histogram, {live} were seen");
    let durations = scrape.histogram(METRIC_FLOW_DURATION);
    assert_eq!(durations.len(), 3);
    // One millisecond a frame: TCP from the 1st to the 11th, UDP 1 ms, GRE at once.
    assert!((durations.iter().sum::<f64>() - 0.011).abs() < 1e-9, "{durations:?}");
}

#[test]
fn every_way_out_of_the_table_is_counted_under_its_reason() {
    let registry = Registry::new();
    let mut tracker = tracker(&registry, 5);
    let mut wire = Wire::new();
    let mut ended = [0; EndReason::ALL.len()];
    let mut tally = |events: Vec<Event>| {
        for event in events {
            if let FlowEvent::Ended { reason, .. } = event {
                ended[reason as usize] += 1;
            }
        }
    };
    // fin and rst: closed, and then silent for the closing timeout.
    wire.handshake(1).close(1).handshake(2).tcp(From::Server(2), 501, 101, RST | ACK, b"");
    // superseded: another SYN, far away, on a connection that the server still has open.
    wire.handshake(3).tcp(From::Client(3), 900_000_000, 0, SYN, b"");
    tally(process(&mut tracker, &mut wire));
    let mut events = Vec::new();
    wire.wait_ms(400_000);
    while tracker.handle_timeout(wire.now(), &mut |event| events.push(event)) {}
    tally(std::mem::take(&mut events));
    // evicted: one more than there is room for.
    for port in 10..16 {
        wire.udp(From::Client(port), b"");
    }
    tally(process(&mut tracker, &mut wire));
    // forgotten
    let key = tracker.iter().next().unwrap().0;
    assert!(tracker.forget(&key, &mut |event| events.push(event)));
    // drained
    tracker.drain(&mut |event| events.push(event));
    tally(events);

    let scrape = Scrape::of(&registry);
    for reason in EndReason::ALL {
        assert_eq!(scrape.ended(reason), ended[reason as usize], "{reason:?}");
        let none = reason == EndReason::BufferOverflow;
        assert_eq!(ended[reason as usize] == 0, none, "{reason:?}: {}", ended[reason as usize]);
    }
    assert_eq!(scrape.active(), 0.0);
    assert_eq!(tracker.counters().ended, ended);
    // Without anomaly events asked for, the tracker's own are told: the one eviction.
    assert_eq!(scrape.with(METRIC_ANOMALIES, "kind", "flow_table_eviction"), 1);
}

#[test]
fn an_active_timeout_is_no_end() {
    let registry = Registry::new();
    let mut tracker = tracker(&registry, 5);
    let mut wire = Wire::new();
    for _ in 0..100 {
        wire.udp(From::Client(1), b"").wait_ms(40_000);
    }
    let events = process(&mut tracker, &mut wire);
    assert!(events.iter().any(|event| matches!(event, FlowEvent::Updated { .. })));
    let scrape = Scrape::of(&registry);
    assert_eq!(EndReason::ALL.map(|reason| scrape.ended(reason)), [0; EndReason::ALL.len()]);
    assert_eq!(scrape.active(), 1.0);
    assert_eq!(scrape.counter(METRIC_LIVE_PACKETS), 100);
}

#[test]
fn the_gauge_follows_forget_resize_drain_and_drop() {
    let registry = Registry::new();
    let mut tracker = tracker(&registry, 10);
    let mut wire = Wire::new();
    for port in 0..10 {
        wire.udp(From::Client(port), b"");
    }
    process(&mut tracker, &mut wire);
    assert_eq!(Scrape::of(&registry).active(), 10.0);
    let key = tracker.iter().next().unwrap().0;
    tracker.forget(&key, &mut |_| {});
    assert_eq!(Scrape::of(&registry).active(), 9.0);
    tracker.set_max_flows(4, &mut |_| {}).unwrap();
    assert_eq!(Scrape::of(&registry).active(), 4.0);
    assert_eq!(Scrape::of(&registry).ended(EndReason::Evicted), 5);
    tracker.drain(&mut |_| {});
    assert_eq!(Scrape::of(&registry).active(), 0.0);

    wire.udp(From::Client(1), b"abc").gre();
    process(&mut tracker, &mut wire);
    assert_eq!(Scrape::of(&registry).active(), 2.0);
    let before = Scrape::of(&registry).with(METRIC_BYTES, "side", "initiator");
    drop(tracker);
    let scrape = Scrape::of(&registry);
    assert_eq!((scrape.active(), registry.trackers()), (0.0, 0));
    assert_eq!(scrape.ended(EndReason::Forgotten), 3);
    // Their bytes are not lost either.
    assert_eq!(scrape.with(METRIC_BYTES, "side", "initiator") - before, UDP + 3 + GRE);
    assert_eq!(scrape.with(METRIC_BYTES, "side", "initiator"), scrape.counter(METRIC_LIVE_BYTES));
}

/// Trackers on threads of their own; in the end half are drained and the others dropped as they are.
fn trackers_on_threads(threads: u16) {
    const FLOWS: u16 = 20;
    let registry = Registry::new();
    let (full, halved) = (Barrier::new(threads as usize + 1), Barrier::new(threads as usize + 1));
    let (done, dones) = mpsc::channel();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (registry, full, halved, done) = (&registry, &full, &halved, done.clone());
            scope.spawn(move || {
                let mut tracker = tracker(registry, 100);
                let mut wire = Wire::new();
                for port in 0..FLOWS {
                    wire.udp(From::Client(port), b"");
                    process(&mut tracker, &mut wire);
                }
                full.wait();
                full.wait();
                if number % 2 == 0 {
                    tracker.drain(&mut |_| {});
                }
                halved.wait();
                halved.wait();
                drop(tracker);
                done.send(()).unwrap();
            });
        }
        let (all, drained) = (f64::from(threads * FLOWS), f64::from(threads.div_ceil(2) * FLOWS));
        full.wait();
        assert_eq!(Scrape::of(&registry).active(), all);
        full.wait();
        halved.wait();
        assert_eq!(Scrape::of(&registry).active(), all - drained);
        halved.wait();
        for _ in 0..threads {
            dones.recv().unwrap();
        }
        let scrape = Scrape::of(&registry);
        assert_eq!(scrape.active(), 0.0);
        assert_eq!(scrape.ended(EndReason::Drained) as f64, drained);
        assert_eq!(scrape.ended(EndReason::Forgotten) as f64, all - drained);
        assert_eq!(scrape.with(METRIC_FLOWS_CREATED, "l4", "udp") as f64, all);
        assert_eq!(scrape.counter(METRIC_LIVE_PACKETS) as f64, all);
        assert_eq!(scrape.histogram(METRIC_FLOW_PACKETS).len() as f64, all);
    });
}

#[test]
fn the_gauge_is_right_with_one_tracker() {
    trackers_on_threads(1);
}

#[test]
fn the_gauge_is_right_with_64_trackers() {
    trackers_on_threads(64);
}

#[test]
fn counters_never_go_back_while_trackers_come_and_go() {
    let registry = Registry::new();
    let mut last = 0;
    for round in 1..=10u64 {
        let mut tracker = tracker(&registry, 10);
        let mut wire = Wire::new();
        wire.udp(From::Client(1), b"");
        process(&mut tracker, &mut wire);
        for _ in 0..2 {
            let scrape = Scrape::of(&registry);
            assert_eq!(scrape.with(METRIC_FLOWS_CREATED, "l4", "udp"), round);
            let ended = scrape.ended(EndReason::Drained) + scrape.ended(EndReason::Forgotten);
            assert!(ended >= last);
            last = ended;
            if round % 2 == 0 {
                tracker.drain(&mut |_| {});
            }
        }
    }
    assert_eq!(registry.totals().ended.iter().sum::<u64>(), 10);
}

#[test]
fn a_publisher_tells_a_recorder_each_flow_once() {
    let registry = Registry::new();
    let mut tracker = tracker(&registry, 10);
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let mut publisher = metrics::with_local_recorder(&recorder, || Publisher::new(&registry));
    let mut wire = Wire::new();
    let mut heard = Vec::new();
    for payload in [100, 200, 2_000, 300] {
        wire.udp(From::Client(1), &vec![0; payload]);
        process(&mut tracker, &mut wire);
        tracker.drain(&mut |_| {});
        for _ in 0..2 {
            publisher.publish();
            for (key, _, _, value) in snapshotter.snapshot().into_vec() {
                if let (METRIC_FLOW_BYTES, DebugValue::Histogram(values)) =
                    (key.key().name(), value)
                {
                    heard.extend(values.into_iter().map(|value| value.0 as u64));
                }
            }
        }
    }
    assert_eq!(heard, [100, 200, 2_000, 300].map(|payload| payload + UDP));
}

#[test]
fn histograms_can_be_left_to_the_text_format() {
    let registry = Registry::new();
    let mut tracker = tracker(&registry, 10);
    let mut wire = Wire::new();
    wire.gre().udp(From::Client(1), &[0; 3_000]).udp(From::Client(1), b"");
    process(&mut tracker, &mut wire);
    tracker.drain(&mut |_| {});
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let totals = metrics::with_local_recorder(&recorder, || {
        Publisher::without_histograms(&registry).publish()
    });
    for (key, ..) in snapshotter.snapshot().into_vec() {
        assert!(!key.key().name().starts_with("flowscope_flow_"), "{key:?}");
    }
    let mut text = String::new();
    totals.render_histograms(&mut text);
    for line in [
        "flowscope_flow_packets_bucket{le=\"1\"} 1",
        "flowscope_flow_packets_bucket{le=\"10\"} 2",
        "flowscope_flow_packets_sum 3",
        "flowscope_flow_packets_count 2",
        "flowscope_flow_bytes_bucket{le=\"1500\"} 1",
        "flowscope_flow_bytes_bucket{le=\"64000\"} 2",
        "flowscope_flow_duration_seconds_bucket{le=\"0.1\"} 2",
        "flowscope_flow_duration_seconds_sum 0.001",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

/// A connection with a segment that nobody can place, and more out of order than a buffer holds.
fn troubled_stream(wire: &mut Wire) {
    wire.handshake(1);
    // Far outside the window, from the client and twice from the server.
    wire.tcp(From::Client(1), 101 + 500_000_000, 501, ACK, &[1; 10]);
    for _ in 0..2 {
        wire.tcp(From::Server(1), 501 + 500_000_000, 101, ACK, &[1; 10]);
    }
    // A hole at 501, and 5 KB behind it, where 2 KiB may wait.
    for n in 0..5u32 {
        wire.tcp(From::Server(1), 1_501 + n * 1_000, 101, ACK, &[2; 1_000]);
    }
}

#[test]
fn reassembly_counts_what_it_drops_whether_or_not_anomalies_are_events() {
    for emit in [false, true] {
        let registry = Registry::new();
        let config = ReassemblyConfig {
            side_bytes_max: ReassemblyConfig::SIDE_BYTES_LEAST,
            ..ReassemblyConfig::default()
        };
        let mut driver = driver(&registry, config).with_emit_anomalies(emit);
        let mut wire = Wire::new();
        troubled_stream(&mut wire);
        let mut events = Vec::new();
        wire.send(|frames| driver.process(frames, &mut (), &mut |event| events.push(event)));
        driver.drain(&mut (), &mut |event| events.push(event));

        let told = |wanted: fn(&AnomalyKind) -> bool| {
            let is =
                |event: &&Event| matches!(event, FlowEvent::Anomaly { kind, .. } if wanted(kind));
            events.iter().filter(is).count() as u64
        };
        let scrape = Scrape::of(&registry);
        let counters = driver.reassembly_counters();
        for (number, at) in Side::BOTH.into_iter().enumerate() {
            let side = side_label(at);
            let ooo = scrape.with(METRIC_REASSEMBLY_DROPPED_OOO, "side", side);
            assert_eq!(ooo, [1, 2][number], "{side}");
            assert_eq!(ooo, counters.side(at).dropped_ooo_segments);
            let oversize = scrape.with(METRIC_REASSEMBLY_BYTES_DROPPED_OVERSIZE, "side", side);
            assert_eq!(oversize > 0, side == "responder", "{side}: {oversize}");
            assert_eq!(oversize, counters.side(at).dropped_oversize_bytes);
        }
        let ooo = told(|kind| matches!(kind, AnomalyKind::OutOfOrderSegment { .. }));
        let overflow = told(|kind| matches!(kind, AnomalyKind::BufferOverflow { .. }));
        assert_eq!(ooo, if emit { 3 } else { 0 });
        assert_eq!(overflow > 0, emit);
        assert_eq!(scrape.with(METRIC_ANOMALIES, "kind", "ooo_segment"), ooo);
        assert_eq!(scrape.with(METRIC_ANOMALIES, "kind", "buffer_overflow"), overflow);
    }
}

#[test]
fn a_flow_that_overflows_its_buffer_ends_for_that_reason() {
    let registry = Registry::new();
    let config = ReassemblyConfig {
        side_bytes_max: ReassemblyConfig::SIDE_BYTES_LEAST,
        overflow: OverflowPolicy::DropFlow,
        ..ReassemblyConfig::default()
    };
    let mut driver = driver(&registry, config);
    let mut wire = Wire::new();
    wire.handshake(1);
    for n in 0..5u32 {
        wire.tcp(From::Client(1), 1_101 + n * 1_000, 501, ACK, &[2; 1_000]);
    }
    wire.send(|frames| driver.process(frames, &mut (), &mut |_| {}));
    let scrape = Scrape::of(&registry);
    assert!(scrape.ended(EndReason::BufferOverflow) >= 1);
    assert!(scrape.with(METRIC_REASSEMBLY_BYTES_DROPPED_OVERSIZE, "side", "initiator") > 0);
}

#[test]
fn what_the_tracker_counts_and_what_it_publishes_are_the_same() {
    let registry = Registry::new();
    let mut tracker = tracker(&registry, 50);
    let mut wire = Wire::new();
    for port in 0..200 {
        match port % 4 {
            0 => wire.handshake(port).close(port),
            1 => wire.handshake(port).tcp(From::Client(port), 101, 501, FIN | ACK, b"x"),
            2 => wire.udp(From::Client(port), b"").udp(From::Server(port), b"abc"),
            _ => wire.arp().gre(),
        };
        process(&mut tracker, &mut wire);
        let (totals, counters) = (registry.totals(), tracker.counters());
        assert_eq!(totals.active, tracker.len() as u64);
        assert_eq!(totals.live_packets, counters.packets);
        assert_eq!(totals.live_bytes, counters.bytes);
        assert_eq!(totals.created.iter().sum::<u64>(), counters.created);
        assert_eq!(totals.ended, counters.ended);
        assert_eq!(totals.unmatched, tracker.ingest_counters().unmatched);
        assert_eq!(totals.flow_packets.sum().whole, counters.packets_ended);
        assert_eq!(totals.flow_bytes.count(), counters.ended.iter().sum::<u64>());
        assert_eq!(totals.bytes.iter().sum::<u64>(), totals.flow_bytes.sum().whole);
    }
}
