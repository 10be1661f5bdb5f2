use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
// The count is `core`'s in models too: it orders nothing, so it would only repeat interleavings.
use core::sync::atomic::AtomicUsize;

use crate::atomic::{AtomicU32, Ordering};
use crate::cell::{Claim, UnsafeCell};
use crate::fault::{self, Fault};
use crate::wait::{SPINS, Wait, spin_pause};

// The states of `Lock::word`:
//
// | state     | meaning                          | leaves it                                     |
// |-----------|----------------------------------|-----------------------------------------------|
// | FREE      | nobody holds the lock            | `lock`, `try_lock`, `lock_slow` -> HELD, after a wait -> CONTENDED |
// | HELD      | held, nobody waits               | unlock -> FREE, `lock_slow` -> CONTENDED      |
// | CONTENDED | held, somebody may wait          | unlock -> FREE and one waiter is woken        |
const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// A mutual exclusion lock of one word, with a rank, that counts how often it was taken.
///
/// `W` says how a thread waits, `RANK` where the lock stands in the order of
/// [`rank`](crate::rank). All zeroes are a free lock, so a lock over plain data may live in
/// zeroed memory.
#[derive(Debug)]
pub struct Lock<T, W, const RANK: u8> {
    word: AtomicU32,
    /// Written by the thread that has just taken the word.
    acquisitions: AtomicUsize,
    data: UnsafeCell<T>,
    wait: PhantomData<fn() -> W>,
}

// SAFETY: the data is reached only through a guard, and the word admits one guard at a time.
unsafe impl<T: Send, W, const RANK: u8> Sync for Lock<T, W, RANK> {}

impl<T, W: Wait, const RANK: u8> Lock<T, W, RANK> {
    /// A free lock around `data`.
    pub const fn new(data: T) -> Self {
        Self {
            word: AtomicU32::new(FREE),
            acquisitions: AtomicUsize::new(0),
            data: UnsafeCell::new(data),
            wait: PhantomData,
        }
    }

    /// How often the lock was taken. Takes it not; wraps at `usize::MAX`.
    #[inline]
    pub fn acquisitions(&self) -> usize {
        self.acquisitions.load(Ordering::Relaxed)
    }

    /// Takes the lock, waiting as long as it is held.
    ///
    /// A thread that holds the lock already waits for ever. One that holds any other lock calls
    /// [`lock_under`](Self::lock_under) instead.
    #[inline]
    pub fn lock(&self) -> LockGuard<'_, T, W, RANK> {
        // Acquire pairs with the Release exchange in the guard's drop.
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        self.guard()
    }

    /// Takes the lock while `_held` is held; does not compile unless the rank rises.
    ///
    /// Only the guard that is shown is compared. A thread that holds several locks shows the one of
    /// the highest rank, which is the one it took last.
    ///
    /// ```
    /// use spanalloc_sync::{Lock, Spin, rank};
    ///
    /// let central = Lock::<u32, Spin, { rank::CENTRAL }>::new(1);
    /// let heap = Lock::<u32, Spin, { rank::HEAP }>::new(2);
    ///
    /// let held = central.lock();
    /// assert_eq!(*held + *heap.lock_under(&held), 3);
    /// ```
    ///
    /// The other way round two threads could wait for each other, and this does not compile:
    ///
    /// ```compile_fail,E0080
    /// use spanalloc_sync::{Lock, Spin, rank};
    ///
    /// let central = Lock::<u32, Spin, { rank::CENTRAL }>::new(1);
    /// let heap = Lock::<u32, Spin, { rank::HEAP }>::new(2);
    ///
    /// let held = heap.lock();
    /// assert_eq!(*held + *central.lock_under(&held), 3);
    /// ```
    #[inline]
    pub fn lock_under<U, V: Wait, const HELD_RANK: u8>(
        &self,
        _held: &LockGuard<'_, U, V, HELD_RANK>,
    ) -> LockGuard<'_, T, W, RANK> {
        const { assert!(HELD_RANK < RANK, "locks are taken in the order of their ranks") };
        self.lock()
    }

    /// Takes the lock if it is free. Never waits, so the order of ranks does not matter.
    #[inline]
    pub fn try_lock(&self) -> Option<LockGuard<'_, T, W, RANK>> {
        // Acquire pairs with the Release exchange in the guard's drop.
        match self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Some(self.guard()),
            Err(_) => None,
        }
    }

    /// The guard of a thread that has just taken the word.
    #[inline]
    fn guard(&self) -> LockGuard<'_, T, W, RANK> {
        // Relaxed: the word orders those who write here.
        let next = self.acquisitions().wrapping_add(1);
        self.acquisitions.store(next, Ordering::Relaxed);
        let held = Held { word: &self.word, wait: PhantomData };
        LockGuard { data: self.data.claim(), _held: held, borrow: PhantomData }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) {
        let mut looks = SPINS;
        loop {
            if self.word.load(Ordering::Relaxed) == FREE
                // Acquire pairs with the Release exchange in the guard's drop.
                && self
                    .word
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            looks -= 1;
            if looks == 0 {
                break;
            }
            spin_pause();
        }
        let mark = if fault::seeded(Fault::LockForgetsWaiter) { HELD } else { CONTENDED };
        // A thread that has waited takes the lock as CONTENDED: it cannot know whether others wait
        // too. Acquire pairs with the Release exchange in the guard's drop.
        while self.word.swap(mark, Ordering::Acquire) != FREE {
            W::wait(&self.word, mark);
        }
    }
}

