//! Arbitrary frames of every link type: decoding is total, and what it tells is inside the frame.
//!
//! Input: link type (1 byte, an index), interface (1), bytes on the wire beyond those captured (2,
//! big-endian), then the frame.

#![no_main]

use flowscope::decode::{IcmpHeader, Layers, Transport, decode, decode_quoted};
use flowscope::frame::{Frame, LinkType};
use flowscope::time::Timestamp;
use libfuzzer_sys::fuzz_target;

const LINKS: [LinkType; 17] = [
    LinkType::ETHERNET,
    LinkType::NULL,
    LinkType::PPP,
    LinkType::PPP_HDLC,
    LinkType::PPP_ETHER,
    LinkType::PPP_WITH_DIRECTION,
    LinkType::ATM_RFC1483,
    LinkType::RAW_BSD,
    LinkType::RAW_OPENBSD,
    LinkType::RAW,
    LinkType::C_HDLC,
    LinkType::LOOP,
    LinkType::LINUX_SLL,
    LinkType::IPV4,
    LinkType::IPV6,
    LinkType::LINUX_SLL2,
    LinkType(105),
];

fuzz_target!(|input: &[u8]| {
    let [link, interface, more_high, more_low, data @ ..] = input else { return };
    let frame = Frame {
        ts: Timestamp::default(),
        wire_len: data.len() as u32 + u32::from(u16::from_be_bytes([*more_high, *more_low])),
        link: LINKS[usize::from(*link) % LINKS.len()],
        interface: u16::from(*interface),
        data,
    };
    let layers = decode(&frame);
    check(&frame, &layers);
    assert_eq!(layers.interface, frame.interface);
    if let Transport::Icmp(IcmpHeader { quoted_at: Some(at), .. }) = layers.transport {
        let quoted = decode_quoted(&frame, at);
        check(&frame, &quoted);
        assert_eq!(quoted.vlans, layers.vlans);
    }
    // Total, wherever the quote is said to be.
    let at = u32::from(*more_low);
    check(&frame, &decode_quoted(&frame, at));
    check(&frame, &decode_quoted(&frame, u32::MAX - at));
});

fn check(frame: &Frame<'_>, layers: &Layers) {
    let payload = layers.payload;
    let offset = u64::from(payload.offset);
    assert!(offset + u64::from(payload.captured) <= frame.data.len() as u64);
    assert!(offset + u64::from(payload.wire) <= u64::from(frame.wire_len));
    assert!(payload.captured <= payload.wire);
    assert_eq!(payload.of(frame.data).len(), payload.captured as usize);
    assert!(layers.vlans.ids.iter().all(|&id| id < 4096));
    if layers.ip.is_none() {
        assert_eq!(layers.transport, Transport::None);
        assert_eq!(payload.wire, 0);
    }
    if let Some(fragment) = layers.ip.and_then(|ip| ip.fragment) {
        assert!(fragment.offset != 0 || fragment.more);
        assert!(fragment.offset == 0 || layers.transport == Transport::None);
    }
    if let Transport::Tcp(tcp) = layers.transport {
        assert!(layers.fault.is_none());
        assert!((20..=60).contains(&tcp.header_len));
        assert!(tcp.window_scale.is_none_or(|shift| shift <= 14));
    }
    if let Transport::Icmp(icmp) = layers.transport {
        assert!(icmp.quoted_at.is_none_or(|at| (at as usize) < frame.data.len()));
    }
}
