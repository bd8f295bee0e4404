//! Numbers, addresses and times as text, appended to a byte buffer without allocation.
//!
//! Contract: every function only appends, and what it appends needs no escaping in JSON.

use crate::net::{Addr, IpVersion, TcpFlags};
use crate::time::Timestamp;

/// A decimal number.
#[inline]
pub fn push_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// An IP address: dotted decimal, or the form of RFC 5952 (with mapped addresses in
/// hexadecimal, section 5 leaves the choice).
pub fn push_ip(out: &mut Vec<u8>, addr: Addr, version: IpVersion) {
    match version {
        IpVersion::V4 => {
            let [.., a, b, c, d] = addr.0;
            push_octet(out, a);
            for octet in [b, c, d] {
                out.push(b'.');
                push_octet(out, octet);
            }
        }
        IpVersion::V6 => push_v6(out, &addr.0),
    }
}

fn push_octet(out: &mut Vec<u8>, octet: u8) {
    if octet >= 100 {
        out.push(b'0' + octet / 100);
    }
    if octet >= 10 {
        out.push(b'0' + octet / 10 % 10);
    }
    out.push(b'0' + octet % 10);
}

fn push_v6(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    let mut groups = [0u16; 8];
    for (group, pair) in groups.iter_mut().zip(bytes.chunks_exact(2)) {
        *group = u16::from_be_bytes([pair[0], pair[1]]);
    }
    let gap = longest_zero_run(&groups);
    let mut index = 0;
    while index < groups.len() {
        if index == gap.start && !gap.is_empty() {
            out.extend_from_slice(b"::");
            index = gap.end;
            continue;
        }
        if index != 0 && index != gap.end {
            out.push(b':');
        }
        push_hex_group(out, groups[index]);
        index += 1;
    }
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

fn push_hex_group(out: &mut Vec<u8>, group: u16) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let first = 3 - (u16::BITS - 1 - (group | 1).leading_zeros()) / 4;
    for nibble in first..4 {
        out.push(DIGITS[usize::from(group >> (12 - 4 * nibble) & 0xf)]);
    }
}

/// A time in RFC 3339, UTC, with nanoseconds: `2024-05-01T12:00:00.000000001Z`.
pub fn push_time(out: &mut Vec<u8>, time: Timestamp) {
    let nanos = time.as_nanos();
    let (secs, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    push_padded(out, year, 4);
    out.push(b'-');
    push_padded(out, month, 2);
    out.push(b'-');
    push_padded(out, day, 2);
    out.push(b'T');
    push_padded(out, of_day / 3600, 2);
    out.push(b':');
    push_padded(out, of_day / 60 % 60, 2);
    out.push(b':');
    push_padded(out, of_day % 60, 2);
    out.push(b'.');
    push_padded(out, nanos, 9);
    out.push(b'Z');
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

/// Nanoseconds as seconds with nine decimals: `1.500000000`.
pub fn push_seconds(out: &mut Vec<u8>, nanos: u64) {
    push_u64(out, nanos / 1_000_000_000);
    out.push(b'.');
    push_padded(out, nanos % 1_000_000_000, 9);
}

/// The low `width` decimal digits, at most 9.
fn push_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b'0'; 9];
    let mut rest = value;
    for digit in digits[..width].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[..width]);
}

/// TCP flags as letters in header order, only those that are set; nothing when none is.
pub fn push_flags(out: &mut Vec<u8>, flags: TcpFlags) {
    for (bit, letter) in (0..8).rev().zip(*b"CEUAPRSF") {
        if flags.0 & 1 << bit != 0 {
            out.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = |secs, nanos| text(|out| push_time(out, Timestamp::new(secs, nanos)));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(at(1_317_146_840, 497_541_000), "2011-09-27T18:07:20.497541000Z");
        assert_eq!(at(4_107_542_399, 999_999_999), "2100-02-28T23:59:59.999999999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn seconds_keep_their_nanoseconds() {
        assert_eq!(text(|out| push_seconds(out, 1_500_000_007)), "1.500000007");
        assert_eq!(text(|out| push_seconds(out, 0)), "0.000000000");
    }

    #[test]
    fn flags_are_letters() {
        assert_eq!(text(|out| push_flags(out, TcpFlags(0x12))), "AS");
        assert_eq!(text(|out| push_flags(out, TcpFlags(0))), "");
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
            let found = text(|out| push_ip(out, Addr(addr.octets()), IpVersion::V6));
            assert_eq!(found, addr.to_string());
        }
    }

    proptest! {
        #[test]
        fn addresses_read_as_the_standard_library_writes_them(
            words in proptest::array::uniform8(prop_oneof![Just(0u16), any::<u16>()]),
            v4 in any::<[u8; 4]>(),
        ) {
            let v6 = Ipv6Addr::from(words);
            let found = text(|out| push_ip(out, Addr(v6.octets()), IpVersion::V6));
            if v6.to_ipv4_mapped().is_none() {
                prop_assert_eq!(&found, &v6.to_string());
            }
            prop_assert_eq!(found.parse::<Ipv6Addr>().unwrap(), v6);
            let found = text(|out| push_ip(out, Addr::v4(v4), IpVersion::V4));
            prop_assert_eq!(found, std::net::Ipv4Addr::from(v4).to_string());
        }
    }
}
