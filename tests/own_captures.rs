//! The captures of `tests/captures` against what the programs in them say that they sent
//! (`EXPECTED.json`): nothing here was computed by a decoder.
//!
//! `FLOWSCOPE_OWN_CAPTURES` names another directory that `scripts/make-captures.sh` filled.

#![cfg(feature = "capture")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use flowscope::capture::Capture;
use flowscope::capture::file::{CaptureFiles, OpenOptions};
use flowscope::flow::{ByFiveTuple, FiveTuple, FlowId, FlowKey};
use flowscope::net::{IpProto, IpVersion, Side};
use flowscope::reassembly::{ReassemblyConfig, StreamSink};
use flowscope::{EndReason, FlowDriver, FlowEvent, FlowStats, TrackerConfig};
use serde_json::Value;
use sha2::{Digest, Sha256};

// ---- reading -----------------------------------------------------------------------------------

/// One side's bytes.
#[derive(Clone, Default)]
struct Stream {
    bytes: Vec<u8>,
    missing: u64,
}

struct Flow {
    /// From the initiator to the responder.
    tuple: FiveTuple,
    reason: EndReason,
    stats: FlowStats,
    streams: [Stream; 2],
}

impl Flow {
    fn sent_by(&self, side: Side) -> &Stream {
        &self.streams[side as usize]
    }

    fn is(&self, proto: IpProto, version: IpVersion) -> bool {
        self.tuple.proto == proto && self.tuple.version == version
    }
}

struct Seen {
    expected: Value,
    frames: u64,
    unmatched: u64,
    /// In the order in which they began.
    flows: Vec<Flow>,
}

impl Seen {
    fn to_port(&self, proto: IpProto, port: u16) -> Vec<&Flow> {
        let to = |flow: &&Flow| flow.tuple.proto == proto && flow.tuple.dst_port == port;
        self.flows.iter().filter(to).collect()
    }

    fn packets(&self, proto: IpProto) -> u64 {
        let flows = self.flows.iter().filter(|flow| flow.tuple.proto == proto);
        flows.map(|flow| flow.stats.packets()).sum()
    }
}

#[derive(Default)]
struct Streams(RefCell<HashMap<FlowKey, [Stream; 2]>>);

impl StreamSink<FlowKey> for &Streams {
    fn data(&mut self, key: &FlowKey, _: FlowId, side: Side, offset: u64, bytes: &[u8]) {
        let mut streams = self.0.borrow_mut();
        let stream = &mut streams.entry(*key).or_default()[side as usize];
        assert_eq!(offset, stream.bytes.len() as u64 + stream.missing, "stretches are consecutive");
        stream.bytes.extend_from_slice(bytes);
    }

    fn gap(&mut self, key: &FlowKey, _: FlowId, side: Side, _: u64, len: u64) {
        self.0.borrow_mut().entry(*key).or_default()[side as usize].missing += len;
    }
}

