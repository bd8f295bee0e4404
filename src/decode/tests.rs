//! Frames made by hand, each named after what is special in it: links and IP here, what is above them in `transport`.
//! `every` cuts, mutates and makes up frames of every kind.

mod every;
mod transport;

use super::*;
use crate::frame::LinkType;
use crate::time::Timestamp;

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
const SRC: [u8; 4] = [192, 0, 2, 1];
const DST: [u8; 4] = [198, 51, 100, 2];
const SRC6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DST6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn ethernet(ether_type: u16, inner: &[u8]) -> Vec<u8> {
    cat(&[&MACS, &ether_type.to_be_bytes(), inner])
}

fn tag(id: u16, ether_type: u16, inner: &[u8]) -> Vec<u8> {
    cat(&[&(0x6000 | id).to_be_bytes(), &ether_type.to_be_bytes(), inner])
}

/// `fragment` is the whole 16-bit field of flags and offset.
fn ipv4_with(proto: u8, options: &[u8], fragment: u16, upper: &[u8]) -> Vec<u8> {
    let total = (20 + options.len() + upper.len()) as u16;
    let [l0, l1] = total.to_be_bytes();
    let [f0, f1] = fragment.to_be_bytes();
    let ihl = 0x45 + (options.len() / 4) as u8;
    let fixed = [ihl, 0, l0, l1, 0xab, 0xcd, f0, f1, 64, proto, 0, 0];
    cat(&[&fixed, &SRC, &DST, options, upper])
}

fn ipv4(proto: u8, upper: &[u8]) -> Vec<u8> {
    ipv4_with(proto, &[], 0x4000, upper)
}

fn ipv6(next: u8, upper: &[u8]) -> Vec<u8> {
    let [l0, l1] = (upper.len() as u16).to_be_bytes();
    cat(&[&[0x60, 0x0a, 0xbc, 0xde, l0, l1, next, 64], &SRC6, &DST6, upper])
}

fn tcp_with(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let doff = 0x50 + ((options.len() / 4) as u8) * 16;
    let fixed = [0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, doff, flags, 0x20, 0x00, 0, 0, 0, 0];
    cat(&[&fixed, options, payload])
}

fn tcp(payload: &[u8]) -> Vec<u8> {
    tcp_with(0x18, &[], payload)
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = (8 + payload.len() as u16).to_be_bytes();
    cat(&[&[0x9c, 0x40, 0, 53, l0, l1, 0, 0], payload])
}

fn frame(link: LinkType, data: &[u8]) -> Frame<'_> {
    Frame { ts: Timestamp::default(), wire_len: data.len() as u32, link, interface: 3, data }
}

fn of(link: LinkType, data: &[u8]) -> Layers {
    decode(&frame(link, data))
}

fn ether(data: &[u8]) -> Layers {
    of(LinkType::ETHERNET, data)
}

/// What the hand-made TCP and UDP segments have for ports.
fn ports(layers: &Layers) -> Option<(u16, u16)> {
    match layers.transport {
        Transport::Tcp(ref tcp) => Some((tcp.src, tcp.dst)),
        Transport::Ports { src, dst } => Some((src, dst)),
        Transport::None | Transport::Icmp(_) => None,
    }
}

fn payload(offset: u32, captured: u32, wire: u32) -> Payload {
    Payload { offset, captured, wire }
}

