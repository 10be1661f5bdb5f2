//! Locks against a model that knows who is held, and sums against plain sums.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking and are not an interface"
)]

use std::sync::{Condvar, Mutex};

use proptest::prelude::*;
use spanalloc_sync::atomic::{AtomicU32, Ordering};
use spanalloc_sync::{Counter, Lock, LockGuard, Padded, Wait};
use spanalloc_testkit::amount::{config, length};

/// For one thread, which never waits and never has anybody to wake.
struct Alone;

// SAFETY: neither call returns.
unsafe impl Wait for Alone {
    fn wait(_word: &AtomicU32, _expected: u32) {
        panic!("a free lock was waited for");
    }

    fn wake_one(_word: &AtomicU32) {
        panic!("somebody was woken though nobody waits");
    }
}

/// A futex made of what `std` has: one queue for all words.
struct Queue;

static QUEUE: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

// SAFETY: `wait` looks at the word under the mutex that `wake_one` takes, so a wake after the look
// finds the thread in the queue. All sleepers are woken, as the queue is shared by all words.
unsafe impl Wait for Queue {
    fn wait(word: &AtomicU32, expected: u32) {
        let queue = QUEUE.0.lock().unwrap();
        if word.load(Ordering::Relaxed) == expected {
            drop(QUEUE.1.wait(queue).unwrap());
        }
    }

    fn wake_one(_word: &AtomicU32) {
        let _queue = QUEUE.0.lock().unwrap();
        QUEUE.1.notify_all();
    }
}

/// Three locks of rising ranks.
struct Locks<W: Wait> {
    low: Lock<u64, W, 1>,
    middle: Lock<u64, W, 2>,
    high: Lock<u64, W, 3>,
}

impl<W: Wait> Locks<W> {
    const fn new() -> Self {
        Self { low: Lock::new(0), middle: Lock::new(0), high: Lock::new(0) }
    }
}

/// The guards a thread has of [`Locks`].
struct Guards<'a, W: Wait> {
    low: Option<LockGuard<'a, u64, W, 1>>,
    middle: Option<LockGuard<'a, u64, W, 2>>,
    high: Option<LockGuard<'a, u64, W, 3>>,
}

impl<'a, W: Wait> Guards<'a, W> {
    const fn new() -> Self {
        Self { low: None, middle: None, high: None }
    }

    /// Takes a lock that is free, under the highest guard below it if there is one.
    fn lock(&mut self, locks: &'a Locks<W>, which: usize) {
        match (which, &self.low, &self.middle) {
            (0, ..) => self.low = Some(locks.low.lock()),
            (1, Some(low), _) => self.middle = Some(locks.middle.lock_under(low)),
            (1, None, _) => self.middle = Some(locks.middle.lock()),
            (_, _, Some(middle)) => self.high = Some(locks.high.lock_under(middle)),
            (_, Some(low), None) => self.high = Some(locks.high.lock_under(low)),
            (_, None, None) => self.high = Some(locks.high.lock()),
        }
    }

    /// Tries a lock and keeps the guard. Whether it got one.
    fn try_lock(&mut self, locks: &'a Locks<W>, which: usize) -> bool {
        match which {
            0 => locks.low.try_lock().map(|guard| self.low = Some(guard)).is_some(),
            1 => locks.middle.try_lock().map(|guard| self.middle = Some(guard)).is_some(),
            _ => locks.high.try_lock().map(|guard| self.high = Some(guard)).is_some(),
        }
    }

    fn value(&mut self, which: usize) -> Option<&mut u64> {
        match which {
            0 => self.low.as_deref_mut(),
            1 => self.middle.as_deref_mut(),
            _ => self.high.as_deref_mut(),
        }
    }

    fn unlock(&mut self, which: usize) {
        match which {
            0 => self.low = None,
            1 => self.middle = None,
            _ => self.high = None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Takes the lock if the model says that it is free.
    Lock(usize),
    Try(usize),
    /// Adds if the lock is held.
    Add(usize, u64),
    Unlock(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize).prop_map(Step::Lock),
        (0..3_usize).prop_map(Step::Try),
        (0..3_usize, 0..1000_u64).prop_map(|(which, amount)| Step::Add(which, amount)),
        (0..3_usize).prop_map(Step::Unlock),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_thread_holds_what_the_model_says(
        steps in prop::collection::vec(step(), length()),
    ) {
        let locks = Locks::<Alone>::new();
        let mut guards = Guards::new();
        let mut held = [false; 3];
        let mut values = [0_u64; 3];
        for step in steps {
            match step {
                Step::Lock(which) if !held[which] => {
                    guards.lock(&locks, which);
                    held[which] = true;
                }
                Step::Lock(_) => {}
                Step::Try(which) => {
                    prop_assert_eq!(guards.try_lock(&locks, which), !held[which]);
                    held[which] = true;
                }
                Step::Add(which, amount) => {
                    prop_assert_eq!(guards.value(which).is_some(), held[which]);
                    if let Some(value) = guards.value(which) {
                        *value += amount;
                        values[which] += amount;
                    }
                }
                Step::Unlock(which) => {
                    guards.unlock(which);
                    held[which] = false;
                }
            }
            for which in 0..3 {
                let value = guards.value(which).copied();
                prop_assert_eq!(value, held[which].then_some(values[which]));
            }
        }
        drop(guards);
        let end = [*locks.low.lock(), *locks.middle.lock(), *locks.high.lock()];
        prop_assert_eq!(end, values);
    }

    // Each addition reads, gives the processor away and writes, so two threads in one lock at once
    // lose one of them.
    #[test]
    fn threads_lose_no_addition(
        threads in prop::collection::vec(
            prop::collection::vec((0..3_usize, any::<bool>(), 1..1000_u64), 0..40),
            1..4,
        ),
    ) {
        let locks = Locks::<Queue>::new();
        std::thread::scope(|scope| {
            for additions in &threads {
                let locks = &locks;
                scope.spawn(move || {
                    for &(which, nested, amount) in additions {
                        let mut guards = Guards::new();
                        if nested && which > 0 {
                            guards.lock(locks, which - 1);
                        }
                        guards.lock(locks, which);
                        let value = guards.value(which).unwrap();
                        let before = *value;
                        std::thread::yield_now();
                        *value = before + amount;
                    }
                });
            }
        });
        let mut sums = [0; 3];
        for (which, _, amount) in threads.iter().flatten() {
            sums[*which] += amount;
        }
        let end = [*locks.low.lock(), *locks.middle.lock(), *locks.high.lock()];
        prop_assert_eq!(end, sums);
    }

    #[test]
    fn counters_are_sums(
        threads in prop::collection::vec(
            prop::collection::vec((0..2_usize, any::<bool>(), any::<usize>()), 0..60),
            1..4,
        ),
    ) {
        let counters = [Padded::new(Counter::new()), Padded::new(Counter::new())];
        std::thread::scope(|scope| {
            for changes in &threads {
                let counters = &counters;
                scope.spawn(move || {
                    for &(which, up, amount) in changes {
                        if up {
                            counters[which].add(amount);
                        } else {
                            counters[which].sub(amount);
                        }
                    }
                });
            }
        });
        let mut sums = [0_usize; 2];
        for &(which, up, amount) in threads.iter().flatten() {
            let sum = &mut sums[which];
            *sum = if up { sum.wrapping_add(amount) } else { sum.wrapping_sub(amount) };
        }
        prop_assert_eq!([counters[0].get(), counters[1].get()], sums);
    }
}
