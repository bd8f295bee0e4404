//! Frames to send: those of the captures, and some made up.

use std::path::{Path, PathBuf};

use flowscope::LinkType;
use flowscope::capture::Capture;
use flowscope::capture::file::{CaptureFiles, OpenOptions};

/// Every capture of this repository, and the reference captures beside it where they are, by folder.
fn captures() -> Vec<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("tests/captures"), root.join("../shared/captures/captures")];
    let mut all = Vec::new();
    for folder in folders {
        let Ok(listing) = std::fs::read_dir(&folder) else {
            assert!(std::env::var_os("CI").is_none(), "CI without the captures in {folder:?}");
            eprintln!("SKIPPED: no captures in {}", folder.display());
            continue;
        };
        let paths = listing.map(|entry| entry.expect("a file").path());
        let mut files: Vec<_> = paths
            .filter(|path| {
                let name = path.to_string_lossy();
                [".pcap", ".cap", ".pcapng", ".gz", ".zst"].iter().any(|end| name.ends_with(end))
            })
            .collect();
        files.sort();
        all.push(files);
    }
    all
}

/// Frames of each folder, at least. Those of this repository have some 800, and a few more or fewer when they are made anew.
const FRAMES_MIN: usize = 500;

/// Every Ethernet frame of them that has at least a header and at most `bytes_max`.
pub fn of_captures(bytes_max: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for folder in captures() {
        let before = all.len();
        for file in folder {
            let mut capture = CaptureFiles::open(&[&file], OpenOptions::new()).expect("a capture");
            // A capture that breaks off gives what comes before.
            while let Ok(Some(())) = capture.with_batch(|frames| {
                let fit = frames.iter().filter(|frame| frame.link == LinkType::ETHERNET);
                let fit = fit.filter(|frame| (14..=bytes_max).contains(&frame.data.len()));
                all.extend(fit.map(|frame| frame.data.to_vec()));
            }) {}
        }
        let frames = all.len() - before;
        assert!(frames > FRAMES_MIN, "only {frames} frames");
    }
    all
}

/// A UDP datagram of flow `flow`, number `number`, in a frame of `bytes`.
pub fn udp(flow: u16, number: u32, bytes: usize) -> Vec<u8> {
    assert!(bytes >= 46);
    let ip_bytes = (bytes - 14) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(ip_bytes.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0]);
    frame.extend(flow.to_be_bytes());
    frame.extend([10, 1, 0, 1]);
    frame.extend((flow.wrapping_mul(31)).to_be_bytes());
    frame.extend(53u16.to_be_bytes());
    frame.extend((ip_bytes - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(bytes, number as u8);
    frame
}

/// A frame with tags of these types between addresses and type.
#[allow(dead_code, reason = "not every test has tags")]
pub fn tagged(mut frame: Vec<u8>, tags: &[[u8; 4]]) -> Vec<u8> {
    frame.splice(12..12, tags.concat());
    frame
}

/// The datagram of [`udp`] in two fragments.
#[allow(dead_code, reason = "not every test has fragments")]
pub fn fragments(whole: &[u8], id: u16) -> [Vec<u8>; 2] {
    const HEADERS: usize = 34;
    const FIRST: usize = 24;
    let fragment = |payload: &[u8], place: u16| {
        let mut frame = whole[..HEADERS].to_vec();
        frame.extend(payload);
        frame[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[20..22].copy_from_slice(&place.to_be_bytes());
        frame
    };
    let (first, later) = whole[HEADERS..].split_at(FIRST);
    [fragment(first, 0x2000), fragment(later, FIRST as u16 / 8)]
}

/// The answer of a host where nobody wants the datagram of [`udp`].
#[allow(dead_code, reason = "not every test has errors")]
pub fn port_unreachable(whole: &[u8]) -> Vec<u8> {
    let mut frame = whole[..34].to_vec();
    frame[16..18].copy_from_slice(&56u16.to_be_bytes());
    frame[23] = 1;
    frame[26..30].copy_from_slice(&whole[30..34]);
    frame[30..34].copy_from_slice(&whole[26..30]);
    frame.extend([3, 3, 0, 0, 0, 0, 0, 0]);
    frame.extend(&whole[14..42]);
    frame
}