fn icmp(layers: &Layers) -> IcmpHeader {
    match layers.transport {
        Transport::Icmp(icmp) => icmp,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn ethernet_padding_is_no_payload() {
    let mut data = ethernet(0x0800, &ipv4(6, &tcp(b"x")));
    data.resize(60, 0);
    assert_eq!(ether(&data).payload, payload(54, 1, 1));
}

#[test]
fn a_snapped_payload_keeps_its_length_on_the_wire() {
    let data = ethernet(0x0800, &ipv4(17, &udp(&[7; 100])));
    let cut = Frame { wire_len: data.len() as u32, ..frame(LinkType::ETHERNET, &data[..50]) };
    assert_eq!(decode(&cut).payload, payload(42, 8, 100));
    assert_eq!(decode(&cut).fault, None);
}

#[test]
fn a_total_length_past_the_frame_is_not_believed() {
    let mut data = ethernet(0x0800, &ipv4(6, &tcp(b"hello")));
    data[16] = 0xff;
    assert_eq!(ether(&data).payload, payload(54, 5, 5));
}

#[test]
fn a_total_length_of_zero_is_a_packet_to_be_segmented() {
    let mut data = ethernet(0x0800, &ipv4(6, &tcp(b"hello")));
    data[16] = 0;
    data[17] = 0;
    assert_eq!(ether(&data).payload, payload(54, 5, 5));
    assert_eq!(ports(&ether(&data)), Some((40000, 80)));
}

#[test]
fn ip_options_are_skipped() {
    let data = ethernet(0x0800, &ipv4_with(6, &[1; 40], 0, &tcp(b"hello")));
    assert_eq!(ether(&data).payload, payload(94, 5, 5));
    assert_eq!(ports(&ether(&data)), Some((40000, 80)));
}

#[test]
fn cut_ip_options_leave_the_addresses() {
    let data = ethernet(0x0800, &ipv4_with(6, &[1; 40], 0, &tcp(b"hello")));
    let layers = decode(&Frame { wire_len: 99, ..frame(LinkType::ETHERNET, &data[..40]) });
    assert_eq!(layers.ip.map(|ip| (ip.src, ip.proto)), Some((Addr::v4(SRC), IpProto::TCP)));
    assert_eq!(layers.fault, Some(Fault::IpTruncated));
    assert_eq!(layers.payload, payload(40, 0, 25));
}

#[test]
fn ip_headers_that_contradict_themselves_are_refused() {
    let good = ethernet(0x0800, &ipv4(6, &tcp(b"hello")));
    // Where, and what to put there: another version, a short IHL, a short total length.
    for (at, byte) in [(14, 0x65), (14, 0x44), (17, 19)] {
        let mut data = good.clone();
        data[at] = byte;
        let layers = ether(&data);
        assert_eq!((layers.ip, layers.fault), (None, Some(Fault::IpMalformed)), "{at}");
        assert!(layers.macs.is_some());
    }
}

#[test]
fn a_first_fragment_has_ports_and_a_later_one_has_none() {
    let first = ether(&ethernet(0x0800, &ipv4_with(17, &[], 0x2000, &udp(&[0; 16]))));
    assert_eq!(ports(&first), Some((40000, 53)));
    let fragment = first.ip.and_then(|ip| ip.fragment);
    assert_eq!(fragment, Some(Fragment { id: 0xabcd, offset: 0, more: true }));

    let later = ether(&ethernet(0x0800, &ipv4_with(17, &[], 3, &[0; 16])));
    assert_eq!((later.transport, later.fault), (Transport::None, None));
    assert_eq!(later.payload, payload(34, 16, 16));
    let fragment = later.ip.and_then(|ip| ip.fragment);
    assert_eq!(fragment, Some(Fragment { id: 0xabcd, offset: 24, more: false }));
}

#[test]
fn tags_of_every_kind_are_walked_and_the_two_outermost_kept() {
    let ip = ipv4(6, &tcp(b"hello"));
    let data = ethernet(0x88a8, &tag(100, 0x9100, &tag(200, 0x8100, &tag(300, 0x0800, &ip))));
    let layers = ether(&data);
    assert_eq!(layers.vlans, VlanStack { ids: [100, 200], depth: 3 });
    assert_eq!(ports(&layers), Some((40000, 80)));
}

#[test]
fn thirty_two_tags_are_walked_and_one_more_is_too_deep() {
    let nested = |depth| {
        let ip = ipv4(6, &tcp(b""));
        let tags = (1..depth).fold(tag(depth, 0x0800, &ip), |inner, n| tag(n, 0x8100, &inner));
        ethernet(0x8100, &tags)
    };
    assert_eq!(ether(&nested(32)).vlans.depth, 32);
    assert_eq!(ports(&ether(&nested(32))), Some((40000, 80)));
    assert_eq!(ether(&nested(33)).fault, Some(Fault::TooDeep));
}

#[test]
fn mpls_labels_are_skipped_and_pseudowires_are_no_ip() {
    let stack = [0, 0, 0x10, 64, 0, 0, 0x21, 64];
    let data = ethernet(0x8847, &cat(&[&stack, &ipv4(6, &tcp(b""))]));
    assert_eq!(ports(&ether(&data)), Some((40000, 80)));
    let data = ethernet(0x8848, &cat(&[&stack, &ipv6(17, &udp(b""))]));
    assert_eq!(ports(&ether(&data)), Some((40000, 53)));
    let data = ethernet(0x8847, &cat(&[&stack, &[0; 4], &ethernet(0x0800, &[])]));
    assert_eq!((ether(&data).ip, ether(&data).fault), (None, None));
    let bottomless = ethernet(0x8847, &[0, 0, 0x10, 64].repeat(65));
    assert_eq!(ether(&bottomless).fault, Some(Fault::TooDeep));
}

#[test]
fn pppoe_sessions_carry_ip_and_discovery_does_not() {
    let session = |protocol: &[u8], ip: &[u8]| {
        ethernet(0x8864, &cat(&[&[0x11, 0, 0, 1, 0, 0], protocol, ip]))
    };
    let tcp = ipv4(6, &tcp(b""));
    assert_eq!(ports(&ether(&session(&[0, 0x21], &tcp))), Some((40000, 80)));
    assert_eq!(ports(&ether(&session(&[0x21], &tcp))), Some((40000, 80)));
    let udp = ipv6(17, &udp(b""));
    assert_eq!(ports(&ether(&session(&[0, 0x57], &udp))), Some((40000, 53)));
    let control = ether(&session(&[0xc0, 0x21], &[1, 1, 0, 4]));
    assert_eq!((control.ip, control.fault), (None, None));
    let discovery = ether(&ethernet(0x8863, &[0x11, 9, 0, 0, 0, 0]));
    assert_eq!((discovery.ip, discovery.fault), (None, None));
}

#[test]
fn snap_with_an_ether_type_carries_ip_and_other_llc_does_not() {
    let ip = ipv4(6, &tcp(b"hello"));
    let snap = cat(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ip]);
    assert_eq!(ports(&ether(&ethernet(snap.len() as u16, &snap))), Some((40000, 80)));
    let tagged = tag(5, snap.len() as u16, &snap);
    assert_eq!(ports(&ether(&ethernet(0x8100, &tagged))), Some((40000, 80)));
    let spanning_tree = ether(&ethernet(38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]));
    assert_eq!((spanning_tree.ip, spanning_tree.fault), (None, None));
    assert_eq!(ports(&ether(&ethernet(0x8870, &snap))), Some((40000, 80)), "a long frame");
    let cisco = ether(&ethernet(8, &[0xaa, 0xaa, 3, 0, 0, 0xc, 0x20, 0]));
    assert_eq!((cisco.ip, cisco.fault), (None, None));
}

