//! IPv4 and IPv6 headers, IPv6 extension headers walked (RFC 791, RFC 8200).
//!
//! Contract: an address pair is told as soon as the fixed header was captured whole, even when
//! options or extension headers after it are cut: then with a fault and without a transport.
//! A header that tshark refuses is refused here, so that the two count the same frames.

use etherparse::err::ip_auth::HeaderSliceError as AuthError;
use etherparse::err::ipv4::HeaderSliceError as V4Error;
use etherparse::{
    IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice,
};

use super::link::Network;
use super::{Bytes, Fault, Fragment, IpLayer};
use crate::net::{Addr, IpProto, IpVersion};

/// Extension headers walked at most. RFC 8200 section 4.1 names seven, each once but one; a receiver has
/// to take them in any number (section 4.1 again), and test suites hold it to that.
const EXTENSIONS_MAX: usize = 32;

/// The shortest IPv4 header (RFC 791 section 3.1).
const V4_BYTES_MIN: usize = 20;

/// An IP header and where the next one is.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub layer: IpLayer,
    /// Where what follows starts in the frame's bytes. May be past their end.
    pub upper: usize,
    /// Where the datagram ends, by its own length. May be past the frame's end.
    pub end: usize,
    /// What kept the upper layer from being reached.
    pub fault: Option<Fault>,
}

/// Any IP header. `Err` when there is none to speak of.
pub(super) fn walk(bytes: Bytes<'_>, network: Network) -> Result<Found, Fault> {
    let first = *bytes.from(network.at).first().ok_or(Fault::IpTruncated)?;
    match (network.version, first >> 4) {
        (None | Some(IpVersion::V4), 4) => v4(bytes, network.at),
        (None | Some(IpVersion::V6), 6) => v6(bytes, network.at),
        _ => Err(Fault::IpMalformed),
    }
}

fn v4(bytes: Bytes<'_>, at: usize) -> Result<Found, Fault> {
    let captured = bytes.from(at);
    match Ipv4HeaderSlice::from_slice(captured) {
        Ok(header) => v4_found(bytes, at, &header, header.slice().len(), None),
        Err(V4Error::Content(_)) => Err(Fault::IpMalformed),
        Err(V4Error::Len(_)) => {
            // Its options are cut: read the fixed part as a header without any.
            let mut fixed = *captured.first_chunk::<V4_BYTES_MIN>().ok_or(Fault::IpTruncated)?;
            let header_bytes = usize::from(fixed[0] & 0xf) * 4;
            fixed[0] = 0x45;
            let header = Ipv4HeaderSlice::from_slice(&fixed).map_err(|_| Fault::IpMalformed)?;
            v4_found(bytes, at, &header, header_bytes, Some(Fault::IpTruncated))
        }
    }
}

fn v4_found(
    bytes: Bytes<'_>,
    at: usize,
    header: &Ipv4HeaderSlice<'_>,
    header_bytes: usize,
    fault: Option<Fault>,
) -> Result<Found, Fault> {
    let end = match usize::from(header.total_len()) {
        // Captured on its way to a card that segments (TSO): the length is not filled in yet.
        0 => bytes.wire_end,
        total_bytes if total_bytes < header_bytes => return Err(Fault::IpMalformed),
        total_bytes => at + total_bytes,
    };
    let fragment = header.is_fragmenting_payload().then(|| Fragment {
        id: u32::from(header.identification()),
        offset: u32::from(header.fragments_offset().value()) * 8,
        more: header.more_fragments(),
    });
    Ok(Found { layer: v4_layer(header, fragment), upper: at + header_bytes, end, fault })
}

#[inline]
fn v4_layer(header: &Ipv4HeaderSlice<'_>, fragment: Option<Fragment>) -> IpLayer {
    IpLayer {
        version: IpVersion::V4,
        proto: IpProto(header.protocol().0),
        src: Addr::v4(header.source()),
        dst: Addr::v4(header.destination()),
        flow_label: 0,
        fragment,
    }
}

