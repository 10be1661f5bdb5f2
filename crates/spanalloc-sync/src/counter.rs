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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wraps_both_ways() {
        let counter = Counter::default();
        counter.sub(1);
        assert_eq!(counter.get(), usize::MAX);
        counter.add(3);
        assert_eq!(counter.get(), 2);
    }
}
