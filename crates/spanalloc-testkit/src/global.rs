use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use crate::Subject;

/// A [`GlobalAlloc`] as a subject.
///
/// The contract of the trait lets an allocator do what it likes with a size of 0, so only give an
/// allocator operations with such sizes if it says what it makes of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Global<A>(pub A);

// SAFETY: the contract of `GlobalAlloc`.
unsafe impl<A: GlobalAlloc> Subject for Global<A> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: any layout is allowed, but for the size 0; see above.
        NonNull::new(unsafe { self.0.alloc(layout) })
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        NonNull::new(unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.dealloc(object.as_ptr(), layout) };
    }

    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        NonNull::new(unsafe { self.0.realloc(object.as_ptr(), layout, new_size) })
    }
}
