//! A thread on its core.

use std::io;

/// Keeps the calling thread on `core`.
pub fn pin(core: u32) -> io::Result<()> {
    // SAFETY: all fields are integers, and zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core as usize >= size_of_val(&set) * 8 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the number was checked to be within the set.
    unsafe { libc::CPU_SET(core as usize, &mut set) };
    // SAFETY: the set outlives the call, and its size is that of the set.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
