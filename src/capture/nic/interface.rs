//! What the kernel itself tells about an interface: flags, addresses, what is attached to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethtool::Nic;
use super::netlink::route_request;
use crate::capture::sys::interface_index;

/// An interface, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its number in the network namespace.
    pub index: u32,
    /// Bytes of a packet at most.
    pub mtu: u32,
    /// Queues that it receives on.
    pub queues: u32,
    /// Whether its frames are Ethernet's.
    pub is_ethernet: bool,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether something is at the other end of the wire.
    pub has_carrier: bool,
    /// How many want it promiscuous: `ip link set … promisc on` counts, and so does every packet socket that asks for it.
    pub promiscuity: u32,
    /// The bridge, bond or team that it belongs to.
    pub master: Option<u32>,
    /// The XDP program that is attached already; 0 when only its kind is known.
    pub program: Option<u32>,
    /// Addresses that the host is reached by; those of IPv6 that every interface gives itself are none.
    pub addresses: Vec<IpAddr>,
}

/// `ARPHRD_ETHER`.
const ARPHRD_ETHER: u16 = 1;

impl Interface {
    /// Asks for the interface called `name`.
    ///
    /// # Errors
    /// `ENODEV` when there is none in this network namespace.
    pub fn find(name: &str) -> io::Result<Self> {
        let index = interface_index(name)?;
        let mut found = Self { index, ..Self::default() };
        let mut ask = [0u8; 16];
        ask[4..8].copy_from_slice(&index.to_ne_bytes());
        route_request(libc::RTM_GETLINK, false, &ask, |kind, content| {
            if kind == libc::RTM_NEWLINK {
                found.take_link(content);
            }
        })?;
        route_request(libc::RTM_GETADDR, true, &[0; 8], |kind, content| {
            if kind == libc::RTM_NEWADDR {
                found.take_address(content);
            }
        })?;
        // What the driver has in use; netlink tells what it could have at most.
        if let Ok(channels) = Nic::open(name)?.channels()
            && let queues @ 1.. = channels.receive()
        {
            found.queues = queues;
        } else if let Some(queues) = queues_listed(name, index) {
            found.queues = queues;
        }
        Ok(found)
    }

    /// `struct ifinfomsg`, then attributes.
    fn take_link(&mut self, content: &[u8]) {
        let Some((&header, rest)) = content.split_first_chunk::<16>() else { return };
        let [_, _, k0, k1, _, _, _, _, f0, f1, f2, f3, ..] = header;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        self.is_ethernet = u16::from_ne_bytes([k0, k1]) == ARPHRD_ETHER;
        self.is_up = flags & libc::IFF_UP as u32 != 0;
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFLA_MTU => self.mtu = number(value),
                libc::IFLA_CARRIER => self.has_carrier = value.first().is_some_and(|&on| on != 0),
                libc::IFLA_PROMISCUITY => self.promiscuity = number(value),
                libc::IFLA_MASTER => self.master = Some(number(value)),
                libc::IFLA_NUM_RX_QUEUES => self.queues = number(value),
                libc::IFLA_XDP => self.program = attached(value),
                _ => {}
            }
        }
    }

    /// `struct ifaddrmsg`, then attributes.
    fn take_address(&mut self, content: &[u8]) {
        const SCOPE_LINK: u8 = libc::RT_SCOPE_LINK;
        let Some((&[family, _, _, scope, a, b, c, d], rest)) = content.split_first_chunk::<8>()
        else {
            return;
        };
        if u32::from_ne_bytes([a, b, c, d]) != self.index {
            return;
        }
        let own = attributes(rest).find(|(kind, _)| *kind == libc::IFA_LOCAL);
        let Some((_, value)) =
            own.or_else(|| attributes(rest).find(|(kind, _)| *kind == libc::IFA_ADDRESS))
        else {
            return;
        };
        if let Ok(v4) = <[u8; 4]>::try_from(value) {
            self.addresses.push(Ipv4Addr::from(v4).into());
        } else if let Ok(v6) = <[u8; 16]>::try_from(value)
            && !(i32::from(family) == libc::AF_INET6 && scope == SCOPE_LINK)
        {
            self.addresses.push(Ipv6Addr::from(v6).into());
        }
    }
}

/// Queues that `/sys/class/net` lists, for drivers that do not tell: those in use. It may be that of another network namespace
/// and is believed where the number of the interface agrees.
fn queues_listed(name: &str, index: u32) -> Option<u32> {
    let folder = format!("/sys/class/net/{name}");
    let listed = std::fs::read_to_string(format!("{folder}/ifindex")).ok()?;
    if listed.trim().parse() != Ok(index) {
        return None;
    }
    let entries = std::fs::read_dir(format!("{folder}/queues")).ok()?.flatten();
    let queues = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"));
    u32::try_from(queues.count()).ok().filter(|queues| *queues > 0)
}

/// Every interface of this network namespace: its name, and whether it is a loopback.
pub(super) fn all() -> io::Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    route_request(libc::RTM_GETLINK, true, &[0; 16], |kind, content| {
        let Some((&header, rest)) = content.split_first_chunk::<16>() else { return };
        let [_, _, _, _, _, _, _, _, f0, f1, f2, f3, ..] = header;
        let is_loopback = u32::from_ne_bytes([f0, f1, f2, f3]) & libc::IFF_LOOPBACK as u32 != 0;
        let name = attributes(rest).find(|(kind, _)| *kind == libc::IFLA_IFNAME);
        if let (libc::RTM_NEWLINK, Some((_, name))) = (kind, name) {
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            found.push((String::from_utf8_lossy(name).into_owned(), is_loopback));
        }
    })?;
    Ok(found)
}

/// `IFLA_XDP`: whether a program is attached, and which.
fn attached(nested: &[u8]) -> Option<u32> {
    const ATTACHED: u16 = 2;
    const PROGRAM: u16 = 4;
    let (_, how) = attributes(nested).find(|(kind, _)| *kind == ATTACHED)?;
    if how.first().is_none_or(|&how| how == 0) {
        return None;
    }
    let program = attributes(nested).find(|(kind, _)| *kind == PROGRAM);
    Some(program.map_or(0, |(_, id)| number(id)))
}

/// Attributes of netlink: length, type, value, each at a multiple of four bytes.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Two upper bits of a type say how its value is written.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let &[a, b, c, d, ..] = rest else { return None };
        let bytes = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..bytes)?;
        rest = rest.get(bytes.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE, value))
    })
}

fn number(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_what_it_is() {
        let found = Interface::find("lo").expect("every namespace has it");
        assert!(!found.is_ethernet && found.index != 0 && found.mtu > 1500, "{found:?}");
        assert_eq!((found.program, found.queues), (None, 1));
        assert_eq!(queues_listed("lo", found.index + 1), None, "another one of that name");
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        for name in ["flowscope-none", "a\0b", ""] {
            let error = Interface::find(name).expect_err("not there");
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }

    #[test]
    fn attributes_that_claim_too_much_end_the_walk() {
        let whole = [8, 0, 4, 0, 0xdc, 5, 0, 0];
        assert_eq!(attributes(&whole).count(), usize::from(cfg!(target_endian = "little")));
        for cut in 0..whole.len() {
            assert_eq!(attributes(&whole[..cut]).count(), 0, "{cut}");
        }
        assert_eq!(attributes(&[0; 16]).count(), 0, "a length shorter than its header");
    }
}
