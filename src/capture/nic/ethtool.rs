//! A port's driver, asked and told by `SIOCETHTOOL`: one structure for each command, as `linux/ethtool.h` has it.
//!
//! Contract: every structure is an array of words at least as long as what the kernel writes for its command. What comes
//! back is plain numbers and bytes; lengths among them are bounded by [`VARIABLE_MAX`] before memory is taken.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::features::{BLOCK_WORDS, Features, NAME_BYTES};
use super::rss::{Rss, round_robin};
use super::{Told, Untold};
use crate::capture::sys::{check, interface_index};

/// Most names of offloads, entries of a table and bytes of a key that are believed. Kernels of today have 64, 4096 and 128.
const VARIABLE_MAX: u32 = 1 << 16;

/// A command, and the words of its structure.
struct Command<const WORDS: usize>(u32);

/// `struct ethtool_drvinfo`: five texts, and numbers.
const GET_DRIVER: Command<49> = Command(0x03);
/// `struct ethtool_ringparam`.
const GET_RING: Command<9> = Command(0x10);
const SET_RING: Command<9> = Command(0x11);
/// `struct ethtool_pauseparam`.
const GET_PAUSE: Command<4> = Command(0x12);
const SET_PAUSE: Command<4> = Command(0x13);
/// `struct ethtool_rxnfc`, the whole of it, of which the kernel writes a part.
const GET_HASHED: Command<48> = Command(0x29);
/// `struct ethtool_sset_info`, for one set.
const COUNT_NAMES: Command<5> = Command(0x37);
/// `struct ethtool_channels`.
const GET_CHANNELS: Command<9> = Command(0x3c);
/// `struct ethtool_rxfh` without table and key.
const GET_RSS: Command<RSS_WORDS> = Command(0x46);
/// `struct ethtool_link_settings` without its lists of modes.
const GET_LINK: Command<LINK_WORDS> = Command(0x4c);

// Of variable length.
const GET_NAMES: u32 = 0x1b;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
const SET_RSS: u32 = 0x47;

const RSS_WORDS: usize = 6;
const LINK_WORDS: usize = 12;
/// `ETH_SS_FEATURES`.
const NAMES_OF_FEATURES: u32 = 4;

/// Who drives a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Its version, or the kernel's.
    pub version: String,
    /// The firmware's version; empty where there is none.
    pub firmware: String,
    /// Where the NIC is: an address on the PCI bus, mostly; empty for what is no hardware.
    pub bus: String,
}

impl Driver {
    /// The NUMA node of the NIC; `None` where it has none, or the machine has one node only.
    pub fn node(&self) -> Option<u32> {
        let is_address = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
        if self.bus.is_empty() || !self.bus.chars().all(is_address) {
            return None;
        }
        // By the bus, for `/sys/class/net` may be that of another network namespace.
        let file = format!("/sys/bus/pci/devices/{}/numa_node", self.bus);
        // -1 is "none".
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

/// Queues of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// Queues that only receive.
    pub rx: u32,
    /// Queues that receive and transmit.
    pub combined: u32,
    /// The most of the first.
    pub rx_max: u32,
    /// The most of the second.
    pub combined_max: u32,
}

impl Channels {
    /// Queues that receive.
    pub fn receive(&self) -> u32 {
        self.rx.saturating_add(self.combined).min(VARIABLE_MAX)
    }
}

/// The ring that a NIC receives into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Frames that it has room for.
    pub frames: u32,
    /// The most that it could have.
    pub frames_max: u32,
}

/// Pause frames (IEEE 802.3x): asking the sender to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Whether the two ends agree on it among themselves.
    pub negotiated: bool,
    /// Whether this end stops when it is asked to.
    pub receive: bool,
    /// Whether this end asks.
    pub transmit: bool,
}

/// The driver of one port.
#[derive(Debug)]
pub struct Nic {
    socket: OwnedFd,
    request: [libc::c_char; libc::IFNAMSIZ],
}

