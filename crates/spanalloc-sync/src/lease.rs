//! Who may use what belongs to one thread: that thread, at no cost, or another one while it is away.
//!
//! The thread says nowhere that it is on a fast path, or says so by plain stores. So the other one first makes
//! sure that the next use of anything comes to a slow path, and then that every thread of the process has passed
//! a full fence: what the thread did before that is seen by the other one, and what it does afterwards sees
//! what the other one wrote. That fence, [`heavy`](Lease::seize), is a system call; the thread's own side of it,
//! [`light_fence`], is none for the processor: it keeps the compiler from reordering.
//!
//! | state   | whose it is                                  | leaves it by                              |
//! |---------|----------------------------------------------|-------------------------------------------|
//! | `KEPT`  | its thread's, or nobody's; nobody may seize it | lend -> LENT                             |
//! | `LENT`  | its thread's                                 | seize -> TAKEN; keep -> KEPT              |
//! | `TAKEN` | who seized it; its thread goes elsewhere     | too early -> what it was; end -> EMPTIED  |
//! | `EMPTIED` | nobody's: what was in it is gone           | enter -> LENT; seize -> TAKEN; keep -> KEPT |
//!
//! A thread that is on a slow path says so in a word of its own, `inside`, which is not 0 then. Of a thread
//! that [enters](Lease::enter) and one that seizes, one sees the other: the first writes `inside` and then
//! reads the state, the second writes the state and then reads `inside`, each with a fence in between.

use crate::atomic::{AtomicU8, Ordering, light_fence};
use crate::fault::{self, Fault};

const KEPT: u8 = 0;
const LENT: u8 = 1;
const TAKEN: u8 = 2;
const EMPTIED: u8 = 3;

/// See the module.
#[derive(Debug)]
pub struct Lease(AtomicU8);

/// What a thread finds that comes to use what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is as the thread left it.
    AsItWas,
    /// Somebody emptied it.
    Emptied,
    /// Somebody is at it.
    Taken,
}

/// The right of another thread to use it. Whoever has it ends it.
#[derive(Debug)]
#[must_use = "nobody else ends it"]
pub struct Seized<'a>(&'a Lease);

impl Seized<'_> {
    /// Ends the right: it is empty now.
    pub fn end(self) {
        // Release pairs with the Acquire in `enter`, `keep` and `seize`: who has it next sees what was done.
        self.0.0.store(EMPTIED, fault::ordering(Fault::LeaseEndRelaxed, Ordering::Release));
    }
}

impl Lease {
    /// One that nobody may seize.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU8::new(KEPT))
    }

    /// Lets others seize it from now on. Only its thread may call this, which says from now on when it is
    /// inside.
    pub fn lend(&self) {
        // Release pairs with the Acquire in `seize`: who seizes it sees what the thread made of it.
        self.0.store(LENT, Ordering::Release);
    }

    /// Whether its thread may use it on a fast path, of which `inside` tells: after that was written.
    #[inline(always)]
    pub fn is_at_hand(&self) -> bool {
        light_fence();
        self.0.load(Ordering::Relaxed) <= LENT
    }

    /// Whether somebody emptied it and its thread has not come since.
    pub fn is_emptied(&self) -> bool {
        self.0.load(Ordering::Relaxed) == EMPTIED
    }

    /// Whether somebody may seize it now.
    pub fn may_be_seized(&self) -> bool {
        matches!(self.0.load(Ordering::Relaxed), LENT | EMPTIED)
    }

    /// Whether somebody is at it.
    #[inline]
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed) == TAKEN
    }

    /// Comes to use it, as its thread, which has said already that it is inside.
    #[inline]
    pub fn enter(&self) -> Entry {
        if !fault::seeded(Fault::LeaseEnterUnfenced) {
            light_fence();
        }
        // Acquire pairs with the Release in `end`.
        match self.0.load(Ordering::Acquire) {
            KEPT | LENT => Entry::AsItWas,
            state => self.enter_slow(state),
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_slow(&self, state: u8) -> Entry {
        // Acquire pairs with the Release in `end`. If somebody was faster, it is taken.
        match self.0.compare_exchange(EMPTIED, LENT, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Entry::Emptied,
            // Too early a try of somebody is over, or it is not.
            Err(KEPT | LENT) if state == TAKEN => self.enter(),
            Err(_) => Entry::Taken,
        }
    }

    /// Lets nobody seize it any more, if nobody is at it now.
    pub fn keep(&self) -> Entry {
        for (state, found) in [(LENT, Entry::AsItWas), (EMPTIED, Entry::Emptied)] {
            // Acquire pairs with the Release in `end`.
            match self.0.compare_exchange(state, KEPT, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return found,
                Err(KEPT) => return Entry::AsItWas,
                Err(_) => {}
            }
        }
        Entry::Taken
    }

    /// Seizes it, if it may be and its thread is not `inside`. `heavy` makes every thread of the process
    /// pass a full fence; false if that cannot be.
    pub fn seize(&self, inside: &AtomicU8, heavy: impl FnOnce() -> bool) -> Option<Seized<'_>> {
        let state = self.0.load(Ordering::Relaxed);
        // Acquire pairs with the Release in `lend` and `end`.
        if !matches!(state, LENT | EMPTIED)
            || self.0.compare_exchange(state, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return None;
        }
        // What is emptied is used on slow paths only, whose threads would have to exchange the state.
        // Acquire pairs with the Release by which the thread says that it is not inside any more.
        if state == EMPTIED || heavy() && inside.load(Ordering::Acquire) == 0 {
            return Some(Seized(self));
        }
        // Release, so that the thread sees what those before did.
        self.0.store(state, Ordering::Release);
        None
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let (lease, inside) = (Lease::default(), AtomicU8::new(0));
        assert!(lease.seize(&inside, || true).is_none(), "not lent");
        assert_eq!((lease.enter(), lease.is_at_hand()), (Entry::AsItWas, true));
        lease.lend();
        assert!(lease.is_at_hand() && lease.may_be_seized());
        assert!(lease.seize(&inside, || false).is_none(), "without the fence");
        inside.store(1, Ordering::Relaxed);
        assert!(lease.seize(&inside, || true).is_none(), "its thread is inside");
        inside.store(0, Ordering::Relaxed);
        let seized = lease.seize(&inside, || true).unwrap();
        assert!(lease.seize(&inside, || true).is_none() && lease.is_taken());
        assert_eq!(
            (lease.enter(), lease.keep(), lease.is_at_hand()),
            (Entry::Taken, Entry::Taken, false)
        );
        seized.end();
        assert!(lease.is_emptied() && !lease.is_at_hand());
        // Its thread cannot be on a fast path, so no fence is needed.
        lease.seize(&inside, || false).unwrap().end();
        assert_eq!((lease.enter(), lease.enter()), (Entry::Emptied, Entry::AsItWas));
        assert_eq!((lease.keep(), lease.may_be_seized()), (Entry::AsItWas, false));
    }
}