#[test]
fn what_is_no_ip_is_no_fault() {
    let arp = ether(&ethernet(0x0806, &[0; 28]));
    assert_eq!((arp.ip, arp.transport, arp.fault), (None, Transport::None, None));
    assert!(arp.macs.is_some());
}

#[test]
fn extension_headers_are_walked() {
    let hop_by_hop = [60, 0, 5, 2, 0, 0, 1, 0];
    let destination = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [51, 0, 0, 0, 0, 0, 0, 0];
    let auth = [6, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
    let chain = cat(&[&hop_by_hop, &destination, &routing, &auth, &tcp(b"hello")]);
    let layers = ether(&ethernet(0x86dd, &ipv6(0, &chain)));
    let ip = layers.ip.unwrap();
    assert_eq!((ip.proto, ip.src, ip.flow_label), (IpProto::TCP, Addr(SRC6), 0xabcde));
    assert_eq!(ports(&layers), Some((40000, 80)));
    assert_eq!(layers.payload, payload(14 + 40 + 40 + 20, 5, 5));
}

#[test]
fn openbsd_loopback_is_in_network_order_and_knows_no_ether_types() {
    let v4 = ipv4(6, &tcp(b""));
    for family in [[2, 0, 0, 0], [0, 0, 8, 0], [0, 0, 0, 10]] {
        let layers = of(LinkType::LOOP, &cat(&[&family, &v4]));
        assert_eq!((layers.ip, layers.fault), (None, None), "{family:?}");
    }
}

#[test]
fn thirty_two_extension_headers_are_walked() {
    let options = [[60, 0, 1, 4, 0, 0, 0, 0].repeat(31), vec![17, 0, 1, 4, 0, 0, 0, 0]].concat();
    let layers = ether(&ethernet(0x86dd, &ipv6(60, &cat(&[&options, &udp(b"")]))));
    assert_eq!((ports(&layers), layers.fault), (Some((40000, 53)), None));
}

#[test]
fn options_that_are_cut_still_tell_the_protocol_behind_them() {
    let hop_by_hop = ether(&ethernet(0x86dd, &ipv6(0, &[58, 0, 5, 2])));
    assert_eq!(hop_by_hop.ip.unwrap().proto, IpProto::ICMPV6);
    assert_eq!(hop_by_hop.fault, Some(Fault::IpTruncated));
    let one_byte = ether(&ethernet(0x86dd, &ipv6(0, &[58])));
    assert_eq!(one_byte.ip.unwrap().proto, IpProto(0));
    let routing = ether(&ethernet(0x86dd, &ipv6(43, &[58, 9, 5, 2])));
    assert_eq!(routing.ip.unwrap().proto, IpProto(43));
}

#[test]
fn tags_mean_nothing_on_a_serial_line() {
    let tagged = cat(&[&[0x0f, 0, 0x81, 0], &tag(5, 0x0800, &ipv4(6, &tcp(b"")))]);
    for link in [LinkType::C_HDLC, LinkType::PPP] {
        let layers = of(link, &tagged);
        assert_eq!((layers.ip, layers.fault), (None, None), "{link}");
    }
}

#[test]
fn endless_extension_headers_are_too_deep() {
    let data = ethernet(0x86dd, &ipv6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(33)));
    assert_eq!(ether(&data).fault, Some(Fault::TooDeep));
    assert!(ether(&data).ip.is_some());
}

