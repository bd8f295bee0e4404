//! Asking the processor for a cache line before it is needed: the one thing that loads cannot do, because a load that
//! misses keeps everything after it waiting.
//!
//! Contract: changes nothing but the cache. Where there is no stable way to ask, it does nothing.
#![allow(unsafe_code)]

/// Asks for the line that `value` begins in.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY:
    // - a prefetch reads nothing and faults on nothing, whatever the address; this one is of a value that is there;
    // - SSE, which it takes, is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
}

/// The same into the second cache, for what is looked at later than the first one keeps it: more of them are under way at a time.
#[cfg(all(feature = "capture", target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn prefetch_early<T>(value: &T) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: as for `prefetch`:
    // - nothing is read, nothing faults;
    // - SSE is there.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(value).cast()) };
}

/// Asks for the line that `value` begins in.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn prefetch<T>(_: &T) {}

/// Asks for the line that `value` begins in.
#[cfg(all(feature = "capture", not(target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn prefetch_early<T>(_: &T) {}

/// Asks for the lines that the first `N` bytes are in, which are at most two, where there are so many.
#[inline(always)]
pub(crate) fn prefetch_ends<const N: usize>(bytes: &[u8]) {
    const { assert!(N <= 65) };
    if let Some([first, .., last]) = bytes.get(..N) {
        prefetch(first);
        prefetch(last);
    }
}

/// Asks, early, for the lines that the first `N` bytes are in, which are at most three, where there are so many.
#[cfg(feature = "capture")]
#[inline(always)]
pub(crate) fn prefetch_early_ends<const N: usize>(bytes: &[u8]) {
    const { assert!(64 < N && N <= 129) };
    if let Some(bytes @ [first, .., last]) = bytes.get(..N) {
        prefetch_early(first);
        prefetch_early(&bytes[64]);
        prefetch_early(last);
    }
}
