//! The gate of a fork, and the start of threads, in every interleaving.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test loom`
//!
//! The file of the gate is compiled here once more, with a system that loom knows: time does not pass,
//! and a thread is known by a number. A cell stands for the heap: whoever is inside writes it, and a
//! thread that forks reads it, as the copy that its child gets.
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    missing_docs,
    reason = "tests fail by panicking and are not an interface"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Plain};

use spanalloc_sync::atomic::{AtomicU8, Ordering};
use spanalloc_sync::cell::UnsafeCell;
use spanalloc_testkit::models::{Fault, check, check_bounded, explored, with_fault};

#[path = "../src/checked/gate.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the models do not need all of it")]
mod gate;

#[path = "loom/start.rs"]
mod start;
#[path = "../src/thread.rs"]
#[allow(dead_code, unreachable_pub, reason = "the models do not need all of it")]
mod thread;

use gate::Gate;
use thread::{OUTSIDE, SLOW};

/// Where the file of the slot looks for the system.
mod checked {
    pub(crate) use super::system;
}

/// The allocator that the file of the slot is about: as the facade's, over pages that are numbers.
mod program {
    use spanalloc_cache::{Cache, CacheState, Policy};
    use spanalloc_central::CentralLists;
    use spanalloc_classes::Fine72;
    use spanalloc_sync::atomic::AtomicUsize;
    use spanalloc_testkit::models::FakePages;

    pub type Central = CentralLists<Fine72, FakePages>;
    pub type State<P> = CacheState<<P as Policy>::Bin>;
    pub type CacheOf<G> = Cache<'static, Central, <G as Program>::Policy>;

    #[derive(Debug)]
    pub struct Stages<P: Policy> {
        pub unset: State<P>,
        pub starting: State<P>,
        pub ended: State<P>,
    }

    impl<P: Policy> Stages<P> {
        pub const fn new() -> Self {
            Self {
                unset: CacheState::empty(),
                starting: CacheState::empty(),
                ended: CacheState::empty(),
            }
        }
    }

    pub trait Program: 'static {
        type Policy: Policy;

        fn central() -> &'static Central;
        fn stages() -> &'static Stages<Self::Policy>;
        fn exit_key() -> &'static AtomicUsize;
        fn slot() -> *const State<Self::Policy>;
        fn set_slot(state: *const State<Self::Policy>);

        /// # Safety
        /// The cache was opened by this thread, whose slot no longer leads to it.
        unsafe fn close(cache: CacheOf<Self>)
        where
            Self: Sized;
    }
}

/// What the gate asks of the system.
mod system {
    use core::time::Duration;

    use spanalloc_sync::atomic::AtomicU32;

    /// Time does not pass.
    #[derive(Clone, Copy, Debug)]
    pub struct Limit(Duration);

    impl Limit {
        pub fn in_future(time: Duration) -> Self {
            Self(time)
        }

        pub fn is_past(self) -> bool {
            self.0.is_zero()
        }
    }

    /// There are no signals.
    #[derive(Debug)]
    pub struct Signals;

    impl Signals {
        pub fn block() -> Self {
            Self
        }
    }

    pub fn yield_now() {
        loom::thread::yield_now();
    }

    /// What the system calls a thread: none of them ever sleeps.
    pub fn thread() -> u32 {
        0
    }

    /// Sleeps for no longer than it takes another thread to do something: the real one may return at
    /// any time, too.
    pub fn sleep_while(_word: &AtomicU32, _value: u32, _time: Duration) {
        yield_now();
    }

    pub fn wake_all(_word: &AtomicU32) {}
}

/// Who the calling thread is.
mod slot {
    use std::cell::RefCell;

    use loom::thread::{self, ThreadId};

    std::thread_local! {
        // All threads of a model run on the thread of its test.
        static NAMED: RefCell<Vec<ThreadId>> = const { RefCell::new(Vec::new()) };
    }

    pub fn identity() -> usize {
        let me = thread::current().id();
        NAMED.with_borrow_mut(|named| {
            let known = named.iter().position(|each| *each == me);
            1 + known.unwrap_or_else(|| {
                named.push(me);
                named.len() - 1
            })
        })
    }

    pub fn reset() {
        NAMED.with_borrow_mut(Vec::clear);
    }
}

struct World {
    gate: Gate,
    /// What the threads with a state are doing.
    inside: [AtomicU8; 2],
    heap: UnsafeCell<u32>,
    /// How often somebody was inside. Not part of the model.
    entered: AtomicUsize,
}