/// Reads a capture and checks what holds of every one: the kernel's counters and the ledger.
fn read(name: &str) -> Seen {
    let directory = std::env::var_os("FLOWSCOPE_OWN_CAPTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures")),
        PathBuf::from,
    );
    let expected = std::fs::read_to_string(directory.join("EXPECTED.json")).expect("EXPECTED.json");
    let expected: Value = serde_json::from_str(&expected).expect("EXPECTED.json is JSON");
    let expected = expected[name].clone();

    let streams = Streams::default();
    let mut flows = Vec::new();
    let mut sink = |event: FlowEvent<FlowKey>| {
        if let FlowEvent::Ended { key, reason, stats } = event {
            let streams = streams.0.borrow_mut().remove(&key).unwrap_or_default();
            flows.push(Flow { tuple: key.from_end(stats.initiator_end), reason, stats, streams });
        }
    };
    let tracker = TrackerConfig { max_flows: 1000, ..TrackerConfig::default() };
    let mut driver =
        FlowDriver::new(ByFiveTuple::default(), tracker, ReassemblyConfig::default()).unwrap();

    let path = directory.join(name);
    let mut capture = CaptureFiles::open(&[path], OpenOptions::new()).expect("it can be opened");
    let (mut frames, mut bytes) = (0, 0);
    loop {
        let batch = capture.with_batch(|batch| {
            frames += batch.len() as u64;
            bytes += batch.iter().map(|frame| u64::from(frame.wire_len)).sum::<u64>();
            driver.process(batch, &mut &streams, &mut sink);
            if let Some(last) = batch.last() {
                while driver.handle_timeout(last.ts, &mut &streams, &mut sink) {}
            }
        });
        if batch.expect("it can be read").is_none() {
            break;
        }
    }
    driver.drain(&mut &streams, &mut sink);
    let unmatched = driver.tracker().ingest_counters().unmatched;
    flows.sort_by_key(|flow| flow.stats.first);

    assert_eq!(frames, number(&expected["kernel"]["frames"]), "frames that the kernel counted");
    assert_eq!(bytes, number(&expected["kernel"]["bytes"]), "bytes that the kernel counted");
    let tracked: u64 = flows.iter().map(|flow| flow.stats.packets()).sum();
    assert_eq!(frames, unmatched + tracked, "every frame is counted once");
    Seen { expected, frames, unmatched, flows }
}

// ---- what programs said ------------------------------------------------------------------------

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number, not {value}"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Status and body of the responses on a connection, one after the other.
fn http_responses(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let end =
            bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole header") + 4;
        let header = std::str::from_utf8(&bytes[..end]).expect("a header is text");
        let status = header.split(' ').nth(1).and_then(|code| code.parse().ok());
        let length = header.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|text| text.parse().ok()).expect("a length");
        let body = &bytes[end..bytes.len().min(end + length)];
        responses.push((status.expect("a status"), body));
        bytes = &bytes[end + body.len()..];
    }
    responses
}

/// Every body that curl received is in the streams, with its status; every connection closed.
fn the_bodies_are_in_the_streams(seen: &Seen) {
    let http = &seen.expected["http"];
    let connections = seen.to_port(IpProto::TCP, 80);
    assert_eq!(connections.len() as u64, number(&http["connections"]));
    assert!(connections.iter().all(|flow| flow.reason == EndReason::Fin));
    assert!(connections.iter().all(|flow| flow.streams.iter().all(|stream| stream.missing == 0)));

    let found: Vec<_> = connections
        .iter()
        .flat_map(|flow| http_responses(&flow.sent_by(Side::Responder).bytes))
        .map(|(status, body)| (status, body.len() as u64, sha256(body)))
        .collect();
    let sent: Vec<_> = http["bodies"]
        .as_array()
        .expect("bodies")
        .iter()
        .map(|body| {
            let sha256 = body["sha256"].as_str().expect("a sum").to_owned();
            (number(&body["status"]), number(&body["bytes"]), sha256)
        })
        .collect();
    assert_eq!(found, sent);
    assert_eq!(found.len() as u64, number(&http["server_log_requests"]));
    assert_eq!(seen.flows.len(), connections.len(), "nothing else was on the wire");
    assert_eq!(seen.unmatched, 0);
}

// ---- the captures ------------------------------------------------------------------------------

#[test]
fn curl_received_what_is_in_the_streams() {
    the_bodies_are_in_the_streams(&read("http.pcap"));
}

#[test]
fn curl_received_two_bodies_on_one_connection_by_ipv6() {
    let seen = read("http6.pcapng");
    the_bodies_are_in_the_streams(&seen);
    assert!(seen.flows[0].is(IpProto::TCP, IpVersion::V6));
}

#[test]
fn what_was_lost_on_the_way_is_put_together_at_the_receiver() {
    let seen = read("lossy-at-receiver.pcap");
    the_bodies_are_in_the_streams(&seen);
    assert!(seen.flows[0].stats.responder.out_of_order > 0, "lost segments came later");
}

