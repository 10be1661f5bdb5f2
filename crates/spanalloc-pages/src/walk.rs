use spanalloc_os::{Geometry, OsSource};

use crate::bitmap::{CHUNK_PAGE_BITS, CHUNK_PAGES};
use crate::heap::PageHeap;
use crate::held::{address_of, page_of};
use crate::slot::CHUNK_SHIFT;

/// What a page of a heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Free, without memory: never used, or given back to the system.
    Untouched,
    /// Free, with memory behind it.
    Free,
    /// Handed out, in a page cache, or being given back.
    Taken,
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// Calls `visit` for the pages of this heap, lowest address first: with the address of the first
    /// of neighbouring pages in one state, and how many there are. A longer run may come in pieces.
    ///
    /// The heap's lock is held: of this heap, `visit` may only call
    /// [`span_of`](crate::Pages::span_of).
    pub fn for_each_run(&self, mut visit: impl FnMut(usize, usize, PageState)) {
        let mut held = self.hold();
        self.arenas.for_each(|arena, _| {
            let first = page_of(arena) >> CHUNK_PAGE_BITS;
            for index in first..first + (G::ARENA_BYTES as u64 >> CHUNK_SHIFT) {
                let Some(chunk) = held.chunk(index) else { continue };
                let states = [
                    (PageState::Taken, chunk.ours.without(&chunk.free)),
                    (PageState::Free, chunk.free.both(&chunk.ready)),
                    (PageState::Untouched, chunk.free.without(&chunk.ready)),
                ];
                let mut at = 0;
                while let Some(from) = chunk.ours.next(at, true) {
                    at = from + 1;
                    for (state, pages) in &states {
                        if pages.any(from, 1) {
                            at = pages.next(from, false).unwrap_or(CHUNK_PAGES);
                            let address = address_of((index << CHUNK_PAGE_BITS) + from as u64);
                            visit(address, at - from, *state);
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::mem::MaybeUninit;
    use std::vec;
    use std::vec::Vec;

    use spanalloc_os::Fixed;

    use super::*;
    use crate::{PAGE_BYTES, Pages};

    #[test]
    fn every_page_is_visited_once_and_in_its_state() {
        let mut buffer = vec![MaybeUninit::uninit(); 16 << 20];
        let heap: PageHeap<Fixed<'_>> = PageHeap::new(Fixed::new(&mut buffer));
        let [low, gap, high] = [3, 5, 2].map(|pages| heap.alloc(pages, 1).unwrap());
        // SAFETY: the run was handed out and is unused.
        unsafe { heap.free(gap.address, gap.pages) }.unwrap();

        let mut runs = Vec::new();
        heap.for_each_run(|address, pages, state| runs.push((address, pages, state)));
        let taken = |run: &crate::Run| (run.address, run.pages, PageState::Taken);
        assert_eq!(runs[0], taken(&low));
        assert_eq!(runs[1], (gap.address, 5, PageState::Free));
        assert_eq!(runs[2], taken(&high));
        for pair in runs.windows(2) {
            assert_eq!(pair[0].0 + pair[0].1 * PAGE_BYTES, pair[1].0, "neighbours");
        }
        let count = |wanted| runs.iter().filter(|run| run.2 == wanted).map(|run| run.1).sum();
        let (untouched, free): (usize, usize) =
            (count(PageState::Untouched), count(PageState::Free));
        let stats = heap.stats();
        assert_eq!(untouched + free, stats.pages_free);
        assert_eq!((free + 5) * PAGE_BYTES, stats.committed);
        assert!(untouched > 0);
    }
}
