//! Numbers, addresses and times as text, in room that somebody else has.
//!
//! Contract: no allocation, no formatting machinery, and what is put needs no escaping in JSON. A line that is full takes
//! nothing more and says so; what a caller puts fits, which tests hold it to. Short things are stored as fixed-size words, of
//! which only the front counts: a copy of variable length is a call. A word is put together in a register: one that is read at once
//! after it was written to memory in smaller pieces waits for all stores before it.

use crate::flow::History;
use crate::net::{Addr, IpVersion, TcpFlags};
use crate::time::Timestamp;

/// Room of a line. The longest record takes less than 900 bytes.
pub const LINE_BYTES_MAX: usize = 1024;

/// One line of text under construction.
#[derive(Debug)]
pub struct Line<'a> {
    room: &'a mut [u8; LINE_BYTES_MAX],
    len: usize,
    is_cut: bool,
    seconds: &'a mut Seconds,
}

/// Seconds that were put lately, and their texts: flows that end one after the other ended in few of them.
#[derive(Clone, Debug)]
pub struct Seconds([(u64, [u8; SECOND_BYTES]); SECONDS_KEPT]);

/// `2024-05-01T12:00:00.`
const SECOND_BYTES: usize = 20;
/// One for each remainder.
const SECONDS_KEPT: usize = 16;

impl Default for Seconds {
    fn default() -> Self {
        // Of those that are not at their place none is asked for there.
        Self([(0, second_text(0)); SECONDS_KEPT])
    }
}

impl<'a> Line<'a> {
    /// An empty line.
    pub fn new(room: &'a mut [u8; LINE_BYTES_MAX], seconds: &'a mut Seconds) -> Self {
        Self { room, len: 0, is_cut: false, seconds }
    }