#[test]
fn what_was_sent_twice_is_taken_once_at_the_sender() {
    let seen = read("lossy-at-sender.pcap");
    the_bodies_are_in_the_streams(&seen);
    assert!(seen.flows[0].stats.responder.retransmitted > 0, "lost segments were sent again");
}

#[test]
fn a_download_given_up_half_way_ends_by_reset() {
    let seen = read("aborted.pcap");
    let [flow] = &seen.flows[..] else { panic!("{} flows, not one", seen.flows.len()) };
    assert_eq!(flow.reason, EndReason::Rst);
    assert_eq!(flow.tuple.dst_port, 80);
    let aborted = &seen.expected["aborted"];
    let stream = &flow.sent_by(Side::Responder).bytes;
    let header = stream.windows(4).position(|four| four == b"\r\n\r\n").expect("a header") + 4;
    let part = &stream[header..][..number(&aborted["bytes"]) as usize];
    assert_eq!(sha256(part), aborted["sha256"].as_str().expect("a sum"));
}

#[test]
fn every_question_to_the_name_server_is_a_flow() {
    let seen = read("dns.pcap.gz");
    let dns = &seen.expected["dns"];
    let udp = seen.to_port(IpProto::UDP, 53);
    let by_family =
        |version| udp.iter().filter(|flow| flow.tuple.version == version).count() as u64;
    assert_eq!(by_family(IpVersion::V4), number(&dns["udp4_queries"]));
    assert_eq!(by_family(IpVersion::V6), number(&dns["udp6_queries"]));
    for flow in &udp {
        assert_eq!((flow.stats.initiator.packets, flow.stats.responder.packets), (1, 1));
    }
    let tcp = seen.to_port(IpProto::TCP, 53);
    assert_eq!(tcp.len() as u64, number(&dns["tcp_queries"]));
    assert!(tcp.iter().all(|flow| flow.reason == EndReason::Fin));
    assert_eq!((udp.len() + tcp.len()) as u64, number(&dns["server_log_queries"]));
    assert_eq!((seen.flows.len(), seen.unmatched), (udp.len() + tcp.len(), 0));
}

#[test]
fn an_ssh_command_is_one_connection_that_begins_with_both_banners() {
    let seen = read("ssh.pcap.zst");
    let ssh = &seen.expected["ssh"];
    assert_eq!(seen.flows.len() as u64, number(&ssh["connections"]));
    let flow = &seen.flows[0];
    assert_eq!((flow.tuple.dst_port, flow.reason), (22, EndReason::Fin));
    let banner = ssh["banner"].as_str().expect("a banner");
    for stream in &flow.streams {
        assert!(stream.bytes.starts_with(banner.as_bytes()));
        assert_eq!(stream.missing, 0);
    }
    // Encryption adds and does not take away.
    assert!(flow.sent_by(Side::Responder).bytes.len() as u64 > number(&ssh["output_bytes"]));
}

