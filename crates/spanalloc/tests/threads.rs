//! The unusual moments of a thread's life: before main, without an allocation, after the end.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use common::{alone, settled};
use spanalloc::Spanalloc;
use spanalloc_testkit::pattern;

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

/// One size of each path, and the alignments that go with them.
const LAYOUTS: [(usize, usize); 7] =
    [(0, 1), (3, 1), (16, 16), (48, 8), (1000, 64), (20_000, 8), (100_000, 16384)];

fn layout(kind: usize) -> Layout {
    let (size, align) = LAYOUTS[kind % LAYOUTS.len()];
    Layout::from_size_align(size, align).unwrap()
}

/// Allocates an object of each path and fills it.
fn make(kind: usize) -> *mut u8 {
    let layout = layout(kind);
    // SAFETY: the allocator serves every layout; the object is filled within its size.
    unsafe {
        let object = ALLOCATOR.alloc(layout);
        assert!(!object.is_null());
        assert_eq!(object.addr() % layout.align(), 0);
        pattern::fill(object, 0, layout.size(), kind as u64);
        object
    }
}

/// Checks an object and frees it.
///
/// # Safety
/// The object was made by `make` with this kind and is live.
unsafe fn free(object: *mut u8, kind: usize) {
    let layout = layout(kind);
    // SAFETY: the caller's promise.
    unsafe {
        pattern::check(object, layout.size(), kind as u64).unwrap();
        ALLOCATOR.dealloc(object, layout);
    }
}

/// Every operation of the allocator, on each path; nothing is left.
fn exercise(times: usize) {
    let mut objects = Vec::new();
    for kind in 0..times {
        objects.push(make(kind));
    }
    for (kind, object) in objects.into_iter().enumerate() {
        // SAFETY: made just now.
        unsafe { free(object, kind) };
    }
    // SAFETY: each object is used within its size, and freed with the layout it has.
    unsafe {
        let small = Layout::from_size_align(40, 8).unwrap();
        let object = ALLOCATOR.alloc_zeroed(small);
        pattern::check_zero(object, 40).unwrap();
        pattern::fill(object, 0, 40, 77);
        let grown = ALLOCATOR.realloc(object, small, 70_000);
        pattern::check(grown, 40, 77).unwrap();
        ALLOCATOR.dealloc(grown, Layout::from_size_align(70_000, 8).unwrap());
    }
}

/// Objects made by `before_main`.
static BEFORE_MAIN: [AtomicPtr<u8>; 700] = [const { AtomicPtr::new(ptr::null_mut()) }; 700];
/// A key that is older than the allocator's own; its number.
static EARLY_KEY: AtomicUsize = AtomicUsize::new(usize::MAX);

#[unsafe(link_section = ".init_array")]
#[used]
static AT_START: extern "C" fn() = before_main;

extern "C" fn before_main() {
    // A key that is older than the allocator's own, so that its destructor comes first.
    EARLY_KEY.store(new_key() as usize, Ordering::Relaxed);
    for (kind, place) in BEFORE_MAIN.iter().enumerate() {
        place.store(make(kind), Ordering::Relaxed);
    }
}

#[test]
fn what_was_allocated_before_main_lives_and_can_be_freed() {
    let _alone = alone();
    for (kind, place) in BEFORE_MAIN.iter().enumerate() {
        let object = place.swap(ptr::null_mut(), Ordering::Relaxed);
        assert!(!object.is_null(), "the constructor ran");
        // SAFETY: made before main with this kind.
        unsafe { free(object, kind) };
    }
    exercise(100);
}

/// Runs `body` in a thread of which the Rust runtime knows nothing.
fn in_a_bare_thread(body: extern "C" fn(*mut c_void) -> *mut c_void, argument: *mut c_void) {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the arguments are valid; the thread is joined before the argument goes.
    unsafe {
        let made = libc::pthread_create(thread.as_mut_ptr(), ptr::null(), body, argument);
        assert_eq!(made, 0);
        assert_eq!(libc::pthread_join(thread.assume_init(), ptr::null_mut()), 0);
    }
}

#[test]
fn a_thread_that_only_frees() {
    extern "C" fn body(argument: *mut c_void) -> *mut c_void {
        // SAFETY: the argument is the vector of the test below.
        let objects = unsafe { &*argument.cast::<Vec<*mut u8>>() };
        for (kind, object) in objects.iter().enumerate() {
            // SAFETY: made by the test with this kind.
            unsafe { free(*object, kind) };
        }
        ptr::null_mut()
    }
    let _alone = alone();
    for count in [1, 10, 3000] {
        let mut objects: Vec<*mut u8> = (0..count).map(make).collect();
        let before = settled();
        in_a_bare_thread(body, ptr::from_mut(&mut objects).cast());
        let after = settled();
        let freed = before.live_objects().saturating_sub(after.live_objects());
        // The test harness has its own few objects.
        assert!(freed.abs_diff(count) < 50, "{freed} objects were freed, not {count}");
    }
}