impl Nic {
    /// For the interface called `name`.
    ///
    /// # Errors
    /// `ENODEV` when there is none in this network namespace.
    pub fn open(name: &str) -> io::Result<Self> {
        interface_index(name)?;
        // SAFETY:
        // - the call takes no pointer.
        let fd = check(unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
        })?;
        // SAFETY:
        // - the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut request = [0; libc::IFNAMSIZ];
        // The kernel knows no longer names; the last byte stays zero.
        for (to, from) in request[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self { socket, request })
    }

    /// Hands a structure to the driver; what it writes is in the structure then.
    ///
    /// # Safety
    /// The kernel writes no more than `structure` has, for the command in its first word.
    unsafe fn call(&self, structure: &mut [u32]) -> io::Result<()> {
        // SAFETY:
        // - all fields of `ifreq` are integers, arrays of them, or a pointer that may be null.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.request;
        request.ifr_ifru.ifru_data = structure.as_mut_ptr().cast();
        // SAFETY:
        // - `request` is what SIOCETHTOOL takes, and names `structure`; both live until the call returns.
        // - what is written there fits: the caller's promise.
        check(unsafe {
            libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request)
        })
        .map(drop)
    }

    fn fixed<const WORDS: usize>(
        &self,
        command: Command<WORDS>,
        mut structure: [u32; WORDS],
    ) -> io::Result<[u32; WORDS]> {
        structure[0] = command.0;
        // SAFETY:
        // - `WORDS` is the length of the command's structure: they stand together, above.
        // - where the structure has a tail of variable length, the lengths in it are 0, and the kernel writes no tail.
        unsafe { self.call(&mut structure) }.map(|()| structure)
    }

    /// Who drives it.
    ///
    /// # Errors
    /// [`Untold`]; so it is for all that follows.
    pub fn driver(&self) -> Told<Driver> {
        let words = self.fixed(GET_DRIVER, [0; 49])?;
        let text = |from: usize| text(&words[from..from + 8]);
        Ok(Driver { name: text(1), version: text(9), firmware: text(17), bus: text(25) })
    }

    /// Megabits a second; `None` while there is no link.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn speed_mbit(&self) -> Told<Option<u32>> {
        const UNKNOWN: u32 = u32::MAX;
        let masks_at = |words: &[u32]| words[3].to_ne_bytes()[3] as i8;
        // Asked for modes of length 0 it says how many words a list of them has, as a negative number.
        let lists = masks_at(&self.fixed(GET_LINK, [0; LINK_WORDS])?);
        let lists = lists.checked_neg().filter(|words| *words > 0).ok_or(Untold::Unsupported)?;
        let mut words = vec![0; LINK_WORDS + 3 * lists as usize];
        words[0] = GET_LINK.0;
        words[3] = u32::from_ne_bytes([0, 0, 0, lists as u8]);
        // SAFETY:
        // - the structure has room for three lists of the length that it names; the kernel writes the lists only when that is
        //   the length that it has itself.
        unsafe { self.call(&mut words) }?;
        Ok(Some(words[1]).filter(|speed| !matches!(*speed, 0 | UNKNOWN)))
    }

    /// Its queues.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn channels(&self) -> Told<Channels> {
        let [_, rx_max, _, _, combined_max, rx, _, _, combined] =
            self.fixed(GET_CHANNELS, [0; 9])?;
        Ok(Channels { rx, combined, rx_max, combined_max })
    }

    /// The ring that it receives into.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn ring(&self) -> Told<Ring> {
        let words = self.fixed(GET_RING, [0; 9])?;
        Ok(Ring { frames: words[5], frames_max: words[1] })
    }

    /// Gives that ring room for so many frames.
    ///
    /// # Errors
    /// What the system said; it takes `CAP_NET_ADMIN`, here and wherever something is set.
    pub fn set_ring(&self, frames: u32) -> io::Result<()> {
        let mut words = self.fixed(GET_RING, [0; 9])?;
        words[5] = frames;
        self.fixed(SET_RING, words).map(drop)
    }

    /// Pause frames.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn pause(&self) -> Told<Pause> {
        let [_, negotiated, receive, transmit] = self.fixed(GET_PAUSE, [0; 4])?;
        let [negotiated, receive, transmit] = [negotiated, receive, transmit].map(|on| on != 0);
        Ok(Pause { negotiated, receive, transmit })
    }

    /// Sets pause frames.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_pause(&self, pause: Pause) -> io::Result<()> {
        let words = [pause.negotiated, pause.receive, pause.transmit].map(u32::from);
        self.fixed(SET_PAUSE, [0, words[0], words[1], words[2]]).map(drop)
    }

    /// Whether the ports of UDP over IPv4 count in the hash.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn udp_ports_hashed(&self) -> Told<bool> {
        /// `RXH_L4_B_0_1` and `RXH_L4_B_2_3`.
        const PORTS: u32 = 1 << 6 | 1 << 7;
        const UDP_V4_FLOW: u32 = 2;
        let mut words = [0; 48];
        words[1] = UDP_V4_FLOW;
        let words = self.fixed(GET_HASHED, words)?;
        // A number of 64 bits, in the machine's order.
        let fields = if cfg!(target_endian = "little") { words[2] } else { words[3] };
        Ok(fields & PORTS == PORTS)
    }

    /// How frames are spread over queues.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn rss(&self) -> Told<Rss> {
        let [_, _, entries, key_bytes, ..] = self.fixed(GET_RSS, [0; RSS_WORDS])?;
        if entries > VARIABLE_MAX || key_bytes > VARIABLE_MAX {
            return Err(Untold::Failed(libc::EPROTO));
        }
        let mut words = rss_words(GET_RSS.0, entries as usize, key_bytes as usize);
        // SAFETY:
        // - the structure has room for as many entries and bytes of key as it names, and the kernel refuses other
        //   lengths than its own.
        unsafe { self.call(&mut words) }?;
        let (table, key) = words[RSS_WORDS..].split_at(entries as usize);
        let mut key: Vec<u8> = key.iter().flat_map(|word| word.to_ne_bytes()).collect();
        // The key may turn out to be shorter than the room for it.
        key.truncate((key_bytes.min(words[3])) as usize);
        let [function, transform, ..] = words[4].to_ne_bytes();
        Ok(Rss { table: table.to_vec(), key, function, transform })
    }

    /// Sets key, function and table. A table that is the driver's own for `queues` queues is set as such, so that the driver
    /// goes on keeping it up when their number changes.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_rss(&self, rss: &Rss, queues: u32) -> io::Result<()> {
        let mut words = rss_to_set(rss, queues);
        // SAFETY:
        // - the kernel reads the structure, and writes the number of a context into its second word.
        unsafe { self.call(&mut words) }
    }

    /// Names of all offloads, one after the other.
    fn feature_names(&self) -> io::Result<Vec<u8>> {
        let sets = 1u64 << NAMES_OF_FEATURES;
        let [low, high] = if cfg!(target_endian = "little") {
            [sets as u32, (sets >> 32) as u32]
        } else {
            [(sets >> 32) as u32, sets as u32]
        };
        let [.., count] = self.fixed(COUNT_NAMES, [0, 0, low, high, 0])?;
        if count == 0 || count > VARIABLE_MAX {
            return Err(io::Error::from_raw_os_error(libc::EPROTO));
        }
        let mut words = vec![0; 3 + count as usize * NAME_BYTES / 4];
        words[..3].copy_from_slice(&[GET_NAMES, NAMES_OF_FEATURES, count]);
        // SAFETY:
        // - the kernel writes as many names as it counted a moment ago: for this set a constant of the kernel, the same
        //   for every driver.
        unsafe { self.call(&mut words) }?;
        Ok(words[3..].iter().flat_map(|word| word.to_ne_bytes()).collect())
    }

    /// Its offloads.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn features(&self) -> Told<Features> {
        let names = self.feature_names()?;
        let blocks = (names.len() / NAME_BYTES).div_ceil(32);
        let mut words = vec![0; 2 + blocks * BLOCK_WORDS];
        words[..2].copy_from_slice(&[GET_FEATURES, blocks as u32]);
        // SAFETY:
        // - the structure has room for as many blocks as it names, and the kernel writes no more than that.
        unsafe { self.call(&mut words) }?;
        Ok(Features::from_wire(&names, &words[2..]))
    }

    /// Switches the offload of this name. That the call succeeds does not say that it is in force: a driver may only take
    /// it for a wish.
    ///
    /// # Errors
    /// What the system said; `EOPNOTSUPP` where the kernel does not know the name.
    pub fn set_feature(&self, name: &str, on: bool) -> io::Result<()> {
        let names = self.feature_names()?;
        let bit = Features::bit(&names, name)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
        let mut words = feature_to_set(names.len() / NAME_BYTES, bit, on);
        // SAFETY:
        // - the kernel only reads the structure, which has as many blocks as it names.
        unsafe { self.call(&mut words) }
    }
}

