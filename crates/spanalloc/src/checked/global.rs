//! [`Checked`] as a global allocator.

use core::alloc::{GlobalAlloc, Layout};

use super::Checked;

// SAFETY: the functions of this module hand out memory that nobody else has, of at least the
// layout's size and alignment, as the caches over the one heap do (contract of `Central`), and the
// shelter; nothing unwinds.
unsafe impl GlobalAlloc for Checked {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        super::alloc(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { super::free_sized(object, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        super::alloc_zeroed(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        super::check_layout(object, layout.size(), layout.align());
        // SAFETY: the caller's promise is passed on.
        unsafe { super::realloc(object, new_size, layout.align()) }
    }
}
