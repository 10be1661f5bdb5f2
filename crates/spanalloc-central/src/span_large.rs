//! The span of a large object: whole pages, one slot, no bitmap.

use spanalloc_pages::{PAGE_BYTES, Run};
use spanalloc_sync::atomic::{AtomicU64, Ordering};

use crate::span::{LARGE, Place, SpanRef};

impl SpanRef {
    /// Makes a descriptor from the pool the span of one large object.
    ///
    /// # Safety
    /// The caller took the descriptor from the pool for `words` words and owns the run.
    pub unsafe fn cut_large(self, words: usize, run: Run) {
        self.begin(words, LARGE, 1, run);
        self.head().reciprocal.store(0, Ordering::Relaxed);
        self.head().left.store(1, Ordering::Relaxed);
        self.set_handed_out_below(1);
        self.resize_large(run.pages);
        self.set_place(Place::Large);
    }

    /// Whether the large object lives.
    pub fn is_large_live(self) -> bool {
        self.head().left.load(Ordering::Relaxed) == 1
    }

    /// Changes the number of pages of a large object. For the object's owner only.
    pub fn resize_large(self, pages: usize) {
        let bytes = pages.checked_mul(PAGE_BYTES).and_then(|bytes| u32::try_from(bytes).ok());
        let bytes = bytes.unwrap_or(0);
        self.shared().bytes.store(bytes, Ordering::Relaxed);
        self.shared().pages.store(pages as u32, Ordering::Relaxed);
        self.note().store(0, Ordering::Relaxed);
    }

    /// A word for whoever keeps the span after its object ended. It is 0 whenever the object gets other
    /// pages. For whoever ended the object, and as long as the span is large.
    #[inline]
    pub fn note<'a>(self) -> &'a AtomicU64 {
        // A large object has no bitmap.
        self.free_word(0)
    }

    /// Makes the span of a large object that ended that of another one. For whoever ended it.
    pub fn begin_large(self) {
        self.head().left.store(1, Ordering::Relaxed);
    }

    /// Gives a large object other pages. For the object's owner only.
    pub(crate) fn rebase_large(self, run: Run) {
        self.head().base.store(run.address, Ordering::Relaxed);
        self.resize_large(run.pages);
    }

    /// Whether the last page of a large object is a guard.
    #[inline]
    pub fn is_guarded(self) -> bool {
        self.class() == LARGE && self.shared().notify.load(Ordering::Relaxed) != 0
    }

    /// The pages of a large object but for its guard, and whether it has one.
    #[inline]
    pub fn usable_large(self) -> (usize, bool) {
        let shared = self.shared();
        let guarded = shared.notify.load(Ordering::Relaxed) != 0;
        (shared.pages.load(Ordering::Relaxed) as usize - usize::from(guarded), guarded)
    }

    /// Says whether the last page of a large object is a guard. For the object's owner only.
    pub(crate) fn set_guarded(self, guarded: bool) {
        self.shared().notify.store(guarded.into(), Ordering::Relaxed);
    }

    /// Address of the last page.
    pub(crate) fn last_page(self) -> usize {
        self.base() + (self.pages().max(1) - 1) * PAGE_BYTES
    }

    /// As [`end_large`](Self::end_large), where no two threads free one object at the same time: does not
    /// wait for the stores that the program made before.
    #[inline]
    pub fn end_large_alone(self, address: usize) -> bool {
        let left = &self.head().left;
        let ends =
            self.class() == LARGE && left.load(Ordering::Relaxed) == 1 && self.base() == address;
        if ends {
            left.store(0, Ordering::Relaxed);
        }
        ends
    }

    /// Whether this was the live large object at `address`; it no longer is.
    pub fn end_large(self, address: usize) -> bool {
        // Relaxed: the exchange alone decides which of two racing frees is the second. If the first
        // one has come so far that the descriptor is another object's, the address tells.
        self.class() == LARGE
            && self.head().left.swap(0, Ordering::Relaxed) == 1
            && self.base() == address
    }
}
