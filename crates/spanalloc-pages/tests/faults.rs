//! A page heap whose source has no more, or refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/mod.rs"]
mod common;

use common::{Place, free, simulated};
use spanalloc_os::{Any32, Faulty, Limited, Mmap, Native, Verb};
use spanalloc_pages::{PAGE_BYTES, PageCache, PageError, PageHeap, Pages};

#[test]
fn exhaustion_returns_none_and_loses_nothing() {
    for limit in [0, 64 << 10, 200 << 10, 1 << 20, 5 << 20, 33 << 20, 64 << 20, 101 << 20] {
        let os = Limited::with_committed(Mmap::new(), limit, limit / 2);
        let heap: PageHeap<_> = PageHeap::new(os);
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let mut runs: Vec<_> = std::iter::from_fn(|| heap.alloc(3, 1)).collect();
            runs.extend(std::iter::from_fn(|| heap.alloc(1, 1)));
            let stats = heap.stats();
            assert_eq!(stats.pages_in_use, runs.iter().map(|run| run.pages).sum());
            assert_eq!(stats.pages_in_use + stats.pages_free, stats.reserved / PAGE_BYTES);
            assert_eq!(stats.reserved + stats.metadata_reserved, heap.os().reserved());
            assert_eq!(stats.committed + stats.metadata_committed, heap.os().committed());
            rounds.push(stats.pages_in_use);
            for run in runs {
                free(&heap, run.address, run.pages);
            }
            heap.release_free(usize::MAX);
            assert_eq!(heap.stats().pages_in_use, 0);
        }
        // The first time, arenas may come in any order: while the lowest free page cannot be made Ready,
        // others that are, less than a step of 2 MB, may stay free.
        assert!(rounds[0] <= rounds[1] && rounds[1] - rounds[0] < 256, "{limit}: {rounds:?}");
        assert_eq!(rounds[1], rounds[2]);
        if limit >= 1 << 20 {
            assert!(rounds[0] * PAGE_BYTES >= limit / 4, "{} pages of {limit}", rounds[0]);
        }
    }
}

/// Every call of every verb fails once, and from then on.
#[test]
fn a_fault_at_every_call_loses_nothing() {
    for verb in Verb::ALL {
        for nth in 1..40 {
            for forever in [false, true] {
                let heap = simulated::<Any32>(Place::BothEnds);
                if forever {
                    heap.os().fail_from(verb, nth);
                } else {
                    heap.os().fail_nth(verb, nth);
                }
                let cache = PageCache::new();
                let mut live = Vec::new();
                for step in 0..30 {
                    live.extend(heap.alloc(1 + step * 37 % 700, 1 << (step % 3)));
                    // SAFETY: this thread alone uses the cache.
                    live.extend(unsafe { heap.alloc_cached(&cache, 1 + step % 16) });
                    if step % 3 == 0 && !live.is_empty() {
                        let run = live.swap_remove(step % live.len());
                        free(&heap, run.address, run.pages);
                    }
                    if step % 7 == 0 {
                        heap.release_free(100);
                    }
                }
                heap.os().heal();
                // SAFETY: as above.
                unsafe { heap.flush(&cache) };
                for run in live {
                    free(&heap, run.address, run.pages);
                }
                let stats = heap.stats();
                assert_eq!(stats.pages_in_use, 0, "{verb:?} {nth}");
                assert!(heap.alloc(900, 1).is_some(), "{verb:?} {nth}");
                let stats = heap.stats();
                let reserved: usize =
                    heap.os().inner().ranges().iter().map(|&(_, bytes)| bytes).sum();
                assert_eq!(stats.reserved, reserved, "{verb:?} {nth}");
                assert_eq!(stats.committed / PAGE_BYTES, heap.os().inner().ready_pages());
            }
        }
    }
}

