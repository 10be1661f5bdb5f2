//! The end of a cache: it stays together for the next thread, or everything goes back.

use core::iter;
use core::ptr::NonNull;

use spanalloc_central::{Central, SpanList, SpanRef, class_facts};
use spanalloc_pages::PAGE_BYTES;

use crate::bin::Keep;
use crate::cache::Cache;
use crate::policy::Policy;
use crate::state::CacheState;

/// The most bytes, those of the program's objects included, of a cache that is left to the next thread:
/// so much may come to lie free in it while no thread has it.
const MOST_PARKED_BYTES: usize = 2 << 20;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Leaves the cache as it is for the next thread that opens one, if it has little memory; else
    /// it gives everything back first, and only its bins stay in memory, if few are left so. Threads that come and
    /// go one after another take over each other's spans, and take next to no lock.
    ///
    /// What others free into its spans meanwhile waits in its queue, as with a thread that sleeps.
    ///
    /// # Safety
    /// As for [`close`](Self::close).
    pub unsafe fn park(self) {
        self.flush_recent();
        // What was freed wrongly is found now, and others get back what is theirs.
        for (class, _) in self.state.used_bins() {
            P::Bin::settle(self, class);
        }
        let state = self.state;
        let all = || state.empties.all_bytes() + state.stash.free_pages() * PAGE_BYTES;
        if all() > MOST_PARKED_BYTES {
            self.trim(0);
            // SAFETY: this thread is the only user of its stash.
            unsafe { self.central.flush(&state.stash) };
        }
        // SAFETY: the queue is open until `close`, and the cache is not used any more (contract).
        unsafe {
            let parked = all() <= MOST_PARKED_BYTES
                && self.central.park(&state.owner, all() - self.live_bytes());
            if !parked {
                self.give_up();
                // As one that owns nothing.
                state.owner.queue.open();
                if !self.central.park(&state.owner, 0) {
                    self.close_queue();
                    self.retire_state();
                }
            }
        }
    }

    /// Bytes of the slots in use in the spans of this cache, but for those that its bins keep.
    fn live_bytes(self) -> usize {
        let of_bin = |(class, bin): (u8, &P::Bin)| {
            let spans = bin.spans();
            let used = |list: &SpanList| -> usize {
                iter::successors(list.first(), |span| list.after(*span)).map(SpanRef::used).sum()
            };
            let used =
                spans.current().map_or(0, SpanRef::used) + used(&spans.partial) + used(&spans.full);
            used.saturating_sub(bin.cached() + bin.reserved())
                * class_facts::<C::Table>(class).bytes as usize
        };
        self.state.used_bins().map(of_bin).sum()
    }

    /// Closes every cache that was [parked](Self::park).
    pub(crate) fn close_parked(central: &C) {
        while let Some(owner) = central.take_parked() {
            let state: NonNull<CacheState<P::Bin>> = owner.cast();
            // SAFETY: the owner begins a state, which is never unmapped, was opened with `open`, and is
            // nobody's.
            unsafe { Cache::<C, P>::new(state.as_ref(), central).close() };
        }
    }

    /// Empties the magazines, hands every span over to central (or to the heap, if no slot is
    /// used), and keeps the state for the next thread.
    ///
    /// # Safety
    /// The cache was opened with [`Cache::open`], and the state is not used any more through this
    /// or any copy of it.
    pub unsafe fn close(self) {
        self.give_up();
        // SAFETY: nobody uses the cache (contract), and it gave up all it had.
        unsafe { self.retire_state() };
    }

    /// Empties the magazines, hands every span over, and closes the queue.
    fn give_up(self) {
        self.close_open_slot();
        self.flush_recent();
        for (class, _) in self.state.used_bins() {
            P::Bin::flush(self, class);
        }
        self.close_queue();
        for (_, bin) in self.state.used_bins() {
            let spans = bin.spans();
            let current = spans.current();
            spans.set_current(None);
            if let Some(span) = current {
                self.hand_over(span);
            }
            while let Some(span) = spans.partial.pop() {
                self.hand_over(span);
            }
            while let Some(span) = spans.full.pop() {
                self.hand_over(span);
            }
            bin.end(self.central);
        }
        self.trim_all();
        self.state.reset();
        // SAFETY: this thread is the only user of its stash.
        unsafe { self.central.flush(&self.state.stash) };
    }

    /// From here on other threads find the queue closed, and bring late frees to the lists.
    fn close_queue(self) {
        for span in self.state.owner.queue.close() {
            // SAFETY: only spans are queued.
            self.take_in(unsafe { SpanRef::from_descriptor(span) });
        }
    }

    /// Gives the memory of the bins back, and keeps the state for the next thread.
    ///
    /// # Safety
    /// The queue is closed, the cache owns nothing, and it is not used any more.
    unsafe fn retire_state(self) {
        self.empty_bins();
        // SAFETY: the caller's promise.
        unsafe { self.central.unregister(&self.state.owner) };
    }

    fn hand_over(self, span: SpanRef) {
        if span.used() == 0 {
            return self.keep_empty(span);
        }
        self.state.empties.count_out(span);
        // SAFETY: this thread owns the span and took it off its list; the queue is closed and
        // folded.
        unsafe { self.central.give(span) };
    }
}

