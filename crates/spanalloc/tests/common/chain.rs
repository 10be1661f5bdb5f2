//! Objects of an allocator, in tests that allocate nothing else.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

/// Objects, each with the address and the layout of the next in it: so nothing else is allocated.
pub struct Chain<'a, A: GlobalAlloc> {
    allocator: &'a A,
    first: *mut Link,
}

struct Link {
    next: *mut Link,
    layout: Layout,
}

impl<'a, A: GlobalAlloc> Chain<'a, A> {
    /// None yet.
    pub fn new(allocator: &'a A) -> Self {
        Self { allocator, first: ptr::null_mut() }
    }

    /// Makes and fills an object.
    pub fn add(&mut self, size: usize) {
        let layout = Layout::from_size_align(size, 16).unwrap();
        // SAFETY: the size is that of a link or more, and the object is filled within it.
        unsafe {
            let object = self.allocator.alloc(layout);
            assert!(!object.is_null());
            object.write_bytes(1, size);
            object.cast::<Link>().write(Link { next: self.first, layout });
            self.first = object.cast();
        }
    }

    /// Frees all of them.
    pub fn free_all(&mut self) {
        while !self.first.is_null() {
            // SAFETY: the object is live and begins with its link.
            unsafe {
                let Link { next, layout } = self.first.read();
                self.allocator.dealloc(self.first.cast(), layout);
                self.first = next;
            }
        }
    }
}