/// `struct ethtool_rxfh`: lengths, then a table and a key.
fn rss_words(command: u32, entries: usize, key_bytes: usize) -> Vec<u32> {
    let mut words = vec![0; RSS_WORDS + entries + key_bytes.div_ceil(4)];
    words[..4].copy_from_slice(&[command, 0, entries as u32, key_bytes as u32]);
    words
}

fn rss_to_set(rss: &Rss, queues: u32) -> Vec<u32> {
    // No entries: the driver's own table.
    let table =
        if rss.table == round_robin(rss.table.len(), queues) { &[] } else { &rss.table[..] };
    let mut words = rss_words(SET_RSS, table.len(), rss.key.len());
    words[4] = u32::from_ne_bytes([rss.function, rss.transform, 0, 0]);
    let (to_table, to_key) = words[RSS_WORDS..].split_at_mut(table.len());
    to_table.copy_from_slice(table);
    for (word, bytes) in to_key.iter_mut().zip(rss.key.chunks(4)) {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_ne_bytes(whole);
    }
    words
}

/// `struct ethtool_sfeatures`: for each block which bits are meant, and what they are to be.
fn feature_to_set(names: usize, bit: usize, on: bool) -> Vec<u32> {
    let blocks = names.div_ceil(32);
    let mut words = vec![0; 2 + 2 * blocks];
    words[..2].copy_from_slice(&[SET_FEATURES, blocks as u32]);
    words[2 + bit / 32 * 2] = 1 << (bit % 32);
    words[3 + bit / 32 * 2] = u32::from(on) << (bit % 32);
    words
}

