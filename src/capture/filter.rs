//! Frames wanted and not wanted, by an expression in tcpdump's syntax, compiled by libpcap and run in user space; and the
//! same for the kernel ([`Filter::in_kernel`]).
//!
//! Contract: an expression that compiles for no link type is refused when the filter is made, and so is one that would take long
//! to compile. One that has no meaning on some link type (`ether host` on raw IP) lets none of its frames through. Lengths
//! (`len`, `greater`, `less`) are those on the wire, however much of a frame was captured.
#![allow(unsafe_code)]

mod kernel;

use std::ffi::c_int;
use std::ops::Deref;
use std::sync::Arc;

use pcap::{BpfProgram, Capture, Linktype, PacketHeader};

use super::bpf::Instruction;
use crate::frame::{Frame, LinkType};

/// Longest expression, in bytes and in words. libpcap's compiler takes its stack by the term (2 MiB are used up at about 3 000
/// of them), and twice as many terms take it four to eight times as long.
const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
const EXPRESSION_WORDS_MAX: usize = 512;

/// Longest program before it is optimised, in instructions: some 100 hosts, 85 networks, 48 ports or 32 ranges of ports. Within
/// it, optimising for all link types takes less than a second (docs/ARCHITECTURE.md).
const PLAIN_INSTRUCTIONS_MAX: usize = 3072;

/// Link types that are decoded; for each of them the expression is a program of its own.
const LINK_TYPES: [LinkType; 16] = [
    LinkType::ETHERNET,
    LinkType::NULL,
    LinkType::LOOP,
    LinkType::PPP,
    LinkType::PPP_HDLC,
    LinkType::PPP_ETHER,
    LinkType::PPP_WITH_DIRECTION,
    LinkType::ATM_RFC1483,
    LinkType::C_HDLC,
    LinkType::RAW,
    LinkType::RAW_BSD,
    LinkType::RAW_OPENBSD,
    LinkType::IPV4,
    LinkType::IPV6,
    LinkType::LINUX_SLL,
    LinkType::LINUX_SLL2,
];

/// A compiled expression. Clones share what was compiled: each thread that filters has one.
#[derive(Clone)]
pub struct Filter {
    expression: String,
    programs: Arc<[(LinkType, Program)]>,
    refused: Vec<LinkType>,
}

/// What libpcap compiled.
struct Program(BpfProgram);

impl Deref for Program {
    type Target = BpfProgram;

    fn deref(&self) -> &BpfProgram {
        &self.0
    }
}

// SAFETY:
// - all that a shared reference allows is to read the instructions (`get_instructions`), by us or by libpcap's interpreter, which has its
//   registers and its memory on the caller's stack; nothing writes to them from when they are compiled until they are freed.
// - the crate says of the program itself that another thread may free it (`Send`).
unsafe impl Sync for Program {}

/// An expression that is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// It does not compile.
    #[error(
        "the filter {expression:?} does not compile: {reason}: see pcap-filter(7) for the syntax"
    )]
    Syntax {
        /// As given.
        expression: String,
        /// What libpcap said.
        reason: String,
    },
    /// It would take too long to compile.
    #[error(
        "the filter has {found} {what}, at most {max} are taken: name networks instead of hosts, ranges instead of ports, \
         or run it in several parts"
    )]
    TooLong {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much there may be.
        max: usize,
    },
}

impl Filter {
    /// Compiles for every link type that is decoded.
    ///
    /// # Errors
    /// [`FilterError`], for an expression that is wrong or too long.
    pub fn compile(expression: &str) -> Result<Self, FilterError> {
        let refuse =
            |reason: String| FilterError::Syntax { expression: expression.to_owned(), reason };
        if expression.contains('\0') {
            return Err(refuse("it contains a zero byte".to_owned()));
        }
        within("bytes", expression.len(), EXPRESSION_BYTES_MAX)?;
        within("words", words(expression), EXPRESSION_WORDS_MAX)?;
        let (mut programs, mut refused) = (Vec::new(), Vec::new());
        let (mut first_refusal, mut is_measured) = (None, false);
        for link in LINK_TYPES {
            // How long it is, is soon known; optimising is what takes long.
            if !is_measured && let Ok(plain) = compile_for(link, expression, false) {
                let found = plain.get_instructions().len();
                within("instructions before they are optimised", found, PLAIN_INSTRUCTIONS_MAX)?;
                is_measured = true;
            }
            match compile_for(link, expression, true) {
                Ok(program) => programs.push((link, Program(program))),
                Err(reason) => {
                    refused.push(link);
                    first_refusal.get_or_insert(reason);
                }
            }
        }
        match first_refusal {
            Some(reason) if programs.is_empty() => Err(refuse(reason)),
            _ => Ok(Self { expression: expression.to_owned(), programs: programs.into(), refused }),
        }
    }

    /// The expression.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Whether the expression has a meaning on frames of this link type.
    pub fn covers(&self, link: LinkType) -> bool {
        self.programs.iter().any(|(known, _)| *known == link)
    }

