//! Two things that safe Rust cannot ask of the memory: huge pages and prefetching.
//!
//! Neither changes what a program computes; both only say how memory is going to be used.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::size_of_val;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Bytes of a huge page on the machines this runs on.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A vector of `length` values, each made by `value`, on huge pages where the system has them. All of it is
/// touched, so that no page is missing later.
pub fn vec_on_huge_pages<T>(length: usize, value: impl FnMut() -> T) -> Vec<T> {
    let mut values = Vec::with_capacity(length);
    advise_huge_pages(values.spare_capacity_mut());
    values.resize_with(length, value);
    values
}

/// Transparent huge pages are a wish: without them everything works, with more cache misses.
fn advise_huge_pages<T>(memory: &mut [T]) {
    let start = memory.as_mut_ptr() as usize;
    let end = start + size_of_val(memory);
    let first = start.next_multiple_of(HUGE_PAGE_BYTES);
    let past_last = end / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if let Some(address) = NonNull::new(first as *mut c_void)
        && first < past_last
    {
        // SAFETY: the range lies within `memory`, which is ours to advise on, and MADV_HUGEPAGE changes
        // no contents.
        let result = unsafe { madvise(address, past_last - first, MmapAdvise::MADV_HUGEPAGE) };
        if let Err(errno) = result {
            tracing::debug!("no huge pages for {} bytes: {errno}", past_last - first);
        }
    }
}

/// Asks for the cache lines of `value`, which is going to be read or written soon.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    const LINE_BYTES: usize = 64;
    let start = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing and never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (start, offset);
    }
}
