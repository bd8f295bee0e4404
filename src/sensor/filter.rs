//! Frames wanted and not wanted, by an expression in tcpdump's syntax, compiled by libpcap and run in
//! user space.
//!
//! Contract: an expression that compiles for no link type is refused when the filter is made. One
//! that has no meaning on some link type (`ether host` on raw IP) lets none of its frames through.

use pcap::{BpfProgram, Capture, Linktype};

use crate::frame::{Frame, LinkType};

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

/// A compiled expression.
pub struct Filter {
    expression: String,
    programs: Vec<(LinkType, BpfProgram)>,
    refused: Vec<LinkType>,
}

/// An expression that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("the filter {expression:?} does not compile: {reason}: see pcap-filter(7) for the syntax")]
pub struct FilterError {
    expression: String,
    reason: String,
}

impl Filter {
    /// Compiles for every link type that is decoded.
    pub fn compile(expression: &str) -> Result<Self, FilterError> {
        let refuse = |reason: String| FilterError { expression: expression.to_owned(), reason };
        if expression.contains('\0') {
            return Err(refuse("it contains a zero byte".to_owned()));
        }
        let mut filter =
            Self { expression: expression.to_owned(), programs: Vec::new(), refused: Vec::new() };
        let mut first_refusal = None;
        for link in LINK_TYPES {
            match compile_for(link, expression) {
                Ok(program) => filter.programs.push((link, program)),
                Err(reason) => {
                    filter.refused.push(link);
                    first_refusal.get_or_insert(reason);
                }
            }
        }
        match first_refusal {
            Some(reason) if filter.programs.is_empty() => Err(refuse(reason)),
            _ => Ok(filter),
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
            .is_some_and(|(_, program)| program.filter(frame.data))
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

fn compile_for(link: LinkType, expression: &str) -> Result<BpfProgram, String> {
    Capture::dead(Linktype(dlt(link)))
        .and_then(|dead| dead.compile(expression, true))
        .map_err(|error| error.to_string())
}

/// libpcap compiles for the numbers of the running system, files have those of the registry.
fn dlt(link: LinkType) -> i32 {
    match link {
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => {
            if cfg!(target_os = "openbsd") { 14 } else { 12 }
        }
        LinkType::ATM_RFC1483 => 11,
        LinkType(other) => i32::from(other),
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
}
