//! The large path: whole pages, straight from the page heap.

use core::alloc::Layout;

use spanalloc_central::{Central, LARGE, SpanRef};
use spanalloc_os::Misuse;
use spanalloc_pages::{PAGE_BYTES, Pages};

use crate::cache::Cache;
use crate::policy::Policy;

/// Objects of at least this size may be zero in a better way than by writing zeros to them: 256 KB.
const CLEARED_BYTES: usize = 256 << 10;
/// What is at least so large, and need not be zero, is not made to be looked up here and there: 8 MB.
const FILLED_BYTES: usize = 8 << 20;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Whole pages for `layout` and whether they are known to be zero; null if there are none.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_large(self, layout: Layout) -> (*mut u8, bool) {
        self.wake();
        let align_pages = layout.align().div_ceil(PAGE_BYTES);
        let guarded = Self::is_guarded(layout.size());
        if align_pages <= 1 {
            if let Some(span) = self.take_recent(pages_of(layout.size())) {
                return (object_of(span), false);
            }
        }
        let pages = pages_of(layout.size());
        let alloc = |pages| {
            let pages = pages + usize::from(guarded);
            self.central.alloc_large(pages, align_pages, Some(&self.state.stash))
        };
        let span = alloc(Self::rounded_pages(pages))
            .or_else(|| self.insist(pages.saturating_mul(PAGE_BYTES), || alloc(pages)));
        let Some(span) = span else { return (core::ptr::null_mut(), false) };
        if guarded {
            // SAFETY: the span is new, so nobody else uses it, and its last page is one too many.
            unsafe { self.put_guard(span) };
        }
        self.note_large(span);
        let object = (object_of(span), span.zeroed());
        self.heed();
        object
    }

    /// Makes the last page of a large object a guard, or cuts it off if there is none to be had.
    ///
    /// # Safety
    /// The span is large and has no guard; the caller owns the object, and nobody uses its last page.
    unsafe fn put_guard(self, span: SpanRef) {
        let object = object_of(span);
        // SAFETY: the object is the caller's. Its first byte is touched because Linux joins the two
        // sides of a guard that is gone only if there was memory in their mapping when it was split.
        unsafe {
            object.write_volatile(object.read_volatile());
            if !self.central.guard_large(span) {
                let _ = self.central.resize_large(span, span.pages() - 1);
            }
        }
    }

    /// Gives a large object more bytes elsewhere, where it has room to grow on, and keeps its contents.
    /// Null leaves it as it was.
    ///
    /// # Safety
    /// The span is large and the caller owns the object. `new` is larger than it, and large too.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn move_large(self, span: SpanRef, new: Layout) -> *mut u8 {
        let guarded = Self::is_guarded(new.size());
        let pages = pages_of(new.size()) + usize::from(guarded);
        let align_pages = new.align().div_ceil(PAGE_BYTES);
        // SAFETY: the caller's promise is passed on.
        let move_it = || unsafe { self.central.move_large(span, pages, align_pages) };
        let again =
            || self.insist(pages.saturating_mul(PAGE_BYTES), || move_it().then_some(())).is_some();
        if !move_it() && !again() {
            return core::ptr::null_mut();
        }
        if guarded {
            // SAFETY: the object is the caller's, has no guard where it is now, and a page too many.
            unsafe { self.put_guard(span) };
        }
        self.heed();
        object_of(span)
    }

    /// Fills a new object with zeros.
    ///
    /// # Safety
    /// The object has at least this size, and nobody else uses it. If it lies in pages of `central`, it
    /// came from a cache over that.
    #[inline]
    pub unsafe fn fill_with_zeros(central: &C, object: *mut u8, size: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            if size < CLEARED_BYTES || !Self::clear_large(central, object) {
                object.write_bytes(0, size);
            }
        }
    }

    /// Says of a new object that nobody wrote to yet, and of which the program did not ask for zeros, that it will
    /// be filled from its front, if it is that large.
    #[inline]
    pub fn expect_filled(central: &C, object: *mut u8, size: usize) {
        if size >= FILLED_BYTES {
            Self::expect_filled_slow(central, object.addr());
        }
    }

    #[cold]
    #[inline(never)]
    fn expect_filled_slow(central: &C, address: usize) {
        if let Some(span) = Self::whole_large(central, address) {
            // SAFETY: the pages are the object's, which is the caller's.
            unsafe { central.heap().expect_filled(address, usable_pages(span)) };
        }
    }

    /// The span of a large object that starts at `address`, if there is one.
    fn whole_large(central: &C, address: usize) -> Option<SpanRef> {
        let span = central.span_at(address)?;
        (span.class() == LARGE && span.base() == address).then_some(span)
    }

    /// Makes all of a large object read as zero, if there is a better way than to write zeros to it.
    ///
    /// # Safety
    /// As for [`fill_with_zeros`](Self::fill_with_zeros).
    #[cold]
    #[inline(never)]
    unsafe fn clear_large(central: &C, object: *mut u8) -> bool {
        let address = object.addr();
        // SAFETY: the pages are all the object's, which nobody else uses (contract).
        Self::whole_large(central, address)
            .is_some_and(|span| unsafe { central.heap().clear(address, usable_pages(span)) })
    }

    /// Whether a large object of `bytes` bytes has a guard.
    #[inline]
    pub(crate) const fn is_guarded(bytes: usize) -> bool {
        bytes >= P::GUARDED_FROM
    }

    /// Frees a large object.
    ///
    /// # Safety
    /// Nobody uses the object any more.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_large(self, object: *mut u8) {
        let address = object.addr();
        let span = Self::large_span(self.central, address);
        if !Self::end_large(span, address) {
            self.central.die(Misuse::DoubleFree, address, 0);
        }
        // SAFETY: the object was ended just now.
        unsafe {
            Self::wipe_large(self.central, span);
            self.keep_large(span);
        }
        self.heed();
    }

    /// Whether this was the live large object at `address`; it no longer is.
    #[inline]
    pub(crate) fn end_large(span: SpanRef, address: usize) -> bool {
        if P::ALONE { span.end_large_alone(address) } else { span.end_large(address) }
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

/// The object of a large span.
pub(crate) fn object_of(span: SpanRef) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(span.base())
}

/// Pages of a large object of `bytes` bytes.
#[inline]
pub(crate) fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES).max(1)
}

/// The most usable pages that an object may have for which `pages` are enough.
#[inline]
pub(crate) const fn most_pages(pages: usize) -> usize {
    pages + pages / 4
}

/// Pages of a large object that the program may use.
#[inline]
pub(crate) fn usable_pages(span: SpanRef) -> usize {
    span.pages() - usize::from(span.is_guarded())
}
