//! Caches over a heap with limits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::alloc::Layout;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Mutex;

use spanalloc_cache::{Checked, Fast, Policy, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::Mmap;
use spanalloc_pages::{Listener, PageHeap, Pages as _};
use spanalloc_testkit::Returning;

const MB: usize = 1 << 20;

type Heap = PageHeap<Returning<Mmap>>;
type Lists<'a> = CentralLists<Go67, &'a Heap>;
type Cache<'a, P> = ThreadCache<&'a Lists<'a>, P>;

fn heap() -> Heap {
    // SAFETY: the heap and everything above it are gone before the source is.
    PageHeap::new(unsafe { Returning::new(Mmap::new()) })
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Objects of one size, as many as fit `bytes` or as there is memory for.
fn fill<P: Policy>(cache: &mut Cache<'_, P>, size: usize, bytes: usize) -> Vec<NonNull<u8>> {
    let mut objects = Vec::new();
    while objects.len() * size < bytes {
        let Some(object) = cache.alloc(layout(size)) else { break };
        // SAFETY: the object has this size.
        unsafe { object.write_bytes(1, size.min(5000)) };
        objects.push(object);
    }
    objects
}

fn empty<P: Policy>(cache: &mut Cache<'_, P>, size: usize, objects: Vec<NonNull<u8>>) {
    for object in objects {
        // SAFETY: the objects are of this cache's heap, have this size, and are not used any more.
        unsafe { cache.free(object, layout(size)) };
    }
}

const SIZES: [usize; 7] = [48, 1000, 8192, 30_000, 40_000, MB, 9 * MB];

fn under_a_hard_limit<P: Policy>() {
    const LIMIT: usize = 32 * MB;
    let heap = heap();
    let central = Lists::new(&heap);
    let mut cache = Cache::<P>::with_policy(&central);
    heap.set_hard_limit(LIMIT);
    for round in 0..4 {
        for size in SIZES {
            let mut objects = fill(&mut cache, size, usize::MAX);
            let bytes = objects.len() * size;
            assert!(heap.committed() <= LIMIT);
            assert!(bytes >= LIMIT * 3 / 4, "round {round}: {bytes} bytes of {size}");
            assert!(cache.alloc_zeroed(layout(64 * MB)).is_none());
            // SAFETY: the first object is live.
            assert!(unsafe { cache.realloc(objects[0], layout(size), 64 * MB) }.is_none());
            let half = objects.split_off(objects.len() / 2);
            let count = half.len();
            empty(&mut cache, size, half);
            let again = fill(&mut cache, size, usize::MAX);
            assert!(again.len() >= count * 9 / 10, "{} after {count} were freed", again.len());
            empty(&mut cache, size, objects);
            empty(&mut cache, size, again);
        }
    }
    assert_eq!(cache.snapshot().unwrap().live_objects(), 0);
    drop(cache);
    // All of it can go, but for the tables.
    heap.set_soft_limit(0);
    let mut cache = Cache::<P>::with_policy(&central);
    let one = fill(&mut cache, 40_000, 40_000);
    empty(&mut cache, 40_000, one);
    let stats = heap.stats();
    assert!(stats.committed <= stats.pages_in_use * 8192 + 4 * MB, "{stats:?}");
    assert!(heap.committed() <= 8 * MB, "{stats:?}");
}

#[test]
fn under_a_hard_limit_memory_ends_and_comes_back() {
    under_a_hard_limit::<Fast>();
    under_a_hard_limit::<Checked>();
}

#[test]
fn under_a_hard_limit_threads_get_what_the_others_freed() {
    const LIMIT: usize = 32 * MB;
    let heap = heap();
    let central = Lists::new(&heap);
    heap.set_hard_limit(LIMIT);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let central = &central;
            scope.spawn(move || {
                let mut cache = Cache::<Fast>::with_policy(central);
                for round in 0..40 {
                    let size = SIZES[(round + thread) % SIZES.len()];
                    let objects = fill(&mut cache, size, usize::MAX);
                    empty(&mut cache, size, objects);
                }
            });
        }
    });
    assert!(heap.committed() <= LIMIT);
    let mut cache = Cache::<Fast>::with_policy(&central);
    let objects = fill(&mut cache, 1000, usize::MAX);
    assert!(objects.len() * 1000 > LIMIT / 2);
    empty(&mut cache, 1000, objects);
    assert_eq!(cache.snapshot().unwrap().live_objects(), 0);
}

