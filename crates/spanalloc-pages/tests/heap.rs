//! Single properties of the page heap, the span map, the metadata and the pool.
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

use std::alloc::Layout;
use std::collections::BTreeSet;
use std::ptr::{self, NonNull};

use common::{Place, TestHeap, Watched, free, simulated};
use proptest::prelude::*;
use spanalloc_os::{
    Any32, Any64, Geometry, IosArm64, Mips32, Mmap, Native, OsSource, Verb, Windows64,
};
use spanalloc_pages::{PAGE_BYTES, PageCache, PageHeap, Pages, Pooled};
use spanalloc_sync::Spin;
use spanalloc_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use spanalloc_testkit::amount::config_of;

#[test]
fn requests_without_sense_get_nothing() {
    let heap = simulated::<Native>(Place::Low);
    for (pages, align) in [
        (0, 1),
        (1, 0),
        (1, 3),
        (usize::MAX, 1),
        (1, 1 << (usize::BITS - 2)),
        (usize::MAX / PAGE_BYTES, 8),
        ((1 << 27) + 1, 1),
    ] {
        assert_eq!(heap.alloc(pages, align), None, "{pages} pages aligned to {align}");
    }
    assert_eq!(heap.stats(), Default::default());
    let cache = PageCache::default();
    // SAFETY: this thread alone uses the cache; wrong sizes are refused.
    unsafe {
        assert_eq!(heap.alloc_cached(&cache, 0), None);
        assert_eq!(heap.alloc_cached(&cache, usize::MAX), None);
        heap.flush(&cache);
    }
    let run = heap.alloc(4, 4).unwrap();
    // SAFETY: the run is handed out.
    unsafe {
        assert_eq!(heap.extend(run.address, 4, 0), None);
        assert_eq!(heap.extend(run.address, usize::MAX, 1), None);
        assert_eq!(heap.extend(run.address, 4, usize::MAX), None);
    }
    free(&heap, run.address, 0);
    assert_eq!(heap.stats().pages_in_use, 4);
}

/// Sets spans of runs at both ends of an address space and looks at every address around them.
fn spans_of_both_ends<G: Geometry>(probes: &[usize]) {
    let heap = simulated::<G>(Place::BothEnds);
    assert!(probes.iter().all(|&probe| heap.span_of(probe).is_null()));
    let across = G::ARENA_BYTES / PAGE_BYTES + 3;
    let mut runs = Vec::new();
    for (number, pages) in [1, 5, across, 600, 2, across].into_iter().enumerate() {
        let run = heap.alloc(pages, 1).unwrap();
        let span = ptr::without_provenance_mut::<()>((number + 1) * 128);
        // SAFETY: the run is handed out; spans are only compared here.
        unsafe { heap.set_span(run.address, run.pages, span) };
        runs.push((run.address, run.address + pages * PAGE_BYTES, span));
    }
    let (lowest, highest) = (runs.iter().map(|r| r.0).min(), runs.iter().map(|r| r.1).max());
    assert!(lowest.unwrap() <= 2 * G::ARENA_BYTES);
    if G::ADDRESS_BITS < usize::BITS {
        assert!(highest.unwrap() > (1 << G::ADDRESS_BITS) - 3 * G::ARENA_BYTES);
    }
    let expected = |address: usize| {
        let run = runs.iter().find(|run| (run.0..run.1).contains(&address));
        run.map_or(ptr::null_mut(), |run| run.2)
    };
    for &(start, end, _) in &runs {
        for address in (start..end).step_by(PAGE_BYTES) {
            assert_eq!(heap.span_of(address), expected(address));
            assert_eq!(heap.span_of(address + PAGE_BYTES - 1), expected(address));
        }
        for address in [start - 1, end, start.wrapping_sub(PAGE_BYTES), end + PAGE_BYTES] {
            assert_eq!(heap.span_of(address), expected(address), "{address:#x}");
        }
    }
    for &probe in probes {
        assert_eq!(heap.span_of(probe), expected(probe), "{probe:#x}");
        // Bits above the geometry's make an address nobody's.
        if G::ADDRESS_BITS < usize::BITS {
            let outside = probe | 1 << G::ADDRESS_BITS;
            assert!(heap.span_of(outside).is_null(), "{outside:#x}");
        }
    }
    for (start, end, _) in runs {
        // SAFETY: the run is handed out; nobody uses it.
        unsafe { heap.set_span(start, (end - start) / PAGE_BYTES, ptr::null_mut()) };
        assert!(heap.span_of(start).is_null() && heap.span_of(end - 1).is_null());
    }
}

