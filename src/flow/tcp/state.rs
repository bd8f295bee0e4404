//! Where a connection stands: one enum, one table (RFC 9293 figure 5).

/// Where a connection stands, as an observer of both directions can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// One side sent SYN.
    #[default]
    SynSent,
    /// The other answered SYN-ACK, or both sent SYN.
    SynReceived,
    /// The handshake is complete, or the connection was picked up in mid-stream.
    Established,
    /// One side sent FIN.
    FinWait1,
    /// And the other acknowledged it.
    FinWait2,
    /// Both sent FIN, neither is acknowledged yet.
    Closing,
    /// Both sent FIN, one is acknowledged.
    LastAck,
    /// Both sent FIN, both are acknowledged.
    TimeWait,
    /// Reset.
    Closed,
}

/// What moves a connection on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A SYN from the other side too, with or without ACK.
    Answered,
    /// Both SYNs are acknowledged.
    Established,
    /// The first FIN.
    Fin,
    /// The other side's FIN.
    PeerFin,
    /// One of the FINs is acknowledged.
    FinAcked,
    /// A RST that is believed.
    Rst,
}

impl TcpState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
    ];

    /// The table of transitions (RFC 9293 figure 5, both ends at once).
    #[must_use]
    pub const fn next(self, signal: Signal) -> Self {
        use Signal as On;
        use TcpState::{
            Closed, Closing, Established, FinWait1, FinWait2, LastAck, SynReceived, SynSent,
            TimeWait,
        };
        match (self, signal) {
            (SynSent, On::Answered) => SynReceived,
            (SynSent | SynReceived, On::Established) => Established,
            (SynSent | SynReceived | Established, On::Fin) => FinWait1,
            (FinWait1, On::FinAcked) => FinWait2,
            (FinWait1, On::PeerFin) => Closing,
            (FinWait2, On::PeerFin) => LastAck,
            (Closing, On::FinAcked) => LastAck,
            (LastAck, On::FinAcked) => TimeWait,
            // Both sides had closed: a late RST does not unmake that.
            (Closing | LastAck | TimeWait, On::Rst) => TimeWait,
            (_, On::Rst) => Closed,
            (state, _) => state,
        }
    }

    /// Both sides sent FIN.
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Closing | Self::LastAck | Self::TimeWait)
    }

    /// Finished or reset: a SYN from here on is a new connection.
    pub const fn is_over(self) -> bool {
        self.is_finished() || matches!(self, Self::Closed)
    }

    /// The handshake is not complete.
    pub const fn is_embryonic(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_ends_in_time_wait_or_closed() {
        for state in TcpState::ALL {
            let after = state.next(Signal::Rst);
            assert!(matches!(after, TcpState::Closed | TcpState::TimeWait), "{state:?}");
            let closed = [Signal::Fin, Signal::PeerFin, Signal::FinAcked, Signal::FinAcked]
                .into_iter()
                .fold(state, TcpState::next);
            assert!(closed.is_over(), "{state:?} → {closed:?}");
        }
    }
}
