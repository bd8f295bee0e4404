//! TCP, UDP, ICMP, and what else has ports.

use super::*;

#[test]
fn a_tcp_segment_is_told_whole() {
    let data = ethernet(0x0800, &ipv4(6, &tcp(b"hello")));
    let layers = ether(&data);
    assert_eq!(
        layers,
        Layers {
            macs: Some((MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))),
            vlans: VlanStack::default(),
            interface: 3,
            ip: Some(IpLayer {
                version: IpVersion::V4,
                proto: IpProto::TCP,
                src: Addr::v4(SRC),
                dst: Addr::v4(DST),
                flow_label: 0,
                fragment: None,
            }),
            transport: Transport::Tcp(TcpHeader {
                src: 40000,
                dst: 80,
                seq: 0x0102_0304,
                ack: 0x0506_0708,
                flags: TcpFlags(0x18),
                window: 0x2000,
                header_len: 20,
                window_scale: None,
            }),
            payload: payload(54, 5, 5),
            fault: None,
        }
    );
    assert_eq!(layers.payload.of(&data), b"hello");
}

#[test]
fn window_scale_is_read_on_syn_only() {
    let options = [2, 4, 5, 0xb4, 1, 3, 3, 7];
    let scale = |flags| {
        let data = ethernet(0x0800, &ipv4(6, &tcp_with(flags, &options, b"")));
        match ether(&data).transport {
            Transport::Tcp(tcp) => tcp.window_scale,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(scale(0x02), Some(7));
    assert_eq!(scale(0x12), Some(7));
    assert_eq!(scale(0x10), None);
}

#[test]
fn malformed_tcp_options_give_no_window_scale() {
    for options in
        [[3, 3, 15, 0], [3, 2, 7, 0], [2, 0, 0, 0], [2, 9, 3, 3], [0, 3, 3, 7], [1, 1, 1, 3]]
    {
        let data = ethernet(0x0800, &ipv4(6, &tcp_with(2, &options, b"")));
        let Transport::Tcp(tcp) = ether(&data).transport else { panic!() };
        assert_eq!(tcp.window_scale, (options == [3, 3, 15, 0]).then_some(14), "{options:?}");
    }
}

#[test]
fn sctp_dccp_and_udp_lite_have_ports() {
    // DCCP's byte 4 is its data offset: four words here.
    let header = [0x9c, 0x40, 0, 80, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    for (proto, payload_bytes) in [(132, 8), (33, 4), (136, 12)] {
        let layers = ether(&ethernet(0x0800, &ipv4(proto, &header)));
        assert_eq!(layers.transport, Transport::Ports { src: 40000, dst: 80 });
        assert_eq!(layers.payload.captured, payload_bytes, "{proto}");
    }
}

#[test]
fn a_transport_header_cut_after_its_ports_still_gives_them() {
    for proto in [6, 17, 33, 132, 136] {
        let data = ethernet(0x0800, &ipv4(proto, &tcp(b"hello")[..4]));
        let layers = ether(&data);
        assert_eq!(layers.transport, Transport::Ports { src: 40000, dst: 80 }, "{proto}");
        assert_eq!(layers.fault, Some(Fault::TransportTruncated));
        let layers = ether(&data[..37]);
        assert_eq!(layers.transport, Transport::None);
        assert_eq!(layers.fault, Some(Fault::TransportTruncated));
    }
}

#[test]
fn a_data_offset_under_five_is_malformed_but_has_ports() {
    let mut segment = tcp(b"hello");
    segment[12] = 0x40;
    let layers = ether(&ethernet(0x0800, &ipv4(6, &segment)));
    assert_eq!(layers.transport, Transport::Ports { src: 40000, dst: 80 });
    assert_eq!(layers.fault, Some(Fault::TransportMalformed));
}

#[test]
fn a_udp_length_bounds_the_payload() {
    let mut datagram = udp(b"hello, surplus");
    datagram[5] = 8 + 5;
    let layers = ether(&ethernet(0x0800, &ipv4(17, &datagram)));
    assert_eq!((layers.payload, layers.fault), (payload(42, 5, 5), None));
    datagram[5] = 7;
    let layers = ether(&ethernet(0x0800, &ipv4(17, &datagram)));
    assert_eq!(layers.fault, Some(Fault::TransportMalformed));
    assert_eq!(ports(&layers), Some((40000, 53)));
}

#[test]
fn icmp_queries_have_an_identifier_and_errors_a_quote() {
    let echo = ether(&ethernet(0x0800, &ipv4(1, &[8, 0, 0, 0, 0x12, 0x34, 0, 1])));
    assert_eq!(icmp(&echo), IcmpHeader { ty: 8, code: 0, id: 0x1234, quoted_at: None });
    let reply = ether(&ethernet(0x86dd, &ipv6(58, &[129, 0, 0, 0, 0x12, 0x34, 0, 1])));
    assert_eq!(icmp(&reply), IcmpHeader { ty: 129, code: 0, id: 0x1234, quoted_at: None });

    let quote = &ipv4(17, &udp(b"x"))[..28];
    let unreachable = cat(&[&[3, 3, 0, 0, 0x55, 0x55, 0, 0], quote]);
    let layers = ether(&ethernet(0x0800, &ipv4(1, &unreachable)));
    assert_eq!(icmp(&layers), IcmpHeader { ty: 3, code: 3, id: 0, quoted_at: Some(42) });
    let too_big = cat(&[&[2, 0, 0, 0, 0, 0, 5, 0], quote]);
    assert_eq!(icmp(&ether(&ethernet(0x86dd, &ipv6(58, &too_big)))).quoted_at, Some(62));
    let redirect = cat(&[&[137, 0, 0, 0, 0, 0, 0, 0], quote]);
    assert_eq!(icmp(&ether(&ethernet(0x86dd, &ipv6(58, &redirect)))).quoted_at, None);
}

#[test]
fn a_quoted_packet_is_decoded_with_the_tags_of_its_frame() {
    let quote = &ipv4(6, &tcp(b"a longer payload"))[..28];
    let exceeded = cat(&[&[11, 0, 0, 0, 0, 0, 0, 0], quote]);
    let data = ethernet(0x8100, &tag(7, 0x0800, &ipv4(1, &exceeded)));
    let frame = frame(LinkType::ETHERNET, &data);
    let quoted = decode_quoted(&frame, icmp(&decode(&frame)).quoted_at.unwrap());
    assert_eq!(quoted.vlans, VlanStack { ids: [7, 0], depth: 1 });
    assert_eq!((quoted.interface, quoted.macs), (3, None));
    assert_eq!(quoted.ip.map(|ip| ip.src), Some(Addr::v4(SRC)));
    assert_eq!(quoted.transport, Transport::Ports { src: 40000, dst: 80 });
    assert_eq!(quoted.fault, Some(Fault::TransportTruncated));
}

#[test]
fn a_quote_past_the_end_is_truncated() {
    for at in [0, 13, 14, 1000, u32::MAX] {
        let layers = decode_quoted(&frame(LinkType::ETHERNET, &[0; 14]), at);
        assert_eq!(layers.ip, None);
        assert!(layers.fault.is_some());
    }
}