proptest! {
    #![proptest_config(config_of(16))]

    #[test]
    fn the_span_map_knows_every_address(
        mut probes in prop::collection::vec(any::<usize>(), 1..200),
        near in prop::collection::vec(0_usize..1 << 31, 1..200),
    ) {
        probes.extend(near);
        probes.extend([0, 1, usize::MAX, usize::MAX - PAGE_BYTES]);
        spans_of_both_ends::<Any64>(&probes);
        spans_of_both_ends::<Windows64>(&probes);
        spans_of_both_ends::<IosArm64>(&probes);
        spans_of_both_ends::<Any32>(&probes);
        spans_of_both_ends::<Mips32>(&probes);
    }
}

/// Runs of more pages than a summary can count (16 GB).
#[test]
#[cfg(target_pointer_width = "64")]
fn huge_runs_are_found_first_fit() {
    let heap = simulated::<Native>(Place::Low);
    let huge = 2_200_000;
    let a = heap.alloc(huge, 1).unwrap();
    let wall = heap.alloc(1, 1).unwrap();
    let b = heap.alloc(huge + 100_000, 1).unwrap();
    let end_wall = heap.alloc(1, 1).unwrap();
    assert_eq!(wall.address, a.address + huge * PAGE_BYTES);
    free(&heap, a.address, a.pages);
    free(&heap, b.address, b.pages);
    let before = heap.stats();

    for (pages, place) in [(huge, a), (huge + 1, b), (2_097_151, a)] {
        let run = heap.alloc(pages, 1).unwrap();
        assert_eq!(run.address, place.address, "{pages} pages");
        assert!(!run.zeroed);
        free(&heap, run.address, pages);
    }
    assert_eq!(heap.stats().reserved, before.reserved);
    free(&heap, wall.address, 1);
    let joined = 2 * huge + 100_001;
    let run = heap.alloc(joined, 1).unwrap();
    assert_eq!(run.address, a.address);
    free(&heap, run.address, joined);
    free(&heap, end_wall.address, 1);
    assert_eq!(heap.stats().pages_in_use, 0);
}

/// Every string of up to 5 operations on 4 pages, against four flags.
#[test]
fn four_pages_exhaustively() {
    let heap = simulated::<Any32>(Place::Low);
    let base = heap.alloc(4, 4).unwrap().address;
    // Nothing but the 4 pages is free, and no more is to be had.
    while heap.stats().pages_free > 0 {
        heap.alloc(1, 1).unwrap();
    }
    free(&heap, base, 4);
    heap.os().fail_from(Verb::Reserve, 1);

    fn deeper(heap: &TestHeap<Any32>, base: usize, used: [u8; 4], depth: u8) {
        // The marks say which run a page belongs to; 0 is free.
        let total: usize = used.iter().filter(|&&mark| mark == 0).count();
        assert_eq!(heap.stats().pages_free, total);
        if depth == 0 {
            return;
        }
        for pages in 1..=4 {
            let fit = used.windows(pages).position(|part| part.iter().all(|&mark| mark == 0));
            let got = heap.alloc(pages, 1);
            assert_eq!(got.map(|run| run.address), fit.map(|at| base + at * PAGE_BYTES));
            if let Some(at) = fit {
                let mut next = used;
                next[at..at + pages].fill(depth);
                deeper(heap, base, next, depth - 1);
                free(heap, base + at * PAGE_BYTES, pages);
            }
        }
        for from in 0..4 {
            for to in from + 1..=4 {
                let address = base + from * PAGE_BYTES;
                if used[from..to].contains(&0) {
                    // SAFETY: a wrong free, which the heap must refuse.
                    unsafe { heap.free(address, to - from) }.unwrap_err();
                    continue;
                }
                let mut next = used;
                next[from..to].fill(0);
                free(heap, address, to - from);
                deeper(heap, base, next, depth - 1);
                // Take the same pages again, by filling every hole before and around them.
                let mut fillers = Vec::new();
                while let Some(run) = heap.alloc(1, 1) {
                    fillers.push(run.address);
                }
                for filler in fillers {
                    let at = (filler - base) / PAGE_BYTES;
                    if used[at] == 0 {
                        free(heap, filler, 1);
                    }
                }
            }
        }
    }
    deeper(&heap, base, [0; 4], 5);
}