#[test]
fn a_range_that_cannot_be_entered_or_released_is_kept_for_later() {
    let heap = simulated::<Native>(Place::Low);
    heap.os().fail_from(Verb::Reserve, 2);
    heap.os().fail_from(Verb::Release, 1);
    assert_eq!(heap.alloc(1, 1), None);
    assert_eq!(heap.os().inner().ranges().len(), 1);
    assert_eq!(heap.stats().reserved, 0);
    heap.os().heal();
    let run = heap.alloc(1, 1).unwrap();
    let ranges = heap.os().inner().ranges();
    assert_eq!(ranges.len(), 1);
    assert_eq!((run.address, heap.stats().reserved), ranges[0]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_relocation_that_is_refused_costs_the_target_and_nothing_else() {
    let heap: PageHeap<Faulty<Mmap>> = PageHeap::new(Faulty::new(Mmap::new()));
    let word = |address: usize| std::ptr::with_exposed_provenance_mut::<u64>(address);
    let from = heap.alloc(600, 1).unwrap();
    for page in 0..600 {
        // SAFETY: the run is handed out.
        unsafe { word(from.address + page * PAGE_BYTES).write(page as u64) };
    }
    let kept = |address: usize| {
        // SAFETY: the run there is handed out, and longer.
        (0..600).all(|page| unsafe { word(address + page * PAGE_BYTES).read() } == page as u64)
    };
    let lost = heap.alloc_roomy(700, 1).unwrap();
    let (reserved, committed) = (heap.stats().reserved, heap.stats().committed);
    heap.os().fail_nth(Verb::Relocate, 1);
    // SAFETY: both runs are handed out and have no spans; the second is unused.
    assert!(!unsafe { heap.relocate(from.address, lost, 600) });
    assert!(kept(from.address));
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, 600);
    assert_eq!(stats.pages_in_use + stats.pages_free, stats.reserved / PAGE_BYTES);
    // SAFETY: pages that are no longer this heap's, which it must say.
    let refused = unsafe { heap.free(lost.address, 600) };
    assert_eq!(refused, Err(PageError::NotOurs { address: lost.address }));
    // Those behind them are, and free.
    assert_eq!(stats.reserved, reserved - 600 * PAGE_BYTES);
    assert_eq!(stats.committed, committed - 600 * PAGE_BYTES);
    let rest = lost.address + 600 * PAGE_BYTES;
    // SAFETY: as above.
    let refused = unsafe { heap.free(rest, 100) };
    assert_eq!(refused, Err(PageError::AlreadyFree { address: rest, pages: 100 }));

    let to = heap.alloc_roomy(700, 1).unwrap();
    assert!(to.address >= rest || to.address < lost.address);
    let reserved = heap.stats().reserved;
    // SAFETY: as above.
    assert!(unsafe { heap.relocate(from.address, to, 600) });
    assert!(kept(to.address));
    free(&heap, to.address, 700);
    assert_eq!(heap.stats().pages_in_use, 0);
    assert_eq!(heap.stats().reserved, reserved, "nothing else was lost");
    let again = heap.alloc(600, 1).unwrap();
    assert_eq!((again.address, again.zeroed), (from.address, true), "what moved left zeros");
}

/// Each refusal costs pages, so a heap does not try for ever.
#[test]
#[cfg(target_os = "linux")]
fn a_source_that_never_moves_memory_is_not_asked_for_ever() {
    let heap: PageHeap<Faulty<Mmap>> = PageHeap::new(Faulty::new(Mmap::new()));
    heap.os().fail_from(Verb::Relocate, 1);
    let from = heap.alloc(600, 1).unwrap();
    let mut refused = 0;
    let to = loop {
        let to = heap.alloc_roomy(600, 1).unwrap();
        // SAFETY: both runs are handed out and have no spans; the second is unused.
        if unsafe { heap.relocate(from.address, to, 600) } {
            break to;
        }
        refused += 1;
        assert!(refused < 10);
    };
    assert_eq!(refused, 4);
    assert_eq!(heap.os().failures(Verb::Relocate), refused);
    assert_eq!(heap.stats().pages_in_use, 600);
    free(&heap, to.address, 600);
}
