//! The spans of large objects: how they begin, get guards, and grow in place or elsewhere.

use core::ptr;

use spanalloc_classes::ClassTable;
use spanalloc_os::Misuse;
use spanalloc_pages::{PAGE_BYTES, Pages, Run};

use crate::central::Central;
use crate::descriptors::{Kind, Stash};
use crate::lists::CentralLists;
use crate::span::{LARGE, SpanRef};

/// From so many pages on (512 KB) an object that has to move gets room to grow in.
const ROOMY_PAGES: usize = (512 << 10) / PAGE_BYTES;

impl<T: ClassTable, H: Pages> CentralLists<T, H> {
    /// See [`Central::alloc_large`](crate::Central::alloc_large).
    pub(crate) fn begin_large(
        &self,
        pages: usize,
        align_pages: usize,
        stash: Option<&Stash>,
    ) -> Option<SpanRef> {
        u32::try_from(pages).ok()?;
        let run = self.heap.alloc(pages, align_pages)?;
        let Some((span, words)) = self.descriptors.get(&self.heap, Kind::of(LARGE, 1), stash)
        else {
            // SAFETY: the run was just handed out and is unused.
            let _ = unsafe { self.heap.free(run.address, run.pages) };
            return None;
        };
        // SAFETY: the descriptor is from the pool, this thread owns the run; entries of this heap
        // are descriptors of spans.
        unsafe {
            span.cut_large(words, run);
            self.heap.set_span(run.address, run.pages, span.as_ptr().as_ptr().cast());
        }
        Some(span)
    }

    /// See [`Central::guard_large`](crate::Central::guard_large).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn put_guard(&self, span: SpanRef) -> bool {
        // SAFETY: the page is the object's last and unused (contract).
        let guarded = unsafe { self.heap.guard(span.last_page()) };
        span.set_guarded(guarded);
        guarded
    }

    /// Makes the guard of a large object an ordinary page. False if the system refuses.
    pub(crate) fn drop_guard(&self, span: SpanRef) -> bool {
        // SAFETY: the last page is a guard.
        let done = unsafe { self.heap.unguard(span.last_page()) };
        span.set_guarded(!done);
        done
    }

    /// Makes the guard of a large object that has ended an ordinary page. If the system refuses, all of its
    /// pages but the guard are free then, and that waits until other guards could be made ordinary pages.
    #[cold]
    #[inline(never)]
    pub(crate) fn end_guard(&self, span: SpanRef) -> bool {
        if !self.drop_guard(span) {
            self.strand_guard(span);
            return false;
        }
        for descriptor in self.stuck.drain() {
            // SAFETY: only ended large objects are on this queue, and each is taken off by one thread.
            let stuck = unsafe { SpanRef::from_descriptor(descriptor) };
            if self.drop_guard(stuck) {
                self.discard(stuck, None);
            } else {
                self.strand_guard(stuck);
            }
        }
        true
    }

    /// Frees all pages of a large object that has ended but its guard, which the system does not take away
    /// now, and keeps that for later.
    fn strand_guard(&self, span: SpanRef) {
        let (base, pages, guard) = (span.base(), span.pages() - 1, span.last_page());
        if pages > 0 {
            // SAFETY: the object has ended, so its pages are this thread's; the guard keeps its entry.
            let freed = unsafe {
                self.heap.set_span(base, pages, ptr::null_mut());
                self.heap.free(base, pages)
            };
            if freed.is_err() {
                self.die(Misuse::DoubleFree, base, 0);
            }
            span.rebase_large(Run { address: guard, pages: 1, zeroed: false });
        }
        // SAFETY: a large object that has ended gives the right to the link; this queue is never closed.
        let _ = unsafe { self.stuck.push(span.as_ptr()) };
    }

    /// As [`resize_in_place`](Self::resize_in_place), of an object without a guard.
    ///
    /// # Safety
    /// As there.
    unsafe fn resize_unguarded(&self, span: SpanRef, pages: usize) -> Option<bool> {
        let (base, now) = (span.base(), span.pages());
        if pages < now {
            let tail = base + pages * PAGE_BYTES;
            // SAFETY: the caller owns the object and gives its tail back.
            unsafe {
                self.heap.set_span(tail, now - pages, ptr::null_mut());
                self.heap.free(tail, now - pages).ok()?;
            }
            span.resize_large(pages);
        } else if pages > now {
            // SAFETY: the caller owns the object, whose pages this heap handed out.
            let run = unsafe { self.heap.extend(base, now, pages - now) }?;
            // SAFETY: as above; the new pages are this object's.
            unsafe { self.heap.set_span(run.address, run.pages, span.as_ptr().as_ptr().cast()) };
            span.resize_large(pages);
            return Some(run.zeroed);
        }
        Some(false)
    }

    /// See [`Central::resize_large`](crate::Central::resize_large).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn resize_in_place(&self, span: SpanRef, pages: usize) -> Option<bool> {
        u32::try_from(pages).ok()?;
        let guarded = span.is_guarded();
        if pages <= usize::from(guarded) || (guarded && !self.drop_guard(span)) {
            return None;
        }
        // SAFETY: the caller owns the object and gives up what is cut off.
        let resized = unsafe { self.resize_unguarded(span, pages) };
        if guarded {
            // SAFETY: the last page, where no guard is, is the allocator's.
            unsafe { self.put_guard(span) };
        }
        resized
    }

    /// See [`Central::move_large`](crate::Central::move_large).
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
                self.put_guard(span);
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

#[cfg(test)]
mod tests;