    /// What was put.
    pub fn as_bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }

    /// Whether something did not fit.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Text of a length that is known: mostly a literal.
    #[inline(always)]
    pub fn put<const N: usize>(&mut self, text: &[u8; N]) {
        self.word(*text, N);
    }

    /// Text of any length.
    pub fn put_all(&mut self, text: &[u8]) {
        match self.room.get_mut(self.len..self.len + text.len()) {
            Some(room) => {
                room.copy_from_slice(text);
                self.len += text.len();
            }
            None => self.is_cut = true,
        }
    }

    /// The first `len` bytes of `word`.
    #[inline(always)]
    fn word<const N: usize>(&mut self, word: [u8; N], len: usize) {
        if let Some(room) = self.room_for() {
            *room = word;
            self.len += len;
        }
    }

    /// Where so many bytes may be put; `None` where they would not fit, which is noted.
    #[inline(always)]
    fn room_for<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let Self { room, len, is_cut, .. } = self;
        let room = room.get_mut(*len..).and_then(<[u8]>::first_chunk_mut);
        if room.is_none() {
            *is_cut = true;
        }
        room
    }

    /// A decimal number.
    #[inline]
    pub fn number(&mut self, value: u64) {
        if value < 100_000_000 {
            let digits = eight_digits(value);
            // Zeros in front: eight bits each, the first digit lowest; the last digit counts in any case.
            let leading = (digits & 0x0f0f_0f0f_0f0f_0f0f | 1 << 56).trailing_zeros() / 8;
            self.word((digits >> (8 * leading)).to_le_bytes(), 8 - leading as usize);
        } else {
            self.put_all(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    /// An IP address: dotted decimal, or the form of RFC 5952 (with mapped addresses in hexadecimal, section 5 leaves
    /// the choice).
    pub fn ip(&mut self, addr: Addr, version: IpVersion) {
        match version {
            IpVersion::V4 => {
                for octet in addr.v4_bits().to_be_bytes() {
                    let text = OCTETS[usize::from(octet)];
                    self.word(text, octet_len(octet) + 1);
                }
                // The last dot.
                self.len = self.len.saturating_sub(1);
            }
            IpVersion::V6 => self.ip_v6(&addr.0),
        }
    }

    fn ip_v6(&mut self, bytes: &[u8; 16]) {
        let mut groups = [0u16; 8];
        for (group, pair) in groups.iter_mut().zip(bytes.chunks_exact(2)) {
            *group = u16::from_be_bytes([pair[0], pair[1]]);
        }
        let gap = longest_zero_run(&groups);
        let mut index = 0;
        while index < groups.len() {
            if index == gap.start && !gap.is_empty() {
                self.put(b"::");
                index = gap.end;
                continue;
            }
            if index != 0 && index != gap.end {
                self.put(b":");
            }
            self.hex_group(groups[index]);
            index += 1;
        }
    }

    fn hex_group(&mut self, group: u16) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let leading = ((group | 1).leading_zeros() / 4) as usize;
        let mut word = [0; 4];
        for (digit, nibble) in word.iter_mut().zip(leading..4) {
            *digit = DIGITS[usize::from(group >> (12 - 4 * nibble) & 0xf)];
        }
        self.word(word, 4 - leading);
    }

    /// A time in RFC 3339, UTC, with nanoseconds: `2024-05-01T12:00:00.000000001Z`.
    pub fn time(&mut self, time: Timestamp) {
        let nanos = time.as_nanos();
        let (secs, nanos) = (nanos / SECOND_NS, nanos % SECOND_NS);
        let (second, text) = &mut self.seconds.0[secs as usize % SECONDS_KEPT];
        if *second != secs {
            (*second, *text) = (secs, second_text(secs));
        }
        let text = *text;
        self.put(&text);
        self.nine_digits(nanos);
        self.put(b"Z");
    }

    /// Nanoseconds as seconds with nine decimals: `1.500000000`.
    pub fn seconds(&mut self, nanos: u64) {
        self.number(nanos / SECOND_NS);
        self.put(b".");
        self.nine_digits(nanos % SECOND_NS);
    }

    /// A number below 1 000 000 000, with the zeros in front.
    #[inline(always)]
    fn nine_digits(&mut self, value: u64) {
        self.put(&[b'0' + (value / 100_000_000) as u8]);
        self.put(&eight_digits(value % 100_000_000).to_le_bytes());
    }

    /// TCP flags as letters in header order, only those that are set; nothing when none is.
    #[inline]
    pub fn flags(&mut self, flags: TcpFlags) {
        self.word(FLAGS[usize::from(flags.0)], flags.0.count_ones() as usize);
    }

    /// The letters of a connection's history.
    #[inline]
    pub fn history(&mut self, history: History) {
        let mut letters = history.letters();
        loop {
            let (mut word, mut len) = (0, 0);
            for letter in letters.by_ref().take(size_of::<u64>()) {
                word |= u64::from(letter as u8) << (8 * len);
                len += 1;
            }
            if len == 0 {
                return;
            }
            self.word(word.to_le_bytes(), len);
        }
    }

    /// What `fill` makes of room for so many bytes.
    #[inline(always)]
    pub fn put_with<const N: usize>(&mut self, fill: impl FnOnce(&mut [u8; N])) {
        if let Some(room) = self.room_for() {
            fill(room);
            self.len += N;
        }
    }
}

const SECOND_NS: u64 = 1_000_000_000;

/// Each octet's digits and a dot.
const OCTETS: [[u8; 4]; 256] = {
    let mut table = [[b'.'; 4]; 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = four_digits(octet as u32);
        let leading = 4 - octet_len(octet as u8);
        let mut at = leading;
        while at < 4 {
            table[octet][at - leading] = digits[at];
            at += 1;
        }
        octet += 1;
    }
    table
};

/// The letters of each byte of flags.
const FLAGS: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut flags = 0;
    while flags < 256 {
        let (mut bit, mut len) = (0, 0);
        while bit < 8 {
            if flags << bit & 0x80 != 0 {
                table[flags][len] = TcpFlags::LETTERS[bit];
                len += 1;
            }
            bit += 1;
        }
        flags += 1;
    }
    table
};

