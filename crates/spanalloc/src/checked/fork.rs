//! The heap around a fork.

use core::ptr;

use spanalloc_cache::ThreadCache;
use spanalloc_central::{Central, Owner};
use spanalloc_sync::atomic::{AtomicBool, Ordering};

use super::gate::{OUTSIDE, SLOW};
use super::heap::{Cache, CacheState, GATE};
use super::{Checked, system};
use crate::program::Program;
use crate::thread::{self, Stage};

static WATCHED: AtomicBool = AtomicBool::new(false);

/// Sees to it that the gate is closed around every fork. Called before the first lock is taken.
#[inline]
pub(super) fn watch() {
    if !WATCHED.swap(true, Ordering::Relaxed) {
        system::at_fork(prepare, parent, child);
    }
}

/// Whether any thread ever asked for memory.
pub(super) fn is_watched() -> bool {
    WATCHED.load(Ordering::Relaxed)
}

/// The state of the calling thread, if it has one.
fn own() -> Option<&'static CacheState> {
    match thread::stage::<Checked>() {
        Stage::Live(cache) => Some(cache.state()),
        _ => None,
    }
}

/// Calls `visit` with the state of every other thread that has one.
fn for_each_other(mut visit: impl FnMut(&'static CacheState)) {
    let own = own().map_or(ptr::null(), ptr::from_ref);
    Checked::central().for_each_owner(|owner| {
        // SAFETY: every owner registered with these lists begins a state, which is never unmapped
        // (contract of `Cache::new`).
        let (state, active) = unsafe { (owner.cast().as_ref(), Owner::is_active(owner.as_ref())) };
        if active && !ptr::eq(state, own) {
            visit(state);
        }
    });
}

extern "C" fn prepare() {
    let inside = own().map_or(OUTSIDE, |state| state.inside().load(Ordering::Relaxed));
    GATE.close(inside != SLOW, || {
        let mut out = true;
        // SeqCst pairs with the swap of a thread that enters.
        for_each_other(|state| out &= state.inside().load(Ordering::SeqCst) != SLOW);
        out
    });
}

extern "C" fn parent() {
    GATE.reopen();
}

/// The child has the caches of threads that it does not have: their spans go to the lists.
extern "C" fn child() {
    let whole = GATE.reopen_in_child();
    // A signal handler that forked may have interrupted this thread anywhere in the heap: it is not
    // to be entered before that has come to its end.
    if !whole || super::is_inside() {
        return;
    }
    // With signals blocked.
    let Some(_outsider) = GATE.enter_as_outsider() else { return };
    // The fallback's cache is registered like a thread's: it closes itself.
    *Checked::fallback().lock() = ThreadCache::with_policy(Checked::central());
    for_each_other(|state| {
        // SAFETY: the state was registered with these lists; its thread is not in this process, was
        // not in a slow path, and will never be back.
        unsafe { Cache::new(state, Checked::central()).close() };
        state.inside().store(OUTSIDE, Ordering::Relaxed);
    });
}
