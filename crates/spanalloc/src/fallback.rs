//! Allocation for threads whose cache is gone: one cache for all of them, under a lock. They free
//! without it, into the spans of others.

use core::alloc::Layout;
use core::ptr;

use spanalloc_cache::{Cache, Fast};

use crate::global::Spanalloc;
use crate::program::{Central, Program};

/// The cache that the fallback is.
type Shared<'a> = Cache<'a, &'static Central, Fast>;

/// What `alloc` gets from the cache, or null if there is none. Under the lock nobody is told of anything:
/// whoever calls sees to that.
fn with_cache(alloc: impl FnOnce(Shared<'_>) -> *mut u8) -> *mut u8 {
    Spanalloc::fallback().lock().cache().map_or(ptr::null_mut(), alloc)
}

#[cold]
#[inline(never)]
pub(crate) fn alloc_slow(layout: Layout) -> *mut u8 {
    with_cache(|cache| cache.alloc(layout))
}

#[cold]
#[inline(never)]
pub(crate) fn alloc_zeroed_slow(layout: Layout) -> *mut u8 {
    with_cache(|cache| cache.alloc_zeroed(layout))
}

/// # Safety
/// As for `GlobalAlloc::realloc`.
#[cold]
#[inline(never)]
pub(crate) unsafe fn realloc_slow(object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
    // SAFETY: the caller's promise is passed on; all caches are over the same lists.
    with_cache(|cache| unsafe { cache.realloc(object, layout, new_size) })
}
