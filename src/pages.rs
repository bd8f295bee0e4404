//! Asking the kernel for huge pages: what finds a flow among a million is two or three cache misses, and in pages of 4 KiB each of
//! them misses the TLB as well.
//!
//! Contract: changes no byte, and fails silently: where the kernel has none to give (or `transparent_hugepage` is `never`) pages stay
//! small. Worth 17 % of a packet where a million flows live (bench/runs/2026-11-28-huge-pages); nothing where few do.
#![allow(unsafe_code)]

/// Smaller ones would not hold a huge page for certain.
const BYTES_MIN: usize = 4 << 20;

/// Room for `capacity` values, in huge pages where it takes enough and there are any.
pub(crate) fn room<T>(capacity: usize) -> Vec<T> {
    let mut room = Vec::with_capacity(capacity);
    ask_for_huge(room.spare_capacity_mut());
    room
}

/// Asks that what was not written to yet of this memory come in huge pages.
pub(crate) fn ask_for_huge<T>(memory: &mut [T]) {
    if size_of_val(memory) >= BYTES_MIN {
        advise(memory);
    }
}

/// `MADV_HUGEPAGE`, madvise(2).
#[cfg(target_os = "linux")]
fn advise<T>(memory: &mut [T]) {
    /// A multiple of every architecture's page; what is not aligned at either end stays in small ones.
    const ALIGN: usize = 64 << 10;
    let bytes = size_of_val(memory);
    let start = memory.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(ALIGN).min(bytes);
    let len = (bytes - skip) & !(ALIGN - 1);
    // SAFETY:
    // - `skip` is no more than the bytes of the slice: the pointer stays within it or at its end.
    // - MADV_HUGEPAGE is advice about a range of our address space and changes no byte of it; the range is within the slice, which
    //   nobody else has.
    unsafe {
        // Kernels without huge pages refuse.
        let _ = libc::madvise(start.add(skip).cast(), len, libc::MADV_HUGEPAGE);
    }
}

/// Only Linux can be asked.
#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &mut [T]) {}

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
    fn memory_of_any_size_and_place_keeps_its_bytes() {
        let mut memory: Vec<u32> = (0..3 << 20).collect();
        for (from, len) in [(0, 0), (0, 1), (1, 3 << 19), (5, (3 << 20) - 5), (0, 3 << 20)] {
            ask_for_huge(&mut memory[from..from + len]);
        }
        assert!((0..3 << 20).eq(memory));
    }
}
