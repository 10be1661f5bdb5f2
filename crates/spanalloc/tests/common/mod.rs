//! What the tests that look at the program's own heap share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spanalloc::stats::Snapshot;

/// One test at a time, so that what the program's heap holds is the doing of that test.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the heap holds once no other thread is at work: the test harness may still be busy with the
/// test before.
pub fn settled() -> Snapshot {
    let mut last = spanalloc::stats::snapshot();
    let mut looks = 0;
    for _ in 0..500 {
        std::thread::sleep(Duration::from_millis(2));
        let next = spanalloc::stats::snapshot();
        // A thread that was waited for may not have ended its cache yet.
        let same = next.live_objects() == last.live_objects() && next.caches == last.caches;
        looks = if next.adds_up() && same { looks + 1 } else { 0 };
        if looks == 5 {
            return next;
        }
        last = next;
    }
    panic!("does not add up: {last:?}");
}