/// What was told, and what the heap held then: committed bytes and those of free pages.
struct Told<'a> {
    heap: &'a Heap,
    seen: Mutex<Vec<(usize, usize)>>,
}

unsafe extern "C" fn listen(told: *mut c_void, committed: usize, limit: usize) {
    // SAFETY: the context that the tests give.
    let told = unsafe { &*told.cast::<Told<'_>>() };
    assert!(committed > limit);
    let stats = told.heap.stats();
    told.seen.lock().unwrap().push((committed, stats.committed - stats.pages_in_use * 8192));
}

fn under_a_soft_limit<P: Policy>() {
    const LIMIT: usize = 64 * MB;
    let heap = heap();
    let central = Lists::new(&heap);
    let told = Told { heap: &heap, seen: Mutex::default() };
    // SAFETY: the place outlives the caches, and may be shared.
    let listener = unsafe { Listener::new(listen, (&raw const told).cast_mut().cast()) };
    heap.set_listener(Some(listener));
    heap.set_soft_limit(LIMIT);
    let count = || told.seen.lock().unwrap().len();
    let mut caches = [(); 2].map(|()| Cache::<P>::with_policy(&central));
    for crossing in 1..=3 {
        for size in [48, 1000, 40_000, MB] {
            // What comes and goes below the limit is no matter for anybody, whatever is kept of it.
            for (busy, other) in [(0, 1), (1, 0)] {
                let mut objects = Vec::new();
                for _ in 0..40 {
                    objects.extend(fill(&mut caches[busy], size, MB));
                    let one = fill(&mut caches[other], 50_000, 50_000);
                    empty(&mut caches[other], 50_000, one);
                }
                empty(&mut caches[busy], size, objects);
            }
            assert_eq!(count(), crossing - 1, "objects of {size} bytes");
            assert!(heap.committed() <= LIMIT + LIMIT / 8, "{:?}", heap.stats());
        }
        let objects = fill(&mut caches[0], 1000, 120 * MB);
        assert_eq!(objects.len(), 120 * MB / 1000 + 1, "nothing is refused");
        assert_eq!(count(), crossing);
        let (committed, free) = told.seen.lock().unwrap()[crossing - 1];
        assert!(committed <= LIMIT + LIMIT / 4, "{committed}");
        assert!(free <= 2 * MB, "{free} bytes of free pages had not gone back");
        empty(&mut caches[0], 1000, objects);
        // It goes back as soon as somebody needs more.
        let object = fill(&mut caches[1], 9 * MB, 9 * MB);
        empty(&mut caches[1], 9 * MB, object);
        heap.release_free(usize::MAX);
    }
}

#[test]
fn above_a_soft_limit_memory_goes_back_and_then_somebody_is_told() {
    under_a_soft_limit::<Fast>();
    under_a_soft_limit::<Checked>();
}

#[test]
fn empty_spans_are_taken_from_others_and_the_rest_is_asked_for() {
    let heap = heap();
    let central = Lists::new(&heap);
    let (mut idle, mut busy) =
        (Cache::<Fast>::with_policy(&central), Cache::<Fast>::with_policy(&central));
    for (size, bytes) in [(4000, 24 * MB), (100_000, 2 * MB)] {
        let objects = fill(&mut idle, size, bytes);
        empty(&mut idle, size, objects);
    }
    let kept = || heap.stats().pages_in_use * 8192;
    assert!(kept() > 22 * MB, "{}", kept());
    heap.set_soft_limit(MB);
    let objects = fill(&mut busy, MB, 4 * MB);
    assert!((5 * MB..12 * MB).contains(&kept()), "{}", kept());
    let before = kept();
    let one = fill(&mut idle, 50_000, 50_000);
    empty(&mut idle, 50_000, one);
    assert!(kept() < before - MB, "{} of {before}", kept());
    empty(&mut busy, MB, objects);
}
