//! Flow and anomaly events through a real subscriber.

#[path = "support/frames.rs"]
#[allow(dead_code, reason = "shared with other tests, which use other parts of it")]
mod frames;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use flowscope::flow::ByFiveTuple;
use flowscope::{FlowTracker, TrackerConfig};
use frames::{From, RST, Wire};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Event, Level, Metadata, Subscriber};

/// One event as a subscriber gets it.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    target: String,
    level: Level,
    fields: Vec<(String, String)>,
}

/// Keeps every event.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Heard>>>);

struct Fields(Vec<(String, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name().into(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name().into(), value.into()));
    }
}

impl Subscriber for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        panic!("there are no spans")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        self.0.lock().unwrap().push(Heard {
            target: metadata.target().into(),
            level: *metadata.level(),
            fields: fields.0,
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn heard(max_flows: usize, wire: &mut Wire) -> Vec<Heard> {
    let ear = Ear::default();
    with_default(ear.clone(), || {
        let config = TrackerConfig { max_flows, ..TrackerConfig::default() };
        let mut tracker = FlowTracker::new(ByFiveTuple::default(), config).unwrap();
        wire.send(|frames| tracker.process(frames, &mut |_| {}));
        tracker.drain(&mut |_| {});
    });
    std::mem::take(&mut ear.0.lock().unwrap())
}

fn expected(target: &str, level: Level, fields: &[(&str, &str)]) -> Heard {
    let fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Heard { target: target.into(), level, fields: fields.collect() }
}

#[test]
fn a_flow_is_told_when_it_begins_and_when_it_ends_and_never_in_between() {
    let mut wire = Wire::new();
    for _ in 0..500 {
        wire.udp(From::Client(1), b"").udp(From::Server(1), b"abc");
    }
    assert_eq!(
        heard(10, &mut wire),
        [
            expected("flowscope.flow", Level::INFO, &[("message", "flow created"), ("l4", "udp")]),
            expected(
                "flowscope.flow",
                Level::INFO,
                &[
                    ("message", "flow ended"),
                    ("l4", "udp"),
                    ("reason", "drained"),
                    ("packets", "1000"),
                    ("bytes", "43500"),
                ]
            ),
        ]
    );
}

#[test]
fn an_anomaly_is_a_warning_with_the_whole_kind() {
    let mut wire = Wire::new();
    wire.udp(From::Client(1), b"").udp(From::Client(2), b"");
    let anomalies: Vec<Heard> = heard(1, &mut wire)
        .into_iter()
        .filter(|heard| heard.target == "flowscope.anomaly")
        .collect();
    let kind = "FlowTableEviction { max_flows: 1 }";
    assert_eq!(
        anomalies,
        [expected("flowscope.anomaly", Level::WARN, &[("message", "anomaly"), ("kind", kind)])]
    );
}

#[test]
fn no_event_tells_an_address_or_a_port() {
    let mut wire = Wire::new();
    // A port that is in no count and no sequence number.
    const PORT: u16 = 54_321;
    wire.handshake(PORT).tcp(From::Server(PORT), 77_777_777, 0, RST, b"").close(PORT);
    wire.udp(From::Client(PORT), b"").gre().arp();
    let events = heard(2, &mut wire);
    assert!(events.iter().any(|event| event.target == "flowscope.anomaly"));
    for event in events {
        for (name, value) in &event.fields {
            let known = ["message", "l4", "reason", "packets", "bytes", "kind"];
            assert!(known.contains(&name.as_str()), "{event:?}");
            for secret in ["54321", "10.0.0.1", "192.0.2.1", "FlowKey", "Addr"] {
                assert!(!value.contains(secret), "{event:?}");
            }
        }
    }
}

#[test]
fn without_a_subscriber_nothing_happens() {
    let mut wire = Wire::new();
    wire.handshake(1).close(1);
    let config = TrackerConfig { max_flows: 10, ..TrackerConfig::default() };
    let mut tracker = FlowTracker::new(ByFiveTuple::default(), config).unwrap();
    wire.send(|frames| tracker.process(frames, &mut |_| {}));
    assert_eq!(tracker.len(), 1);
}
