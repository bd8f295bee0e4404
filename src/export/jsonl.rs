//! One JSON object a record, one line each, written by hand: every name is known, every value is a
//! number or text that needs no escaping, so that a record costs a few copies.
//!
//! Contract: `src` is the initiator. The counts are those that no earlier record of the flow told
//! ([`FlowStats::unreported`]), so that records of a flow add up; flags, history and state are
//! those since the flow began.

use super::community_id::{Block, Endpoints, Sum};
use super::text::Line;
use crate::flow::extract::reply_type;
use crate::flow::{FiveTuple, FlowKey, FlowStats, TcpState, Totals};
use crate::net::{IpProto, Side};

/// What a record says beside the flow's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why the record was made: a label, without characters that need escaping.
    pub reason: &'static str,
    /// Whether the flow goes on.
    pub interim: bool,
}

/// Puts the record of a flow, with its line end. `totals` is what the record tells: [`FlowStats::unreported`].
pub fn put_record(
    line: &mut Line<'_>,
    key: &FlowKey,
    stats: &FlowStats,
    totals: &Totals,
    outcome: Outcome,
    with_community_id: bool,
) {
    let tuple = key.from_end(stats.initiator_end);
    let (src_port, dst_port) = printed_ports(&tuple, stats);
    let mut block = Block::default();
    if with_community_id {
        block.set(&endpoints(&tuple, (src_port, dst_port)), 0);
    }
    line.put(b"{\"src_ip\":\"");
    line.ip(tuple.src, tuple.version);
    number(line, b"\",\"src_port\":", u64::from(src_port));
    line.put(b",\"dst_ip\":\"");
    line.ip(tuple.dst, tuple.version);
    number(line, b"\",\"dst_port\":", u64::from(dst_port));
    // Well after the block was set, and well before the sum is put.
    let sum = if with_community_id { block.sum() } else { Sum::default() };
    number(line, b",\"proto\":", u64::from(tuple.proto.0));
    number(line, b",\"packets_initiator\":", totals.packets[Side::Initiator as usize]);
    number(line, b",\"packets_responder\":", totals.packets[Side::Responder as usize]);
    number(line, b",\"bytes_initiator\":", totals.bytes[Side::Initiator as usize]);
    number(line, b",\"bytes_responder\":", totals.bytes[Side::Responder as usize]);
    line.put(b",\"reason\":\"");
    line.put_all(outcome.reason.as_bytes());
    line.put(b"\",\"start\":\"");
    line.time(totals.first);
    line.put(b"\",\"end\":\"");
    line.time(totals.last);
    line.put(b"\",\"duration\":");
    line.seconds(totals.last.nanos_since(totals.first));
    if outcome.interim {
        line.put(b",\"interim\":true");
    }
    if let Some(vlan) = stats.vlan {
        number(line, b",\"vlan\":", u64::from(vlan));
    }
    if let Some(state) = stats.tcp_state {
        put_tcp(line, stats, state);
    }
    if matches!(tuple.proto, IpProto::ICMP | IpProto::ICMPV6) {
        number(line, b",\"icmp_type\":", u64::from(src_port));
        number(line, b",\"icmp_code\":", u64::from(dst_port));
        number(line, b",\"icmp_id\":", u64::from(tuple.dst_port));
    }
    if stats.icmp_errors != 0 {
        number(line, b",\"icmp_errors\":", u64::from(stats.icmp_errors));
    }
    if with_community_id {
        line.put(b",\"community_id\":\"");
        line.put_with(|text| sum.put(text));
        line.put(b"\"");
    }
    line.put(b"}\n");
}

#[inline(always)]
fn number<const N: usize>(line: &mut Line<'_>, name: &[u8; N], value: u64) {
    line.put(name);
    line.number(value);
}

fn put_tcp(line: &mut Line<'_>, stats: &FlowStats, state: TcpState) {
    line.put(b",\"tcp_state\":\"");
    line.put_all(state_label(state).as_bytes());
    line.put(b"\",\"flags_initiator\":\"");
    line.flags(stats.initiator.tcp_flags);
    line.put(b"\",\"flags_responder\":\"");
    line.flags(stats.responder.tcp_flags);
    line.put(b"\",\"history\":\"");
    line.history(stats.history);
    number(line, b"\",\"retransmitted_initiator\":", u64::from(stats.initiator.retransmitted));
    number(line, b",\"retransmitted_responder\":", u64::from(stats.responder.retransmitted));
    number(line, b",\"out_of_order_initiator\":", u64::from(stats.initiator.out_of_order));
    number(line, b",\"out_of_order_responder\":", u64::from(stats.responder.out_of_order));
    if stats.midstream {
        line.put(b",\"midstream\":true");
    } else {
        line.put(b",\"midstream\":false");
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::text::{LINE_BYTES_MAX, Seconds};
    use crate::flow::{History, SideStats};
    use crate::net::{Addr, End, IpVersion, TcpFlags};
    use crate::time::Timestamp;

    #[test]
    fn the_longest_record_fits_its_line() {
        let side = SideStats {
            packets: u64::MAX,
            bytes: u64::MAX,
            tcp_flags: TcpFlags(0xff),
            retransmitted: u32::MAX,
            out_of_order: u32::MAX,
        };
        let marks = [crate::flow::history::Mark::Syn; History::MAX_LETTERS];
        let history = History::default().with(marks, End::A);
        let stats = FlowStats {
            first: Timestamp::ZERO,
            last: Timestamp::MAX,
            initiator_end: End::A,
            initiator: side,
            responder: side,
            proto: IpProto::ICMPV6,
            vlan: Some(4095),
            tcp_state: Some(TcpState::SynReceived),
            midstream: false,
            history,
            reply_first: false,
            icmp_errors: u32::MAX,
            reported: Totals::default(),
            updates: 0,
        };
        let (key, _) = FiveTuple {
            src: Addr([0xab; 16]),
            dst: Addr([0xcd; 16]),
            src_port: u16::MAX,
            dst_port: u16::MAX,
            proto: IpProto::ICMPV6,
            version: IpVersion::V6,
            scope: Default::default(),
        }
        .canonical();
        let (mut room, mut seconds) = ([0; LINE_BYTES_MAX], Seconds::default());
        let mut line = Line::new(&mut room, &mut seconds);
        let outcome = Outcome { reason: "a_reason_longer_than_any_there_is", interim: true };
        put_record(&mut line, &key, &stats, &stats.unreported(), outcome, true);
        assert!(!line.is_cut());
        let text = std::str::from_utf8(line.as_bytes()).unwrap();
        assert!(text.starts_with("{\"src_ip\":\"abab:"), "{text}");
        assert!(text.ends_with("=\"}\n"), "{text}");
        // Words are stored whole: there must be room behind the last one that counts.
        assert!(text.len() < 900, "{} bytes", text.len());
    }
}
