//! Limits on the memory of the process, of both allocators. None of them is the one of this program.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use spanalloc::limits::{self, Pressure};
use spanalloc::{Checked, Spanalloc, checked, stats};
use spanalloc_pages::{PAGE_BYTES, PageStats};

const MB: usize = 1 << 20;
const LIMIT: usize = 64 * MB;

/// The limits are those of the process: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `test` without any limits around it, in a thread of its own that has ended afterwards: no other thread
/// has a cache then, which would be asked for what it keeps before anybody is told.
fn alone(test: fn()) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::spawn(test).join().unwrap();
    limits::set_hard(usize::MAX);
    limits::set_soft(usize::MAX);
    limits::on_pressure(None);
}

/// An allocator and the bytes that its heap holds, pages and tables.
trait Heap: GlobalAlloc + Copy + Send + Sync {
    fn committed() -> usize;
}

/// Pages that became metadata are counted as both.
fn held(pages: PageStats) -> usize {
    pages.committed + pages.metadata_committed - pages.metadata_pages * PAGE_BYTES
}

impl Heap for Spanalloc {
    fn committed() -> usize {
        held(stats::snapshot().pages)
    }
}

impl Heap for Checked {
    fn committed() -> usize {
        held(checked::snapshot().pages)
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Objects of one size, as many as fit `bytes` or as there is memory for.
fn fill(heap: impl Heap, size: usize, bytes: usize) -> Vec<usize> {
    let mut objects = Vec::new();
    while objects.len() * size < bytes {
        // SAFETY: the size is not 0.
        let object = unsafe { heap.alloc(layout(size)) };
        if object.is_null() {
            break;
        }
        // SAFETY: the object has this size.
        unsafe { object.write_bytes(1, size.min(5000)) };
        objects.push(object.expose_provenance());
    }
    objects
}

fn empty(heap: impl Heap, size: usize, objects: Vec<usize>) {
    for object in objects {
        // SAFETY: the objects are of this heap, have this size, and are not used any more.
        unsafe { heap.dealloc(std::ptr::with_exposed_provenance_mut(object), layout(size)) };
    }
}

const SIZES: [usize; 6] = [64, 1000, 30_000, 40_000, MB, 9 * MB];

fn memory_ends_and_comes_back<H: Heap>(heap: H) {
    limits::set_hard(LIMIT);
    for round in 0..3 {
        for size in SIZES {
            let objects = fill(heap, size, usize::MAX);
            assert!(objects.len() * size > LIMIT * 3 / 4, "round {round}: {size}");
            assert!(H::committed() <= LIMIT);
            // SAFETY: the size is not 0; the first object is live.
            unsafe {
                let first = std::ptr::with_exposed_provenance_mut(objects[0]);
                assert!(heap.alloc_zeroed(layout(2 * LIMIT)).is_null());
                assert!(heap.realloc(first, layout(size), 2 * LIMIT).is_null());
            }
            empty(heap, size, objects);
        }
    }
    let work = |thread: usize| {
        for round in 0..24 {
            let size = SIZES[(round + thread) % SIZES.len()];
            let objects = fill(heap, size, usize::MAX);
            empty(heap, size, objects);
        }
    };
    std::thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || work(thread)));
        // Joined one by one, the threads have ended: with their caches.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert!(H::committed() <= LIMIT);
    let objects = fill(heap, 1000, usize::MAX);
    assert!(objects.len() * 1000 > LIMIT * 3 / 4, "what the threads had is there again");
    empty(heap, 1000, objects);
    limits::set_hard(usize::MAX);
    let object = fill(heap, 2 * LIMIT, 1);
    assert_eq!(object.len(), 1);
    empty(heap, 2 * LIMIT, object);
}

#[test]
fn under_a_hard_limit_memory_ends_and_comes_back() {
    alone(|| memory_ends_and_comes_back(Spanalloc));
    alone(|| memory_ends_and_comes_back(Checked));
}

/// How often somebody was told, and the most and the least that was committed then.
static TOLD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// What the listener frees.
static DROPPED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn listen<H: Heap + Default>(pressure: Pressure) {
    TOLD.fetch_add(1, Ordering::Relaxed);
    MOST.fetch_max(pressure.committed, Ordering::Relaxed);
    assert!(pressure.committed > pressure.limit && pressure.limit == LIMIT);
    let heap = H::default();
    // It may use the allocator that calls it.
    let objects = fill(heap, 3000, 4 * MB);
    empty(heap, 3000, objects);
    empty(heap, 1000, std::mem::take(&mut *DROPPED.lock().unwrap()));
}

