//! libpcap where the system has no more to offer than libpcap does: reads that wait, and counts that are not of one moment.
//!
//! Contract: nothing here is of one system. What is behind libpcap's buffer is neither stopped nor waited for.

use std::io;
use std::time::Duration;

use pcap::{Active, Capture, Inactive};

use super::Gate;
use crate::capture::filter::Filter;
use crate::frame::LinkType;

/// What libpcap's fraction of a second counts.
pub(super) const FRACTION_NS: u64 = 1000;

/// Whether frames can be on their way that no read has shown yet, so that the counts say when all came.
pub(super) const COUNTS_TELL_THE_END: bool = false;

/// libpcap says what it does not find.
pub(super) fn find(_: &str) -> io::Result<()> {
    Ok(())
}

pub(super) fn prepare(capture: Capture<Inactive>) -> Capture<Inactive> {
    capture
}

/// A read that finds nothing returns after libpcap's timeout.
pub(super) fn activated(capture: Capture<Active>) -> Result<Capture<Active>, pcap::Error> {
    Ok(capture)
}

pub(super) fn shut(_: &Capture<Active>) -> io::Result<()> {
    Ok(())
}

pub(super) fn clear(_: &mut Capture<Active>, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Filters where libpcap does.
pub(super) fn let_in(
    capture: &mut Capture<Active>,
    filter: Option<&Filter>,
    _: LinkType,
    _: u32,
) -> io::Result<Gate> {
    let Some(filter) = filter else { return Ok(Gate::Open) };
    capture.filter(filter.expression(), true).map_err(super::refuse::said)?;
    Ok(Gate::System)
}

/// The read that follows waits.
pub(super) fn wait(_: &Capture<Active>, _: Duration) -> io::Result<bool> {
    Ok(true)
}
