//! What idle threads keep, and how they lose it.
//!
//! Somebody, if there is such a thread, comes by at regular times: see [`Cache::tend_idle`]. Each time it makes
//! the age of every cache one more, and a thread sets its own back to 0 whenever it comes to a slow path.
//! So the age tells for how many rounds a thread was idle, or busy with what it has at hand.
//!
//! From [`IDLE_ROUNDS`] on, the empty spans of a cache are taken from it and given back. After [`LONG_ROUNDS`] it
//! loses the rest, too, its large objects and what is in its bins: what it kept is of no use to it after so long. If
//! the thread sleeps, and has [lent](Cache::lend) its cache, who comes by [takes](crate::seize) all that. Otherwise
//! the thread itself gives it back when it comes to a slow path.

use core::ptr::NonNull;

use spanalloc_central::{Central, Owner, Stash};
use spanalloc_sync::atomic::Ordering;

use crate::cache::Cache;
use crate::empties::release_to;
use crate::policy::Policy;
use crate::state::CacheState;

/// So many rounds without a slow path make a thread idle.
const IDLE_ROUNDS: u8 = 2;
/// After so many it gives back all it keeps as soon as it comes.
const LONG_ROUNDS: u8 = 10;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// One round: makes all caches over `central` one round older, and gives back the empty spans of those
    /// that are idle, and all that those keep that have been so for long. With `all`, every cache is as old as can
    /// be: it loses its empty spans now, and all else if its thread sleeps, which gives back the rest otherwise when
    /// it comes to a slow path; and those that no thread has are closed. Any thread may do so at any time.
    pub fn tend_idle(central: &C, all: bool) {
        let stash = Stash::new();
        central.for_each_owner(|owner| {
            let state: NonNull<CacheState<P::Bin>> = owner.cast();
            // SAFETY: every owner registered with these lists begins a state, which is never unmapped
            // (contract of `Cache::new`).
            let state = unsafe { state.as_ref() };
            if !Owner::is_active(&state.owner) {
                return;
            }
            // Relaxed: a round that gets lost because the thread comes to a slow path is none.
            let age =
                if all { u8::MAX } else { state.age.load(Ordering::Relaxed).saturating_add(1) };
            state.age.store(age, Ordering::Relaxed);
            if state.empties.bytes() > 0 && (all || age > IDLE_ROUNDS) {
                if let Some(held) = state.empties.hold() {
                    release_to::<C, P>(central, state, &held, &stash, 0);
                }
            }
            if age > LONG_ROUNDS {
                // SAFETY: the state was registered with these lists. Before it is seized nothing is done by this
                // cache that others might not do.
                unsafe { Cache::<C, P>::new(state, central) }.seize();
            }
        });
        // SAFETY: the stash is this call's own.
        unsafe { central.flush(&stash) };
        if all {
            Self::close_parked(central);
        }
    }

    /// Notes that the thread is on a slow path; after a long time it gives back what it keeps.
    #[inline]
    pub(crate) fn wake(self) {
        if self.state.age.load(Ordering::Relaxed) != 0 {
            self.wake_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_slow(self) {
        let long = self.state.age.load(Ordering::Relaxed) > LONG_ROUNDS;
        self.stay_awake();
        if long {
            self.reclaim_own();
        }
    }

    /// Notes that the thread is on a slow path, where it gives nothing back.
    #[inline]
    pub(crate) fn stay_awake(self) {
        if self.state.age.load(Ordering::Relaxed) != 0 {
            self.state.age.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::alloc::Layout;
    use core::ptr::NonNull;
    use std::vec::Vec;

    use spanalloc_central::{Central, CentralLists};
    use spanalloc_classes::Go67;
    use spanalloc_os::Mmap;
    use spanalloc_pages::{PageHeap, Pages};
    use spanalloc_sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{Checked, Fast, ThreadCache};

    type Lists = CentralLists<Go67, PageHeap<Mmap>>;

    const LAYOUT: Layout = Layout::new::<[u64; 100]>();

    fn fill<P: Policy>(cache: &mut ThreadCache<&Lists, P>, count: usize) -> Vec<NonNull<u8>> {
        (0..count).map(|_| cache.alloc(LAYOUT).unwrap()).collect()
    }

    fn free<P: Policy>(cache: &mut ThreadCache<&Lists, P>, objects: Vec<NonNull<u8>>) {
        for object in objects {
            // SAFETY: allocated with this layout.
            unsafe { cache.free(object, LAYOUT) };
        }
    }

    /// Pages in use after each of some rounds.
    fn rounds<P: Policy>(lists: &Lists, count: u8) -> Vec<usize> {
        let round = |_| {
            Cache::<Lists, P>::tend_idle(lists, false);
            lists.heap().stats().pages_in_use
        };
        (0..count).map(round).collect()
    }

    fn empty_spans_go<P: Policy>() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let mut cache = ThreadCache::<_, P>::with_policy(&lists);
        let objects = fill(&mut cache, 20_000);
        free(&mut cache, objects);
        let before = lists.heap().stats().pages_in_use;
        assert!(before > 800, "{before}");
        let after = rounds::<P>(&lists, IDLE_ROUNDS + 1);
        assert_eq!(after[..2], [before; 2], "not idle for long");
        assert!(after[2] < 150, "{after:?}");
        assert!(cache.snapshot().unwrap().adds_up());
        // The thread goes on as if nothing had been.
        let objects = fill(&mut cache, 20_000);
        assert!(cache.snapshot().unwrap().adds_up());
        free(&mut cache, objects);
        drop(cache);
        assert_eq!(lists.heap().stats().pages_in_use, 0);
    }

    #[test]
    fn the_empty_spans_of_an_idle_thread_go_back() {
        empty_spans_go::<Fast>();
        empty_spans_go::<Checked>();
    }

    #[test]
    fn a_thread_on_slow_paths_is_not_idle() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let mut cache = ThreadCache::new(&lists);
        let objects = fill(&mut cache, 20_000);
        free(&mut cache, objects);
        let before = lists.heap().stats().pages_in_use;
        for _ in 0..5 {
            let after = rounds::<Fast>(&lists, 2);
            assert_eq!(after, [before; 2]);
            let objects = fill(&mut cache, 500);
            free(&mut cache, objects);
        }
        Cache::<Lists, Fast>::tend_idle(&lists, true);
        assert!(lists.heap().stats().pages_in_use < 150);
    }

    #[test]
    fn who_comes_back_after_long_gives_back_the_rest() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let mut cache = ThreadCache::new(&lists);
        // Magazines of many classes, and a large object that was freed.
        let layouts = Vec::from_iter((1..120).map(|size| Layout::from_size_align(size * 272, 8)));
        let layouts = Vec::from_iter(layouts.into_iter().flatten());
        let mut use_all = || {
            let objects = Vec::from_iter(layouts.iter().map(|layout| cache.alloc(*layout)));
            for (object, layout) in objects.into_iter().zip(&layouts) {
                // SAFETY: allocated just now with this layout.
                unsafe { cache.free(object.unwrap(), *layout) };
            }
        };
        use_all();
        let kept = *rounds::<Fast>(&lists, LONG_ROUNDS).last().unwrap();
        Cache::<Lists, Fast>::tend_idle(&lists, false);
        // Of a class that was never used: a slow path.
        let object = cache.alloc(Layout::new::<u64>()).unwrap();
        let left = lists.heap().stats().pages_in_use;
        assert!(left <= 64 && left * 4 < kept, "{left} of {kept} pages");
        // SAFETY: allocated just now with this layout.
        unsafe { cache.free(object, Layout::new::<u64>()) };
    }

    #[test]
    fn threads_go_on_while_they_are_tended() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let tender = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    Cache::<Lists, Fast>::tend_idle(&lists, true);
                    std::thread::yield_now();
                }
            });
            let workers = [1, 2].map(|thread| {
                let lists = &lists;
                scope.spawn(move || {
                    for round in 0..60 {
                        let mut cache = ThreadCache::new(lists);
                        for _ in 0..4 {
                            let objects = fill(&mut cache, 400 * thread + 50 * (round % 7));
                            free(&mut cache, objects);
                        }
                    }
                })
            });
            let ended = workers.map(|worker| worker.join());
            over.store(true, Ordering::Relaxed);
            tender.join().unwrap();
            ended.into_iter().for_each(Result::unwrap);
        });
        assert_eq!(lists.heap().stats().pages_in_use, 0);
    }
}
