//! What unit tests share: descriptors without a pool, and a page heap that can refuse.

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use std::alloc::{alloc_zeroed, handle_alloc_error};

use spanalloc_classes::Class;
use spanalloc_os::{Mmap, Report};
use spanalloc_pages::{PAGE_BYTES, PageCache, PageError, PageHeap, PageStats, Pages, Run};

use crate::span::{SpanRef, descriptor_bytes};
use crate::span_slots::bits_of;

/// A descriptor in zeroed memory that is never unmapped.
pub(crate) fn descriptor(words: usize, tiny: bool) -> SpanRef {
    let layout = Layout::from_size_align(descriptor_bytes(words, tiny), 128).unwrap();
    // SAFETY: descriptors have more than 0 bytes. They are never given back.
    let memory = NonNull::new(unsafe { alloc_zeroed(layout) });
    // SAFETY: as large as a pooled descriptor, zeroed, and there for ever.
    unsafe { SpanRef::from_descriptor(memory.unwrap_or_else(|| handle_alloc_error(layout)).cast()) }
}

/// The facts of a class of `bytes` in spans of `slots` slots.
pub(crate) fn facts(bytes: u32, slots: u32) -> Class {
    let pages = (bytes * slots).div_ceil(PAGE_BYTES as u32);
    let magic = u32::try_from((1_u64 << 32).div_ceil(bytes.into())).unwrap();
    Class { bytes, pages, slots, span_pages: pages, span_slots: slots, magic }
}

/// A span of `slots` slots of `bytes` bytes, of class 5 (or tiny), at a made-up address.
pub(crate) fn span(class: u8, bytes: u32, slots: usize, zeroed: bool) -> SpanRef {
    let facts = facts(bytes, slots as u32);
    let words = bits_of(slots, bytes as usize, facts.pages as usize).div_ceil(64).max(2);
    let span = descriptor(words, class == crate::TINY);
    let run = Run { address: 0x10_0000, pages: facts.pages as usize, zeroed };
    // SAFETY: the descriptor has this many words; nobody touches the pages.
    unsafe { span.cut(words, class, &facts, slots, run) };
    span
}

/// A page heap over the system's that refuses what a test says, and panics where it would end the
/// process.
#[derive(Debug)]
pub(crate) struct Refusing {
    inner: PageHeap<Mmap>,
    /// The largest run that is handed out, in pages.
    pub(crate) most_pages: Cell<usize>,
    pub(crate) no_metadata: Cell<bool>,
    /// Whether guards stay what they are.
    pub(crate) no_unguard: Cell<bool>,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        Self {
            inner: PageHeap::new(Mmap::new()),
            most_pages: Cell::new(usize::MAX),
            no_metadata: Cell::new(false),
            no_unguard: Cell::new(false),
        }
    }
}

// SAFETY: passed on to a heap that keeps the contract, or refused; a test may unwind.
unsafe impl Pages for Refusing {
    type Wait = <PageHeap<Mmap> as Pages>::Wait;

    fn alloc(&self, pages: usize, align_pages: usize) -> Option<Run> {
        (pages <= self.most_pages.get()).then(|| self.inner.alloc(pages, align_pages))?
    }

    unsafe fn alloc_cached(&self, cache: &PageCache, pages: usize) -> Option<Run> {
        if pages > self.most_pages.get() {
            return None;
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.alloc_cached(cache, pages) }
    }

    unsafe fn free(&self, address: usize, pages: usize) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.free(address, pages) }
    }

    unsafe fn free_cached(
        &self,
        cache: &PageCache,
        address: usize,
        pages: usize,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.free_cached(cache, address, pages) }
    }

    unsafe fn free_window(
        &self,
        cache: &PageCache,
        window: usize,
        pages: u64,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.free_window(cache, window, pages) }
    }

    unsafe fn flush(&self, cache: &PageCache) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.flush(cache) }
    }

    unsafe fn extend(&self, address: usize, pages: usize, more: usize) -> Option<Run> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.extend(address, pages, more) }
    }

    unsafe fn guard(&self, address: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.guard(address) }
    }

    unsafe fn unguard(&self, address: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        !self.no_unguard.get() && unsafe { self.inner.unguard(address) }
    }

    unsafe fn set_span(&self, address: usize, pages: usize, span: *mut ()) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.set_span(address, pages, span) }
    }

    fn span_of(&self, address: usize) -> *mut () {
        self.inner.span_of(address)
    }

    fn metadata(&self, layout: Layout) -> Option<NonNull<u8>> {
        (!self.no_metadata.get()).then(|| self.inner.metadata(layout))?
    }

    fn stats(&self) -> PageStats {
        self.inner.stats()
    }

    fn die(&self, report: Report) -> ! {
        panic!("{:?} at class {}, {:#x}", report.misuse, report.class_bytes, report.address);
    }
}
