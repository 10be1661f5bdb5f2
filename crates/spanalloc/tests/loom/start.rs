//! Threads that begin at the same time, while calls from within each find it half done.
//!
//! The file of the slot is compiled here once more, over a page heap of numbers. Each thread of a model has
//! a slot of its own; the pthread key is real.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr;

use loom::thread as model;
use spanalloc_cache::Fast;
use spanalloc_central::Central as _;
use spanalloc_sync::atomic::{AtomicUsize, Ordering};
use spanalloc_testkit::models::{Builder, FakePages, Futex, check_with, explored};

use crate::program::{CacheOf, Central, Program, Stages, State};
use crate::slot;
use crate::thread;

/// The allocator of a model.
#[derive(Debug)]
struct Model;

static IMAGE: Central = Central::new(FakePages);
static STAGES: Stages<Fast> = Stages::new();

std::thread_local! {
    // All threads of a model run on the thread of its test.
    static CENTRAL: Cell<*const Central> = const { Cell::new(ptr::null()) };
    static KEY: Cell<*const AtomicUsize> = const { Cell::new(ptr::null()) };
    static SLOTS: RefCell<HashMap<usize, *const State<Fast>>> = RefCell::default();
    static WITHIN: Cell<bool> = const { Cell::new(false) };
    /// Calls from within that found no cache, and that found one.
    static CALLS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

impl Model {
    fn reset() {
        Futex::reset();
        FakePages::reset();
        slot::reset();
        SLOTS.with_borrow_mut(HashMap::clear);
        let lists = Box::<Central>::new_uninit();
        let lists = Box::leak(lists).as_mut_ptr();
        // SAFETY: lists hold no pointer to themselves, need no drop, and the image is never used.
        unsafe { ptr::copy_nonoverlapping(&raw const IMAGE, lists, 1) };
        CENTRAL.set(lists);
        KEY.set(Box::leak(Box::new(AtomicUsize::new(0))));
    }

    /// Gives the memory of an interleaving back, and its key.
    fn end() {
        let key = Self::exit_key().load(Ordering::Relaxed);
        let key = libc::pthread_key_t::try_from(key - 1).unwrap();
        // SAFETY: the key was created, and nobody uses it any more; both boxes were leaked in `reset`.
        unsafe {
            assert_eq!(libc::pthread_key_delete(key), 0, "the key is not there");
            drop(Box::from_raw(KEY.get().cast_mut()));
            drop(Box::from_raw(CENTRAL.get().cast_mut()));
        }
    }

    /// A call from within the start of a thread: once at each place, for it would call itself.
    fn call_from_within() {
        if WITHIN.replace(true) {
            return;
        }
        let (none, some) = CALLS.get();
        match thread::stage::<Self>() {
            thread::Stage::Starting => {
                assert!(thread::cache::<Self>().is_none(), "two caches of one thread");
                CALLS.set((none + 1, some));
            }
            thread::Stage::Live(cache) => {
                let found = thread::cache::<Self>().unwrap();
                assert!(ptr::eq(found.state(), cache.state()));
                CALLS.set((none, some + 1));
            }
            thread::Stage::Unset | thread::Stage::Ended => {}
        }
        WITHIN.set(false);
    }
}

impl Program for Model {
    type Policy = Fast;

    fn central() -> &'static Central {
        Self::call_from_within();
        // SAFETY: made in `reset`, and there until the end of the interleaving.
        unsafe { &*CENTRAL.get() }
    }

    fn stages() -> &'static Stages<Fast> {
        &STAGES
    }

    fn exit_key() -> &'static AtomicUsize {
        Self::call_from_within();
        // SAFETY: as in `central`.
        unsafe { &*KEY.get() }
    }

    fn slot() -> *const State<Fast> {
        let me = slot::identity();
        SLOTS.with_borrow(|slots| slots.get(&me).copied()).unwrap_or(&raw const STAGES.unset)
    }

    fn set_slot(state: *const State<Fast>) {
        SLOTS.with_borrow_mut(|slots| slots.insert(slot::identity(), state));
    }

    unsafe fn close(_cache: CacheOf<Self>) {
        unreachable!("the exit of each thread could be watched");
    }
}

/// The state of the calling thread's cache, which is made now.
fn start() -> usize {
    let cache = thread::cache::<Model>().unwrap();
    assert!(matches!(thread::stage::<Model>(), thread::Stage::Live(_)));
    ptr::from_ref(cache.state()).addr()
}

fn two_threads_begin() {
    Model::reset();
    let other = model::spawn(start);
    let here = start();
    assert_ne!(other.join().unwrap(), here, "two threads have one cache");
    let mut owners = 0;
    Model::central().for_each_owner(|owner| {
        owners += 1;
        // SAFETY: owners are never unmapped.
        assert!(unsafe { owner.as_ref() }.is_active());
    });
    assert_eq!(owners, 2);
    Model::end();
}

// Exhaustive: 261 interleavings.
#[test]
fn two_threads_begin_with_calls_from_within() {
    let mut builder = Builder::new();
    builder.max_branches = 100_000;
    explored("start", check_with(&builder, two_threads_begin), 200);
    let (none, some) = CALLS.get();
    assert!(none > 0 && some > 0);
}
