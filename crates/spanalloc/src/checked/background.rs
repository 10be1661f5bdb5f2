//! Memory of [`Checked`] that goes back: on demand, and by the background thread.

use core::time::Duration;

use spanalloc_central::Central as _;
use spanalloc_pages::PAGE_BYTES;

use super::heap::{Cache, GATE};
use super::{Checked, Entry, fork, is_early};
use crate::background::{self, PIECES, Time, Told};
use crate::program::Program as _;

/// Pages that are given back to the system at once: 64 MB.
const RELEASE_PAGES: usize = 8 << 10;

/// Gives all memory that is free back to the system, with what the calling thread keeps of it and the empty
/// spans of all threads. Returns how many bytes that was. The other threads give back the rest of what they
/// keep when they next come to a slow path.
pub fn release() -> usize {
    if is_early() || !fork::is_watched() {
        return 0;
    }
    match Entry::find() {
        Entry::Own(cache, _inside) => {
            Checked::central().catch_up();
            cache.reclaim();
            Cache::tend_idle(Checked::central(), true);
        }
        Entry::Outsider(_outsider) => Cache::tend_idle(Checked::central(), true),
        Entry::Shelter => {}
    }
    let mut released = 0;
    // Step by step, so that a thread that forks meanwhile does not wait for all of it.
    loop {
        let pages = match Entry::find() {
            Entry::Shelter => 0,
            _entered => Checked::central().heap().release_all(RELEASE_PAGES),
        };
        released += pages * PAGE_BYTES;
        if pages < RELEASE_PAGES {
            return released;
        }
    }
}

/// One round of the background thread. How long there is nothing more to do.
fn tend(told: Told) -> Duration {
    let central = Checked::central();
    central.heap().set_attended(told != Told::Left);
    if told == Told::Left || !fork::is_watched() {
        return Duration::MAX;
    }
    let Some(_outsider) = GATE.enter_as_outsider() else { return Duration::from_millis(50) };
    if told == Told::Idle {
        central.catch_up();
        Cache::tend_idle(central, false);
    }
    central.heap().scavenge(&Time::<Checked>::NEW, PIECES)
}

/// As [`background::start`], for the heap of [`Checked`] alone: a program that has
/// no other needs nothing of it.
pub fn start_background() -> bool {
    !is_early() && background::start_with(1, tend)
}
