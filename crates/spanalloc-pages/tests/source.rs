//! What a page heap asks its source for besides memory: the time, random numbers, what it knows of threads, and
//! to move what is there.
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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Place, Simulated, Watched};
use spanalloc_os::{Faulty, Mmap, Native, OsError, OsSource, Report, Request, Verb};
use spanalloc_pages::{PAGE_BYTES, PageCache, PageHeap, Pages, Run};
use spanalloc_sync::Spin;

/// The thread that sleeps.
const ASLEEP: u32 = 7;

/// A source that can do all there is to be asked for.
struct Able {
    inner: Simulated,
    /// The time, in milliseconds.
    time: AtomicU64,
    /// How often somebody asked for it.
    looks: AtomicUsize,
    /// How long threads have been running: a second for each time that memory went back.
    busy: AtomicU64,
    /// The random number that comes next.
    random: AtomicU64,
}

// SAFETY: every verb is passed on to a source that keeps the contract.
unsafe impl OsSource for Able {
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
        self.busy.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.decommit(at, bytes) }
    }

    unsafe fn release(&self, at: NonNull<u8>, bytes: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.release(at, bytes) }
    }

    fn now(&self) -> Option<Duration> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Some(Duration::from_millis(self.time.load(Ordering::Relaxed)))
    }

    fn busy(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.busy.load(Ordering::Relaxed)))
    }

    fn random(&self) -> u64 {
        self.random.fetch_add(1000, Ordering::Relaxed)
    }

    fn fence_threads(&self) -> bool {
        true
    }

    fn is_asleep(&self, thread: u32) -> bool {
        thread == ASLEEP
    }

    fn die(&self, report: Report) -> ! {
        self.inner.die(report)
    }
}

fn heap() -> PageHeap<Able> {
    PageHeap::new(Able {
        inner: Simulated::new::<Native>(Place::Low, 4096),
        time: AtomicU64::new(0),
        looks: AtomicUsize::new(0),
        busy: AtomicU64::new(0),
        random: AtomicU64::new(5000),
    })
}

fn free(heap: &PageHeap<Able>, run: Run) {
    // SAFETY: the run is handed out, unused, and has no span.
    unsafe { heap.free(run.address, run.pages) }.unwrap();
}

#[test]
fn what_the_source_knows_of_threads_the_heap_knows() {
    let heap = heap();
    let borrowed = &&heap;
    assert!(heap.fence_threads() && Pages::fence_threads(borrowed));
    assert!(heap.is_asleep(ASLEEP) && Pages::is_asleep(borrowed, ASLEEP));
    assert!(!heap.is_asleep(ASLEEP + 1) && !Pages::is_asleep(borrowed, ASLEEP + 1));
    let ignorant = PageHeap::<_>::new(Simulated::new::<Native>(Place::Low, 4096));
    assert!(!ignorant.fence_threads() && !Pages::fence_threads(&&ignorant));
    assert!(!ignorant.is_asleep(ASLEEP));
}

#[test]
fn a_secret_is_the_first_random_number() {
    let heap = heap();
    let secret = heap.secret();
    assert!((5000..6000).contains(&secret));
    assert_eq!((heap.secret(), Pages::secret(&&heap)), (secret, secret), "it never changes");
    let other = self::heap();
    other.os().random.store(7000, Ordering::Relaxed);
    assert!((7000..8000).contains(&other.secret()));
    let odd = self::heap();
    odd.os().random.store(1, Ordering::Relaxed);
    assert_eq!(odd.secret(), 1);
    let ignorant = PageHeap::<_>::new(Simulated::new::<Native>(Place::Low, 4096));
    assert_ne!(ignorant.secret(), 0, "0 is none");
}

#[test]
fn threads_look_at_the_clock_when_two_megabytes_were_freed_in_a_heap_of_six() {
    let small = heap();
    let run = small.alloc(512, 256).unwrap();
    free(&small, run);
    small.tend();
    assert_eq!(small.os().looks.load(Ordering::Relaxed), 0, "4 MB are kept in any case");

    let large = heap();
    let run = large.alloc(768, 256).unwrap();
    free(&large, Run { pages: 255, ..run });
    large.tend();
    assert_eq!(large.os().looks.load(Ordering::Relaxed), 0, "too little was freed");
    free(&large, Run { address: run.address + 255 * PAGE_BYTES, pages: 1, ..run });
    large.tend();
    assert_ne!(large.os().looks.load(Ordering::Relaxed), 0);
}

#[test]
fn what_threads_give_back_is_paid_for_with_the_time_they_run() {
    let heap = heap();
    let work_until = |second: u64| {
        while heap.os().time.fetch_add(100, Ordering::Relaxed) < second * 1000 {
            let run = heap.alloc(256, 1).unwrap();
            free(&heap, run);
            heap.tend();
        }
        heap.stats().returned_in_all as usize / PAGE_BYTES
    };
    let large = heap.alloc(64 * 256, 256).unwrap();
    free(&heap, large);
    // A piece takes a second, for which there is credit after 200.
    assert_eq!(work_until(100), 256);
    assert_eq!(work_until(300), 2 * 256);
}

/// Memory that is not there yet is not to be needed; less is copied faster than it is moved.
#[test]
#[cfg(target_os = "linux")]
fn memory_is_moved_from_4_megabytes_on_and_from_32_to_where_some_is() {
    for (pages, dirty, moved) in
        [(511, false, 0), (512, false, 1), (4095, true, 0), (4096, true, 1)]
    {
        let heap: PageHeap<Faulty<Mmap>> = PageHeap::new(Faulty::new(Mmap::new()));
        let from = heap.alloc(pages, 1).unwrap();
        let mut to = heap.alloc(pages, 1).unwrap();
        if dirty {
            // SAFETY: the run is handed out, unused, and has no span.
            unsafe { heap.free(to.address, pages) }.unwrap();
            to = heap.alloc(pages, 1).unwrap();
        }
        assert_eq!(to.zeroed, !dirty);
        heap.os().fail_from(Verb::Relocate, 1);
        // SAFETY: both runs are handed out and have no spans; the second is unused.
        let done = unsafe { heap.relocate(from.address, to, pages) };
        assert_eq!((heap.os().failures(Verb::Relocate), done), (moved, moved == 0), "{pages}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_guard_is_counted_until_it_is_a_page_again() {
    let heap: PageHeap<Mmap> = PageHeap::new(Mmap::new());
    let run = heap.alloc(1, 1).unwrap();
    // SAFETY: the page is handed out, and nobody uses it.
    unsafe {
        assert!(heap.guard(run.address));
        assert_eq!(heap.stats().guard_pages, 1);
        assert!(heap.unguard(run.address));
    }
    assert_eq!(heap.stats().guard_pages, 0);
}

/// Pages that a thread takes at once become Ready by 2 MB, or if that is refused, themselves.
#[test]
fn all_that_a_thread_takes_is_ready() {
    let source = Watched::new(Simulated::new::<Native>(Place::Low, 4096));
    let heap: PageHeap<Faulty<Watched<Simulated>>> = PageHeap::new(Faulty::new(source));
    heap.alloc(256, 256).unwrap();
    let cache = PageCache::new();
    heap.os().fail_nth(Verb::Commit, 1);
    // SAFETY: this thread alone uses the cache.
    let run = unsafe { heap.alloc_cached(&cache, 1) }.unwrap();
    assert_eq!(heap.os().failures(Verb::Commit), 1);
    assert_eq!(heap.stats().committed, (256 + 64) * PAGE_BYTES);
    assert!(heap.os().inner().is_ready(run.address, 64));
}