#[inline]
fn v6_layer(header: &Ipv6HeaderSlice<'_>) -> IpLayer {
    IpLayer {
        version: IpVersion::V6,
        proto: IpProto(header.next_header().0),
        src: Addr(header.source()),
        dst: Addr(header.destination()),
        flow_label: header.flow_label().value(),
        fragment: None,
    }
}

fn v6(bytes: Bytes<'_>, at: usize) -> Result<Found, Fault> {
    // The version nibble was checked, so the header can only be cut.
    let header = Ipv6HeaderSlice::from_slice(bytes.from(at)).map_err(|_| Fault::IpTruncated)?;
    let upper = at + header.slice().len();
    let end = match usize::from(header.payload_length()) {
        // A jumbogram (RFC 2675), or a length that a card is to fill in.
        0 => bytes.wire_end,
        payload_bytes => upper + payload_bytes,
    };
    let mut found = Found { layer: v6_layer(&header), upper, end, fault: None };
    v6_extensions(bytes.until(end), &mut found);
    Ok(found)
}

/// Walks extension headers up to the upper layer. What stops the walk becomes the fault; the
/// protocol is then the last one that was told: by an options header even when it is cut itself.
fn v6_extensions(datagram: Bytes<'_>, found: &mut Found) {
    for _ in 0..EXTENSIONS_MAX {
        let Some(extension) = extension(datagram, found.layer.proto, found.upper) else {
            return;
        };
        match extension {
            Ok(Extension { next, header_bytes, fragment }) => {
                found.layer.proto = next;
                found.upper += header_bytes;
                if fragment.is_some() {
                    found.layer.fragment = fragment;
                }
                // What a later fragment holds is the middle of something.
                if fragment.is_some_and(|f| f.offset != 0) {
                    return;
                }
            }
            Err(fault) => {
                found.fault = Some(fault);
                let options = matches!(found.layer.proto, HOP_BY_HOP | DESTINATION_OPTIONS);
                if let (true, [next, _, ..]) = (options, datagram.from(found.upper)) {
                    found.layer.proto = IpProto(*next);
                }
                return;
            }
        }
    }
    if is_extension(found.layer.proto) {
        found.fault = Some(Fault::TooDeep);
    }
}

/// One extension header.
struct Extension {
    next: IpProto,
    header_bytes: usize,
    fragment: Option<Fragment>,
}

/// The header at `at` if `proto` is that of an extension header.
fn extension(datagram: Bytes<'_>, proto: IpProto, at: usize) -> Option<Result<Extension, Fault>> {
    let rest = datagram.from(at);
    Some(match proto {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => Ipv6RawExtHeaderSlice::from_slice(rest)
            .map(|header| Extension {
                next: IpProto(header.next_header().0),
                header_bytes: header.slice().len(),
                fragment: None,
            })
            .map_err(|_| Fault::IpTruncated),
        IpProto::AH => IpAuthHeaderSlice::from_slice(rest)
            .map(|header| Extension {
                next: IpProto(header.next_header().0),
                header_bytes: header.slice().len(),
                fragment: None,
            })
            .map_err(|error| match error {
                AuthError::Len(_) => Fault::IpTruncated,
                AuthError::Content(_) => Fault::IpMalformed,
            }),
        FRAGMENT => Ipv6FragmentHeaderSlice::from_slice(rest)
            .map(|header| Extension {
                next: IpProto(header.next_header().0),
                header_bytes: header.slice().len(),
                fragment: header.is_fragmenting_payload().then(|| Fragment {
                    id: header.identification(),
                    offset: u32::from(header.fragment_offset().value()) * 8,
                    more: header.more_fragments(),
                }),
            })
            .map_err(|_| Fault::IpTruncated),
        _ => return None,
    })
}

const fn is_extension(proto: IpProto) -> bool {
    matches!(proto, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT | IpProto::AH)
}

/// RFC 8200 section 4.3.
const HOP_BY_HOP: IpProto = IpProto(0);
/// RFC 8200 section 4.4.
const ROUTING: IpProto = IpProto(43);
/// RFC 8200 section 4.5.
const FRAGMENT: IpProto = IpProto(44);
/// RFC 8200 section 4.6.
const DESTINATION_OPTIONS: IpProto = IpProto(60);