#[cfg(test)]
mod tests {
    use core::alloc::Layout;
    use core::ptr;

    use spanalloc_central::CentralLists;
    use spanalloc_classes::Go67;
    use spanalloc_os::Mmap;
    use spanalloc_pages::PageHeap;
    use std::vec::Vec;

    use super::*;
    use crate::policy::{Checked, Fast};

    type Lists = CentralLists<Go67, PageHeap<Mmap>>;

    const SIZES: [usize; 6] = [3, 16, 48, 200, 1000, 9000];

    fn make<P: Policy>(cache: Cache<'_, Lists, P>, count: usize) -> Vec<(*mut u8, Layout)> {
        let layouts = SIZES.iter().cycle().take(count);
        let layouts = layouts.map(|size| Layout::from_size_align(*size, 8).unwrap());
        layouts.map(|layout| (cache.alloc(layout), layout)).collect()
    }

    fn free<P: Policy>(cache: Cache<'_, Lists, P>, objects: Vec<(*mut u8, Layout)>) {
        for (object, layout) in objects {
            // SAFETY: made by `make` from a cache over these lists.
            unsafe { cache.free(object, layout) };
        }
    }

    fn the_next_thread_takes_over<P: Policy>() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let (cache, other) =
            (Cache::<_, P>::open(&lists).unwrap(), Cache::<_, P>::open(&lists).unwrap());
        let mine = make(cache, 60);
        let live = make(cache, 60);
        free(cache, mine);
        let locks = lists.locks();
        // SAFETY: the cache is not used any more.
        unsafe { cache.park() };
        let snapshot = other.snapshot();
        assert!(snapshot.adds_up() && snapshot.live_objects() == 60 && snapshot.caches == 1);
        // Into spans that no thread looks after.
        free(other, live);
        other.reclaim_own();
        assert_eq!(other.snapshot().live_objects(), 0);
        let next = Cache::<_, P>::open(&lists).unwrap();
        assert!(ptr::eq(next.state(), cache.state()));
        // As the first allocation of a thread comes, which does not know yet what the cache has.
        let layouts = SIZES.map(|size| Layout::from_size_align(size, 8).unwrap());
        let mut again: Vec<_> = layouts.map(|layout| (next.alloc_slow(layout), layout)).into();
        again.extend(make(next, 60));
        assert_eq!(other.snapshot().live_objects(), again.len());
        assert_eq!(lists.locks() - locks, 2, "to park and to take over");
        free(next, again);
        // SAFETY: neither is used any more.
        unsafe {
            next.close();
            other.close();
        }
        let rest = Cache::<_, P>::open(&lists).unwrap().snapshot();
        assert_eq!(rest.pages.pages_in_use, rest.pages.metadata_pages);
    }

    #[test]
    fn the_next_thread_takes_over_what_a_small_cache_has() {
        the_next_thread_takes_over::<Fast>();
        the_next_thread_takes_over::<Checked>();
    }

    #[test]
    fn a_thread_that_is_short_of_memory_gets_what_is_parked() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let [cache, other] = [(); 2].map(|()| Cache::<_, Checked>::open(&lists).unwrap());
        let mut live = make(cache, 60);
        let dead = live.split_off(1);
        free(cache, dead);
        // SAFETY: the cache is not used any more.
        unsafe { cache.park() };
        let pages =
            |snapshot: crate::Snapshot| snapshot.pages.pages_in_use - snapshot.pages.metadata_pages;
        assert!(pages(other.snapshot()) > 1);
        other.reclaim();
        let snapshot = other.snapshot();
        assert!(snapshot.adds_up());
        assert_eq!((snapshot.live_objects(), pages(snapshot)), (1, 1), "the span of the live one");
        free(other, live);
        other.reclaim();
        assert_eq!(pages(other.snapshot()), 0);
    }

    #[test]
    fn a_large_cache_hands_its_spans_over() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let cache = Cache::<_, Fast>::open(&lists).unwrap();
        let many = make(cache, MOST_PARKED_BYTES / 1000);
        // SAFETY: the cache is not used any more.
        unsafe { cache.park() };
        let next = Cache::<_, Fast>::open(&lists).unwrap();
        assert!(ptr::eq(next.state(), cache.state()) && next.state().used_bins().next().is_none());
        assert_eq!(next.snapshot().live_objects(), many.len());
        free(next, many);
        // What is free already is no reason to.
        // SAFETY: the cache is not used any more.
        unsafe { next.park() };
        assert!(lists.take_parked().is_some());
    }
}