#[test]
fn an_atomic_fragment_is_none_and_a_later_one_keeps_its_protocol() {
    let fragment = |field: u16, upper: &[u8]| {
        let [a, b] = field.to_be_bytes();
        ethernet(0x86dd, &ipv6(44, &cat(&[&[17, 0, a, b, 1, 2, 3, 4], upper])))
    };
    let atomic = ether(&fragment(0, &udp(b"")));
    assert_eq!(atomic.ip.unwrap().fragment, None);
    assert_eq!(ports(&atomic), Some((40000, 53)));
    let first = ether(&fragment(1, &udp(b"")));
    assert_eq!(
        first.ip.unwrap().fragment,
        Some(Fragment { id: 0x0102_0304, offset: 0, more: true })
    );
    assert_eq!(ports(&first), Some((40000, 53)));
    let later = ether(&fragment(16, &[0; 24]));
    let ip = later.ip.unwrap();
    assert_eq!(ip.fragment.map(|f| (f.offset, f.more)), Some((16, false)));
    assert_eq!((ip.proto, later.transport, later.fault), (IpProto::UDP, Transport::None, None));
    assert_eq!(later.payload, payload(62, 24, 24));
}

#[test]
fn a_jumbogram_takes_the_rest_of_the_frame() {
    let mut ip = ipv6(0, &cat(&[&[17, 0, 0xc2, 4, 0, 1, 0, 0], &udp(&[1; 32])]));
    ip[4] = 0;
    ip[5] = 0;
    let layers = ether(&ethernet(0x86dd, &ip));
    assert_eq!(ports(&layers), Some((40000, 53)));
    assert_eq!(layers.payload, payload(70, 32, 32));
}

#[test]
fn protocols_without_ports_stand_for_themselves() {
    for proto in [2, 4, 41, 47, 50, 51, 89, 112, 255] {
        let layers = ether(&ethernet(0x0800, &ipv4(proto, &[0x45; 32])));
        assert_eq!(layers.ip.map(|ip| ip.proto), Some(IpProto(proto)));
        assert_eq!((layers.transport, layers.fault), (Transport::None, None), "{proto}");
        assert_eq!(layers.payload, payload(34, 32, 32));
    }
}
