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

/// Asks for the line that `value` begins in.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn prefetch<T>(_: &T) {}

/// Asks for the lines that the first and the last of the first `N` bytes are in, where there are so many.
#[inline(always)]
pub(crate) fn prefetch_ends<const N: usize>(bytes: &[u8]) {
    if let Some([first, .., last]) = bytes.get(..N) {
        prefetch(first);
        prefetch(last);
    }
}
