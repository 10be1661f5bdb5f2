use crate::atomic::AtomicU32;

/// How a thread waits for a lock that is held.
///
/// A layer cannot sleep: sleeping is the operating system's. The OS source brings the type that
/// does it, and every lock above is generic over it.
///
/// # Safety
/// [`wait`](Self::wait) must return when it was woken for `word`, and may return at any time
/// before. It must not sleep if `word` is no longer `expected` when it looks, and it must look
/// after a wake could no longer be missed (the futex contract). Neither call may allocate, take a
/// [`Lock`](crate::Lock) or unwind.
pub unsafe trait Wait {
    /// Sleeps while `word` is `expected`, or spins.
    fn wait(word: &AtomicU32, expected: u32);

    /// Wakes one thread that waits on `word`.
    fn wake_one(word: &AtomicU32);
}

/// Waits by spinning: for systems without threads to wait for, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spin;

// SAFETY: `wait` returns at once and so never misses a wake.
unsafe impl Wait for Spin {
    fn wait(_word: &AtomicU32, _expected: u32) {
        spin_pause();
    }

    fn wake_one(_word: &AtomicU32) {}
}

/// Tells the processor (or loom's scheduler) that this thread is spinning.
#[inline]
pub fn spin_pause() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    // A thread whose panic unwinds does not let the others run.
    #[cfg(loom)]
    if !std::thread::panicking() {
        loom::thread::yield_now();
    }
}

/// How often a thread looks at a held lock before it waits; at least once. In a model every
/// further look only repeats interleavings, and every pause leaves some out.
pub(crate) const SPINS: u32 = if cfg!(loom) { 1 } else { 64 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spin_returns_whatever_it_expects() {
        let word = AtomicU32::new(1);
        Spin::wait(&word, 1);
        Spin::wait(&word, 2);
        Spin::wake_one(&word);
        const { assert!(SPINS > 0) };
    }
}
