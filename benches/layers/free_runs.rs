//! What an allocation and its free cost with 10, 1,000 and 100,000 free runs in the heap.
//!
//! Every second page is in use, so each free run is one page. `behind` asks for two pages, which
//! only fit behind all of the runs; `first` asks for one page, which fits into the first of them;
//! `middle` frees and takes a page between the runs. The source makes addresses up, so that no
//! system call is measured.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

mod settings;

use std::alloc::{Layout, alloc_zeroed};
use std::hint::black_box;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use spanalloc_os::{OsError, OsSource, Purpose, Report, Request};
use spanalloc_pages::{PAGE_BYTES, PageCache, PageHeap, Pages};
use spanalloc_sync::Spin;

/// Arena addresses from 64 MB upwards, with no memory behind them; metadata is real.
struct Addresses(AtomicUsize);

// SAFETY: addresses are handed out once, and nothing here touches arena memory.
unsafe impl OsSource for Addresses {
    type Wait = Spin;

    fn page_bytes(&self) -> usize {
        4096
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let refused = OsError::OutOfMemory { bytes: request.bytes };
        if request.purpose == Purpose::Metadata {
            let layout = Layout::from_size_align(request.bytes, request.align.max(4096)).unwrap();
            // SAFETY: the size is not zero.
            return NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(refused);
        }
        let bytes = request.bytes.next_multiple_of(64 << 20);
        let address = self.0.fetch_add(bytes, Ordering::Relaxed);
        NonNull::new(ptr::without_provenance_mut(address)).ok_or(refused)
    }

    unsafe fn commit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    unsafe fn decommit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    unsafe fn release(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Err(OsError::Unsupported)
    }

    fn die(&self, _report: Report) -> ! {
        std::process::abort()
    }
}

/// A heap with `runs` free runs of one page, each between two pages in use; all pages behind are
/// free. Returns the address of its first page too.
fn fragmented(runs: usize) -> (PageHeap<Addresses>, usize) {
    let heap = PageHeap::new(Addresses(AtomicUsize::new(64 << 20)));
    let all = heap.alloc(2 * runs + 1, 1).unwrap();
    for run in 0..runs {
        // SAFETY: the page is handed out and nobody uses it.
        unsafe { heap.free(all.address + (2 * run + 1) * PAGE_BYTES, 1) }.unwrap();
    }
    (heap, all.address)
}

fn free_runs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("free_runs");
    for runs in [10, 1_000, 100_000] {
        let (heap, first) = fragmented(runs);
        for (name, pages) in [("behind", 2), ("first", 1)] {
            group.bench_function(BenchmarkId::new(name, runs), |bench| {
                bench.iter(|| {
                    let run = heap.alloc(black_box(pages), 1).unwrap();
                    // SAFETY: the run is handed out and nobody uses it.
                    unsafe { heap.free(run.address, run.pages) }.unwrap();
                    run.address
                });
            });
        }
        let middle = first + (runs & !1) * PAGE_BYTES;
        group.bench_function(BenchmarkId::new("middle", runs), |bench| {
            bench.iter(|| {
                // SAFETY: the page is handed out and nobody uses it; then the heap has it.
                unsafe { heap.free(black_box(middle), 1) }.unwrap();
                // SAFETY: the page before it is the heap's.
                unsafe { heap.extend(middle - PAGE_BYTES, 1, 1) }.unwrap()
            });
        });
        let cache = PageCache::new();
        group.bench_function(BenchmarkId::new("page cache", runs), |bench| {
            bench.iter(|| {
                // SAFETY: this thread alone uses the cache; the run is handed out and unused.
                unsafe {
                    let run = heap.alloc_cached(&cache, black_box(1)).unwrap();
                    heap.free_cached(&cache, run.address, run.pages).unwrap();
                    run.address
                }
            });
        });
        // SAFETY: this thread alone uses the cache.
        unsafe { heap.flush(&cache) };
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = settings::criterion();
    targets = free_runs
}
criterion_main!(benches);