/// The right to the data of a [`Lock`]; gives the lock back when dropped.
///
/// It stays on its thread:
///
/// ```compile_fail,E0277
/// use spanalloc_sync::{Lock, Spin, rank};
///
/// static LOCK: Lock<u32, Spin, { rank::HEAP }> = Lock::new(0);
/// let guard = LOCK.lock();
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard));
/// });
/// ```
#[derive(Debug)]
#[must_use = "the lock is given back when the guard is dropped"]
pub struct LockGuard<'a, T, W: Wait, const RANK: u8> {
    // Fields are dropped in this order: the access to the data ends before the word is free.
    data: Claim<T>,
    _held: Held<'a, W>,
    borrow: PhantomData<(&'a mut T, *mut ())>,
}

/// The word of a lock that this thread has taken.
#[derive(Debug)]
struct Held<'a, W: Wait> {
    word: &'a AtomicU32,
    wait: PhantomData<fn() -> W>,
}

impl<T, W: Wait, const RANK: u8> Deref for LockGuard<'_, T, W, RANK> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the claim holds as long as the guard, the lock outlives the guard, and the guard
        // is the only one and borrowed shared.
        unsafe { &*self.data.as_ptr() }
    }
}

impl<T, W: Wait, const RANK: u8> DerefMut for LockGuard<'_, T, W, RANK> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, but the guard is borrowed mutably.
        unsafe { &mut *self.data.as_ptr() }
    }
}

impl<W: Wait> Drop for Held<'_, W> {
    #[inline]
    fn drop(&mut self) {
        // Release pairs with the Acquire of the next thread that takes the lock.
        let release = fault::ordering(Fault::LockReleaseRelaxed, Ordering::Release);
        if self.word.swap(FREE, release) == CONTENDED {
            W::wake_one(self.word);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::mem::{MaybeUninit, size_of};

    use super::*;
    use crate::{Spin, atomic::AtomicUsize};

    static WAITS: AtomicUsize = AtomicUsize::new(0);
    static WAKES: AtomicUsize = AtomicUsize::new(0);

    /// Counts its calls; for one test alone.
    struct Counting;

    // SAFETY: `wait` returns at once and so never misses a wake.
    unsafe impl Wait for Counting {
        fn wait(_word: &AtomicU32, expected: u32) {
            assert_eq!(expected, CONTENDED);
            WAITS.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
        }

        fn wake_one(word: &AtomicU32) {
            assert_ne!(word.load(Ordering::Relaxed), HELD);
            WAKES.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_word_follows_its_table() {
        let lock = Lock::<u8, Counting, 1>::new(7);
        let word = || lock.word.load(Ordering::Relaxed);
        assert_eq!(word(), FREE);
        let mut guard = lock.lock();
        assert_eq!(word(), HELD);
        assert!(lock.try_lock().is_none());
        assert_eq!(word(), HELD);
        *guard += 1;
        drop(guard);
        assert_eq!(word(), FREE);
        assert_eq!((WAITS.load(Ordering::Relaxed), WAKES.load(Ordering::Relaxed)), (0, 0));

        let guard = lock.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let guard = lock.lock();
                assert_eq!(lock.word.load(Ordering::Relaxed), CONTENDED);
                assert_eq!(*guard, 8);
            });
            while WAITS.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(word(), CONTENDED);
            drop(guard);
        });
        assert_eq!(word(), FREE);
        // One for the guard somebody waited for, one for the waiter's own.
        assert_eq!(WAKES.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn zeroed_memory_is_a_free_lock() {
        // SAFETY: all zeroes is a free lock around zero.
        let lock: Lock<u64, Spin, 1> = unsafe { MaybeUninit::zeroed().assume_init() };
        *lock.try_lock().unwrap() += 1;
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn a_lock_adds_a_word_and_a_count() {
        let count = size_of::<usize>();
        assert_eq!(size_of::<Lock<u32, Spin, 1>>(), 8 + count);
        assert_eq!(size_of::<Lock<[usize; 3], Spin, 1>>(), 5 * count);
    }

    #[test]
    fn every_guard_is_counted() {
        let lock = Lock::<u8, Spin, 1>::new(0);
        assert_eq!(lock.acquisitions(), 0);
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert_eq!(lock.acquisitions(), 1, "a try that fails is none");
        drop(lock.try_lock());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| drop(lock.lock())));
            }
        });
        assert_eq!(lock.acquisitions(), 4002);
    }

    #[test]
    fn the_data_is_changed_in_place() {
        static LOCK: Lock<[u8; 3], Spin, 1> = Lock::new([1, 2, 3]);
        LOCK.lock()[1] = 9;
        assert_eq!(*LOCK.lock(), [1, 9, 3]);
    }
}
