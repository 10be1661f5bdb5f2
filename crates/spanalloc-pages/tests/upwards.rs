//! Where arenas are reserved, in a process with one heap: another one may have the place that is wished for.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use spanalloc_os::{Geometry, Mmap, Native};
use spanalloc_pages::{PAGE_BYTES, PageHeap, Pages};

#[test]
fn arenas_grow_upwards() {
    let heap: PageHeap<Mmap> = PageHeap::new(Mmap::new());
    let pages = Native::ARENA_BYTES / PAGE_BYTES;
    let arenas: Vec<usize> = (0..4).map(|_| heap.alloc(pages, 1).unwrap().address).collect();
    assert!(arenas.is_sorted(), "{arenas:x?}");
}
