//! pcap: every variant, and every way to be damaged.

use super::*;

/// How a pcap file is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub big: bool,
    pub magic: u32,
    pub record_bytes: usize,
}

/// Microseconds and nanoseconds, plain and modified, in both byte orders.
pub(super) const VARIANTS: [Variant; 6] = {
    const fn variant(big: bool, magic: u32, record_bytes: usize) -> Variant {
        Variant { big, magic, record_bytes }
    }
    [
        variant(false, 0xa1b2_c3d4, 16),
        variant(true, 0xa1b2_c3d4, 16),
        variant(false, 0xa1b2_3c4d, 16),
        variant(true, 0xa1b2_3c4d, 16),
        variant(false, 0xa1b2_cd34, 24),
        variant(true, 0xa1b2_cd34, 24),
    ]
};

impl Variant {
    fn u16(self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub fn header(self, network: u32) -> Vec<u8> {
        let mut bytes = self.u32(self.magic).to_vec();
        bytes.extend([self.u16(2), self.u16(4)].concat());
        bytes.extend([self.u32(0), self.u32(0), self.u32(65_535), self.u32(network)].concat());
        bytes
    }

    pub fn record(
        self,
        secs: u32,
        fraction: u32,
        captured: u32,
        wire: u32,
        data: &[u8],
    ) -> Vec<u8> {
        let mut bytes = [secs, fraction, captured, wire].map(|field| self.u32(field)).concat();
        bytes.resize(self.record_bytes, 0);
        bytes.extend(data);
        bytes
    }

    fn nanos(self, fraction: u32) -> u64 {
        u64::from(fraction) * if self.magic == 0xa1b2_3c4d { 1 } else { 1_000 }
    }
}

const MICROS: Variant = VARIANTS[0];

/// A file of Ethernet frames, one a second.
pub(super) fn plain(frames: u32) -> Vec<u8> {
    let mut bytes = MICROS.header(1);
    for number in 0..frames {
        let data = vec![number as u8; 14 + number as usize % 60];
        bytes.extend(MICROS.record(number, 7, data.len() as u32, 1514, &data));
    }
    bytes
}

fn read(bytes: Vec<u8>) -> (Vec<Seen>, Vec<String>) {
    drained(CaptureFiles::from_bytes("file", bytes).unwrap())
}

fn refusal(bytes: Vec<u8>) -> String {
    CaptureFiles::from_bytes("file", bytes).map(drained).unwrap_err().to_string()
}

#[test]
fn every_variant_tells_the_same_frames() {
    for variant in VARIANTS {
        let mut bytes = variant.header(113);
        bytes.extend(variant.record(1_700_000_000, 999_999, 3, 60, b"abc"));
        bytes.extend(variant.record(1_700_000_001, 0, 0, 0, b""));
        let (frames, errors) = read(bytes);
        assert_eq!(errors, Vec::<String>::new(), "{variant:?}");
        let nanos = 1_700_000_000_000_000_000;
        let first = Seen {
            nanos: nanos + variant.nanos(999_999),
            wire_len: 60,
            link: 113,
            interface: 0,
            data: b"abc".to_vec(),
        };
        let second = Seen {
            nanos: nanos + 1_000_000_000,
            wire_len: 0,
            link: 113,
            interface: 0,
            data: Vec::new(),
        };
        assert_eq!(frames, [first, second], "{variant:?}");
    }
}

#[test]
fn a_file_with_only_its_header_has_no_frames() {
    assert_eq!(read(plain(0)), (Vec::new(), Vec::new()));
}

#[test]
fn the_link_type_does_not_include_the_fcs_bits() {
    let mut bytes = MICROS.header(0x2400_0000 | 276);
    bytes.extend(MICROS.record(0, 0, 1, 1, b"x"));
    assert_eq!(read(bytes).0[0].link, 276);
}

#[test]
fn odd_lengths_and_times_are_taken_leniently() {
    for variant in VARIANTS {
        let mut bytes = variant.header(1);
        bytes.extend(variant.record(u32::MAX, u32::MAX, 4, 2, b"four"));
        let (frames, errors) = read(bytes);
        assert!(errors.is_empty());
        assert_eq!(frames[0].wire_len, 2, "captured more than there was");
        let nanos = u64::from(u32::MAX) * 1_000_000_000 + variant.nanos(u32::MAX);
        assert_eq!(frames[0].nanos, nanos, "the fraction carries over");
    }
}

#[test]
fn a_cut_file_gives_every_whole_frame_and_then_says_where_it_is_cut() {
    let whole = plain(3);
    let third = whole.len() - 16 - 16;
    for cut in third + 1..whole.len() {
        let (frames, errors) = read(whole[..cut].to_vec());
        assert_eq!(frames.len(), 2);
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert!(
            error.starts_with(&format!(
                "file: broken at byte {third}: the file ends within a record"
            ))
        );
        assert!(error.ends_with(&format!("{} are there", cut - third)), "{error}");
    }
    assert_eq!(read(whole[..third].to_vec()).0.len(), 2);
}

#[test]
fn a_length_that_cannot_be_is_damage_and_is_not_allocated() {
    let mut bytes = plain(2);
    let end = bytes.len();
    bytes.extend(MICROS.record(0, 0, u32::MAX, 60, b"abc"));
    let (frames, errors) = read(bytes.clone());
    assert_eq!(frames.len(), 2);
    let claim = format!(
        "file: broken at byte {end}: a frame claims 4294967295 captured bytes, at most 262144"
    );
    assert!(errors[0].starts_with(&claim), "{errors:?}");
    let streamed = CaptureFiles::from_reader("file", io::Cursor::new(bytes)).unwrap();
    assert_eq!(drained(streamed), (frames, errors));
}

#[test]
fn the_longest_frame_is_read_from_memory_and_from_a_stream() {
    let data = vec![7; super::super::super::FRAME_BYTES_MAX];
    let mut bytes = MICROS.header(1);
    for _ in 0..3 {
        bytes.extend(MICROS.record(0, 0, data.len() as u32, 1, &data));
    }
    let streamed =
        drained(CaptureFiles::from_reader("file", io::Cursor::new(bytes.clone())).unwrap());
    assert_eq!((streamed.0.len(), streamed.0[2].data.len()), (3, data.len()));
    assert_eq!(read(bytes), streamed);
}

#[test]
fn what_is_no_capture_file_is_refused_by_what_it_begins_with() {
    assert!(refusal(Vec::new()).starts_with("file: is empty"));
    let text = refusal(b"hello, world: not a capture".to_vec());
    assert!(
        text.starts_with(
            "file: broken at byte 0: not a capture file: it begins with [68, 65, 6c, 6c]"
        ),
        "{text}"
    );
    assert!(
        refusal(plain(0)[..23].to_vec())
            .contains("ends within a file's header: 24 bytes are needed, 23")
    );
    assert!(
        refusal(plain(0)[..2].to_vec())
            .contains("ends within a file's header: 24 bytes are needed, 2")
    );
    let mut version = plain(1);
    version[4] = 3;
    assert!(refusal(version).contains("version 3.4 of pcap is not known, only 2.x is"));
}

#[test]
fn what_is_written_is_read_back() {
    let mut writer = crate::capture::write::PcapWriter::new(Vec::new(), LinkType::RAW).unwrap();
    let frame = Frame {
        ts: crate::Timestamp::new(4_000_000_000, 999_999_999),
        wire_len: 9000,
        link: LinkType::RAW,
        interface: 0,
        data: b"data",
    };
    writer.write(&frame).unwrap();
    let long = Frame { data: &[0; 262_145], ..frame };
    assert_eq!(writer.write(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let (frames, errors) = read(writer.finish().unwrap());
    assert!(errors.is_empty());
    let expected = Seen {
        nanos: 4_000_000_000_999_999_999,
        wire_len: 9000,
        link: 101,
        interface: 0,
        data: b"data".to_vec(),
    };
    assert_eq!(frames, [expected]);
}

#[test]
fn batches_keep_their_room() {
    let mut files = CaptureFiles::from_bytes("file", plain(1000)).unwrap();
    let room = files.scratch.as_ptr();
    let mut sizes = Vec::new();
    while let Some(size) = files.with_batch(|batch| batch.len()).unwrap() {
        sizes.push(size);
        assert_eq!((files.scratch.as_ptr(), files.scratch.capacity()), (room, BATCH_FRAMES_MAX));
    }
    let (last, full) = sizes.split_last().unwrap();
    assert!(full.iter().all(|&size| size == BATCH_FRAMES_MAX), "{sizes:?}");
    assert_eq!(*last, 1000 % BATCH_FRAMES_MAX);
}
