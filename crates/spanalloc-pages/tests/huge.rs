//! For which memory the page heap asks the system for huge pages.
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

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Place, Simulated};
use spanalloc_os::{Any64, OsError, OsSource, Report, Request};
use spanalloc_pages::{HugePages, PAGE_BYTES, PageCache, PageHeap, Pages};
use spanalloc_sync::Spin;

/// Pages of 2 MB, and of the heap from whose size on huge pages are asked for.
const BLOCK: usize = 256;
const LARGE_HEAP: usize = 3 * BLOCK;
/// Pages that a thread takes before huge pages are asked for.
const THREAD_PAGES: usize = 256;

/// A source that says of every range what it is told, and remembers what is expected of which.
struct Told {
    inner: Simulated,
    filled: AtomicBool,
    asked: Mutex<Vec<(usize, usize)>>,
    expected: Mutex<Vec<(usize, usize)>>,
    given_up: Mutex<Vec<(usize, usize)>>,
}

// SAFETY: every verb is passed on to a source that keeps the contract.
unsafe impl OsSource for Told {
    type Wait = Spin;

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        self.inner.reserve(request)
    }

    unsafe fn commit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.commit(at, bytes) }
    }

    unsafe fn decommit(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.decommit(at, bytes) }
    }

    unsafe fn expect_use(&self, at: NonNull<u8>, bytes: usize) {
        self.expected.lock().unwrap().push((at.addr().get(), bytes / PAGE_BYTES));
    }

    unsafe fn expect_gaps(&self, at: NonNull<u8>, bytes: usize) {
        self.given_up.lock().unwrap().push((at.addr().get(), bytes / PAGE_BYTES));
    }

    fn is_filled(&self, at: NonNull<u8>, bytes: usize) -> bool {
        self.asked.lock().unwrap().push((at.addr().get(), bytes / PAGE_BYTES));
        self.filled.load(Ordering::Relaxed)
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.release(at, bytes) }
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}

fn heap() -> PageHeap<Told, Any64> {
    heap_over(Simulated::new::<Any64>(Place::Low, 4096))
}

fn heap_over(inner: Simulated) -> PageHeap<Told, Any64> {
    PageHeap::new(Told {
        inner,
        filled: AtomicBool::new(false),
        asked: Mutex::default(),
        expected: Mutex::default(),
        given_up: Mutex::default(),
    })
}

/// A heap, and the first page of its first block of 2 MB that nothing was taken from.
fn large_heap() -> (PageHeap<Told, Any64>, usize) {
    large_heap_at(Place::Low)
}

fn large_heap_at(place: Place) -> (PageHeap<Told, Any64>, usize) {
    let heap = heap_over(Simulated::new::<Any64>(place, 4096));
    let first = heap.alloc(1, 1).unwrap().address / PAGE_BYTES;
    let next = (first + LARGE_HEAP + 1).next_multiple_of(BLOCK);
    // One by one: nothing is large.
    for _ in first + 1..next {
        heap.alloc(1, 1).unwrap();
    }
    assert_eq!((heap.os().asked(), heap.os().expected()), (vec![], vec![]));
    (heap, next)
}

impl Told {
    fn expected(&self) -> Vec<(usize, usize)> {
        std::mem::take(&mut *self.expected.lock().unwrap())
    }

