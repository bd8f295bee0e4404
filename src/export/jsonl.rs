//! One JSON object a record, one line each, written by hand: every name is known, every value is a
//! number or text that needs no escaping, so that a record costs a few copies.
//!
//! Contract: `src` is the initiator. The counts are those that no earlier record of the flow told
//! ([`FlowStats::unreported`]), so that records of a flow add up; flags, history and state are
//! those since the flow began.

use std::io::Write;

use super::community_id::{self, Endpoints};
use super::text::{push_flags, push_ip, push_seconds, push_time, push_u64};
use crate::flow::extract::reply_type;
use crate::flow::{FiveTuple, FlowKey, FlowStats, TcpState};
use crate::net::{IpProto, Side};

/// What a record says beside the flow's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why the record was made: a label, without characters that need escaping.
    pub reason: &'static str,
    /// Whether the flow goes on.
    pub interim: bool,
}

/// Appends the record of a flow, with its line end.
pub fn push_record(
    out: &mut Vec<u8>,
    key: &FlowKey,
    stats: &FlowStats,
    outcome: Outcome,
    with_community_id: bool,
) {
    let tuple = key.from_end(stats.initiator_end);
    let totals = stats.unreported();
    out.extend_from_slice(b"{\"src_ip\":\"");
    push_ip(out, tuple.src, tuple.version);
    out.extend_from_slice(b"\",\"src_port\":");
    let (src_port, dst_port) = printed_ports(&tuple, stats);
    push_u64(out, u64::from(src_port));
    out.extend_from_slice(b",\"dst_ip\":\"");
    push_ip(out, tuple.dst, tuple.version);
    out.extend_from_slice(b"\",\"dst_port\":");
    push_u64(out, u64::from(dst_port));
    number(out, b",\"proto\":", u64::from(tuple.proto.0));
    number(out, b",\"packets_initiator\":", totals.packets[Side::Initiator as usize]);
    number(out, b",\"packets_responder\":", totals.packets[Side::Responder as usize]);
    number(out, b",\"bytes_initiator\":", totals.bytes[Side::Initiator as usize]);
    number(out, b",\"bytes_responder\":", totals.bytes[Side::Responder as usize]);
    out.extend_from_slice(b",\"reason\":\"");
    out.extend_from_slice(outcome.reason.as_bytes());
    out.extend_from_slice(b"\",\"start\":\"");
    push_time(out, totals.first);
    out.extend_from_slice(b"\",\"end\":\"");
    push_time(out, totals.last);
    out.extend_from_slice(b"\",\"duration\":");
    push_seconds(out, totals.last.nanos_since(totals.first));
    if outcome.interim {
        out.extend_from_slice(b",\"interim\":true");
    }
    if let Some(vlan) = stats.vlan {
        number(out, b",\"vlan\":", u64::from(vlan));
    }
    if let Some(state) = stats.tcp_state {
        push_tcp(out, stats, state);
    }
    if matches!(tuple.proto, IpProto::ICMP | IpProto::ICMPV6) {
        number(out, b",\"icmp_type\":", u64::from(src_port));
        number(out, b",\"icmp_code\":", u64::from(dst_port));
        number(out, b",\"icmp_id\":", u64::from(tuple.dst_port));
    }
    if stats.icmp_errors != 0 {
        number(out, b",\"icmp_errors\":", u64::from(stats.icmp_errors));
    }
    if with_community_id {
        out.extend_from_slice(b",\"community_id\":\"");
        out.extend_from_slice(&community_id::text(&endpoints(&tuple, (src_port, dst_port)), 0));
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
}

fn number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    push_u64(out, value);
}

fn push_tcp(out: &mut Vec<u8>, stats: &FlowStats, state: TcpState) {
    out.extend_from_slice(b",\"tcp_state\":\"");
    out.extend_from_slice(state_label(state).as_bytes());
    out.extend_from_slice(b"\",\"flags_initiator\":\"");
    push_flags(out, stats.initiator.tcp_flags);
    out.extend_from_slice(b"\",\"flags_responder\":\"");
    push_flags(out, stats.responder.tcp_flags);
    out.extend_from_slice(b"\",\"history\":\"");
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}", stats.history);
    out.push(b'"');
    number(out, b",\"retransmitted_initiator\":", u64::from(stats.initiator.retransmitted));
    number(out, b",\"retransmitted_responder\":", u64::from(stats.responder.retransmitted));
    number(out, b",\"out_of_order_initiator\":", u64::from(stats.initiator.out_of_order));
    number(out, b",\"out_of_order_responder\":", u64::from(stats.responder.out_of_order));
    out.extend_from_slice(if stats.midstream {
        b",\"midstream\":true"
    } else {
        b",\"midstream\":false"
    });
}

/// The ports as printed: for ICMP the type and the code of the first packet, as the other tools have it.
fn printed_ports(tuple: &FiveTuple, stats: &FlowStats) -> (u16, u16) {
    match tuple.proto {
        IpProto::ICMP | IpProto::ICMPV6 => {
            let [ty, code] = tuple.src_port.to_be_bytes();
            let answer = if stats.reply_first { reply_type(tuple.proto, ty) } else { None };
            (u16::from(answer.unwrap_or(ty)), u16::from(code))
        }
        _ => (tuple.src_port, tuple.dst_port),
    }
}

/// The flow's ends as the Community ID wants them.
fn endpoints(tuple: &FiveTuple, (src_port, dst_port): (u16, u16)) -> Endpoints {
    let FiveTuple { src, dst, proto, version, .. } = *tuple;
    Endpoints { src, dst, src_port, dst_port, proto, version }
}

/// A connection's state as records spell it.
fn state_label(state: TcpState) -> &'static str {
    match state {
        TcpState::SynSent => "syn_sent",
        TcpState::SynReceived => "syn_received",
        TcpState::Established => "established",
        TcpState::FinWait1 => "fin_wait_1",
        TcpState::FinWait2 => "fin_wait_2",
        TcpState::Closing => "closing",
        TcpState::LastAck => "last_ack",
        TcpState::TimeWait => "time_wait",
        TcpState::Closed => "closed",
    }
}