// SAFETY: the cell is what the model checks; loom reports every racing access to it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        slot::reset();
        Arc::new(Self {
            gate: Gate::new(),
            inside: [const { AtomicU8::new(OUTSIDE) }; 2],
            heap: UnsafeCell::new(0),
            entered: AtomicUsize::new(0),
        })
    }

    fn change(&self) {
        // SAFETY: loom reports every other access that is not ordered with this one.
        self.heap.with_mut(|heap| unsafe { *heap += 1 });
        self.entered.fetch_add(1, Plain::Relaxed);
    }

    /// Uses the heap with the state `thread`, if the gate is open.
    fn visit(&self, thread: usize) -> bool {
        let guard = self.gate.enter(&self.inside[thread]);
        if guard.is_some() {
            self.change();
        }
        guard.is_some()
    }

    /// Uses the heap without a state, if the gate is open.
    fn visit_as_outsider(&self) -> bool {
        let guard = self.gate.enter_as_outsider();
        if guard.is_some() {
            self.change();
        }
        guard.is_some()
    }

    /// Copies the heap as `fork` does. SeqCst pairs with the exchange in `enter`, as in `prepare`.
    fn fork(&self) {
        self.gate
            .close(true, || self.inside.iter().all(|inside| inside.load(Ordering::SeqCst) != SLOW));
        // SAFETY: the gate is closed: loom reports whoever is inside.
        let copy = self.heap.with(|heap| unsafe { *heap });
        assert_eq!(copy as usize, self.entered.load(Plain::Relaxed));
        self.gate.reopen();
    }

    /// When all other threads are done: the gate is open, and nobody is inside.
    fn check_end(&self) {
        assert!(self.visit(0) && self.visit_as_outsider());
        // SAFETY: the other threads are done.
        let changed = self.heap.with(|heap| unsafe { *heap });
        assert_eq!(changed as usize, self.entered.load(Plain::Relaxed));
        assert!(self.inside.iter().all(|inside| inside.load(Ordering::Relaxed) == OUTSIDE));
    }
}

/// A thread that forks, and `user` at the same time.
fn fork_against(user: impl FnOnce(&World) + 'static) {
    let world = World::new();
    let other = {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || user(&world))
    };
    world.fork();
    other.join().unwrap();
    world.check_end();
}

fn fork_against_a_visit() {
    fork_against(|world| _ = world.visit(0));
}

// Exhaustive: 227 interleavings.
#[test]
fn nobody_is_inside_while_another_forks() {
    explored("visit", check(fork_against_a_visit), 200);
}

fn fork_against_an_outsider() {
    fork_against(|world| _ = world.visit_as_outsider());
}

// Exhaustive: 227 interleavings.
#[test]
fn no_outsider_is_inside_while_another_forks() {
    explored("outsider", check(fork_against_an_outsider), 200);
}

/// A thread that finds the gate closed waits for a moment, and is not held up if that was too short.
fn fork_against_a_waiter() {
    fork_against(|world| {
        if !world.visit(0) && world.gate.wait_a_moment() {
            world.visit(0);
        }
    });
}

// Exhaustive: 469 interleavings.
#[test]
fn a_waiter_comes_in_or_goes_to_the_shelter() {
    explored("waiter", check(fork_against_a_waiter), 400);
}

/// Two threads fork at once, and one of them uses the heap before. A third thread would make two wait by
/// yielding, to each other for ever.
fn two_forks() {
    fork_against(|world| {
        world.visit(0);
        world.fork();
    });
}

// Bounded at 3 preemptions: 659 interleavings.
#[test]
fn two_threads_fork_at_once() {
    explored("two forks", check_bounded(3, two_forks), 600);
}

/// A thread that forks waits for two others.
fn fork_against_two_visits() {
    let world = World::new();
    let others = [0, 1].map(|thread| {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || {
            let guard = world.gate.enter(&world.inside[thread]);
            if guard.is_some() && thread == 0 {
                world.change();
            }
        })
    });
    world.fork();
    for other in others {
        other.join().unwrap();
    }
    world.check_end();
}

// Bounded at 3 preemptions: 3,301 interleavings.
#[test]
fn a_fork_waits_for_two_threads() {
    explored("two visits", check_bounded(3, fork_against_two_visits), 3000);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_look_at_the_gate_is_noticed() {
    with_fault(Fault::GateRelaxed, fork_against_a_visit);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_leave_is_noticed() {
    with_fault(Fault::LeaveRelaxed, fork_against_a_visit);
}
