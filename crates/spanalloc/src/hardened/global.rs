//! [`Hardened`] as a global allocator.

use core::alloc::{GlobalAlloc, Layout};

use super::Hardened;
use crate::checked::any;

// SAFETY: the functions of this module hand out memory that nobody else has, of at least the
// layout's size and alignment, as the caches over the one heap do (contract of `Central`), and the
// shelter; nothing unwinds.
unsafe impl GlobalAlloc for Hardened {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        any::alloc::<Self>(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { any::free_sized::<Self>(object, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        any::alloc_zeroed::<Self>(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        any::check_layout::<Self>(object, layout.size(), layout.align());
        // SAFETY: the caller's promise is passed on.
        unsafe { any::realloc::<Self>(object, new_size, layout.align()) }
    }
}