const fn octet_len(octet: u8) -> usize {
    1 + (octet >= 10) as usize + (octet >= 100) as usize
}

/// Of a number below 100.
#[inline]
const fn two_digits(value: u64) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

/// Of a number below 10 000.
#[inline]
const fn four_digits(value: u32) -> [u8; 4] {
    let (high, low) = (value / 100, value % 100);
    let ([a, b], [c, d]) = (two_digits(high as u64), two_digits(low as u64));
    [a, b, c, d]
}

/// Of a number below 100 000 000, the first one in the lowest byte: four, two and one at a time, side by side in one word.
#[inline]
fn eight_digits(value: u64) -> u64 {
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    // By a hundred and by ten, which multiplying and shifting is, of numbers that small.
    let high = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = high | ((fours - 100 * high) << 16);
    let high = ((twos * 103) >> 10) & 0xf_000f_000f_000f;
    (high | ((twos - 10 * high) << 8)) + 0x3030_3030_3030_3030
}

/// The first of the longest runs of two zero groups or more (RFC 5952 section 4.2); else empty.
fn longest_zero_run(groups: &[u16; 8]) -> std::ops::Range<usize> {
    let mut best = 0..0;
    let mut start = 0;
    for end in 1..=groups.len() {
        if groups[end - 1] != 0 {
            start = end;
        } else if end - start > best.len().max(1) {
            best = start..end;
        }
    }
    // An empty range must not meet the separator test at index 0 or 8.
    if best.is_empty() { usize::MAX..usize::MAX } else { best }
}

