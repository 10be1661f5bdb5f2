//! Objects of the test's allocator: of `ALLOCATOR`, which is what each test calls its own.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::alloc::{GlobalAlloc, Layout};

use crate::ALLOCATOR;

pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

pub fn alloc(size: usize) -> *mut u8 {
    // SAFETY: the allocator serves every layout.
    let object = unsafe { ALLOCATOR.alloc(layout(size)) };
    assert!(!object.is_null());
    object
}

pub fn alloc_zeroed(size: usize) -> *mut u8 {
    // SAFETY: the allocator serves every layout.
    let object = unsafe { ALLOCATOR.alloc_zeroed(layout(size)) };
    assert!(!object.is_null());
    object
}

/// Frees, rightly or wrongly.
pub fn free(object: *mut u8, size: usize) {
    // SAFETY: none, where a bug is planted.
    unsafe { ALLOCATOR.dealloc(object, layout(size)) };
}

/// Resizes, rightly or wrongly.
pub fn realloc(object: *mut u8, size: usize, new_size: usize) -> *mut u8 {
    // SAFETY: none, where a bug is planted.
    unsafe { ALLOCATOR.realloc(object, layout(size), new_size) }
}

pub fn in_a_thread(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body).join().unwrap();
}
