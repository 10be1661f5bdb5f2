use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use loom::thread;
use spanalloc_sync::Wait;
use spanalloc_sync::atomic::{AtomicU32, Ordering};

/// A way to wait that a model can have several waiters of: a futex. [`Spin`](spanalloc_sync::Spin) is for
/// one at a time, as two that spin can yield to each other for ever.
///
/// The kernel compares the word and queues the waiter under one lock of its own. Here an addition
/// of zero to the word stands for that lock: it reads the last value, it is a point where loom may
/// switch, and what follows it up to the next such point is one step with it.
#[derive(Debug)]
pub struct Futex;

std::thread_local! {
    // All threads of a model run on the thread of its test.
    static SLEEPERS: RefCell<VecDeque<thread::Thread>> = const { RefCell::new(VecDeque::new()) };
    static SLEPT: Cell<usize> = const { Cell::new(0) };
}

impl Futex {
    /// Starts an interleaving without sleepers.
    pub fn reset() {
        SLEEPERS.with_borrow_mut(VecDeque::clear);
    }

    /// How often a thread slept, in all models of this test: one in which none did proves nothing of it.
    #[must_use]
    pub fn slept() -> usize {
        SLEPT.get()
    }
}

// SAFETY: `wait` looks at the word in the same step in which it queues the thread, and returns when
// `wake_one` has taken the thread from the queue. Models are allowed to allocate.
unsafe impl Wait for Futex {
    fn wait(word: &AtomicU32, expected: u32) {
        if word.fetch_add(0, Ordering::Relaxed) == expected {
            SLEEPERS.with_borrow_mut(|sleepers| sleepers.push_back(thread::current()));
            SLEPT.set(SLEPT.get() + 1);
            thread::park();
        }
    }

    fn wake_one(word: &AtomicU32) {
        word.fetch_add(0, Ordering::Relaxed);
        if let Some(sleeper) = SLEEPERS.with_borrow_mut(VecDeque::pop_front) {
            sleeper.unpark();
        }
    }
}
