//! The lock in every interleaving of its threads.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc-sync --test loom`
//!
//! A model is exhaustive unless its comment gives a bound. Each prints how many interleavings it
//! had (`--nocapture` shows them) and demands at least most of them: a model that has shrunk to a
//! few paths proves nothing.
//!
//! At most one thread of a model spins while another one waits too: two spinning waiters can yield
//! to each other for ever, and loom does not end such a path. More waiters than one sleep.
#![cfg(loom)]
#![allow(
    clippy::arc_with_non_send_sync,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking and are not an interface"
)]

use std::sync::Arc;

use loom::thread;
use spanalloc_sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence,
};
use spanalloc_sync::cell::UnsafeCell;
use spanalloc_sync::fault::{self, Fault};
use spanalloc_sync::lease::{Entry, Lease};
use spanalloc_sync::valve::{Inlet, Outlet};
use spanalloc_sync::{Counter, Lock, Spin, Wait, model};
use spanalloc_testkit::models::{Futex, explored, with_fault};

/// Runs `threads` threads (the model's own is one of them) that each add one to what the lock
/// guards. Loom watches that each has the data alone from `lock` to the drop of the guard, and that
/// it sees what the one before wrote.
fn count_with<W: Wait + 'static>(threads: usize) {
    let lock = Arc::new(Lock::<usize, W, 10>::new(0));
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || *lock.lock() += 1)
        })
        .collect();
    *lock.lock() += 1;
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(*lock.lock(), threads);
}

// Exhaustive: 21 interleavings.
#[test]
fn two_spinning_threads_exclude_each_other() {
    let interleavings = model::check(|| count_with::<Spin>(2));
    explored("two spinning", interleavings, 20);
}

// Exhaustive: 3,421 interleavings.
#[test]
fn three_threads_exclude_each_other() {
    let interleavings = model::check(|| {
        let lock = Arc::new(Lock::<usize, Spin, 10>::new(0));
        let tries: Vec<_> = (0..2)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || match lock.try_lock() {
                    Some(mut count) => {
                        *count += 1;
                        1
                    }
                    None => 0,
                })
            })
            .collect();
        *lock.lock() += 1;
        let taken: usize = tries.into_iter().map(|each| each.join().unwrap()).sum();
        assert_eq!(*lock.lock(), 1 + taken);
    });
    explored("one spinning, two trying", interleavings, 3000);
}

// Exhaustive: 10 interleavings.
#[test]
fn one_of_two_tries_succeeds() {
    let interleavings = model::check(|| {
        let lock = Arc::new(Lock::<usize, Spin, 10>::new(0));
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || lock.try_lock().map(|mut count| *count += 1).is_some())
        };
        let here = lock.try_lock().map(|mut count| *count += 1).is_some();
        let there = other.join().unwrap();
        assert!(here || there);
        let count = lock.try_lock().expect("nobody holds it");
        assert_eq!(*count, usize::from(here) + usize::from(there));
        assert!(lock.try_lock().is_none());
    });
    explored("two trying", interleavings, 10);
}

// Exhaustive: 531 interleavings.
#[test]
fn rising_ranks_do_not_deadlock() {
    let interleavings = model::check(|| {
        let locks = Arc::new((Lock::<usize, Spin, 10>::new(0), Lock::<usize, Spin, 20>::new(0)));
        let other = {
            let locks = Arc::clone(&locks);
            thread::spawn(move || {
                let mut low = locks.0.lock();
                let mut high = locks.1.lock_under(&low);
                *high += 1;
                *low += 1;
            })
        };
        *locks.1.lock() += 1;
        {
            let mut low = locks.0.lock();
            let mut high = locks.1.lock_under(&low);
            *high += 1;
            *low += 1;
        }
        other.join().unwrap();
        assert_eq!((*locks.0.lock(), *locks.1.lock()), (2, 3));
    });
    explored("two ranks", interleavings, 500);
}

// Exhaustive: 42 interleavings. A lost wake-up would be a deadlock.
#[test]
fn a_sleeping_thread_is_woken() {
    let interleavings = model::check(|| {
        Futex::reset();
        count_with::<Futex>(2);
    });
    explored("two sleeping", interleavings, 40);
    assert!(Futex::slept() > 0);
}