    fn asked(&self) -> Vec<(usize, usize)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[test]
fn spans_of_large_heaps_get_huge_pages() {
    let (heap, next) = large_heap();
    let cache = PageCache::new();
    for _ in 0..THREAD_PAGES {
        // SAFETY: this thread alone uses the cache.
        unsafe { heap.alloc_cached(&cache, 1) }.unwrap();
    }
    assert_eq!(heap.os().expected(), [], "what every thread takes");
    // SAFETY: as above.
    unsafe { heap.alloc_cached(&cache, 1) }.unwrap();
    assert_eq!(heap.os().expected(), [((next + THREAD_PAGES) * PAGE_BYTES, BLOCK)]);
    assert_eq!(heap.os().asked(), [], "it is known");
}

#[test]
fn what_was_given_back_is_not_to_be_filled_in_again() {
    [Place::Low, Place::High].into_iter().for_each(gaps_are_told);
}

fn gaps_are_told(place: Place) {
    let (heap, next) = large_heap_at(place);
    let free = |page: usize, pages| {
        // SAFETY: the pages were taken by this test, or by `large_heap`, and nobody uses them.
        unsafe { heap.free(page * PAGE_BYTES, pages) }.unwrap();
    };
    let given_up = || std::mem::take(&mut *heap.os().given_up.lock().unwrap());
    free(next - 3, 2);
    assert_eq!(
        (heap.release_free(usize::MAX), given_up()),
        (2, vec![]),
        "nothing was expected yet"
    );

    let cache = PageCache::new();
    for _ in 0..2 * THREAD_PAGES {
        // SAFETY: this thread alone uses the cache.
        unsafe { heap.alloc_cached(&cache, 1) }.unwrap();
    }
    assert_ne!(heap.os().expected(), []);
    free(next - 10, 5);
    assert_eq!(heap.release_free(usize::MAX), 5);
    assert_eq!(given_up(), [((next - BLOCK) * PAGE_BYTES, BLOCK)], "all of the block");
    free(next - BLOCK - 3, 7);
    assert_eq!(heap.release_free(usize::MAX), 7);
    assert_eq!(given_up(), [((next - BLOCK - 3) * PAGE_BYTES, 7)], "no more of two blocks");
}

#[test]
fn small_heaps_and_blocks_that_are_not_whole_get_no_huge_pages() {
    let small = heap();
    small.alloc_roomy(BLOCK, 1).unwrap();
    assert_eq!(small.os().expected(), []);
    small.alloc(BLOCK, BLOCK).unwrap();
    assert_eq!((small.stats().committed / PAGE_BYTES, small.os().expected()), (2 * BLOCK, vec![]));
    let run = small.alloc_roomy(BLOCK, 1).unwrap();
    assert_eq!(small.stats().committed / PAGE_BYTES, LARGE_HEAP);
    assert_eq!(small.os().expected(), [(run.address, BLOCK)], "now it is large");

    // The first page of the lowest block is not there to be had.
    let odd = heap_over(Simulated::new::<Any64>(Place::Low, 4096).without_whole_arenas());
    odd.set_huge_pages(HugePages::Always);
    let first = odd.alloc(1, 1).unwrap().address / PAGE_BYTES;
    assert_ne!(first % BLOCK, 0);
    assert_eq!(odd.os().expected(), []);
    let end = first * PAGE_BYTES + odd.stats().reserved;
    assert_ne!(end / PAGE_BYTES % BLOCK, 0);
    while odd.stats().pages_free > 0 {
        odd.alloc(1, 1).unwrap();
    }
    let expected = odd.os().expected();
    assert!(!expected.is_empty());
    assert!(expected.iter().all(|(at, pages)| at + pages * PAGE_BYTES <= end));
}

#[test]
fn large_runs_get_huge_pages_if_the_last_one_was_filled() {
    let (heap, next) = large_heap();
    let take = |pages| heap.alloc(pages, 1).unwrap().address / PAGE_BYTES;
    heap.os().filled.store(true, Ordering::Relaxed);
    assert_eq!(take(2 * BLOCK), next);
    assert_eq!(heap.os().expected(), [], "nothing is known of the first one");
    let second = next + 2 * BLOCK;
    assert_eq!(take(2 * BLOCK + 10), second);
    assert_eq!(heap.os().asked(), [(next * PAGE_BYTES, 2 * BLOCK)]);
    assert_eq!(heap.os().expected(), [(second * PAGE_BYTES, 2 * BLOCK)], "not for 10 pages of 256");
    let third = second + 2 * BLOCK + 10;
    assert_eq!(take(BLOCK + 200), third);
    assert_eq!(heap.os().asked(), [(second * PAGE_BYTES, 2 * BLOCK + 10)]);
    assert_eq!(
        heap.os().expected(),
        [((third - 10) * PAGE_BYTES, 2 * BLOCK)],
        "for most of a block"
    );
    heap.os().filled.store(false, Ordering::Relaxed);
    take(4 * BLOCK);
    assert_eq!(heap.os().asked(), [(third * PAGE_BYTES, BLOCK + 200)]);
    assert_eq!(heap.os().expected(), [], "the last one was not filled");
}

#[test]
fn so_do_the_blocks_that_smaller_runs_come_to_but_neither_kind_speaks_for_the_other() {
    let (heap, next) = large_heap();
    heap.os().filled.store(true, Ordering::Relaxed);
    let take = |pages| heap.alloc(pages, 1).unwrap().address;
    assert_eq!(take(8), next * PAGE_BYTES);
    let second = take(2 * BLOCK);
    assert_eq!((heap.os().asked(), heap.os().expected()), (vec![], vec![]), "nothing is known");
    let third = take(BLOCK / 2 - 1);
    assert_eq!(third, second + 2 * BLOCK * PAGE_BYTES);
    assert_eq!(heap.os().asked(), [], "there is memory in this block");
    let fourth = take(2 * BLOCK);
    assert_eq!(heap.os().asked(), [(second, 2 * BLOCK)]);
    assert_eq!(fourth, third + (BLOCK / 2 - 1) * PAGE_BYTES);
    heap.os().expected();
    // Up to the end of the block that the last one has a part of.
    take(BLOCK - (fourth / PAGE_BYTES + 2 * BLOCK) % BLOCK);
    heap.os().asked();
    let fifth = take(20);
    assert_eq!(fifth % (BLOCK * PAGE_BYTES), 0);
    assert_eq!(heap.os().asked().len(), 1);
    assert_eq!(heap.os().expected(), [(fifth, BLOCK)]);
    heap.os().filled.store(false, Ordering::Relaxed);
    let runs = BLOCK / 20;
    assert!((0..runs).all(|_| take(20) > fifth));
    assert_eq!((heap.os().asked().len(), heap.os().expected()), (1, vec![]), "it was not filled");
}

#[test]
fn runs_that_are_not_large_say_nothing() {
    let (heap, _) = large_heap();
    heap.os().filled.store(true, Ordering::Relaxed);
    for _ in 0..2 * BLOCK {
        heap.alloc(7, 1).unwrap();
    }
    assert_eq!((heap.os().asked(), heap.os().expected()), (vec![], vec![]));
}

#[test]
fn runs_that_will_be_filled_get_huge_pages_but_at_their_ends() {
    let heap = heap();
    let run = heap.alloc(4 * BLOCK, BLOCK).unwrap();
    let expect = |page: usize, pages: usize| {
        // SAFETY: the pages are of the run, which nobody uses.
        unsafe { heap.expect_filled(run.address + page * PAGE_BYTES, pages) };
        let expected = heap.os().expected();
        let pages = |(at, pages)| ((at - run.address) / PAGE_BYTES, pages);
        expected.into_iter().map(pages).collect::<Vec<_>>()
    };
    assert_eq!(expect(0, 4 * BLOCK), [(BLOCK, 2 * BLOCK)]);
    assert_eq!(expect(BLOCK - 1, 2 * BLOCK + 1), [(BLOCK, BLOCK)]);
    assert_eq!(expect(BLOCK - 1, 2 * BLOCK + 2), [(BLOCK, 2 * BLOCK)]);
    assert_eq!(expect(0, 2 * BLOCK), []);
    assert_eq!((expect(5, 1), expect(BLOCK, BLOCK)), (vec![], vec![]));
    for other in [HugePages::Off, HugePages::Always] {
        heap.set_huge_pages(other);
        assert_eq!(expect(0, 4 * BLOCK), [], "it is known");
    }
}

#[test]
fn a_heap_that_is_told_to_never_asks() {
    let (heap, _) = large_heap();
    assert_eq!(heap.huge_pages(), HugePages::Advise, "the first choice");
    heap.set_huge_pages(HugePages::Off);
    heap.os().filled.store(true, Ordering::Relaxed);
    heap.alloc(2 * BLOCK, 1).unwrap();
    heap.alloc(2 * BLOCK, 1).unwrap();
    let cache = PageCache::new();
    for _ in 0..3 * THREAD_PAGES {
        // SAFETY: this thread alone uses the cache.
        unsafe { heap.alloc_cached(&cache, 1) }.unwrap();
    }
    heap.alloc_roomy(4 * BLOCK, 1).unwrap();
    assert_eq!((heap.os().asked(), heap.os().expected()), (vec![], vec![]));
    heap.set_huge_pages(HugePages::Advise);
    heap.alloc_roomy(4 * BLOCK, 1).unwrap();
    assert_ne!(heap.os().expected(), [], "from then on");
}

#[test]
fn a_heap_that_is_told_to_always_asks() {
    let heap = heap();
    heap.set_huge_pages(HugePages::Always);
    assert_eq!(heap.huge_pages(), HugePages::Always);
    let first = heap.alloc(1, 1).unwrap().address / PAGE_BYTES;
    let block = |number: usize| (first / BLOCK + number) * BLOCK * PAGE_BYTES;
    assert_eq!(heap.os().expected(), [(block(0), BLOCK)], "for the first page already");
    for _ in first % BLOCK + 1..BLOCK {
        heap.alloc(1, 1).unwrap();
    }
    assert_eq!(heap.os().expected(), [], "once for each block");
    let run = heap.alloc(2 * BLOCK + 1, 1).unwrap();
    assert_eq!(heap.os().expected(), [(block(1), 3 * BLOCK)]);
    assert_eq!(heap.os().asked(), [], "nothing has to be known");
    // SAFETY: nobody uses the run.
    unsafe { heap.free(run.address, run.pages) }.unwrap();
    assert_eq!(heap.release_free(usize::MAX), 3 * BLOCK, "whole blocks");
    heap.alloc(1, 1).unwrap();
    assert_eq!(heap.os().expected(), [(block(1), BLOCK)], "and again after it went back");
}

#[test]
fn memory_of_huge_pages_goes_back_though_nobody_wrote_to_it() {
    for (huge, pages) in [(HugePages::Off, 1), (HugePages::Always, BLOCK - 1)] {
        let heap = heap();
        heap.set_huge_pages(huge);
        let (_kept, freed) = (heap.alloc(1, BLOCK).unwrap(), heap.alloc(1, 1).unwrap());
        // SAFETY: nobody uses the run.
        unsafe { heap.free(freed.address, 1) }.unwrap();
        assert_eq!(heap.release_all(usize::MAX), pages, "{huge:?}");
    }
}
