//! Which worker a frame belongs to, as Rust has it, and frames on which programs in the kernel are held to the same.

use flowscope::decode::decode;
use flowscope::flow::ByFiveTuple;
use flowscope::sensor::rss::Steering;
use flowscope::{Frame, LinkType, Timestamp};

/// The worker that Rust's steering gives a frame, `None` when it is not IP. Fragments are spread by their addresses alone.
pub fn worker(steering: &Steering, data: &[u8]) -> Option<usize> {
    let (link, ts) = (LinkType::ETHERNET, Timestamp::ZERO);
    let layers = decode(&Frame { ts, wire_len: data.len() as u32, link, interface: 0, data });
    let mut tuple = ByFiveTuple::default().tuple(&layers)?;
    if layers.ip.is_some_and(|ip| ip.fragment.is_some()) {
        (tuple.src_port, tuple.dst_port) = (0, 0);
    }
    Some(steering.worker(&tuple.canonical().0))
}

/// Numbers below what is asked for, always the same ones (xorshift), so that a failure can be had again.
pub fn random() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

/// So many frames, each one of `frames` with some bytes changed or its end cut off; the same ones at each call.
pub fn damaged(frames: &[Vec<u8>], count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut random = random();
    (0..count).map(move |_| {
        let mut frame = frames[random(frames.len())].clone();
        for _ in 0..random(4) {
            // Mostly where headers are.
            let within = frame.len().min(90);
            let at = random(within);
            // Values that mean something somewhere, or any.
            let telling =
                [0, 4, 6, 44, 51, 60, 0x40, 0x45, 0x47, 0x60, 0x81, 0x88, 0x86, 0xaa, 0xdd, 0xff];
            frame[at] =
                if random(2) == 0 { telling[random(telling.len())] } else { random(256) as u8 };
        }
        if random(3) == 0 {
            frame.truncate(14.max(random(120)).min(frame.len()));
        }
        frame
    })
}

/// The deepest headers that are walked, and some more: tags, labels and extension headers, with this datagram of IPv4 behind the
/// first two. Of three frames there are too many tags, of three too many labels.
pub fn deepest(v4: &[u8]) -> Vec<Vec<u8>> {
    let ethernet = |ether_type: u16| {
        let mut frame = vec![2; 12];
        frame.extend(ether_type.to_be_bytes());
        frame
    };
    let mut frames = Vec::new();
    for tags in 0..36 {
        let mut frame = ethernet(if tags == 0 { 0x0800 } else { 0x88a8 });
        for tag in 0..tags {
            frame.extend([0, tag as u8 + 1]);
            frame.extend(if tag + 1 == tags { 0x0800u16 } else { 0x8100 }.to_be_bytes());
        }
        frame.extend(v4);
        frames.push(frame);
    }
    for labels in 1..68 {
        let mut frame = ethernet(0x8847);
        (0..labels).for_each(|label| frame.extend([0, 1, u8::from(label + 1 == labels), 64]));
        frame.extend(v4);
        frames.push(frame);
    }
    for extensions in 0..36u8 {
        for kind in [0, 43, 44, 51, 60u8] {
            let mut frame = ethernet(0x86dd);
            frame.extend([0x60, 0, 0, 0, 0, 200, if extensions == 0 { 17 } else { kind }, 64]);
            frame.extend((0..32).map(|byte| byte * 7));
            for extension in 0..extensions {
                let next = if extension + 1 == extensions { 17 } else { kind };
                // 8 bytes, of AH 12 and a word more.
                let length = if kind == 51 { 2 } else { 0 };
                frame.extend([next, length, 0, 0, 9, 9, 9, 9]);
                frame.extend(if kind == 51 { &[8u8; 8][..] } else { &[] });
            }
            frame.extend([0x12, 0x34, 0x56, 0x78]);
            frame.resize(frame.len() + 40, 5);
            frames.push(frame);
        }
    }
    frames
}
