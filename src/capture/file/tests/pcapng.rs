//! pcapng: sections, interfaces and their clocks, blocks of all kinds, and damage.

use proptest::prelude::*;

use super::*;

/// A pcapng file as it grows.
#[derive(Clone)]
pub(super) struct Writer {
    big: bool,
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn new(big: bool) -> Self {
        let mut writer = Self { big, bytes: Vec::new() };
        writer.section(big);
        writer
    }

    pub fn section(&mut self, big: bool) -> &mut Self {
        self.big = big;
        let body = [&self.u32(0x1a2b_3c4d)[..], &self.u16(1), &self.u16(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    fn u16(&self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub fn block(&mut self, kind: u32, body: &[u8]) -> &mut Self {
        let padding = body.len().next_multiple_of(4) - body.len();
        let total = self.u32((body.len() + padding + 12) as u32);
        self.bytes.extend([&self.u32(kind)[..], &total, body, &[0; 3][..padding], &total].concat());
        self
    }

    /// An interface with the options given as they are.
    pub fn interface(&mut self, link: u16, snap: u32, options: &[(u16, &[u8])]) -> &mut Self {
        let mut body = [&self.u16(link)[..], &[0; 2], &self.u32(snap)].concat();
        for (code, value) in options {
            body.extend([&self.u16(*code)[..], &self.u16(value.len() as u16), value].concat());
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    pub fn enhanced(&mut self, interface: u32, ticks: u64, wire: u32, data: &[u8]) -> &mut Self {
        let fields = [interface, (ticks >> 32) as u32, ticks as u32, data.len() as u32, wire];
        let body = [&fields.map(|field| self.u32(field)).concat()[..], data].concat();
        self.block(6, &body)
    }

    /// Of either of two interfaces, repeating `content`.
    fn numbered(&mut self, number: usize, length: usize, content: &[u8]) -> &mut Self {
        let data: Vec<u8> = content.iter().copied().cycle().take(length).collect();
        self.enhanced(number as u32 % 2, 1 << 50 | number as u64, length as u32 + 4, &data)
    }

    fn obsolete(&mut self, interface: u16, ticks: u64, wire: u32, data: &[u8]) -> &mut Self {
        let fields = [(ticks >> 32) as u32, ticks as u32, data.len() as u32, wire];
        let fields = fields.map(|field| self.u32(field)).concat();
        let body = [&self.u16(interface)[..], &self.u16(9), &fields, data].concat();
        self.block(2, &body)
    }

    pub fn simple(&mut self, wire: u32, data: &[u8]) -> &mut Self {
        let body = [&self.u32(wire)[..], data].concat();
        self.block(3, &body)
    }

    fn read(&self) -> (Vec<Seen>, Vec<String>) {
        let held = drained(CaptureFiles::from_bytes("file", self.bytes.clone()).unwrap());
        let cursor = io::Cursor::new(self.bytes.clone());
        assert_eq!(
            drained(CaptureFiles::from_reader("file", cursor).unwrap()),
            held,
            "held and streamed"
        );
        held
    }

    /// The frames of a file that has nothing wrong with it.
    fn frames(&self) -> Vec<Seen> {
        let (frames, errors) = self.read();
        assert_eq!(errors, Vec::<String>::new());
        frames
    }

    /// Where it breaks, and how, after how many frames.
    fn breaks(&self) -> (usize, String) {
        let (frames, errors) = self.read();
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        (frames.len(), error.clone())
    }
}

/// A pcapng file of two interfaces, with frames of these lengths that repeat `content`.
pub(super) fn filled_ng(
    big: bool,
    links: [u16; 2],
    lengths: impl Iterator<Item = usize>,
    content: &[u8],
) -> Writer {
    let mut writer = Writer::new(big);
    writer.interface(links[0], 0, &[]).interface(links[1], 0, &[(9, &[9])]);
    for (number, length) in lengths.enumerate() {
        writer.numbered(number, length, content);
    }
    writer
}

/// A block of pcapng that is no packet block of the common kind, or not quite.
#[derive(Clone, Copy, Debug)]
pub(super) enum Odd {
    Custom(usize),
    /// A custom block that holds packet blocks.
    Nested,
    Simple(usize),
    Obsolete,
    Interface,
    Section(bool),
    /// A length that forgot its padding.
    Unpadded,
    /// Options behind the frame.
    Options,
    UnknownInterface,
}

impl Odd {
    /// A pcapng file of frames of these lengths, before some of which there are such blocks.
    pub fn among(
        odd: &[(usize, Self)],
        big: bool,
        lengths: impl Iterator<Item = usize>,
        content: &[u8],
    ) -> Vec<u8> {
        let mut writer = filled_ng(big, [1, 1], std::iter::empty(), content);
        for (number, length) in lengths.enumerate() {
            for (_, odd) in odd.iter().filter(|(at, _)| *at == number) {
                odd.write(&mut writer);
            }
            writer.numbered(number, length, content);
        }
        writer.bytes
    }

    fn write(self, writer: &mut Writer) {
        match self {
            Self::Custom(length) => writer.block(0xbad, &vec![6; length]),
            Self::Nested => {
                let mut inner = Writer { big: writer.big, bytes: Vec::new() };
                inner.enhanced(0, 1, 300, &[1; 300]).enhanced(0, 2, 300, &[1; 300]);
                writer.block(0xbad, &inner.bytes)
            }
            Self::Simple(length) => writer.simple(length as u32, &vec![3; length]),
            Self::Obsolete => writer.obsolete(0, 5, 30, &[2; 30]),
            Self::Interface => writer.interface(1, 0, &[(9, &[6])]),
            Self::Section(big) => writer.section(big).interface(1, 0, &[]).interface(1, 0, &[]),
            Self::Unpadded => {
                let begin = writer.bytes.len();
                writer.enhanced(0, 7, 201, &[1; 201]);
                let total = writer.u32(28 + 201 + 4);
                let end = writer.bytes.len();
                writer.bytes[begin + 4..begin + 8].copy_from_slice(&total);
                writer.bytes[end - 4..].copy_from_slice(&total);
                writer
            }
            Self::Options => {
                let fields = [0, 0, 9, 50, 50].map(|field| writer.u32(field)).concat();
                writer.block(6, &[&fields[..], &[7; 52], &[0; 4]].concat())
            }
            Self::UnknownInterface => writer.enhanced(9, 7, 300, &[1; 300]),
        };
    }
}

pub(super) fn odd() -> impl Strategy<Value = Odd> {
    prop_oneof![
        4 => (0..700usize).prop_map(Odd::Custom),
        4 => Just(Odd::Nested),
        4 => (0..900usize).prop_map(Odd::Simple),
        4 => Just(Odd::Obsolete),
        2 => Just(Odd::Interface),
        2 => any::<bool>().prop_map(Odd::Section),
        4 => Just(Odd::Unpadded),
        4 => Just(Odd::Options),
        1 => Just(Odd::UnknownInterface),
    ]
}

#[test]
fn sections_have_their_own_byte_order_and_interfaces() {
    for big in [false, true] {
        let mut file = Writer::new(big);
        file.interface(1, 0, &[]).interface(113, 0, &[]).enhanced(1, 5, 60, b"abc");
        file.section(!big).interface(276, 0, &[]).enhanced(0, 1 << 32, 2, b"defg");
        let frames = file.frames();
        let first =
            Seen { nanos: 5_000, wire_len: 60, link: 113, interface: 1, data: b"abc".to_vec() };
        let nanos = (1 << 32) * 1_000;
        let second = Seen { nanos, wire_len: 2, link: 276, interface: 2, data: b"defg".to_vec() };
        assert_eq!(frames, [first, second]);
    }
}

#[test]
fn interfaces_of_all_sections_are_listed() {
    let mut file = Writer::new(false);
    file.interface(1, 0, &[]).section(true).interface(101, 0, &[]);
    let mut files = CaptureFiles::from_bytes("file", file.bytes).unwrap();
    assert!(matches!(files.with_batch(|_| ()), Ok(None)));
    let interfaces: Vec<_> = files
        .interfaces()
        .map(|(name, interface)| (name, interface.id, interface.link.0))
        .collect();
    assert_eq!(interfaces, [("file", 0, 1), ("file", 1, 101)]);
}

#[test]
fn every_interface_has_its_own_clock() {
    type Options = &'static [(u16, &'static [u8])];
    let cases: [(Options, u64, u64); 12] = [
        (&[], 3, 3_000),
        (&[(9, &[0])], 3, 3_000_000_000),
        (&[(9, &[3])], 3, 3_000_000),
        (&[(9, &[9])], 3, 3),
        (&[(9, &[12])], 3_999, 3),
        (&[(9, &[127])], u64::MAX, 0),
        (&[(9, &[0x80])], 3, 3_000_000_000),
        (&[(9, &[0x80 | 10])], 3 * 1024 + 512, 3_500_000_000),
        (&[(9, &[0xff])], u64::MAX, 0),
        (&[(9, &[0])], u64::MAX, u64::MAX),
        // Other options before it, an end after which nothing counts.
        (&[(2, b"eth0"), (9, &[9]), (0, &[]), (9, &[0])], 3, 3),
        // An empty value is no value.
        (&[(9, &[]), (14, &[1])], 3, 3_000),
    ];
    for (options, ticks, nanos) in cases {
        let frames =
            Writer::new(true).interface(1, 0, options).enhanced(0, ticks, 1, b"x").frames();
        assert_eq!(frames[0].nanos, nanos, "{options:?}");
    }
    for (offset, nanos) in
        [(2i64, 2_000_000_003), (-2, 0), (i64::MAX, i64::MAX as u64 + 3), (i64::MIN, 0)]
    {
        let offset = offset.to_le_bytes();
        let frames = Writer::new(false)
            .interface(1, 0, &[(14, &offset), (9, &[9])])
            .enhanced(0, 3, 1, b"x")
            .frames();
        assert_eq!(frames[0].nanos, nanos, "{offset:?}");
    }
}

#[test]
fn simple_packets_are_of_the_first_interface_and_as_late_as_the_frame_before() {
    let mut file = Writer::new(false);
    file.interface(1, 4, &[(9, &[9])]).interface(113, 0, &[]);
    file.simple(3, b"abc").enhanced(1, 8, 1, b"x").simple(90, b"abcd").simple(90, b"abcdef");
    let seen: Vec<_> = file
        .frames()
        .into_iter()
        .map(|frame| (frame.nanos, frame.wire_len, frame.link, frame.data))
        .collect();
    let expected = [
        (0, 3, 1, b"abc".to_vec()),
        (8_000, 1, 113, b"x".to_vec()),
        (8_000, 90, 1, b"abcd".to_vec()),
        (8_000, 90, 1, b"abcd".to_vec()),
    ];
    assert_eq!(seen, expected, "cut to the snapshot length of 4");
}

#[test]
fn obsolete_packets_are_frames_and_other_blocks_are_not() {
    let mut file = Writer::new(true);
    file.block(0x8000_0001, &[1; 100_000]).interface(1, 0, &[]).block(5, &[0; 12]).block(4, b"");
    file.obsolete(0, 1 << 33, 70, b"abcde").block(0xbad, &[0; 700_000]);
    let frames = file.frames();
    assert_eq!((frames.len(), frames[0].nanos, frames[0].wire_len), (1, (1 << 33) * 1_000, 70));
    assert_eq!(frames[0].data, b"abcde");
}

#[test]
fn blocks_within_a_block_that_is_skipped_are_no_frames() {
    for big in [false, true] {
        let mut inner = Writer { big, bytes: Vec::new() };
        inner.enhanced(0, 1, 60, &[1; 60]).enhanced(0, 2, 60, &[2; 60]);
        let mut writer = Writer::new(big);
        writer.interface(1, 0, &[]).enhanced(0, 1, 4, &[3; 4]);
        writer.block(0xbad, &inner.bytes).enhanced(0, 2, 4, &[4; 4]);
        let frames = writer.frames();
        let data: Vec<_> = frames.iter().map(|frame| &frame.data[..]).collect();
        assert_eq!(data, [[3; 4], [4; 4]]);
    }
}

#[test]
fn a_block_length_that_forgot_its_padding_is_rounded_up() {
    let mut file = Writer::new(false);
    file.interface(1, 0, &[]);
    let at = file.bytes.len();
    file.enhanced(0, 1, 3, b"abc");
    let end = file.bytes.len();
    for place in [at + 4, end - 4] {
        file.bytes[place..place + 4].copy_from_slice(&35u32.to_le_bytes());
    }
    file.enhanced(0, 2, 4, b"abcd");
    assert_eq!(file.frames().len(), 2);
}

#[test]
fn damage_is_told_after_the_frames_before_it() {
    let mut good = Writer::new(false);
    good.interface(1, 0, &[]).enhanced(0, 1, 4, b"abcd");
    let at = good.bytes.len();
    let prefix = format!("file: broken at byte {at}: ");
    let tell = |damage: &dyn Fn(&mut Writer)| {
        let mut file = good.clone();
        damage(&mut file);
        let (frames, error) = file.breaks();
        assert_eq!(frames, 1);
        error.strip_prefix(&prefix).unwrap_or_else(|| panic!("{error}")).to_owned()
    };
    let set = |file: &mut Writer, place: usize, value: u32| {
        file.bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
    };
    let unknown = tell(&|file| _ = file.enhanced(1, 1, 1, b"x"));
    assert!(
        unknown.starts_with("a packet is of interface 1, its section has described 1"),
        "{unknown}"
    );
    let lengths = tell(&|file| {
        file.enhanced(0, 1, 1, b"x");
        let end = file.bytes.len();
        set(file, end - 4, 40);
    });
    assert!(
        lengths.starts_with("a block's length is 36 at its start and 40 at its end"),
        "{lengths}"
    );
    let short = tell(&|file| _ = file.block(6, &[0; 16]));
    assert!(short.starts_with("one enhanced packet block claims 28 bytes"), "{short}");
    let tiny = tell(&|file| {
        file.block(0xbad, b"");
        set(file, at + 4, 8);
    });
    assert!(tiny.contains("claims 8 bytes, it needs at least 12"), "{tiny}");
    let long = tell(&|file| {
        file.enhanced(0, 1, 1, b"x");
        set(file, at + 4, u32::MAX);
    });
    assert!(long.contains("claims 4294967295 bytes, at most 524288 are read"), "{long}");
    let beyond = tell(&|file| {
        file.enhanced(0, 1, 1, b"x");
        set(file, at + 20, 5);
    });
    assert!(beyond.contains("holds 4 bytes of frame and claims 5"), "{beyond}");
    let frame = tell(&|file| {
        file.enhanced(0, 1, 1, b"x");
        set(file, at + 20, 262_145);
    });
    assert!(frame.contains("claims 262145 captured bytes"), "{frame}");
    let order = tell(&|file| {
        file.section(true);
        set(file, at + 8, 7);
    });
    assert!(order.contains("byte-order mark [07, 00, 00, 00]"), "{order}");
    let version = tell(&|file| {
        file.section(false);
        set(file, at + 12, 2);
    });
    assert!(version.contains("version 2.0 of pcapng is not known"), "{version}");
}

#[test]
fn a_cut_block_is_told_wherever_it_is_cut() {
    let mut file = Writer::new(false);
    file.interface(1, 0, &[]).enhanced(0, 1, 4, b"abcd");
    let at = file.bytes.len();
    let tails: [&dyn Fn(&mut Writer); 2] =
        [&|file| _ = file.enhanced(0, 1, 4, b"abcd"), &|file| _ = file.block(0xbad, &[0; 40])];
    for tail in tails {
        let mut whole = file.clone();
        tail(&mut whole);
        for cut in at + 1..whole.bytes.len() {
            let cut = Writer { big: false, bytes: whole.bytes[..cut].to_vec() };
            let (frames, error) = cut.breaks();
            assert_eq!(frames, 1);
            assert!(error.contains("the file ends within"), "{error}");
        }
    }
}

#[test]
fn an_interface_too_many_is_refused() {
    let mut file = Writer::new(false);
    for _ in 0..INTERFACES_MAX {
        file.interface(1, 0, &[]);
    }
    assert_eq!(file.frames().len(), 0);
    file.interface(1, 0, &[]);
    assert!(file.breaks().1.contains("more than 65536 interfaces"));
}
