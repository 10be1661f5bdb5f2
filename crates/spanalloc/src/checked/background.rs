//! Memory that goes back: on demand, and by the background thread.

use core::time::Duration;

use spanalloc_central::Central as _;
use spanalloc_pages::PAGE_BYTES;

use super::entry::{Entry, is_early};
use super::heap::Checks;
use super::system;
use crate::background::{self, PIECES, Time, Told};
use crate::program::CacheOf;

/// Pages that are given back to the system at once: 64 MB.
const RELEASE_PAGES: usize = 8 << 10;

/// See [`checked::release`](super::release).
pub(crate) fn release<G: Checks>() -> usize {
    if is_early::<G>() || !G::gate().is_watched() {
        return 0;
    }
    // The owners of what is being emptied wait.
    let signals = system::Signals::block();
    match Entry::<G>::find() {
        Entry::Own(cache, _inside) => {
            G::central().catch_up();
            cache.reclaim();
            CacheOf::<G>::tend_idle(G::central(), true);
        }
        Entry::Outsider(_outsider) => CacheOf::<G>::tend_idle(G::central(), true),
        Entry::Shelter => {}
    }
    drop(signals);
    let mut released = 0;
    // Step by step, so that a thread that forks meanwhile does not wait for all of it.
    loop {
        let pages = match Entry::<G>::find() {
            Entry::Shelter => 0,
            _entered => G::central().heap().release_all(RELEASE_PAGES),
        };
        released += pages * PAGE_BYTES;
        if pages < RELEASE_PAGES {
            return released;
        }
    }
}

/// One round of the background thread. How long there is nothing more to do.
fn tend<G: Checks>(told: Told) -> Duration {
    let central = G::central();
    central.heap().set_attended(told != Told::Left);
    if told == Told::Left || !G::gate().is_watched() {
        return Duration::MAX;
    }
    let Some(_outsider) = G::gate().enter_as_outsider() else { return Duration::from_millis(50) };
    if told == Told::Idle {
        central.catch_up();
        CacheOf::<G>::tend_idle(central, false);
    }
    central.heap().scavenge(&Time::<G>::NEW, PIECES)
}

/// See [`checked::start_background`](super::start_background). The heap is the one with this index.
pub(crate) fn start<G: Checks>(index: usize) -> bool {
    !is_early::<G>() && background::start_with(index, tend::<G>)
}
