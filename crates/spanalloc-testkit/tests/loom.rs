//! A composition of one's own in every interleaving, and the parts that models are made of.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc-testkit --test loom`
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use spanalloc_pages::{PageError, Pages};
use spanalloc_sync::Lock;
use spanalloc_testkit::models::{
    FakePages, Fault, Futex, check, check_bounded, explored, with_fault,
};

/// A user's layer: runs of two pages, a few of which it keeps for whoever comes next.
struct Pairs<P> {
    pages: P,
    kept: Lock<Vec<usize>, Futex, 10>,
}

impl<P: Pages> Pairs<P> {
    /// As many as are kept.
    const MOST: usize = 1;

    fn new(pages: P) -> Arc<Self> {
        Arc::new(Self { pages, kept: Lock::new(Vec::new()) })
    }

    fn take(&self) -> usize {
        let kept = self.kept.lock().pop();
        kept.unwrap_or_else(|| self.pages.alloc(2, 1).unwrap().address)
    }

    fn give(&self, pair: usize) {
        let mut kept = self.kept.lock();
        if kept.len() < Self::MOST {
            kept.push(pair);
            return;
        }
        drop(kept);
        // SAFETY: the pair came from these pages, and nobody else has it.
        unsafe { self.pages.free(pair, 2) }.unwrap();
    }
}

/// Two threads take and give a pair each; the model's own has a third one all the time.
fn pairs_of_two_threads() {
    Futex::reset();
    FakePages::reset();
    let pairs = Pairs::new(FakePages);
    let own = pairs.take();
    let threads = [(); 2].map(|()| {
        let pairs = Arc::clone(&pairs);
        thread::spawn(move || {
            let pair = pairs.take();
            assert_ne!(pair, own);
            pairs.give(pair);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    pairs.give(own);
    assert_eq!(FakePages::runs(), Pairs::<FakePages>::MOST);
}

// Bounded at 3 preemptions: 222 interleavings.
#[test]
fn pairs_are_in_one_hand() {
    explored("pairs", check_bounded(3, pairs_of_two_threads), 200);
    assert!(Futex::slept() > 0);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lock_that_forgets_who_waits_is_noticed() {
    with_fault(Fault::LockForgetsWaiter, pairs_of_two_threads);
}

#[test]
#[should_panic(expected = "shrunk to 1")]
fn a_model_without_threads_proves_nothing() {
    explored("one thread", check(|| assert_eq!(Pairs::new(FakePages).take() % 8192, 0)), 2);
}

#[test]
fn pages_that_do_not_exist_are_freed_once() {
    check(|| {
        FakePages::reset();
        let run = FakePages.alloc(3, 1).unwrap();
        // SAFETY: nobody uses the pages, which do not exist.
        let frees = [2, 3, 3].map(|pages| unsafe { FakePages.free(run.address, pages) });
        let error = |pages| Err(PageError::AlreadyFree { address: run.address, pages });
        assert_eq!(frees[0], error(2));
        assert_eq!(frees[2], error(3));
        assert_eq!(FakePages::runs(), 0);
    });
}
