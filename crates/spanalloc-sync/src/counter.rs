use crate::atomic::{AtomicUsize, Ordering};

/// A statistic that several threads change and anybody reads.
///
/// All orderings are relaxed: a counter orders nothing, it only adds up.
#[derive(Debug)]
pub struct Counter(AtomicUsize);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Adds `amount`; wraps at `usize::MAX`.
    #[inline]
    pub fn add(&self, amount: usize) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Subtracts `amount`; wraps below zero.
    #[inline]
    pub fn sub(&self, amount: usize) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}