#[test]
fn pages_go_back_highest_first_and_come_again_as_zero() {
    let heap = simulated::<Native>(Place::Low);
    let runs: Vec<_> = (0..20).map(|_| heap.alloc(100, 1).unwrap()).collect();
    assert_eq!(heap.release_free(usize::MAX), 0, "fresh pages have nothing to give");
    for run in &runs {
        free(&heap, run.address, run.pages);
    }
    let before = heap.stats();
    // The last block of 2 MB is free and goes as a whole, what was never used in it, too.
    assert_eq!(heap.release_free(150), 256);
    assert_eq!(heap.stats().committed, before.committed - 256 * PAGE_BYTES);
    assert_eq!(heap.stats().returned_in_all, 256 * PAGE_BYTES as u64);
    let top = &runs[19];
    assert!(!heap.os().inner().is_ready(top.address, 1));
    assert!(heap.os().inner().is_ready(runs[0].address, 100));
    assert_eq!(heap.release_free(usize::MAX), 2048 - 256);
    assert_eq!(heap.release_free(usize::MAX), 0);
    assert_eq!(heap.stats().pages_free, before.pages_free);
    assert!(heap.alloc(2000, 1).unwrap().zeroed);
}

#[test]
fn metadata_is_zeroed_aligned_apart_and_guarded() {
    let heap: PageHeap<Watched<Mmap>> = PageHeap::new(Watched::new(Mmap::new()));
    let page = heap.os().page_bytes();
    let mut pieces = Vec::new();
    let sizes = [1, 7, 64, 200, 4096, 5000, 70_000, 300_000, 3, 40 << 20, 9, 17 << 20];
    for (round, size) in sizes.into_iter().cycle().take(60).enumerate() {
        let align = 1 << (round % 18);
        let layout = Layout::from_size_align(size.min(2 << 20), align).unwrap();
        let memory = heap.metadata(layout).unwrap();
        assert_eq!(memory.as_ptr().addr() % align, 0);
        // SAFETY: metadata is readable and writable for ever, and ours alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), layout.size()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes.fill(round as u8 + 1);
        pieces.push((bytes, round as u8 + 1));
    }
    let big = heap.metadata(Layout::from_size_align(40 << 20, 64).unwrap()).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { big.add((40 << 20) - 1).read() }, 0);
    for (bytes, mark) in &pieces {
        assert!(bytes.iter().all(|byte| byte == mark));
    }
    let stats = heap.stats();
    let sum: usize = pieces.iter().map(|(bytes, _)| bytes.len()).sum();
    assert_eq!(stats.metadata_in_use, sum + (40 << 20));
    // Fill the last reservation to its end, so that only its guard stays untouched.
    let reservations = heap.os().metadata().0.len();
    while heap.os().metadata().0.len() == reservations {
        heap.metadata(Layout::from_size_align(page, 1).unwrap()).unwrap();
    }
    let stats = heap.stats();
    let (reserved, ready) = heap.os().metadata();
    assert_eq!(stats.metadata_reserved, reserved.iter().map(|range| range.1).sum());
    assert_eq!(stats.metadata_committed, ready.iter().map(|range| range.1).sum());
    assert_eq!(reserved[0].1 % page, 0);
    for (at, bytes) in reserved {
        for guard in [at, at + bytes - page] {
            assert!(
                ready.iter().all(|&(start, len)| guard + page <= start || guard >= start + len)
            );
        }
    }
    assert_eq!(
        heap.metadata(Layout::from_size_align(isize::MAX as usize / 8192 * 8192, 8).unwrap()),
        None
    );
    assert!(heap.metadata(Layout::new::<u64>()).is_some());
}

#[repr(C)]
struct Thing {
    value: AtomicUsize,
    link: AtomicPtr<Thing>,
}

// SAFETY: zeroes are a valid thing; nothing else uses the link.
unsafe impl Pooled for Thing {
    unsafe fn next<'a>(object: NonNull<Self>) -> &'a AtomicPtr<Self> {
        // SAFETY: the caller passes a thing, which is never unmapped.
        unsafe { &object.as_ref().link }
    }
}