fn memory_goes_back_and_somebody_is_told<H: Heap + Default>(heap: H) {
    TOLD.store(0, Ordering::Relaxed);
    MOST.store(0, Ordering::Relaxed);
    limits::set_soft(LIMIT);
    limits::on_pressure(Some(listen::<H>));
    let told = || TOLD.load(Ordering::Relaxed);
    for _ in 0..3 {
        for size in SIZES {
            let objects = fill(heap, size, LIMIT * 3 / 4);
            empty(heap, size, objects);
            assert!(H::committed() <= LIMIT + LIMIT / 8, "{size}: {}", H::committed());
        }
    }
    assert_eq!(told(), 0, "{}", MOST.load(Ordering::Relaxed));
    for round in 1..=3 {
        // A cache of the program, which it can do without.
        *DROPPED.lock().unwrap() = fill(heap, 1000, LIMIT / 2);
        let objects = fill(heap, 64, LIMIT * 3 / 4);
        assert_eq!(told(), round, "once");
        assert!(DROPPED.lock().unwrap().is_empty());
        empty(heap, 64, objects);
        let object = fill(heap, 9 * MB, 1);
        empty(heap, 9 * MB, object);
        assert!(H::committed() <= LIMIT + LIMIT / 8, "{}", H::committed());
    }
    assert!(MOST.load(Ordering::Relaxed) <= LIMIT + LIMIT / 4);
    // An object that grows comes to the limit as well, and so do zeros.
    let grow = |from: usize, to: usize| {
        // SAFETY: the sizes are not 0; the object is used here only.
        unsafe {
            let object = heap.alloc_zeroed(layout(from));
            let moved = heap.realloc(object, layout(from), to);
            assert!(!object.is_null() && !moved.is_null());
            heap.dealloc(moved, layout(to));
        }
    };
    grow(MB, 2 * LIMIT);
    assert_eq!(told(), 4);
    grow(9 * MB, 10 * MB);
    grow(2 * LIMIT, 2 * LIMIT + MB);
    assert_eq!(told(), 5);
    // Nothing else can be refused for it.
    limits::on_pressure(None);
    limits::set_soft(0);
    let objects = fill(heap, 1000, LIMIT);
    assert_eq!(objects.len(), LIMIT.div_ceil(1000));
    empty(heap, 1000, objects);
    let object = fill(heap, 9 * MB, 1);
    empty(heap, 9 * MB, object);
    let one = fill(heap, 9 * MB, 1);
    assert!(H::committed() <= 24 * MB, "{} are left", H::committed());
    empty(heap, 9 * MB, one);
}

#[test]
fn above_a_soft_limit_memory_goes_back_and_then_somebody_is_told() {
    alone(|| memory_goes_back_and_somebody_is_told(Spanalloc));
    alone(|| memory_goes_back_and_somebody_is_told(Checked));
}

fn another_thread_is_asked_first<H: Heap + Default>(heap: H) {
    TOLD.store(0, Ordering::Relaxed);
    limits::set_soft(LIMIT);
    limits::on_pressure(Some(listen::<H>));
    // Whoever fails drops its ends, which wakes the other.
    let (keeps, kept) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let objects = fill(heap, 1000, MB);
            empty(heap, 1000, objects);
            keeps.send(()).unwrap();
            ended.recv().unwrap_err();
        });
        kept.recv().unwrap();
        let large = fill(heap, 2 * LIMIT, 1);
        assert_eq!(TOLD.load(Ordering::Relaxed), 0, "the other thread had no time to answer");
        let more = fill(heap, 1000, LIMIT / 4);
        assert_eq!(TOLD.load(Ordering::Relaxed), 1, "it had");
        empty(heap, 2 * LIMIT, large);
        empty(heap, 1000, more);
        drop(end);
    });
    limits::on_pressure(None);
    limits::set_soft(0);
    empty(heap, 9 * MB, fill(heap, 9 * MB, 1));
}

#[test]
fn another_thread_may_give_back_memory_before_somebody_is_told() {
    alone(|| another_thread_is_asked_first(Spanalloc));
    alone(|| another_thread_is_asked_first(Checked));
}
