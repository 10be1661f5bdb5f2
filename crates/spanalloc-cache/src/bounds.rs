//! How much a thread keeps of what it freed, and how it comes to keep nothing.

use core::mem::size_of;
use core::ptr::{self, NonNull};

use spanalloc_central::{Central, class_facts};
use spanalloc_classes::MAX_CLASSES;
use spanalloc_pages::{PAGE_BYTES, Pages, WINDOW_BYTES};
use spanalloc_sync::atomic::Ordering;

use crate::bin::Keep;
use crate::cache::Cache;
use crate::policy::Policy;

/// The most bytes that a thread keeps in any case, without large objects.
const MOST_KEPT: usize = 64 << 20;
/// The most bytes of large objects that it keeps.
const MOST_RECENT: usize = 32 << 20;
/// By how many bytes the bins of a thread may grow, all together.
const MOST_GROWTH: usize = 512 << 10;
/// If somebody says how much a thread keeps, its bins hold at most this part of it, and its large objects, too.
const PART: usize = 4;
/// So much a thread keeps before it gives up the pages that its next spans are cut from.
const LEAST_WITH_PAGES: usize = 1 << 20;
/// Of the most bytes that may be kept, this part goes when there are more.
const TRIMMED_PART: usize = 8;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// The most bytes that the thread keeps in its bins, in empty spans, and in the pages that its next spans are
    /// cut from.
    fn most_in_all(self) -> usize {
        let bound = self.central.thread_cache();
        MOST_KEPT.min(bound - bound / PART)
    }

    /// The most bytes of large objects that it keeps.
    pub(crate) fn most_recent(self) -> usize {
        MOST_RECENT.min(self.central.thread_cache() / PART)
    }

    /// The most bytes that its bins may hold, but for two objects of each class.
    fn most_in_bins(self) -> usize {
        self.central.thread_cache() / PART
    }

    /// The most bytes that its bins may come to hold, when they grow: so many more than they began with.
    pub(crate) fn most_grown(self) -> usize {
        let begun = self.state.begun_bytes.load(Ordering::Relaxed);
        (begun + MOST_GROWTH).min(self.most_in_bins())
    }

    /// What the thread keeps of all that [`most_in_all`](Self::most_in_all) bounds but for the pages that its next
    /// spans are cut from, with its bins full.
    fn kept(self) -> usize {
        self.state.bin_bytes.load(Ordering::Relaxed) + self.state.empties.bytes()
    }

    /// Gives back pages if the thread may keep more than it should. For whoever made it more.
    #[inline]
    pub(crate) fn keep_within(self) {
        if self.kept() + WINDOW_BYTES > self.most_in_all() {
            self.keep_within_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_within_slow(self) {
        let (state, most) = (self.state, self.most_in_all());
        let all = || self.kept() + state.stash.free_pages() * PAGE_BYTES;
        let mut over = all() > most;
        while over {
            let empty = state.empties.bytes();
            self.trim(empty.saturating_sub(all().saturating_sub(most - most / TRIMMED_PART)));
            // What lies in the window that the next spans are cut from goes there, so that there may still
            // be too much. If nothing goes, somebody else is at the empty spans.
            over = state.empties.bytes() < empty;
        }
        if all() > most.max(LEAST_WITH_PAGES) {
            // SAFETY: this thread is the only user of its stash.
            unsafe { self.central.flush(&state.stash) };
        }
    }

    /// Puts a bin of objects of `bytes` to use.
    pub(crate) fn begin(self, bin: &P::Bin, bytes: usize) {
        let state = self.state;
        let held = state.bin_bytes.load(Ordering::Relaxed);
        let began = bin.begin(bytes, self.most_in_bins().saturating_sub(held));
        let begun = state.begun_bytes.load(Ordering::Relaxed);
        state.bin_bytes.store(held + began, Ordering::Relaxed);
        state.begun_bytes.store(begun + began, Ordering::Relaxed);
        self.keep_within();
    }

    /// Puts every bin that has no span out of use, and gives back the memory that they take. All are empty.
    pub(crate) fn rest(self) {
        let state = self.state;
        let (mut held, mut begun) = (0, 0);
        let mut ended = false;
        for (class, bin) in state.used_bins() {
            if bin.spans().is_none() && bin.cached() == 0 {
                bin.end(self.central);
                state.set_used(class, false);
                ended = true;
            } else {
                let (holds, began) = bin.holds(class_facts::<C::Table>(class).bytes as usize);
                held += holds;
                begun += began;
            }
        }
        state.bin_bytes.store(held, Ordering::Relaxed);
        state.begun_bytes.store(begun.min(held), Ordering::Relaxed);
        if ended {
            self.empty_bins();
        }
    }

    /// Gives back the memory of the bins that are not in use.
    pub(crate) fn empty_bins(self) {
        let mut from = 0;
        let used = self.state.used_bins().map(|(class, _)| usize::from(class));
        for end in used.chain([MAX_CLASSES]) {
            if from < end {
                let first = ptr::from_ref(self.state.bin(from as u8)).cast_mut();
                // SAFETY: the state of a cache is metadata of the heap below. The bins that are not in use are
                // written to by this thread alone; all zeros are what they are, and no more is wanted of
                // their other bytes.
                unsafe {
                    let bytes = (end - from) * size_of::<P::Bin>();
                    self.central.heap().empty_metadata(NonNull::new_unchecked(first.cast()), bytes);
                }
            }
            from = end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::alloc::Layout;
    use std::vec::Vec;

    use spanalloc_central::CentralLists;
    use spanalloc_classes::{ClassTable, Go67};
    use spanalloc_os::Mmap;
    use spanalloc_pages::PageHeap;

    use super::*;
    use crate::{Checked, Fast};

    type Lists = CentralLists<Go67, PageHeap<Mmap>>;

    /// Makes and frees many objects of all sizes; what the thread then keeps, in bytes: empty spans and pages that the
    /// next ones are cut from, large objects, and objects in its bins.
    fn keep<P: Policy>(cache: Cache<'_, Lists, P>) -> [usize; 3] {
        let sizes = (0..20_000_usize)
            .map(|index| (8 << (index % 11)) | (index % 8))
            .chain((0..600).flat_map(|index| [20_000 + 20 * index, 40_000 + 1000 * index]));
        let layouts = sizes.map(|size| Layout::from_size_align(size, 8).unwrap());
        let objects = Vec::from_iter(layouts.map(|layout| (cache.alloc(layout), layout)));
        for (object, layout) in objects {
            // SAFETY: allocated with this layout, and as large.
            unsafe {
                object.write_bytes(1, layout.size());
                cache.free(object, layout);
            }
        }
        let of_bin =
            |(class, bin): (u8, &P::Bin)| bin.cached() * Go67::CLASSES.class(class).bytes as usize;
        let state = cache.state;
        let pages = state.empties.bytes() + state.stash.free_pages() * PAGE_BYTES;
        [pages, state.recent.bytes(), state.used_bins().map(of_bin).sum()]
    }

    fn bounded<P: Policy>() {
        /// Two objects of each class.
        const PAIRS: usize = 2 * 68 * (32 << 10) / 3;
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let cache = Cache::<_, P>::open(&lists).unwrap();
        let free = keep(cache);
        assert!(free[0] + free[2] <= MOST_KEPT, "{free:?}");
        assert!(free[0] > 2 << 20 && free[1] > 1 << 20 && free[2] > 256 << 10, "{free:?}");
        for most in [64 << 20, 1 << 20, 64 << 10, 1, usize::MAX] {
            cache.reclaim();
            lists.set_thread_cache(most);
            let kept = keep(cache);
            if most == usize::MAX {
                assert!(kept[0].abs_diff(free[0]) <= WINDOW_BYTES, "{kept:?} {free:?}");
                assert!(kept[1] > 1 << 20 && kept[2] == free[2], "{kept:?} {free:?}");
            } else {
                assert!(kept[0] <= most - most / 4 + WINDOW_BYTES, "{most}: {kept:?}");
                assert!(kept[1] <= most / 4, "{most}: {kept:?}");
                assert!(kept[2] <= most / 4 + PAIRS, "{most}: {kept:?}");
                assert!((kept[0] > 1 << 20) == (most > 1 << 20), "{most}: {kept:?}");
            }
        }
        // SAFETY: the cache is not used any more.
        unsafe { cache.close() };
    }

    #[test]
    fn a_thread_keeps_no_more_than_it_may() {
        bounded::<Fast>();
        bounded::<Checked>();
    }

    fn rests<P: Policy>() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let cache = Cache::<_, P>::open(&lists).unwrap();
        let layout = Layout::new::<[u64; 9]>();
        let live = cache.alloc(layout);
        keep(cache);
        let in_use = cache.state.used_bins().count();
        cache.reclaim();
        let left = Vec::from_iter(cache.state.used_bins().map(|(class, _)| class));
        assert!(in_use > 10 && left == [Go67::CLASSES.class_of(layout.size())], "{left:?}");
        let (holds, begun) = cache.state.bin(left[0]).holds(80);
        assert_eq!(cache.state.bin_bytes.load(Ordering::Relaxed), holds);
        assert_eq!(cache.state.begun_bytes.load(Ordering::Relaxed), begun);
        // SAFETY: allocated above.
        unsafe { cache.free(live, layout) };
        keep(cache);
        cache.reclaim();
        assert_eq!(cache.state.used_bins().count(), 0);
        assert_eq!(cache.state.bin_bytes.load(Ordering::Relaxed), 0);
        assert!(cache.snapshot().adds_up() && cache.snapshot().live_objects() == 0);
        // SAFETY: the cache is not used any more.
        unsafe { cache.close() };
    }

    #[test]
    fn what_gives_back_all_has_no_bin_in_use_without_objects() {
        rests::<Fast>();
        rests::<Checked>();
    }
}
