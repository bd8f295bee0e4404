//! Frames of every link type and stack: whole, cut anywhere, mutated, arbitrary. Both paths give the same for each.

use proptest::prelude::*;

use super::*;

/// A frame of every link type that is decoded, all around the same segment.
fn every_link_type() -> Vec<(LinkType, Vec<u8>)> {
    let v4 = ipv4(6, &tcp(b"hello"));
    let v6 = ipv6(6, &tcp(b"hello"));
    let sll = |protocol: u16, inner: &[u8]| {
        cat(&[&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], &protocol.to_be_bytes(), inner])
    };
    let sll2 = |protocol: u16, inner: &[u8]| {
        cat(&[
            &protocol.to_be_bytes(),
            &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0],
            inner,
        ])
    };
    vec![
        (LinkType::ETHERNET, ethernet(0x0800, &v4)),
        (LinkType::ETHERNET, ethernet(0x86dd, &v6)),
        (LinkType::ETHERNET, ethernet(0x8100, &tag(5, 0x86dd, &v6))),
        (LinkType::RAW, v4.clone()),
        (LinkType::RAW, v6.clone()),
        (LinkType::RAW_BSD, v4.clone()),
        (LinkType::RAW_OPENBSD, v6.clone()),
        (LinkType::IPV4, v4.clone()),
        (LinkType::IPV6, v6.clone()),
        (LinkType::NULL, cat(&[&[2, 0, 0, 0], &v4])),
        (LinkType::NULL, cat(&[&[0, 0, 0, 2], &v4])),
        (LinkType::NULL, cat(&[&[30, 0, 0, 0], &v6])),
        (LinkType::NULL, cat(&[&[0, 0, 0, 28], &v6])),
        (LinkType::LOOP, cat(&[&[0, 0, 0, 24], &v6])),
        (LinkType::LOOP, cat(&[&[0, 0, 0, 2], &v4])),
        (LinkType::NULL, cat(&[&[0, 2, 0, 0], &v4])),
        (LinkType::NULL, cat(&[&[0xff, 3, 0, 0x21], &v4])),
        (LinkType::PPP, cat(&[&[0xff, 0, 0, 0x21], &v4])),
        (LinkType::PPP, cat(&[&[8, 0], &v4])),
        (LinkType::PPP, cat(&[&[0xff, 3, 0x86, 0xdd], &v6])),
        (LinkType::PPP_ETHER, cat(&[&[0x11, 0, 0, 1, 0, 0, 0, 0x57], &v6])),
        (LinkType::PPP_WITH_DIRECTION, cat(&[&[1, 0xff, 3, 0, 0x21], &v4])),
        (LinkType::PPP_WITH_DIRECTION, cat(&[&[0, 0, 0x57], &v6])),
        (LinkType::PPP_WITH_DIRECTION, cat(&[&[0, 0x0f, 0, 0x86, 0xdd], &v6])),
        (LinkType::ATM_RFC1483, cat(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &v4])),
        (LinkType::LINUX_SLL, sll(0x0800, &v4)),
        (LinkType::LINUX_SLL, sll(0x8100, &tag(5, 0x86dd, &v6))),
        (LinkType::LINUX_SLL2, sll2(0x86dd, &v6)),
        (LinkType::LINUX_SLL2, sll2(0x8100, &tag(5, 0x0800, &v4))),
        (LinkType::PPP, cat(&[&[0xff, 3, 0, 0x21], &v4])),
        (LinkType::PPP, cat(&[&[0x57], &v6])),
        (LinkType::PPP_HDLC, cat(&[&[0, 0x57], &v6])),
        (LinkType::PPP_HDLC, cat(&[&[0x0f, 0, 8, 0], &v4])),
        (LinkType::C_HDLC, cat(&[&[0x8f, 0, 0x86, 0xdd], &v6])),
    ]
}