/// Text up to its first zero byte.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_a_key_are_laid_out_one_after_the_other() {
        let table = vec![3, 2, 1, 0];
        let rss = Rss { table, key: vec![1, 2, 3, 4, 5], function: 1, transform: 2 };
        let words = rss_to_set(&rss, 4);
        assert_eq!(words[..4], [0x47, 0, 4, 5]);
        assert_eq!(words[4].to_ne_bytes(), [1, 2, 0, 0]);
        assert_eq!(words[5..10], [0, 3, 2, 1, 0]);
        assert_eq!(words[10].to_ne_bytes(), [1, 2, 3, 4]);
        assert_eq!(words[11].to_ne_bytes(), [5, 0, 0, 0]);
        assert_eq!(words.len(), 12);
    }

    #[test]
    fn the_drivers_own_table_is_set_by_naming_none() {
        let rss = Rss { table: round_robin(128, 4), key: vec![7; 40], function: 0, transform: 0 };
        assert_eq!(rss_to_set(&rss, 4)[2], 0);
        assert_eq!(rss_to_set(&rss, 4).len(), RSS_WORDS + 10);
        assert_eq!(rss_to_set(&rss, 3)[2], 128, "of three queues it is not the driver's own");
    }

    #[test]
    fn one_bit_is_meant_and_no_other() {
        assert_eq!(feature_to_set(64, 33, true), [0x3b, 2, 0, 0, 2, 2]);
        assert_eq!(feature_to_set(64, 3, false), [0x3b, 2, 8, 0, 0, 0]);
    }

    #[test]
    fn a_bus_address_is_not_taken_for_a_path() {
        let at = |bus: &str| Driver { bus: bus.to_owned(), ..Driver::default() }.node();
        for bus in ["", "../../../../etc", "usb-0000:00:14.0-1", "0000:ff:1f.7"] {
            assert_eq!(at(bus), None, "{bus}");
        }
    }
}