/// Seconds since 1970-01-01, which end in the year 2554 with the nanoseconds of a timestamp.
#[inline(never)]
fn second_text(secs: u64) -> [u8; SECOND_BYTES] {
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    let [y0, y1, y2, y3] = four_digits(year as u32);
    let ([m0, m1], [d0, d1]) = (two_digits(month), two_digits(day));
    let [h0, h1] = two_digits(of_day / 3600);
    let [i0, i1] = two_digits(of_day / 60 % 60);
    let [s0, s1] = two_digits(of_day % 60);
    [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', i0, i1, b':', s0, s1, b'.']
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar, counted in eras of 400
/// years that begin on 1 March of year 0.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::history::Mark;
    use crate::net::End;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn text(put: impl FnOnce(&mut Line<'_>)) -> String {
        let (mut room, mut seconds) = ([0; LINE_BYTES_MAX], Seconds::default());
        let mut line = Line::new(&mut room, &mut seconds);
        put(&mut line);
        assert!(!line.is_cut());
        String::from_utf8(line.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_line_that_is_full_says_so() {
        let (mut room, mut seconds) = ([0; LINE_BYTES_MAX], Seconds::default());
        let mut line = Line::new(&mut room, &mut seconds);
        for _ in 0..LINE_BYTES_MAX / 8 {
            line.put(b"8 bytes.");
        }
        assert!(!line.is_cut());
        line.put(b"!");
        line.put_all(b"!");
        line.number(12);
        assert!(line.is_cut());
        assert_eq!(line.as_bytes().len(), LINE_BYTES_MAX);
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = |secs, nanos| text(|out| out.time(Timestamp::new(secs, nanos)));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(at(1_317_146_840, 497_541_000), "2011-09-27T18:07:20.497541000Z");
        assert_eq!(at(4_107_542_399, 999_999_999), "2100-02-28T23:59:59.999999999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn a_second_that_was_put_before_reads_the_same() {
        let (mut room, mut seconds) = ([0; LINE_BYTES_MAX], Seconds::default());
        // Some are kept, some take the place of others, some are asked for before any was put.
        let of_turn = |turn: u64| 1_700_000_000 + turn * 7 % 41 + (turn % 3) * SECONDS_KEPT as u64;
        for secs in (0..500).map(of_turn).chain(0..40) {
            let time = Timestamp::new(secs, 5);
            let mut line = Line::new(&mut room, &mut seconds);
            line.time(time);
            let fresh = text(|out| out.time(time));
            assert_eq!(line.as_bytes(), fresh.as_bytes());
            assert!(fresh.ends_with(".000000005Z") && fresh.len() == 30);
        }
        let mut line = Line::new(&mut room, &mut seconds);
        line.time(Timestamp::new(16, 0));
        assert_eq!(line.as_bytes(), b"1970-01-01T00:00:16.000000000Z");
    }

    #[test]
    fn seconds_keep_their_nanoseconds() {
        assert_eq!(text(|out| out.seconds(1_500_000_007)), "1.500000007");
        assert_eq!(text(|out| out.seconds(0)), "0.000000000");
    }

    #[test]
    fn every_four_digits_of_eight_read_as_they_are() {
        for value in (0..10_000).map(|four| four * 10_000 + (9_999 - four)) {
            assert_eq!(eight_digits(value).to_le_bytes(), *format!("{value:08}").as_bytes());
        }
    }

    #[test]
    fn every_flag_is_its_letter() {
        for flags in 0..=u8::MAX {
            let letters: String = (0..8)
                .filter(|bit| flags << bit & 0x80 != 0)
                .map(|bit| char::from(b"CEUAPRSF"[bit]))
                .collect();
            assert_eq!(text(|out| out.flags(TcpFlags(flags))), letters);
        }
    }

    #[test]
    fn histories_of_any_length_are_put_whole() {
        let mut history = History::default();
        let marks = Mark::ALL.into_iter().flat_map(|mark| [(mark, End::A), (mark, End::B)]);
        for (mark, end) in marks.take(History::MAX_LETTERS) {
            assert_eq!(text(|out| out.history(history)), history.to_string());
            history = history.with([mark], end);
        }
        let whole = text(|out| out.history(history));
        assert_eq!((whole.len(), whole), (History::MAX_LETTERS, history.to_string()));
    }

    #[test]
    fn flags_are_letters() {
        assert_eq!(text(|out| out.flags(TcpFlags(0x12))), "AS");
        assert_eq!(text(|out| out.flags(TcpFlags(0))), "");
    }

    #[test]
    fn v6_addresses_are_rfc_5952() {
        for expected in [
            "::",
            "::1",
            "1::",
            "2001:db8::1",
            "2001:db8:0:1:1:1:1:1",
            "1:0:0:2::3",
            "fe80::a:0:0:1",
        ] {
            let addr: Ipv6Addr = expected.parse().unwrap();
            let found = text(|out| out.ip(Addr(addr.octets()), IpVersion::V6));
            assert_eq!(found, addr.to_string());
        }
    }

    #[test]
    fn numbers_of_every_length_read_as_they_were() {
        for power in (0..20).map(|exponent| 10_u64.pow(exponent)) {
            for value in [power - 1, power, power + 1] {
                assert_eq!(text(|out| out.number(value)), value.to_string());
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_read_as_they_were(shift in 0..64u32, value: u64) {
            let value = value >> shift;
            prop_assert_eq!(text(|out| out.number(value)), value.to_string());
        }

        #[test]
        fn addresses_read_as_the_standard_library_writes_them(
            words in proptest::array::uniform8(prop_oneof![Just(0u16), any::<u16>()]),
            v4 in any::<[u8; 4]>(),
        ) {
            let v6 = Ipv6Addr::from(words);
            let found = text(|out| out.ip(Addr(v6.octets()), IpVersion::V6));
            if v6.to_ipv4_mapped().is_none() {
                prop_assert_eq!(&found, &v6.to_string());
            }
            prop_assert_eq!(found.parse::<Ipv6Addr>().unwrap(), v6);
            let found = text(|out| out.ip(Addr::v4(v4), IpVersion::V4));
            prop_assert_eq!(found, std::net::Ipv4Addr::from(v4).to_string());
        }
    }
}
