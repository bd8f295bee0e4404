//! A connection's history string, in the letters that Zeek's `conn.log` made known.

/// What happened on a TCP connection, in order: upper case by the initiator, lower case by the
/// responder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    packed: [u64; 2],
}