// Bounded at 5 preemptions: 23,977 interleavings. Two threads sleep at once, and each is woken.
#[test]
fn two_sleeping_threads_are_woken() {
    let interleavings = model::check_bounded(5, || {
        Futex::reset();
        count_with::<Futex>(3);
    });
    explored("three sleeping", interleavings, 20_000);
    assert!(Futex::slept() > 0);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_release_is_noticed() {
    with_fault(Fault::LockReleaseRelaxed, || count_with::<Spin>(2));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_forgotten_waiter_is_noticed() {
    with_fault(Fault::LockForgetsWaiter, || {
        Futex::reset();
        count_with::<Futex>(2);
    });
}

#[test]
fn a_fault_ends_with_its_model() {
    fault::plant(Fault::LockReleaseRelaxed);
    assert!(fault::seeded(Fault::LockReleaseRelaxed));
    let failed = std::panic::catch_unwind(|| model::check(|| count_with::<Spin>(2)));
    assert!(failed.is_err());
    assert!(!fault::seeded(Fault::LockReleaseRelaxed));
    model::check(|| count_with::<Spin>(2));
}

// Exhaustive: 14 interleavings.
#[test]
fn a_counter_adds_up() {
    let interleavings = model::check(|| {
        let counter = Arc::new(Counter::new());
        let other = {
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                counter.add(5);
                counter.sub(2);
            })
        };
        counter.add(10);
        counter.sub(3);
        other.join().unwrap();
        assert_eq!(counter.get(), 10);
    });
    explored("counter", interleavings, 12);
}

// What the models of all layers stand on: the shim itself.

/// Sends `1` through a cell and a flag stored with `order`.
fn send(order: Ordering) {
    struct Mail {
        content: UnsafeCell<usize>,
        sent: AtomicBool,
    }
    // SAFETY: the content is written before `sent` is set and read after, if the order is right;
    // if it is not, loom ends the model before anything reads.
    unsafe impl Sync for Mail {}

    let mail = Arc::new(Mail { content: UnsafeCell::new(0), sent: AtomicBool::new(false) });
    let sender = {
        let mail = Arc::clone(&mail);
        thread::spawn(move || {
            // SAFETY: nobody reads before `sent` is set.
            mail.content.with_mut(|content| unsafe { *content = 1 });
            mail.sent.store(true, order);
        })
    };
    // Acquire pairs with the store of the sender, if that is Release.
    if mail.sent.load(Ordering::Acquire) {
        // SAFETY: the sender writes no more after it has set `sent`.
        assert_eq!(mail.content.with(|content| unsafe { *content }), 1);
    }
    sender.join().unwrap();
}

// Exhaustive: 6 interleavings.
#[test]
fn a_released_store_publishes() {
    explored("published", model::check(|| send(Ordering::Release)), 5);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_store_does_not_publish() {
    model::check(|| send(Ordering::Relaxed));
}

#[test]
#[should_panic(expected = "currently writing to cell")]
fn a_claim_lasts_as_long_as_it_lives() {
    model::check(|| {
        let cell = UnsafeCell::new(0);
        let _claim = cell.claim();
        cell.with(|_| ());
    });
}

#[test]
#[should_panic(expected = "outlived its interleaving")]
fn an_atomic_outside_of_the_model_is_noticed() {
    static OUTSIDE: AtomicU32 = AtomicU32::new(0);
    model::check(|| {
        let other = thread::spawn(|| OUTSIDE.store(1, Ordering::Relaxed));
        OUTSIDE.store(2, Ordering::Relaxed);
        other.join().unwrap();
    });
}

// The first value is not zero, so the loom objects hold differences to it.
#[test]
fn modelled_atomics_compute_as_real_ones() {
    model::check(|| {
        let byte = AtomicU8::new(250);
        assert_eq!(byte.fetch_add(10, Ordering::Relaxed), 250);
        assert_eq!(byte.fetch_sub(5, Ordering::Relaxed), 4);
        assert_eq!(byte.compare_exchange(255, 7, Ordering::Relaxed, Ordering::Relaxed), Ok(255));
        assert_eq!(byte.compare_exchange(255, 8, Ordering::Relaxed, Ordering::Relaxed), Err(7));
        assert_eq!(byte.swap(0, Ordering::Relaxed), 7);
        assert_eq!(byte.load(Ordering::Relaxed), 0);

        let bits = AtomicU64::new(u64::MAX);
        assert_eq!(bits.fetch_and(!6, Ordering::Relaxed), u64::MAX);
        assert_eq!(bits.fetch_or(2, Ordering::Relaxed), !6);
        assert_eq!(bits.load(Ordering::Relaxed), !4);
        let clear = AtomicU64::new(0);
        assert_eq!(clear.fetch_or(5, Ordering::Relaxed), 0);
        assert_eq!(clear.fetch_and(4, Ordering::Relaxed), 5);
        assert_eq!(clear.load(Ordering::Relaxed), 4);

        let flag = AtomicBool::new(true);
        assert!(flag.swap(false, Ordering::Relaxed));
        assert!(!flag.load(Ordering::Relaxed));

        let mut target = 1;
        let pointer = AtomicPtr::new(&raw mut target);
        assert_eq!(pointer.swap(std::ptr::null_mut(), Ordering::Relaxed), &raw mut target);
        assert!(pointer.load(Ordering::Relaxed).is_null());
        pointer.store(&raw mut target, Ordering::Relaxed);
        assert_eq!(pointer.load(Ordering::Relaxed), &raw mut target);
    });
}

// All zeroes is a word that holds zero, in a model too: layers make structures in zeroed memory.
#[test]
fn a_zeroed_lock_is_free() {
    model::check(|| {
        // SAFETY: all zeroes is a free lock around zero.
        let lock: Lock<usize, Spin, 10> = unsafe { std::mem::MaybeUninit::zeroed().assume_init() };
        *lock.lock() += 1;
        assert_eq!(*lock.lock(), 1);
    });
}

// A destructor that uses atomics while a panic unwinds must not turn the panic into an abort.
#[test]
#[should_panic(expected = "the model's own")]
fn a_panic_under_a_guard_reaches_the_test() {
    model::check(|| {
        let lock = Arc::new(Lock::<usize, Spin, 10>::new(0));
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || *lock.lock() += 1)
        };
        let _count = lock.lock();
        let raised = lock.try_lock().is_none();
        assert!(!raised, "the model's own");
        other.join().unwrap();
    });
}

