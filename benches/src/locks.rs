//! How many locks an allocator takes while the clock runs.

use std::sync::{Mutex, OnceLock, PoisonError};

/// Numbers of acquisitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    /// Of the locks of the central lists.
    pub central: usize,
    /// Of the locks of the page heap.
    pub heap: usize,
}

/// Tells how many locks the allocator has taken so far.
static COUNT: OnceLock<fn() -> Locks> = OnceLock::new();
/// What was taken while the clock ran.
static TIMED: Mutex<Locks> = Mutex::new(Locks { central: 0, heap: 0 });

/// Says how the locks of this program's allocator are counted.
pub(crate) fn count_with(count: fn() -> Locks) {
    // Whoever came first is right too: a program has one allocator.
    let _again = COUNT.set(count);
}

/// The locks that were taken inside of [`counted`]; nothing if the allocator does not count them.
pub(crate) fn timed() -> Option<Locks> {
    COUNT.get()?;
    Some(*TIMED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Does what is timed, and counts its locks. The clock starts and stops inside of it.
pub(crate) fn counted<R>(work: impl FnOnce() -> R) -> R {
    let Some(count) = COUNT.get() else { return work() };
    let before = count();
    let result = work();
    let after = count();
    let mut timed = TIMED.lock().unwrap_or_else(PoisonError::into_inner);
    timed.central += after.central.wrapping_sub(before.central);
    timed.heap += after.heap.wrapping_sub(before.heap);
    result
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Locks, count_with, counted, timed};

    static TAKEN: AtomicUsize = AtomicUsize::new(5);

    #[test]
    fn only_what_is_taken_inside_counts() {
        assert_eq!(timed(), None);
        counted(|| TAKEN.fetch_add(1, Ordering::Relaxed));
        count_with(|| {
            let taken = TAKEN.load(Ordering::Relaxed);
            Locks { central: taken, heap: 2 * taken }
        });
        assert_eq!(timed(), Some(Locks::default()));
        counted(|| TAKEN.fetch_add(3, Ordering::Relaxed));
        TAKEN.fetch_add(10, Ordering::Relaxed);
        counted(|| TAKEN.fetch_add(4, Ordering::Relaxed));
        assert_eq!(timed(), Some(Locks { central: 7, heap: 14 }));
    }
}