#[test]
fn destructors_of_thread_locals_allocate_and_free() {
    struct Last(RefCell<Vec<*mut u8>>);

    impl Drop for Last {
        fn drop(&mut self) {
            exercise(50);
            for (kind, object) in self.0.borrow_mut().drain(..).enumerate() {
                // SAFETY: made by the thread with this kind.
                unsafe { free(object, kind) };
            }
            NESTED.with(|nested| nested.set(Some(Box::new([7; 100]))));
            exercise(50);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static LAST: Last = const { Last(RefCell::new(Vec::new())) };
        static NESTED: Cell<Option<Box<[u8; 100]>>> = const { Cell::new(None) };
    }

    let _alone = alone();
    let before = settled();
    for _ in 0..50 {
        std::thread::spawn(|| {
            LAST.with(|last| last.0.borrow_mut().extend((0..300).map(make)));
        })
        .join()
        .unwrap();
    }
    assert_eq!(DROPPED.load(Ordering::Relaxed), 50);
    let after = settled();
    assert!(after.live_objects() <= before.live_objects() + 50);
}

/// Rounds in which the C library runs the destructors of keys that were set again meanwhile.
const ROUNDS: usize = 4;
/// Runs of `re_arms`.
static KEY_RUNS: AtomicUsize = AtomicUsize::new(0);

/// What a key holds: which round it is, and an object made in the round before.
struct Held {
    key: libc::pthread_key_t,
    round: usize,
    object: *mut u8,
}

/// What a heap that is full to the brim commits for one object more, in bytes. Far less than the
/// caches of the threads of a test would take if they were left behind.
const ONE_STEP: usize = 2 << 20;

/// The destructor of all keys of these tests.
unsafe extern "C" fn re_arms(value: *mut c_void) {
    KEY_RUNS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the value is a `Held` that was boxed by `arm`, and this is its only use.
    unsafe {
        let held = Box::from_raw(value.cast::<Held>());
        free(held.object, held.round);
        exercise(7);
        let snapshot = spanalloc::stats::snapshot();
        assert!(snapshot.live_objects() > 0);
        if held.round + 1 < ROUNDS {
            arm(held.key, held.round + 1);
        }
    }
}

fn new_key() -> libc::pthread_key_t {
    let mut key = 0;
    // SAFETY: `key` is valid for writing, and the destructor has the right signature.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(re_arms)) }, 0);
    key
}

fn arm(key: libc::pthread_key_t, round: usize) {
    let held = Box::into_raw(Box::new(Held { key, round, object: make(round) }));
    // SAFETY: the key exists.
    assert_eq!(unsafe { libc::pthread_setspecific(key, held.cast()) }, 0);
}

#[test]
fn destructors_of_keys_allocate_after_the_cache_is_gone() {
    extern "C" fn body(argument: *mut c_void) -> *mut c_void {
        // SAFETY: the argument is the vector of the test below.
        let keys = unsafe { &*argument.cast::<Vec<libc::pthread_key_t>>() };
        for key in keys {
            arm(*key, 0);
        }
        ptr::null_mut()
    }
    const THREADS: usize = 40;
    let _alone = alone();
    // More than the 32 keys for which the C library has room without allocating.
    let mut keys: Vec<libc::pthread_key_t> = (0..60).map(|_| new_key()).collect();
    let early = EARLY_KEY.load(Ordering::Relaxed);
    keys.push(libc::pthread_key_t::try_from(early).unwrap());
    KEY_RUNS.store(0, Ordering::Relaxed);
    let mut live = Vec::new();
    let mut committed = Vec::new();
    for _ in 0..THREADS {
        in_a_bare_thread(body, ptr::from_mut(&mut keys).cast());
        let snapshot = settled();
        live.push(snapshot.live_objects());
        committed.push(snapshot.pages.committed + snapshot.pages.metadata_committed);
    }
    assert_eq!(KEY_RUNS.load(Ordering::Relaxed), THREADS * keys.len() * ROUNDS);
    // Nothing is left behind by a thread, and the heap stays as it is after a few.
    assert!(live[THREADS - 1] <= live[10] + 10, "{live:?}");
    assert!(committed[THREADS - 1] <= committed[10] + ONE_STEP, "{committed:?}");
    for key in keys {
        // SAFETY: no thread holds a value of the key any more.
        unsafe { libc::pthread_key_delete(key) };
    }
}

#[test]
fn objects_of_ended_threads_are_freed_by_others() {
    let _alone = alone();
    let before = settled();
    let mut committed = Vec::new();
    for _ in 0..100 {
        let objects =
            std::thread::spawn(|| (0..500).map(|kind| make(kind) as usize).collect::<Vec<_>>())
                .join()
                .unwrap();
        std::thread::spawn(move || {
            for (kind, object) in objects.into_iter().enumerate() {
                // SAFETY: made by the first thread with this kind.
                unsafe { free(ptr::with_exposed_provenance_mut(object), kind) };
            }
        })
        .join()
        .unwrap();
        committed.push(spanalloc::stats::snapshot().pages.committed);
    }
    let after = settled();
    assert!(after.live_objects() <= before.live_objects() + 50);
    assert!(committed[99] <= committed[10] + ONE_STEP, "{committed:?}");
}

#[test]
fn snapshots_while_others_work() {
    let _alone = alone();
    let done = AtomicBool::new(false);
    let exchange: Mutex<Vec<Box<[u8; 48]>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // Each frees what another one allocated, as a rule, and ends.
                while !done.load(Ordering::Relaxed) {
                    let body = || {
                        let mine = (0..1000).map(|_| Box::new([1; 48])).collect();
                        drop(std::mem::replace(&mut *exchange.lock().unwrap(), mine));
                    };
                    std::thread::scope(|scope| drop(scope.spawn(body)));
                }
            });
        }
        for _ in 0..3000 {
            // It need not add up now, but every number is one that can be.
            let snapshot = spanalloc::stats::snapshot();
            for row in snapshot.rows() {
                assert!(row.live <= row.slots && row.free <= row.slots, "{row:?}");
                assert!(row.objects <= row.slots * 16, "{row:?}");
            }
            assert!(snapshot.live_objects() <= isize::MAX as usize);
            let figures = spanalloc::stats::Figures::of(&snapshot);
            let sum: usize = figures.parts().iter().map(|part| part.bytes).sum();
            assert_eq!(sum, figures.reserved, "{figures:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    settled();
}
