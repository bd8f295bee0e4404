//! libpcap on Linux: a packet socket with a ring, whose filter and errors are ours to handle.
//!
//! Contract: libpcap is asked for frames only when the ring has some. On an empty ring it would look for errors itself, and
//! keep to itself that the interface went away.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pcap::{Active, Capture, Inactive, Precision};

use super::Gate;
use crate::capture::bpf::Instruction;
use crate::capture::filter::Filter;
use crate::capture::gate;
use crate::capture::sys::{self, interface_index, socket_error, wait_for_packet_paths};
use crate::frame::LinkType;

/// What libpcap's fraction of a second counts.
pub(super) const FRACTION_NS: u64 = 1;

/// Whether frames can be on their way that no read has shown yet, so that the counts say when all came.
pub(super) const COUNTS_TELL_THE_END: bool = true;

/// A classic BPF return of a number: how many bytes are taken.
const RETURN: u16 = 0x06;

pub(super) fn find(name: &str) -> io::Result<()> {
    interface_index(name).map(drop)
}

pub(super) fn prepare(capture: Capture<Inactive>) -> Capture<Inactive> {
    capture.precision(Precision::Nano)
}

/// A read that finds nothing returns. Waiting is ours: libpcap waits on beyond its timeout.
pub(super) fn activated(capture: Capture<Active>) -> Result<Capture<Active>, pcap::Error> {
    capture.setnonblock()
}

/// Lets nothing in any more, and returns when nothing is on its way to the ring. What is in the ring stays there:
/// `pcap_setfilter` would filter it once more.
pub(super) fn shut(capture: &Capture<Active>) -> io::Result<()> {
    gate::shut(capture.as_fd())?;
    wait_for_packet_paths();
    Ok(())
}

/// After it was opened, when frames came unasked, and those that the host sends among them: makes a clean start. What came
/// so far is thrown away, and nothing comes before [`let_in`].
pub(super) fn clear(capture: &mut Capture<Active>, patience: Duration) -> io::Result<()> {
    sys::set_option(capture.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    shut(capture)?;
    let (mut discarded, until) = (0u32, Instant::now() + patience);
    loop {
        if wait(capture, Duration::ZERO)? {
            let more = capture.dispatch(None, |_| ()).map_err(super::refuse::said)?;
            discarded = discarded.wrapping_add(more as u32);
            continue;
        }
        let counts = capture.stats().map_err(super::refuse::said)?;
        // On the loopback interface libpcap keeps back each frame's way out, and the numbers never meet.
        if counts.received.wrapping_sub(counts.dropped) == discarded || Instant::now() > until {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets frames in: those that the filter wants, as far as the kernel can say, and as many bytes as are kept.
pub(super) fn let_in(
    capture: &mut Capture<Active>,
    filter: Option<&Filter>,
    link: LinkType,
    frame_bytes: u32,
) -> io::Result<Gate> {
    // Frames of cooked captures have no link header yet when the kernel filters them.
    let filter_there = filter.filter(|_| link != LinkType::LINUX_SLL);
    let in_kernel = filter_there.and_then(|filter| filter.in_kernel(link));
    let gate = match (filter, &in_kernel) {
        (None, _) => Gate::Open,
        (Some(_), None) => Gate::UserSpace,
        (Some(_), Some(program)) => Gate::Kernel(program.len()),
    };
    let all = Instruction { code: RETURN, jt: 0, jf: 0, k: frame_bytes };
    let mut program = in_kernel.unwrap_or_else(|| vec![all]);
    for instruction in program.iter_mut().filter(|i| i.code == RETURN) {
        instruction.k = instruction.k.min(frame_bytes);
    }
    gate::let_in(capture.as_fd(), &program)?;
    Ok(gate)
}

/// Sleeps until there are frames in the ring, or a while. Whether there are any.
pub(super) fn wait(capture: &Capture<Active>, wait: Duration) -> io::Result<bool> {
    let has_frames = sys::wait_readable(capture.as_fd(), wait)?;
    // What came before the interface went is handed out first.
    if !has_frames {
        socket_error(capture.as_fd())?;
    }
    Ok(has_frames)
}