    /// Whether a frame is wanted.
    #[inline]
    pub fn matches(&self, frame: &Frame<'_>) -> bool {
        self.programs
            .iter()
            .find(|(link, _)| *link == frame.link)
            .is_some_and(|(_, program)| runs(program, frame))
    }

    /// What a Linux socket's filter has to be for frames of this link type: it refuses only what [`matches`](Self::matches)
    /// refuses, and next to all of that. `None` where the kernel cannot say, because the program is too long for it; an
    /// expression that has no meaning on the link type refuses every frame.
    pub fn in_kernel(&self, link: LinkType) -> Option<Vec<Instruction>> {
        let Some((_, program)) = self.programs.iter().find(|(known, _)| *known == link) else {
            return Some(vec![Instruction { code: 6, jt: 0, jf: 0, k: 0 }]);
        };
        let program = instructions(program)?;
        match link {
            LinkType::ETHERNET => kernel::of_ethernet(&program),
            _ => kernel::of_others(&program),
        }
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter")
            .field("expression", &self.expression)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

/// Runs a program on a frame. The crate's own call knows one length only.
#[inline]
fn runs(program: &BpfProgram, frame: &Frame<'_>) -> bool {
    unsafe extern "C" {
        fn pcap_offline_filter(
            program: *const BpfProgram,
            header: *const PacketHeader,
            data: *const u8,
        ) -> c_int;
    }
    let Ok(caplen) = u32::try_from(frame.data.len()) else { return false };
    let ts = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let header = PacketHeader { ts, caplen, len: frame.wire_len };
    // SAFETY:
    // - this is libpcap's function, which the pcap crate links; `BpfProgram` is by its `repr(transparent)` a `struct
    //   bpf_program`, `PacketHeader` by its `repr(C)` a `struct pcap_pkthdr`.
    // - the program was made by `pcap_compile` and is not freed while it is borrowed.
    // - `data` has the `caplen` bytes that the header tells; nothing beyond them is read, whatever `len` says, and nothing
    //   is kept.
    unsafe { pcap_offline_filter(program, &raw const header, frame.data.as_ptr()) != 0 }
}

/// A program's instructions, which the crate shows as text only.
fn instructions(program: &BpfProgram) -> Option<Vec<Instruction>> {
    let parse = |text: String| {
        let mut numbers = text.split_whitespace();
        Some(Instruction {
            code: numbers.next()?.parse().ok()?,
            jt: numbers.next()?.parse().ok()?,
            jf: numbers.next()?.parse().ok()?,
            k: numbers.next()?.parse().ok()?,
        })
    };
    program.get_instructions().iter().map(|one| parse(one.to_string())).collect()
}

fn within(what: &'static str, found: usize, max: usize) -> Result<(), FilterError> {
    if found <= max { Ok(()) } else { Err(FilterError::TooLong { what, found, max }) }
}

/// Words and numbers, however they are put together.
fn words(expression: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || ".:-_/".contains(c);
    expression.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count()
}

fn compile_for(link: LinkType, expression: &str, optimise: bool) -> Result<BpfProgram, String> {
    Capture::dead(Linktype(dlt(link)))
        .and_then(|dead| dead.compile(expression, optimise))
        .map_err(|error| error.to_string())
}

/// How raw IP is numbered here.
const DLT_RAW: i32 = if cfg!(target_os = "openbsd") { 14 } else { 12 };
const DLT_ATM_RFC1483: i32 = 11;
/// OpenBSD has its loopback under the number that is raw IP elsewhere.
const DLT_LOOP: i32 = if cfg!(target_os = "openbsd") { 12 } else { 108 };

/// libpcap compiles for the numbers of the running system, files have those of the registry.
fn dlt(link: LinkType) -> i32 {
    match link {
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => DLT_RAW,
        LinkType::ATM_RFC1483 => DLT_ATM_RFC1483,
        LinkType::LOOP => DLT_LOOP,
        LinkType(other) => i32::from(other),
    }
}

/// And back, for live captures.
pub(super) fn link_of(dlt: i32) -> LinkType {
    match dlt {
        DLT_RAW => LinkType::RAW,
        DLT_ATM_RFC1483 => LinkType::ATM_RFC1483,
        DLT_LOOP => LinkType::LOOP,
        other => LinkType(u16::try_from(other).unwrap_or(u16::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn frame(link: LinkType, data: &[u8]) -> Frame<'_> {
        Frame { ts: Timestamp::ZERO, wire_len: data.len() as u32, link, interface: 0, data }
    }

    /// An IPv4 header and a UDP header to port 53.
    const DNS: [u8; 28] = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 53, 0,
        8, 0, 0,
    ];

    #[test]
    fn each_link_type_has_a_program_of_its_own() {
        let filter = Filter::compile("udp port 53").unwrap();
        let ethernet = [&[0u8; 12][..], &[8, 0], &DNS].concat();
        assert!(filter.matches(&frame(LinkType::ETHERNET, &ethernet)));
        for link in [LinkType::RAW, LinkType::RAW_BSD, LinkType::IPV4] {
            assert!(filter.matches(&frame(link, &DNS)), "{link:?}");
        }
        assert!(!filter.matches(&frame(LinkType::ETHERNET, &DNS)));
        assert!(!filter.matches(&frame(LinkType::ETHERNET, &[])));
    }

    #[test]
    fn what_means_nothing_on_a_link_type_matches_nothing_there() {
        let filter = Filter::compile("ether host 00:00:00:00:00:00").unwrap();
        assert!(filter.covers(LinkType::ETHERNET));
        assert!(!filter.covers(LinkType::RAW));
        assert!(!filter.matches(&frame(LinkType::RAW, &DNS)));
    }

    #[test]
    fn an_expression_that_does_not_compile_is_refused_with_libpcap_s_reason() {
        let message = Filter::compile("tcp prot 80").unwrap_err().to_string();
        assert!(message.contains("tcp prot 80") && message.contains("syntax"), "{message}");
        assert!(Filter::compile("tcp\0").is_err());
    }

    #[test]
    fn lengths_are_those_on_the_wire() {
        let cut = |wire_len| Frame { wire_len, ..frame(LinkType::RAW, &DNS) };
        for (expression, short, long) in [
            ("greater 1000", false, true),
            ("less 1000", true, false),
            ("len = 1500", false, true),
            ("udp and not len > 1000", true, false),
        ] {
            let filter = Filter::compile(expression).unwrap();
            assert_eq!(filter.matches(&cut(28)), short, "{expression}");
            assert_eq!(filter.matches(&cut(1500)), long, "{expression}");
        }
        // A record may claim less than it holds.
        assert!(Filter::compile("udp port 53").unwrap().matches(&cut(0)));
    }

    #[test]
    fn numbers_of_link_types_go_there_and_back() {
        for link in LINK_TYPES {
            let expected = match link {
                LinkType::RAW_BSD | LinkType::RAW_OPENBSD => LinkType::RAW,
                link => link,
            };
            assert_eq!(link_of(dlt(link)), expected);
        }
        assert_eq!(link_of(127), LinkType(127));
        assert_eq!(link_of(-1), LinkType(u16::MAX));
    }

    fn refused(expression: &str) -> String {
        // On a thread with the stack that threads have, which an expression must not use up.
        let expression = expression.to_owned();
        let compile = move || Filter::compile(&expression).expect_err("refused").to_string();
        std::thread::spawn(compile).join().expect("a refusal")
    }

    fn any_of(count: usize, term: impl Fn(usize) -> String) -> String {
        (0..count).map(term).collect::<Vec<_>>().join(" or ")
    }

    #[test]
    fn an_expression_that_would_take_long_is_refused_with_its_limit() {
        let host = |n: usize| format!("host 10.0.{}.{}", n / 250, n % 250 + 1);
        let message = refused(&any_of(3000, host));
        assert!(message.contains("bytes, at most 16384 are taken: name networks"), "{message}");
        let message = refused(&any_of(512, |n| format!("port {n}")));
        assert!(message.contains("1535 words, at most 512 are taken"), "{message}");
        let message = refused(&any_of(150, |n| format!("port {n}")));
        assert!(
            message.contains("instructions before they are optimised, at most 3072"),
            "{message}"
        );
        // However the words are put together.
        let message = refused(&format!("1{} = 1000", "+1".repeat(600)));
        assert!(message.contains("602 words"), "{message}");
    }

    #[test]
    fn a_hundred_hosts_are_no_trouble() {
        let filter = Filter::compile(&any_of(100, |n| format!("host 10.0.0.{n}"))).unwrap();
        assert!(filter.matches(&frame(LinkType::RAW, &DNS)));
        assert!(filter.in_kernel(LinkType::ETHERNET).is_some_and(|program| program.len() > 200));
    }

    #[test]
    fn the_deepest_expression_does_not_use_up_a_thread_s_stack() {
        let compile = |expression: String| {
            assert!(expression.len() <= EXPRESSION_BYTES_MAX);
            let compile = move || Filter::compile(&expression).map(|filter| filter.programs.len());
            std::thread::spawn(compile).join().expect("no overflow")
        };
        let deep = |open: &str, count: usize, close: &str| {
            format!("{}udp{}", open.repeat(count), close.repeat(count))
        };
        let plain = compile("udp".to_owned()).unwrap();
        // libpcap has a limit of its own to how deep it parses.
        for expression in [deep("(", 8_000, ")"), deep("! ", 8_000, "")] {
            let compiled = compile(expression);
            let expected = |n: &usize| *n == plain;
            assert!(
                compiled.as_ref().map_or_else(
                    |refused| refused.to_string().contains("memory exhausted"),
                    expected
                )
            );
        }
        for expression in [deep("not ", 511, ""), deep("(not ", 511, ")")] {
            assert_eq!(compile(expression).unwrap(), plain);
        }
        assert!(compile(["vlan"; 256].join(" and ")).is_ok());
        let sum = format!("ip[0]{} = 1000", "+ip[1]".repeat(254));
        assert!(compile(sum).is_ok());
    }
}
