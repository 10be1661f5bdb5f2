//! Who is inside the heap, and how everybody is kept out of it while the process forks.
//!
//! The child of a fork has a copy of the heap and only the thread that forked. The copy is whole if
//! nobody was inside at that moment: nobody held a lock, nobody was changing a list. So the
//! forking thread closes the gate, waits until everybody is out, and opens it again in both
//! processes. Nobody waits at a closed gate for long: a thread that holds what the forking thread is about to
//! wait for (a lock of stdio, say) would wait for ever. It waits for a moment, which is nearly always
//! enough, and goes to the [shelter](super::shelter) then.
//!
//! What a thread is doing is noted in its cache's state:
//!
//! | `inside`  | the thread                          | may hold a lock | leaves it by                   |
//! |-----------|-------------------------------------|-----------------|--------------------------------|
//! | `OUTSIDE` | is not inside                       | no              | fast path -> FAST, enter -> SLOW |
//! | `FAST`    | uses its own bins, or has no state  | no              | end of the fast path -> OUTSIDE |
//! | `SLOW`    | is anywhere in the heap             | yes             | end of the slow path -> OUTSIDE |
//!
//! A signal handler that finds its thread inside does not enter, but goes to the shelter, too.
//! Threads without a state of their own are counted as outsiders, and take no signals meanwhile.

use core::time::Duration;

use spanalloc_sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use spanalloc_sync::fault::{self, Fault};
use spanalloc_sync::spin_pause;

use super::system;
use crate::slot;

pub(crate) use crate::thread::{FAST, OUTSIDE, SLOW};

/// How long a closing thread waits until the others are out, and a thread that holds nothing until the
/// gate opens, before they give up.
const AT_MOST: Duration = Duration::from_secs(10);
/// How long a thread waits at a closed gate before it goes to the shelter.
const PATIENCE: Duration = Duration::from_millis(20);

/// The gate of a heap. All zeroes is an open one.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Whether it is closed around forks.
    watched: AtomicBool,
    /// Threads that are between the two ends of a fork; 0 means open.
    forkers: AtomicU32,
    /// The identity of one of them; 0 if it is done, or there is none.
    forker: AtomicUsize,
    /// Threads inside that have no state of their own.
    outsiders: AtomicU32,
    /// Whether everybody was out when the gate was closed last.
    drained: AtomicBool,
    /// Whether this is the child of a fork during which somebody was inside.
    in_pieces: AtomicBool,
}

impl Gate {
    pub(crate) const fn new() -> Self {
        Self {
            watched: AtomicBool::new(false),
            forkers: AtomicU32::new(0),
            forker: AtomicUsize::new(0),
            outsiders: AtomicU32::new(0),
            drained: AtomicBool::new(false),
            in_pieces: AtomicBool::new(false),
        }
    }

    /// Notes that it is closed around forks from now on; whether it was before.
    pub(super) fn watch(&self) -> bool {
        self.watched.swap(true, Ordering::Relaxed)
    }

    /// Whether any thread ever asked for memory: the gate is watched before the first lock is taken.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Whether the calling thread may be inside now: nobody forks, or nobody else.
    fn is_open(&self) -> bool {
        // SeqCst, here and where threads say that they are inside: of a thread that enters and one
        // that closes the gate, one sees the other.
        match self.forkers.load(fault::ordering(Fault::GateRelaxed, Ordering::SeqCst)) {
            0 => true,
            1 => self.forker.load(Ordering::Relaxed) == slot::identity(),
            _ => false,
        }
    }

