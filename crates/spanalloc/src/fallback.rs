//! Allocation for threads whose cache is gone: one cache for all of them, under a lock. They free
//! without it, into the spans of others.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use crate::global::Spanalloc;
use crate::program::Program;

fn raw(object: Option<NonNull<u8>>) -> *mut u8 {
    object.map_or(ptr::null_mut(), NonNull::as_ptr)
}

#[cold]
#[inline(never)]
pub(crate) fn alloc_slow(layout: Layout) -> *mut u8 {
    raw(Spanalloc::fallback().lock().alloc(layout))
}

#[cold]
#[inline(never)]
pub(crate) fn alloc_zeroed_slow(layout: Layout) -> *mut u8 {
    raw(Spanalloc::fallback().lock().alloc_zeroed(layout))
}

/// # Safety
/// As for `GlobalAlloc::realloc`.
#[cold]
#[inline(never)]
pub(crate) unsafe fn realloc_slow(object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
    let Some(object) = NonNull::new(object) else {
        return ptr::null_mut();
    };
    // SAFETY: the caller's promise is passed on; all caches are over the same lists.
    raw(unsafe { Spanalloc::fallback().lock().realloc(object, layout, new_size) })
}