/// What a thread keeps, and what tells of it. The cell stands for all that only slow paths use.
struct Kept {
    inside: AtomicU8,
    lease: Lease,
    slow: UnsafeCell<usize>,
    outlet: Outlet,
    inlet: Inlet,
    objects: [UnsafeCell<u32>; 4],
    /// How often each object was handed out or given back, by anybody; each is made once.
    gone: [AtomicU32; 4],
    /// What who shut the ends read.
    shut_at: UnsafeCell<[u32; 2]>,
}

/// The system call that makes all threads pass a full fence.
fn heavy() -> bool {
    fence(Ordering::SeqCst);
    true
}

impl Kept {
    /// Objects 0 and 1 are at hand, or only object 1, or none; room for two more.
    fn new(at_hand: u32) -> Arc<Self> {
        let kept = Self {
            inside: AtomicU8::new(0),
            lease: Lease::new(),
            slow: UnsafeCell::new(0),
            outlet: Outlet::new(),
            inlet: Inlet::new(),
            objects: [0, 1, 2, 3].map(UnsafeCell::new),
            gone: [(); 4].map(|()| AtomicU32::new(0)),
            shut_at: UnsafeCell::new([0; 2]),
        };
        kept.outlet.open(2 - at_hand, 2);
        kept.inlet.open(2, 4);
        kept.lease.lend();
        Arc::new(kept)
    }

    fn object(&self, place: u32) -> u32 {
        self.objects[place as usize].with(|object| {
            // SAFETY: loom watches that nobody writes to it meanwhile.
            unsafe { object.read() }
        })
    }

