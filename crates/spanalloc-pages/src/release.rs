use core::ptr::NonNull;

use spanalloc_os::{Geometry, OsSource, round_down};

use crate::bitmap::{Bits, CHUNK_PAGE_BITS, CHUNK_PAGES};
use crate::heap::PageHeap;
use crate::held::{Held, address_of};
use crate::pages::PAGE_SHIFT;

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// Gives the memory of up to `max_pages` free pages back to the system, highest address first,
    /// and returns how many it was. Only pages that were written to since they became Ready are
    /// counted and given back, by whole OS pages. Stops when the system refuses.
    ///
    /// The heap's lock is not held during the system calls; pages being given back are taken as
    /// far as others can see.
    pub fn release_free(&self, max_pages: usize) -> usize {
        let os_pages = (self.os().page_bytes() >> PAGE_SHIFT).max(1);
        if os_pages > CHUNK_PAGES {
            return 0;
        }
        let mut released = 0;
        let mut limit = u64::MAX;
        while released < max_pages {
            let mut held = self.hold();
            let Some((page, pages)) = held.last_dirty(&mut limit, os_pages, max_pages - released)
            else {
                break;
            };
            // Taken, for the time of the call; the zero bits stay as they are.
            held.change(page, pages, |chunk, run| chunk.free.clear(run.from, run.count));
            held.state.free -= pages;
            drop(held);

            let memory = core::ptr::with_exposed_provenance_mut(address_of(page));
            // SAFETY: the pages are Ready, whole OS pages of this source, and taken, so nobody
            // uses them. The provenance of their range is exposed.
            let done = NonNull::new(memory)
                .is_some_and(|at| unsafe { self.os().decommit(at, pages << PAGE_SHIFT) }.is_ok());

            let mut held = self.hold();
            held.change(page, pages, |chunk, run| {
                chunk.free.set(run.from, run.count);
                if done {
                    chunk.zero.set(run.from, run.count);
                    chunk.ready.clear(run.from, run.count);
                }
            });
            held.state.free += pages;
            if !done {
                held.note_dirty(page, pages);
                break;
            }
            held.state.ready -= pages;
            released += pages;
        }
        released
    }
}

impl<O: OsSource, G: Geometry> Held<'_, O, G> {
    /// The highest run, in one chunk and of at most `max_pages` pages, of OS pages that are free,
    /// Ready and dirty, below page `limit`, which is lowered to where the run begins.
    fn last_dirty(
        &mut self,
        limit: &mut u64,
        os_pages: usize,
        max_pages: usize,
    ) -> Option<(u64, usize)> {
        let whole = round_down(max_pages, os_pages);
        if whole == 0 {
            return None;
        }
        let clean_from = self.state.clean_from;
        // A walk from the mark downwards lowers it. Dirty pages may be left above it that are only
        // part of an OS page; the free that completes one raises the mark again.
        let lower_the_mark = *limit >= clean_from << CHUNK_PAGE_BITS;
        *limit = (*limit).min(clean_from << CHUNK_PAGE_BITS);
        while *limit > 0 {
            let last = limit.div_ceil(CHUNK_PAGES as u64);
            let index = self.state.tree.last_free_below(last)?;
            if index + 1 < last {
                *limit = (index + 1) << CHUNK_PAGE_BITS;
            }
            let base = index << CHUNK_PAGE_BITS;
            let chunk = self.chunk(index)?;
            let candidates = chunk.free.both(&chunk.ready);
            let dirty = candidates.without(&chunk.zero);
            let end = (*limit - base) as usize;
            if let Some((from, count)) = last_run(&candidates, &dirty, end, os_pages, whole) {
                *limit = base + from as u64;
                return Some((*limit, count));
            }
            if lower_the_mark {
                self.state.clean_from = index;
            }
            *limit = base;
        }
        None
    }
}

/// The highest run below `end` of groups of `group` pages, all of them in `candidates` and one in
/// `dirty`, not longer than `longest`: first page and number of pages.
fn last_run(
    candidates: &Bits,
    dirty: &Bits,
    end: usize,
    group: usize,
    longest: usize,
) -> Option<(usize, usize)> {
    let good = |at: usize| candidates.all(at, group) && dirty.any(at, group);
    let mut high = round_down(end, group);
    while high > 0 && !good(high - group) {
        high -= group;
    }
    let mut low = high;
    while low > 0 && high - low < longest && good(low - group) {
        low -= group;
    }
    (high > low).then_some((low, high - low))
}
