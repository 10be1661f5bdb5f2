//! The large path: whole pages, straight from the page heap.

use core::alloc::Layout;

use spanalloc_central::{Central, LARGE, SpanRef};
use spanalloc_os::Misuse;
use spanalloc_pages::PAGE_BYTES;

use crate::cache::Cache;
use crate::policy::Policy;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Whole pages for `layout` and whether they are known to be zero; null if there are none.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_large(self, layout: Layout) -> (*mut u8, bool) {
        let pages = pages_of(layout.size());
        let align_pages = layout.align().div_ceil(PAGE_BYTES);
        let alloc = || self.central.alloc_large(pages, align_pages);
        let span = alloc().or_else(|| {
            self.reclaim();
            alloc()
        });
        match span {
            Some(span) => (core::ptr::with_exposed_provenance_mut(span.base()), span.zeroed()),
            None => (core::ptr::null_mut(), false),
        }
    }

    /// Frees a large object.
    ///
    /// # Safety
    /// Nobody uses the object any more.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_large(self, object: *mut u8) {
        let span = Self::large_span(self.central, object.addr());
        // SAFETY: the span is large; the caller's promise is passed on.
        unsafe { self.central.free_large(span, object.addr()) };
    }

    /// The span of a large object; ends the process if there is none.
    pub(crate) fn large_span(central: &C, address: usize) -> SpanRef {
        let Some(span) = central.span_at(address) else {
            central.die(central.foreign(address), address, 0);
        };
        if span.class() != LARGE {
            central.die(Misuse::SizeMismatch, address, span.bytes());
        }
        if span.base() != address {
            central.die(Misuse::NotAnObjectStart, address, 0);
        }
        span
    }
}

/// Pages of a large object of `bytes` bytes.
#[inline]
pub(crate) fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES).max(1)
}
