//! The two ends of a thread's store of objects, which another thread can shut while the first one uses them.
//!
//! The thread itself takes places from an [`Outlet`] and gives them to an [`Inlet`] by a load, a comparison and
//! a store, and says nothing to anybody. The other one, which has [seized](crate::lease) the store, writes
//! nothing that the thread writes on these paths: it [shuts](Outlet::shut) both, makes every thread pass a full
//! fence, and reads then how far the thread came:
//!
//! - A place that was taken is gone for the other thread, too: the outlet is moved on first, and looked at
//!   for being open behind a light fence. If it was shut then, it is moved back. So what the other one reads
//!   may be one place too far, if it reads in between: [`Outlet::is_back`] tells the thread so later.
//! - A place that was given before the fence is there. One may come after it, of a thread that looked before
//!   whether the inlet is open: [`Inlet::has_one_more`] tells the thread so later.
//!
//! After that every use of both ends finds them shut, until the thread itself opens them on a slow path.

use crate::atomic::{AtomicU32, Ordering, light_fence};
use crate::fault::{self, Fault};

/// Hands out places, the lowest first. All zeroes is a shut one.
#[derive(Debug)]
#[repr(C)]
pub struct Outlet {
    /// The next place.
    next: AtomicU32,
    /// One past the last place; 0 if it is shut.
    end: AtomicU32,
}

impl Outlet {
    /// A shut one.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: AtomicU32::new(0), end: AtomicU32::new(0) }
    }

    /// Takes the next place. Only for the outlet's thread; any thread may do so of one that is always shut.
    #[inline(always)]
    pub fn take(&self) -> Option<u32> {
        let place = self.next.load(Ordering::Relaxed);
        self.next.store(place.wrapping_add(1), Ordering::Relaxed);
        if !fault::seeded(Fault::OutletUnfenced) {
            light_fence();
        }
        if place >= self.end.load(Ordering::Relaxed) {
            self.next.store(place, Ordering::Relaxed);
            return None;
        }
        Some(place)
    }

    /// Opens it for places from `next` to `end`. For the outlet's thread.
    pub fn open(&self, next: u32, end: u32) {
        self.next.store(next, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }

    /// The next place.
    #[inline(always)]
    pub fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// Moves an open outlet to another place. For its thread.
    pub fn set_next(&self, next: u32) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// Shuts it. For who has seized it.
    pub fn shut(&self) {
        self.end.store(0, Ordering::Relaxed);
    }

    /// Whether the last place that seemed to be taken when who shut it read `next`, was not. `end` is one past the last
    /// place that it had: of one that is empty, the place behind that may have seemed to be taken. For its thread.
    pub fn is_back(&self, next: u32, end: u32) -> bool {
        (next <= end || fault::seeded(Fault::OutletForgetsEnd))
            && self.next().wrapping_add(1) == next
    }
}

impl Default for Outlet {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes places in, from the highest down. All zeroes is a shut one.
#[derive(Debug)]
#[repr(C)]
pub struct Inlet {
    /// One past the next place.
    next: AtomicU32,
    /// The lowest place that is taken in; the largest number if it is shut.
    low: AtomicU32,
}

impl Inlet {
    /// A shut one.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: AtomicU32::new(0), low: AtomicU32::new(0) }
    }

    /// The next place, if there is room. Only for the inlet's thread; any thread may ask one that is always
    /// shut.
    #[inline(always)]
    pub fn room(&self) -> Option<u32> {
        light_fence();
        let next = self.next.load(Ordering::Relaxed);
        if next <= self.low.load(Ordering::Relaxed) { None } else { Some(next - 1) }
    }

    /// Gives the place that [`room`](Self::room) found, when there is something in it.
    #[inline(always)]
    pub fn give(&self, place: u32) {
        // Release pairs with the Acquire in `next`: who reads that there is something finds it.
        self.next.store(place, Ordering::Release);
    }

    /// Opens it for places from `low` to `next`. For the inlet's thread.
    pub fn open(&self, low: u32, next: u32) {
        self.next.store(next, Ordering::Relaxed);
        self.low.store(low, Ordering::Relaxed);
    }

    /// One past the next place.
    #[inline(always)]
    pub fn next(&self) -> u32 {
        // Acquire pairs with the Release in `give`.
        self.next.load(Ordering::Acquire)
    }

    /// The lowest place that is taken in.
    pub fn low(&self) -> u32 {
        self.low.load(Ordering::Relaxed)
    }

    /// Shuts it. For who has seized it.
    pub fn shut(&self) {
        self.low.store(u32::MAX, Ordering::Relaxed);
    }

    /// Whether a place was given after who shut it read `next`: that below it. For its thread.
    pub fn has_one_more(&self, next: u32) -> bool {
        self.next().wrapping_add(1) == next
    }
}

impl Default for Inlet {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_upwards_and_given_downwards() {
        let (outlet, inlet) = (Outlet::default(), Inlet::default());
        assert_eq!((outlet.take(), outlet.next(), inlet.room()), (None, 0, None));
        outlet.open(3, 5);
        assert_eq!([(); 3].map(|()| outlet.take()), [Some(3), Some(4), None]);
        assert_eq!(outlet.next(), 5);
        inlet.open(3, 5);
        for place in [4, 3] {
            assert_eq!(inlet.room(), Some(place));
            inlet.give(place);
        }
        assert_eq!((inlet.room(), inlet.next(), inlet.low()), (None, 3, 3));
    }

    #[test]
    fn what_comes_while_they_are_shut_is_known() {
        let (outlet, inlet) = (Outlet::new(), Inlet::new());
        outlet.open(0, 2);
        inlet.open(0, 2);
        let place = inlet.room().unwrap();
        outlet.shut();
        inlet.shut();
        let (taken, given) = (outlet.next(), inlet.next());
        assert!(
            outlet.take().is_none() && !outlet.is_back(taken, 2) && outlet.is_back(taken + 1, 2)
        );
        outlet.set_next(2);
        assert!(outlet.is_back(3, 4) && !outlet.is_back(3, 2), "there is no such place");
        inlet.give(place);
        assert!(inlet.room().is_none() && inlet.has_one_more(given));
    }
}
