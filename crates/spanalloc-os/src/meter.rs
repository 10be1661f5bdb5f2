//! What the adapters know of the bytes that went through them.

use spanalloc_sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that several threads change. All orderings are relaxed: it orders nothing.
#[derive(Debug)]
pub(crate) struct Meter(AtomicUsize);

impl Meter {
    pub(crate) const fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Adds `bytes`; returns the sum.
    pub(crate) fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes)
    }

    /// Adds `bytes` unless that is more than `limit`; returns whether it did.
    pub(crate) fn add_within(&self, bytes: usize, limit: usize) -> bool {
        self.change(|now| now.checked_add(bytes).filter(|sum| *sum <= limit))
    }

    /// Subtracts `bytes`, down to 0 at most.
    pub(crate) fn subtract(&self, bytes: usize) {
        self.change(|now| Some(now.saturating_sub(bytes)));
    }

    /// Lowers the number to `most` if it is higher.
    pub(crate) fn lower_to(&self, most: usize) {
        self.change(|now| Some(now.min(most)));
    }

    /// Replaces the number by what `next` makes of it, if it makes anything; returns whether it did.
    fn change(&self, next: impl Fn(usize) -> Option<usize>) -> bool {
        let mut now = self.get();
        while let Some(after) = next(now) {
            match self.0.compare_exchange_weak(now, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => now = found,
            }
        }
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_meter_stays_within_its_limits() {
        let meter = Meter::new(0);
        assert!(meter.add_within(10, 10));
        assert!(!meter.add_within(1, 10));
        assert!(!meter.add_within(usize::MAX, usize::MAX), "the sum would overflow");
        assert_eq!(meter.get(), 10);
        meter.subtract(3);
        assert_eq!(meter.get(), 7);
        meter.lower_to(9);
        assert_eq!(meter.get(), 7);
        meter.lower_to(5);
        assert_eq!(meter.get(), 5);
        meter.subtract(6);
        assert_eq!(meter.get(), 0);
        assert_eq!(meter.add(4), 4);
        meter.set(1);
        assert_eq!(meter.get(), 1);
    }
}
