//! A tracker's configuration: one validated type.

use std::time::Duration;

use super::hash::KeyHash;
use super::tcp::TcpState;
use crate::net::L4;

/// How long a flow may be silent before it ends, by protocol and TCP state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleTimeouts {
    /// TCP before the handshake is complete. Default 10 s.
    pub tcp_embryonic: Duration,
    /// TCP with both directions open. Default 300 s.
    pub tcp_established: Duration,
    /// TCP with one direction closed. Default 120 s.
    pub tcp_half_closed: Duration,
    /// TCP closed or reset: how long stragglers still belong to it. Default 5 s.
    pub tcp_closed: Duration,
    /// UDP. Default 60 s.
    pub udp: Duration,
    /// Everything else. Default 30 s.
    pub other: Duration,
}

impl Default for IdleTimeouts {
    fn default() -> Self {
        Self {
            tcp_embryonic: Duration::from_secs(10),
            tcp_established: Duration::from_secs(300),
            tcp_half_closed: Duration::from_secs(120),
            tcp_closed: Duration::from_secs(5),
            udp: Duration::from_secs(60),
            other: Duration::from_secs(30),
        }
    }
}

/// How a tracker behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerConfig {
    /// How many flows the table holds, 1 to 2^30; memory for all is taken at start.
    /// Default 100 000.
    pub max_flows: usize,
    /// Idle timeouts.
    pub idle: IdleTimeouts,
    /// How long a flow goes without a record: an [`Updated`](crate::FlowEvent::Updated) event
    /// tells what it has so far. `None`: only when it ends. Default 1 800 s.
    pub active_timeout: Option<Duration>,
    /// How many datagrams the fragment table follows at once. Default 4 096.
    pub max_datagrams: usize,
    /// How long a datagram's fragments are waited for. Default 30 s (RFC 8200 allows 60).
    pub fragment_timeout: Duration,
    /// Which hash the table goes by. Default [`KeyHash::Fast`].
    pub key_hash: KeyHash,
    /// Whether every packet is an event. Default no.
    pub emit_packets: bool,
    /// Whether all memory is touched at the start, so that no packet waits for the kernel to clear a page (2 MiB at a time where it
    /// gives huge ones): about 187 bytes a flow. Default no; live runs do.
    pub touch_memory: bool,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            max_flows: 100_000,
            idle: IdleTimeouts::default(),
            active_timeout: Some(Duration::from_secs(1800)),
            max_datagrams: 4096,
            fragment_timeout: Duration::from_secs(30),
            key_hash: KeyHash::default(),
            emit_packets: false,
            touch_memory: false,
        }
    }
}

/// What a configuration was refused for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `max_flows` is out of range.
    #[error("max_flows is {0}: choose 1 to {max}", max = TrackerConfig::MAX_FLOWS)]
    MaxFlows(usize),
    /// `max_datagrams` is out of range.
    #[error("max_datagrams is {0}: choose 1 to {max}", max = TrackerConfig::MAX_DATAGRAMS)]
    MaxDatagrams(usize),
    /// A table can shrink, and grow back to what it was made for.
    #[error("max_flows cannot be set to {asked}: choose 1 to {taken}, which memory was taken for")]
    Resize {
        /// What was asked for.
        asked: usize,
        /// What the tracker was made for.
        taken: usize,
    },
    /// A timeout is zero.
    #[error("the timeout {0} is zero: choose a positive time")]
    ZeroTimeout(&'static str),
}

impl TrackerConfig {
    /// Most flows a table can hold.
    pub const MAX_FLOWS: usize = 1 << 30;
    /// Most datagrams a fragment table can follow.
    pub const MAX_DATAGRAMS: usize = 1 << 24;

    /// Refuses what cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=Self::MAX_FLOWS).contains(&self.max_flows) {
            return Err(ConfigError::MaxFlows(self.max_flows));
        }
        if !(1..=Self::MAX_DATAGRAMS).contains(&self.max_datagrams) {
            return Err(ConfigError::MaxDatagrams(self.max_datagrams));
        }
        let idle = &self.idle;
        let timeouts = [
            ("tcp_embryonic", idle.tcp_embryonic),
            ("tcp_established", idle.tcp_established),
            ("tcp_half_closed", idle.tcp_half_closed),
            ("tcp_closed", idle.tcp_closed),
            ("udp", idle.udp),
            ("other", idle.other),
            ("fragment_timeout", self.fragment_timeout),
            ("active_timeout", self.active_timeout.unwrap_or(Duration::MAX)),
        ];
        match timeouts.iter().find(|(_, timeout)| timeout.is_zero()) {
            Some((name, _)) => Err(ConfigError::ZeroTimeout(name)),
            None => Ok(()),
        }
    }

    /// The idle timeout of a flow whose TCP connection, if it is one, is in `state`.
    pub fn idle_timeout(&self, l4: L4, state: TcpState) -> Duration {
        match l4 {
            L4::Tcp => match state {
                TcpState::SynSent | TcpState::SynReceived => self.idle.tcp_embryonic,
                TcpState::Established => self.idle.tcp_established,
                TcpState::FinWait1 | TcpState::FinWait2 => self.idle.tcp_half_closed,
                TcpState::Closing | TcpState::LastAck | TcpState::TimeWait | TcpState::Closed => {
                    self.idle.tcp_closed
                }
            },
            L4::Udp => self.idle.udp,
            L4::Other => self.idle.other,
        }
    }
}