/// Stacks of every kind, to cut and to mutate.
fn every_stack() -> Vec<(LinkType, Vec<u8>)> {
    let v4 = ipv4(6, &tcp_with(2, &[2, 4, 5, 0xb4, 1, 3, 3, 7], b"hello"));
    let quote = cat(&[&[3, 3, 0, 0, 0, 0, 0, 0], &ipv4(17, &udp(b"x"))]);
    let quote6 = cat(&[&[1, 3, 0, 0, 0, 0, 0, 0], &ipv6(17, &udp(b"x"))]);
    let extensions = cat(&[
        &[60, 0, 5, 2, 0, 0, 1, 0],
        &[43, 0, 1, 4, 0, 0, 0, 0],
        &[51, 0, 0, 0, 0, 0, 0, 0],
        &[44, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
        &[17, 0, 0, 1, 1, 2, 3, 4],
        &udp(&[1; 16]),
    ]);
    let stacks = [
        ethernet(0x0800, &v4),
        ethernet(0x0800, &ipv4_with(6, &[1; 40], 0, &tcp(b"hello"))),
        ethernet(0x0800, &ipv4_with(17, &[], 0x2000, &udp(&[0; 16]))),
        ethernet(0x0800, &ipv4_with(17, &[], 3, &[0; 16])),
        ethernet(0x0800, &ipv4(132, &tcp(b"hello"))),
        ethernet(0x0800, &ipv4(33, &[0x9c, 0x40, 0, 80, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ethernet(0x0800, &ipv4(1, &[8, 0, 0, 0, 0x12, 0x34, 0, 1])),
        ethernet(0x0800, &ipv4(1, &quote)),
        ethernet(0x86dd, &ipv6(58, &quote6)),
        ethernet(0x86dd, &ipv6(17, &udp(b"hello"))),
        ethernet(0x86dd, &ipv6(0, &extensions)),
        ethernet(0x88a8, &tag(1, 0x8100, &tag(2, 0x0800, &v4))),
        ethernet(0x8847, &cat(&[&[0, 0, 0x10, 64, 0, 0, 0x21, 64], &v4])),
        ethernet(0x8864, &cat(&[&[0x11, 0, 0, 1, 0, 0, 0, 0x21], &v4])),
        ethernet(80, &cat(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &v4])),
    ];
    let mut all = every_link_type();
    all.extend(stacks.map(|data| (LinkType::ETHERNET, data)));
    all
}

#[test]
fn every_link_type_is_decoded() {
    for (link, data) in every_link_type() {
        let layers = of(link, &data);
        assert_eq!(ports(&layers), Some((40000, 80)), "{link}: {data:x?}");
        assert_eq!(layers.payload.of(&data), b"hello", "{link}");
        assert_eq!(layers.macs.is_some(), link == LinkType::ETHERNET);
        assert!(link.supported());
    }
}

#[test]
fn an_unsupported_link_type_is_a_fault() {
    for link in (0..=u16::MAX).map(LinkType).filter(|link| !link.supported()) {
        let layers = of(link, &ethernet(0x0800, &ipv4(6, &tcp(b""))));
        assert_eq!((layers.ip, layers.fault), (None, Some(Fault::LinkUnsupported)));
    }
}

#[test]
fn a_frame_snapped_anywhere_has_the_same_key_or_none() {
    for (link, data) in every_stack() {
        let whole = of(link, &data);
        for len in 0..data.len() {
            let cut = Frame { wire_len: data.len() as u32, ..frame(link, &data[..len]) };
            let layers = decode(&cut);
            check(&cut, &layers);
            let (Some(ip), Some(of_whole)) = (layers.ip, whole.ip) else { continue };
            assert_eq!((ip.src, ip.dst), (of_whole.src, of_whole.dst));
            match layers.transport {
                Transport::None => {
                    let silent = whole.transport == Transport::None;
                    assert!(silent || layers.fault.is_some(), "{link} {len}: {layers:?}");
                }
                Transport::Icmp(_) => {
                    let (a, b) = (icmp(&layers), icmp(&whole));
                    assert_eq!((a.ty, a.code, a.id), (b.ty, b.code, b.id));
                }
                Transport::Tcp(_) => assert_eq!(layers.transport, whole.transport),
                Transport::Ports { .. } => assert_eq!(ports(&layers), ports(&whole)),
            }
            if layers.fault.is_none() {
                assert_eq!(ip, of_whole, "{link} {len}");
                assert_eq!(layers.payload.wire, whole.payload.wire, "{link} {len}");
            }
        }
    }
}

/// Every header field at every value of each of its bytes, whole and cut behind it: what the common path declines and what it
/// takes are told apart by single bits.
#[test]
fn every_byte_may_have_any_value() {
    for (link, data) in every_stack() {
        for at in 0..data.len() {
            let mut data = data.clone();
            for value in 0..=u8::MAX {
                data[at] = value;
                for len in [data.len(), at + 1] {
                    let frame = Frame { wire_len: data.len() as u32, ..frame(link, &data[..len]) };
                    check(&frame, &decode(&frame));
                }
            }
        }
    }
}

/// What holds for every frame.
fn check(frame: &Frame<'_>, layers: &Layers) {
    let Payload { offset, captured, wire } = layers.payload;
    let end = u64::from(offset) + u64::from(captured);
    assert!(end <= frame.data.len() as u64, "{layers:?}");
    assert!(captured <= wire, "{layers:?}");
    assert_eq!(layers.payload.of(frame.data).len(), captured as usize);
    let wire_end = u64::from(frame.wire_len).max(frame.data.len() as u64);
    assert!(u64::from(offset) + u64::from(wire) <= wire_end, "{layers:?}");
    assert_eq!(layers.interface, frame.interface);
    assert!(layers.vlans.ids.iter().all(|&id| id < 4096));
    if layers.ip.is_none() {
        assert_eq!((layers.transport, layers.payload), (Transport::None, Payload::default()));
    }
    if let Some(Fault::LinkUnsupported | Fault::LinkTruncated | Fault::IpMalformed) = layers.fault
        && !matches!(layers.ip, Some(IpLayer { version: IpVersion::V6, .. }))
    {
        assert_eq!(layers.ip, None, "{layers:?}");
    }
    if let Transport::Icmp(IcmpHeader { quoted_at: Some(at), .. }) = layers.transport {
        assert!((at as usize) < frame.data.len());
        let quoted = decode_quoted(frame, at);
        assert_eq!((quoted.vlans, quoted.macs), (layers.vlans, None));
    }
    assert_eq!(*layers, decode_any(frame), "the fast and the general path differ");
}

fn link_type() -> impl Strategy<Value = LinkType> {
    prop_oneof![
        4 => Just(LinkType::ETHERNET),
        8 => (0..every_link_type().len()).prop_map(|n| every_link_type()[n].0),
        1 => any::<u16>().prop_map(LinkType),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_decoded_as_far_as_they_go(
        link in link_type(),
        data in prop::collection::vec(any::<u8>(), 0..120),
        wire_len in any::<u32>(),
        at in any::<u32>(),
    ) {
        let frame = Frame { wire_len, ..frame(link, &data) };
        check(&frame, &decode(&frame));
        for at in [at, at % 128] {
            decode_quoted(&frame, at);
        }
    }

    #[test]
    fn mutated_frames_are_decoded_the_same_on_both_paths(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
        snapped in any::<bool>(),
        more in 0u32..2000,
        at in 0u32..200,
    ) {
        let stacks = every_stack();
        let (link, mut data) = stacks[which.index(stacks.len())].clone();
        for (index, byte) in edits {
            let index = index.index(data.len());
            data[index] = byte;
        }
        if snapped {
            data.truncate(keep.index(data.len()));
        }
        let frame = Frame { wire_len: data.len() as u32 + more, ..frame(link, &data) };
        check(&frame, &decode(&frame));
        decode_quoted(&frame, at);
    }
}