#[test]
fn iperf3_sent_what_is_counted_though_the_frames_are_cut() {
    /// What iperf3 sends first on each connection: the test's name, 36 letters and a zero.
    const COOKIE: u64 = 37;
    let seen = read("iperf3-snap96.pcap");
    let iperf3 = &seen.expected["iperf3"];
    let tcp = seen.to_port(IpProto::TCP, 5201);
    let streams = iperf3["tcp"].as_array().expect("streams");
    assert_eq!(tcp.len() as u64, streams.len() as u64 + number(&iperf3["control_connections"]));
    for stream in streams {
        let port = number(&stream["local_port"]) as u16;
        let flow = tcp.iter().find(|flow| flow.tuple.src_port == port).expect("a stream's flow");
        let sent = flow.sent_by(Side::Initiator);
        // It stops with bytes still in the kernel: what went out is between what it wrote and
        // what the other end had read.
        let bytes = sent.bytes.len() as u64 + sent.missing - COOKIE;
        assert!((number(&stream["received"])..=number(&stream["sent"])).contains(&bytes));
        assert!(sent.missing > 0, "payload beyond the snapshot length is a gap");
    }

    let [udp] = seen.to_port(IpProto::UDP, 5201)[..] else { panic!("one UDP flow") };
    let said = &iperf3["udp"];
    assert_eq!(u64::from(udp.tuple.src_port), number(&said["local_port"]));
    // Before the data a datagram of four bytes goes each way.
    const HEADERS: u64 = 14 + 20 + 8;
    let packets = number(&said["packets"]);
    assert_eq!((udp.stats.initiator.packets, udp.stats.responder.packets), (packets + 1, 1));
    let bytes = number(&said["bytes"]) + 4 + (packets + 1) * HEADERS;
    assert_eq!((udp.stats.initiator.bytes, udp.stats.responder.bytes), (bytes, 4 + HEADERS));
    assert_eq!((seen.flows.len(), seen.unmatched), (tcp.len() + 1, 0));
}

#[test]
fn every_echo_and_every_fragment_of_one_is_counted() {
    let seen = read("ping.pcap");
    let pings = seen.expected["ping"].as_array().expect("pings");
    for (proto, version, mark) in
        [(IpProto::ICMP, IpVersion::V4, '.'), (IpProto::ICMPV6, IpVersion::V6, ':')]
    {
        let said: Vec<_> = pings
            .iter()
            .filter(|ping| ping["to"].as_str().is_some_and(|to| to.contains(mark)))
            .map(|ping| {
                let fragments = number(&ping["fragments"]);
                (number(&ping["transmitted"]) * fragments, number(&ping["received"]) * fragments)
            })
            .collect();
        let flows = seen.flows.iter().filter(|flow| flow.is(proto, version));
        let found: Vec<_> = flows
            .map(|flow| (flow.stats.initiator.packets, flow.stats.responder.packets))
            .collect();
        assert_eq!(found, said, "one flow a run of ping");
    }
    assert_eq!(seen.unmatched, 0);
}

#[test]
fn what_nobody_listens_to_is_refused_by_reset_and_by_icmp() {
    let seen = read("refused.pcap");
    let refused = &seen.expected["refused"];
    let tcp = seen.to_port(IpProto::TCP, 81);
    assert_eq!(tcp.len(), refused["tcp"].as_array().expect("attempts").len());
    for flow in &tcp {
        assert_eq!(flow.reason, EndReason::Rst);
        assert_eq!((flow.stats.initiator.packets, flow.stats.responder.packets), (1, 1));
    }

    let probes =
        [(IpVersion::V4, 14 + 20 + 8, "udp_probes4"), (IpVersion::V6, 14 + 40 + 8, "udp_probes6")];
    for (version, headers, count) in probes {
        let mut udp = seen.to_port(IpProto::UDP, 9);
        udp.retain(|flow| flow.tuple.version == version);
        assert_eq!(udp.len() as u64, number(&refused[count]));
        for flow in udp {
            assert_eq!((flow.stats.initiator.packets, flow.stats.responder.packets), (1, 0));
            assert_eq!(flow.stats.initiator.bytes, headers + number(&refused["probe_bytes"]));
            assert_eq!(flow.stats.icmp_errors, 1, "the error is told to the flow it quotes");
        }
    }
    assert_eq!(seen.packets(IpProto::ICMP), number(&refused["udp_probes4"]));
    // Beside the errors, one neighbour solicitation and its answer.
    assert_eq!(seen.packets(IpProto::ICMPV6), number(&refused["udp_probes6"]) + 2);
    assert_eq!(seen.unmatched, number(&refused["arp_frames"]));
    assert_eq!(
        seen.frames,
        seen.unmatched + seen.flows.iter().map(|f| f.stats.packets()).sum::<u64>()
    );
}
