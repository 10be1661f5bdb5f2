//! Large objects that grow where there is no room behind them.

use core::ptr;

use spanalloc_classes::ClassTable;
use spanalloc_pages::{PAGE_BYTES, Pages, Run};

use crate::central::Central;
use crate::lists::CentralLists;
use crate::span::SpanRef;

/// From so many pages on (512 KB) an object that has to move gets room to grow in.
const ROOMY_PAGES: usize = (512 << 10) / PAGE_BYTES;

impl<T: ClassTable, H: Pages> CentralLists<T, H> {
    /// See [`Central::move_large`].
    ///
    /// # Safety
    /// As there.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn move_to_more_pages(
        &self,
        span: SpanRef,
        pages: usize,
        align_pages: usize,
    ) -> bool {
        let old = Run { address: span.base(), pages: span.pages(), zeroed: false };
        if pages < old.pages || u32::try_from(pages).is_err() {
            return false;
        }
        let guarded = span.is_guarded();
        if guarded && !self.drop_guard(span) {
            return false;
        }
        // SAFETY: the caller owns the object; entries of this heap are descriptors of spans.
        unsafe {
            self.heap.set_span(old.address, old.pages, ptr::null_mut());
            let moved = self.move_pages(old, pages, align_pages);
            let now = moved.unwrap_or(old);
            self.heap.set_span(now.address, now.pages, span.as_ptr().as_ptr().cast());
            span.rebase_large(now);
            if moved.is_none() && guarded {
                self.guard_large(span);
            }
            moved.is_some()
        }
    }

    /// Finds `pages` pages for what is in the run `old`, and frees that.
    ///
    /// # Safety
    /// The run was handed out, is the caller's, and no page of it has a span.
    unsafe fn move_pages(&self, old: Run, pages: usize, align_pages: usize) -> Option<Run> {
        let alloc = || self.heap.alloc(pages, align_pages);
        let roomy = pages >= ROOMY_PAGES;
        let mut run = if roomy { self.heap.alloc_roomy(pages, align_pages) } else { alloc() }?;
        // SAFETY: both runs were handed out, and the new one is unused; of the old one the caller's
        // promise.
        while !unsafe { self.heap.relocate(old.address, run, old.pages) } {
            run = alloc()?;
        }
        Some(run)
    }
}