    fn let_go(&self, object: u32) {
        self.gone[object as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) {
        self.slow.with_mut(|count| {
            // SAFETY: loom watches that nobody else uses it.
            unsafe { *count += 1 }
        });
    }

    /// A fast path: takes an object.
    fn take(&self) -> bool {
        let taken = self.outlet.take().map(|place| self.object(place));
        taken.into_iter().for_each(|object| self.let_go(object));
        taken.is_some()
    }

    /// A fast path: keeps object 3, or 2 if that is kept.
    fn give(&self) -> Option<u32> {
        let place = self.inlet.room()?;
        self.objects[place as usize].with_mut(|object| {
            // SAFETY: loom watches that nobody else uses it.
            unsafe { object.write(place) }
        });
        self.inlet.give(place);
        Some(place)
    }

    /// A slow path of the thread. False if somebody is at what it keeps.
    fn enter(&self) -> bool {
        self.enter_and(|| ())
    }

    /// A slow path that gets object 0, where object 1 may have been.
    fn refill(&self) -> bool {
        self.enter_and(|| {
            self.objects[1].with_mut(|object| {
                // SAFETY: loom watches that nobody else uses it.
                unsafe { object.write(0) }
            });
            self.outlet.open(1, 2);
        })
    }

    fn enter_and(&self, then: impl FnOnce()) -> bool {
        self.inside.store(1, Ordering::Relaxed);
        let entry = self.lease.enter();
        if entry != Entry::Taken {
            self.count();
        }
        if entry == Entry::Emptied {
            let [taken, given] = self.shut_at.with(|at| {
                // SAFETY: loom watches that nobody writes to it.
                unsafe { *at }
            });
            if self.outlet.is_back(taken, 2) {
                self.let_go(self.object(taken - 1));
            }
            if self.inlet.has_one_more(given) {
                self.let_go(self.object(given - 1));
            }
            self.outlet.open(2, 2);
            self.inlet.open(2, 4);
        }
        if entry != Entry::Taken {
            then();
        }
        self.inside.store(0, Ordering::Release);
        entry != Entry::Taken
    }

    /// What another thread does.
    fn empty(&self) -> bool {
        let Some(seized) = self.lease.seize(&self.inside, heavy) else { return false };
        self.count();
        self.outlet.shut();
        self.inlet.shut();
        heavy();
        let (taken, given) = (self.outlet.next(), self.inlet.next());
        (taken..2).chain(given..4).for_each(|place| self.let_go(self.object(place)));
        self.shut_at.with_mut(|at| {
            // SAFETY: loom watches that nobody else uses it.
            unsafe { *at = [taken, given] }
        });
        seized.end();
        true
    }
}

/// A thread takes objects and gives some, while another one empties what it keeps. In the end every object
/// was handed out or given back once.
fn taken_while_used() {
    let kept = Kept::new(2);
    let other = {
        let kept = Arc::clone(&kept);
        thread::spawn(move || kept.empty())
    };
    kept.take();
    let given = kept.give();
    let taken = kept.take();
    if !taken {
        kept.enter();
    }
    let emptied = other.join().unwrap();
    assert!(kept.enter());
    if !emptied {
        while kept.take() {}
        given.into_iter().for_each(|object| kept.let_go(object));
    }
    let gone = [0, 1, 2, 3].map(|object: usize| kept.gone[object].load(Ordering::Relaxed));
    assert_eq!(gone, [1, 1, 0, u32::from(given.is_some())]);
}

#[test]
fn what_is_emptied_beside_its_thread_is_nobody_elses() {
    explored("emptied beside", model::check(taken_while_used), 100);
}

/// A thread finds nothing at hand, after `at_hand` objects, and gets a new one, while another one empties what it
/// keeps: before, between or behind.
fn emptied_while_empty(at_hand: u32) {
    let kept = Kept::new(at_hand);
    let other = {
        let kept = Arc::clone(&kept);
        thread::spawn(move || kept.empty())
    };
    let taken = (0..=at_hand).filter(|_| kept.take()).count();
    assert!(taken <= at_hand as usize, "an object that was never made");
    let refilled = kept.refill();
    kept.take();
    other.join().unwrap();
    assert!(kept.enter());
    while kept.take() {}
    let gone = [0, 1, 2, 3].map(|object: usize| kept.gone[object].load(Ordering::Relaxed));
    assert_eq!(gone, [u32::from(refilled), at_hand, 0, 0]);
}

// Exhaustive: 4,895 and 13,994 interleavings.
#[test]
fn nothing_is_made_up_where_nothing_was() {
    explored("emptied while empty", model::check(|| emptied_while_empty(0)), 4000);
    explored("emptied at the last one", model::check(|| emptied_while_empty(1)), 12_000);
}

/// A thread comes to slow paths, while two others empty what it keeps.
fn entered_while_seized() {
    let kept = Kept::new(2);
    let others = [0, 1].map(|_| {
        let kept = Arc::clone(&kept);
        thread::spawn(move || {
            if let Some(seized) = kept.lease.seize(&kept.inside, heavy) {
                kept.count();
                seized.end();
            }
        })
    });
    kept.enter();
    for other in others {
        other.join().unwrap();
    }
    assert!(kept.enter() && kept.lease.keep() == Entry::AsItWas);
}

#[test]
fn one_at_a_time_is_on_a_slow_path() {
    explored("entered while seized", model::check(entered_while_seized), 100);
}

#[test]
fn a_model_notices_a_fence_or_a_bound_that_is_missing() {
    for (fault, model) in [
        (Fault::LeaseEnterUnfenced, entered_while_seized as fn()),
        (Fault::LeaseEndRelaxed, entered_while_seized),
        (Fault::OutletUnfenced, taken_while_used),
        (Fault::OutletForgetsEnd, || emptied_while_empty(0)),
        (Fault::OutletForgetsEnd, || emptied_while_empty(1)),
    ] {
        fault::plant(fault);
        let outcome = std::panic::catch_unwind(|| model::check(model));
        assert!(outcome.is_err(), "{fault:?} goes unnoticed");
    }
}
