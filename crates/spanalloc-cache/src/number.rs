use spanalloc_sync::atomic::{AtomicU32, Ordering};

/// A number that only slow paths use. An atomic because statistics read it.
#[derive(Debug)]
pub(crate) struct Number(AtomicU32);

impl Number {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set(&self, number: usize) {
        self.0.store(number as u32, Ordering::Relaxed);
    }
}