#[test]
fn the_pool_recycles_objects_and_knows_all_of_them() {
    let heap = simulated::<Native>(Place::Low);
    let pool: spanalloc_pages::Pool<Thing, Spin> = spanalloc_pages::Pool::new(300);
    assert_eq!(pool.object_bytes(), 384);
    assert_eq!(pool.objects().count(), 0);
    let things: Vec<NonNull<Thing>> = (0..50).map(|_| pool.get(&heap).unwrap()).collect();
    let apart: BTreeSet<usize> = things.iter().map(|thing| thing.as_ptr().addr()).collect();
    for pair in Vec::from_iter(&apart).windows(2) {
        assert!(pair[1] - pair[0] >= 384);
    }
    for (number, thing) in things.iter().enumerate() {
        assert_eq!(thing.as_ptr().addr() % 128, 0);
        // SAFETY: objects stay valid.
        let thing = unsafe { thing.as_ref() };
        assert_eq!(thing.value.swap(number + 1, Ordering::Relaxed), 0);
    }
    // SAFETY: both came from this pool and are not used any more.
    unsafe {
        pool.put(things[7]);
        pool.put(things[9]);
    }
    assert_eq!(pool.free_objects(), 2);
    assert_eq!(pool.get(&heap), Some(things[9]));
    assert_eq!(pool.get(&heap), Some(things[7]));
    // SAFETY: objects stay valid.
    let sum: usize =
        pool.objects().map(|t| unsafe { t.as_ref() }.value.load(Ordering::Relaxed)).sum();
    assert_eq!((pool.objects().count(), sum), (50, 50 * 51 / 2));

    heap.os().fail_from(Verb::Reserve, 1);
    let more: Vec<_> = std::iter::from_fn(|| pool.get(&heap)).collect();
    assert_eq!(pool.objects().count(), 50 + more.len());
    let small: spanalloc_pages::Pool<Thing, Spin> = spanalloc_pages::Pool::new(0);
    assert_eq!(small.object_bytes(), 128);
}

/// Threads share a heap, each with a page cache, and write to every page they hold.
#[test]
fn threads_share_a_heap() {
    let heap: PageHeap<Mmap> = PageHeap::new(Mmap::new());
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let heap = &heap;
            scope.spawn(move || {
                let cache = PageCache::new();
                let mut live = Vec::new();
                let mut seed = 0x9e37_79b9 + thread;
                for _ in 0..3000 {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    let pages = seed % 20 + 1;
                    let run = if seed % 3 == 0 {
                        heap.alloc(pages, 1 << (seed % 4)).unwrap()
                    } else {
                        // SAFETY: this thread alone uses its cache.
                        unsafe { heap.alloc_cached(&cache, pages) }.unwrap()
                    };
                    let mark = (run.address ^ thread) as u64;
                    for page in 0..run.pages {
                        let address = run.address + page * PAGE_BYTES;
                        let word: *mut u64 = ptr::with_exposed_provenance_mut(address);
                        // SAFETY: the run is ours and Ready.
                        unsafe {
                            assert!(!run.zeroed || word.read() == 0);
                            word.write(mark);
                        }
                    }
                    live.push((run, mark));
                    if live.len() > 30 || seed % 5 == 0 {
                        let (run, mark) = live.swap_remove(seed % live.len());
                        for page in 0..run.pages {
                            let address = run.address + page * PAGE_BYTES;
                            let word: *mut u64 = ptr::with_exposed_provenance_mut(address);
                            // SAFETY: the run is ours and Ready.
                            assert_eq!(unsafe { word.read() }, mark);
                        }
                        // SAFETY: the run is ours and unused from here on.
                        unsafe { heap.free_cached(&cache, run.address, run.pages) }.unwrap();
                    }
                    if seed % 97 == 0 {
                        heap.release_free(64);
                    }
                }
                for (run, _) in live {
                    free(heap, run.address, run.pages);
                }
                // SAFETY: this thread alone uses its cache.
                unsafe { heap.flush(&cache) };
            });
        }
    });
    let stats = heap.stats();
    assert_eq!((stats.pages_in_use, stats.pages_free), (0, stats.reserved / PAGE_BYTES));
}
