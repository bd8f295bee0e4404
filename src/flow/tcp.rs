//! The state of a TCP connection seen from outside (RFC 9293 section 3.3.2).

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