    /// Enters with the state of the calling thread, which is outside. None if the gate is closed.
    pub(super) fn enter<'a>(&self, inside: &'a AtomicU8) -> Option<Inside<'a>> {
        inside.swap(SLOW, Ordering::SeqCst);
        let guard = Inside(inside);
        self.is_open().then_some(guard)
    }

    /// Enters without a state. None if the gate is closed.
    pub(super) fn enter_as_outsider(&self) -> Option<Outsider<'_>> {
        let signals = system::Signals::block();
        self.outsiders.fetch_add(1, Ordering::SeqCst);
        let guard = Outsider { gate: self, _signals: signals };
        self.is_open().then_some(guard)
    }

    /// Enters without a state, as soon as the gate is open; None if it is closed for good, or for very
    /// long. For threads that hold nothing that a forking thread could wait for.
    pub(super) fn wait_as_outsider(&self) -> Option<Outsider<'_>> {
        let limit = system::Limit::in_future(AT_MOST);
        loop {
            let guard = self.enter_as_outsider();
            if guard.is_some() || self.in_pieces.load(Ordering::Relaxed) || limit.is_past() {
                return guard;
            }
            system::yield_now();
        }
    }

    /// Closes the gate and waits until everybody else is out. `others_out` tells whether that is so
    /// of the threads with a state. A thread that is inside itself (it forks in a signal handler)
    /// does not wait: somebody may be waiting for what it holds.
    pub(super) fn close(&self, may_wait: bool, mut others_out: impl FnMut() -> bool) {
        // First the count, then the name: whoever is named is counted.
        self.forkers.fetch_add(1, Ordering::SeqCst);
        let (nobody, me) = (0, slot::identity());
        let _ = self.forker.compare_exchange(nobody, me, Ordering::Relaxed, Ordering::Relaxed);
        let may_wait = may_wait && !self.in_pieces.load(Ordering::Relaxed);
        let limit = system::Limit::in_future(if may_wait { AT_MOST } else { Duration::ZERO });
        let drained = loop {
            if self.outsiders.load(Ordering::SeqCst) == 0 && others_out() {
                break true;
            }
            if !may_wait || limit.is_past() {
                break false;
            }
            spin_pause();
            system::yield_now();
        };
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Opens the gate again, in the process that forked.
    pub(super) fn reopen(&self) {
        if self.forker.load(Ordering::Relaxed) == slot::identity() {
            self.forker.store(0, Ordering::Relaxed);
        }
        let one_less = |forkers: u32| forkers.checked_sub(1);
        // Release: whoever finds the gate open comes after this.
        let _ = self.forkers.fetch_update(Ordering::SeqCst, Ordering::Relaxed, one_less);
        system::wake_all(&self.forkers);
    }

    /// Waits for a moment that the gate opens. False if it did not.
    pub(super) fn wait_a_moment(&self) -> bool {
        if self.in_pieces.load(Ordering::Relaxed) {
            return false;
        }
        let forkers = self.forkers.load(Ordering::Relaxed);
        if forkers != 0 {
            system::sleep_while(&self.forkers, forkers, PATIENCE);
        }
        self.is_open()
    }

    /// Opens the gate in the child, which has one thread. If somebody was inside it stays closed:
    /// the heap may be in pieces, and the child lives in the shelter, and so do its own children.
    /// Returns whether it is open.
    pub(super) fn reopen_in_child(&self) -> bool {
        let whole = self.drained.load(Ordering::Relaxed) && !self.in_pieces.load(Ordering::Relaxed);
        self.outsiders.store(0, Ordering::Relaxed);
        self.forker.store(0, Ordering::Relaxed);
        self.in_pieces.store(!whole, Ordering::Relaxed);
        self.forkers.store(u32::from(!whole), Ordering::Relaxed);
        whole
    }
}

/// The right to be anywhere in the heap.
#[derive(Debug)]
pub(super) struct Inside<'a>(&'a AtomicU8);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Release pairs with the SeqCst load of a closing thread: it sees what was done inside.
        self.0.store(OUTSIDE, fault::ordering(Fault::LeaveRelaxed, Ordering::Release));
    }
}

/// The right to be in the heap without a state, with all signals blocked.
#[derive(Debug)]
pub(super) struct Outsider<'a> {
    gate: &'a Gate,
    // Dropped after the count is lowered.
    _signals: system::Signals,
}

impl Drop for Outsider<'_> {
    fn drop(&mut self) {
        // Release pairs with the SeqCst load of a closing thread.
        self.gate.outsiders.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_is_open_to_the_thread_that_closed_it() {
        let (gate, inside) = (Gate::new(), AtomicU8::new(OUTSIDE));
        assert!(gate.enter(&inside).is_some() && gate.enter_as_outsider().is_some());
        gate.close(true, || true);
        assert!(gate.enter(&inside).is_some() && gate.enter_as_outsider().is_some());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let inside = AtomicU8::new(OUTSIDE);
                assert!(gate.enter(&inside).is_none() && gate.enter_as_outsider().is_none());
                assert_eq!(inside.load(Ordering::Relaxed), OUTSIDE);
            });
        });
        gate.reopen();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(gate.enter(&AtomicU8::new(OUTSIDE)).is_some()));
        });
        assert_eq!(gate.outsiders.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn of_two_forking_threads_none_may_enter() {
        let (gate, inside) = (Gate::new(), AtomicU8::new(OUTSIDE));
        gate.close(true, || true);
        std::thread::scope(|scope| {
            scope.spawn(|| gate.close(true, || true));
        });
        assert!(gate.enter(&inside).is_none());
        gate.reopen();
        gate.reopen();
        assert!(gate.enter(&inside).is_some());
        gate.reopen();
        assert!(gate.enter(&inside).is_some(), "one too many does no harm");
    }

    #[test]
    fn closing_waits_until_everybody_is_out() {
        let (gate, inside) = (Gate::new(), AtomicU8::new(OUTSIDE));
        let guard = gate.enter(&inside);
        let mut looks = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gate.close(true, || {
                    looks += 1;
                    looks > 3 && inside.load(Ordering::SeqCst) == OUTSIDE
                });
                assert!(gate.reopen_in_child());
            });
            while gate.is_open() {
                std::thread::yield_now();
            }
            drop(guard);
        });
        assert!(looks > 3);
    }

    #[test]
    fn a_child_of_a_heap_in_pieces_stays_out_of_it() {
        let (gate, inside) = (Gate::new(), AtomicU8::new(OUTSIDE));
        gate.close(false, || false);
        assert!(!gate.reopen_in_child());
        assert!(gate.enter(&inside).is_none());
        assert!(gate.wait_as_outsider().is_none(), "nobody waits for what never comes");
        gate.close(true, || true);
        assert!(!gate.reopen_in_child(), "what is in pieces is so in its children");
    }
}
