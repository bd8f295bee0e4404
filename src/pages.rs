//! Asking the kernel for huge pages, for none, or for several at once: what finds a flow among a million is two or three cache misses, and in pages of 4 KiB each of
//! them misses the TLB as well.
//!
//! Contract: changes no byte, and fails silently: where the kernel has none to give (or `transparent_hugepage` is `never`) pages stay
//! small. Worth 17 % of a packet where a million flows live (bench/runs/2026-11-28-huge-pages); nothing where few do.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// A huge page of most machines.
pub(crate) const HUGE_BYTES: usize = 2 << 20;
/// Smaller memory would not hold one for certain.
const BYTES_MIN: usize = 2 * HUGE_BYTES;

/// Room for `capacity` values, in huge pages where it takes enough and there are any.
pub(crate) fn room<T>(capacity: usize) -> Vec<T> {
    let mut room = Vec::with_capacity(capacity);
    ask_for_huge(room.spare_capacity_mut());
    room
}

/// Asks that what was not written to yet of this memory come in huge pages.
pub(crate) fn ask_for_huge<T>(memory: &mut [T]) {
    if size_of_val(memory) >= BYTES_MIN {
        advise(memory, Advice::Huge);
    }
}

/// Asks that what was not written to yet of this memory come in small pages.
pub(crate) fn ask_for_small<T>(memory: &mut [T]) {
    advise(memory, Advice::Small);
}

/// Has the kernel clear all of this memory that was not written to yet. Page by page, as each is first written to, that takes twice as long.
pub(crate) fn clear<T>(memory: &mut [MaybeUninit<T>]) {
    advise(memory, Advice::Clear);
}

/// How many values before the first one that begins in the next huge page.
pub(crate) fn to_huge<T>(memory: &[T]) -> usize {
    let bytes = memory.as_ptr().cast::<u8>().align_offset(HUGE_BYTES);
    bytes.div_ceil(size_of::<T>().max(1))
}

#[derive(Clone, Copy)]
enum Advice {
    Huge,
    Small,
    Clear,
}

/// `MADV_HUGEPAGE`, `MADV_NOHUGEPAGE` or `MADV_POPULATE_WRITE`, madvise(2).
#[cfg(target_os = "linux")]
fn advise<T>(memory: &mut [T], advice: Advice) {
    /// A multiple of every architecture's page; what is not aligned at either end stays in small ones.
    const ALIGN: usize = 64 << 10;
    let bytes = size_of_val(memory);
    let start = memory.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(ALIGN).min(bytes);
    let len = (bytes - skip) & !(ALIGN - 1);
    let advice = match advice {
        Advice::Huge => libc::MADV_HUGEPAGE,
        Advice::Small => libc::MADV_NOHUGEPAGE,
        Advice::Clear => libc::MADV_POPULATE_WRITE,
    };
    // SAFETY:
    // - `skip` is no more than the bytes of the slice: the pointer stays within it or at its end.
    // - All are advice about a range of our address space and change no byte of it; the range is within the slice, which
    //   nobody else has.
    unsafe {
        // Kernels that know no huge pages, or are older than 5.14, refuse.
        let _ = libc::madvise(start.add(skip).cast(), len, advice);
    }
}

/// Only Linux can be asked.
#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &mut [T], _: Advice) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_for_as_many_as_were_asked_for() {
        for capacity in [0, 1, 1 << 20] {
            let mut room = super::room::<u64>(capacity);
            assert!(room.is_empty() && room.capacity() >= capacity);
            room.resize(capacity, 7);
            assert!(room.iter().all(|&value| value == 7));
        }
    }

    #[test]
    fn the_next_huge_page_is_less_than_its_length_away() {
        let memory = vec![[0u8; 48]; 3 * HUGE_BYTES / 48];
        let page_of = |at: usize| memory[at].as_ptr().addr() / HUGE_BYTES;
        for from in (0..HUGE_BYTES / 48).step_by(1001) {
            let ahead = to_huge(&memory[from..]);
            assert!(page_of(from + ahead) <= page_of(from) + 1);
            assert!(ahead == 0 || page_of(from + ahead - 1) == page_of(from));
        }
    }

    #[test]
    fn memory_of_any_size_and_place_keeps_its_bytes() {
        let mut memory: Vec<u32> = (0..3 << 20).collect();
        for (from, len) in [(0, 0), (0, 1), (1, 3 << 19), (5, (3 << 20) - 5), (0, 3 << 20)] {
            ask_for_huge(&mut memory[from..from + len]);
            ask_for_small(&mut memory[from + len / 2..from + len]);
        }
        assert!((0..3 << 20).eq(memory.iter().copied()));
        memory.truncate(1 << 20);
        clear(memory.spare_capacity_mut());
        assert!((0..1 << 20).eq(memory));
    }
}
