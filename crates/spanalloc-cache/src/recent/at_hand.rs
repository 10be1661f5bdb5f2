//! Large objects without a slow path: where one was freed lately, and where there is room to keep one more.

use core::alloc::Layout;

use spanalloc_central::{Central, LARGE, SpanRef};
use spanalloc_pages::{PAGE_BYTES, Pages};
use spanalloc_sync::atomic::Ordering;

use crate::cache::Cache;
use crate::large::{object_of, pages_of};
use crate::policy::Policy;
use crate::steps::size_of_run;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Memory for a layout that is neither small nor packed, where an object of about that size was freed. None
    /// sends the caller to [`alloc_slow`](Self::alloc_slow).
    #[inline(never)]
    #[must_use]
    pub fn try_alloc_recent(self, layout: Layout) -> Option<*mut u8> {
        let (state, pages) = (self.state, pages_of(layout.size()));
        if layout.align() > PAGE_BYTES
            || state.recent.is_empty()
            || state.age.load(Ordering::Relaxed) != 0
        {
            return None;
        }
        let _alone = state.alone()?;
        self.find_recent(pages).map(object_of)
    }

    /// Frees a large object whose span can be kept as it is. False, and nothing was done, sends the caller to a slow
    /// path.
    ///
    /// # Safety
    /// If `object` is a large object of this cache's heap, nobody uses it any more.
    #[inline(never)]
    #[must_use]
    pub unsafe fn try_free_recent(self, object: *mut u8) -> bool {
        let address = object.addr();
        // SAFETY: the caller's promise is passed on.
        self.central.span_at(address).is_some_and(|span| unsafe { self.try_keep(span, address) })
    }

    /// As [`try_free_recent`](Self::try_free_recent), with the span at `address`.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn try_keep(self, span: SpanRef, address: usize) -> bool {
        let (state, recent) = (self.state, &self.state.recent);
        if P::WIPES || span.class() != LARGE || span.base() != address || !span.is_large_live() {
            return false;
        }
        let (pages, guarded) = span.usable_large();
        // What never kept anything may be no thread's state.
        if !Self::is_kept(pages, guarded)
            || recent.time.load(Ordering::Relaxed) == 0
            || self.central.heap().calls() != state.heard.load(Ordering::Relaxed)
        {
            return false;
        }
        let Some(_alone) = state.alone() else { return false };
        let (size, note) = (size_of_run(pages), recent.next_note(span, pages));
        let kept = recent.has_room(size, note, self.most_recent() / PAGE_BYTES)
            && Self::end_large(span, address);
        if kept {
            recent.note(pages, false);
            recent.put(size, span, note);
        }
        kept
    }
}
