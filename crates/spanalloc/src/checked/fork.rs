//! The heap around a fork.

use core::ptr;

use spanalloc_cache::ThreadCache;
use spanalloc_central::{Central, Owner};
use spanalloc_sync::atomic::Ordering;

use super::entry::is_inside;
use super::gate::{OUTSIDE, SLOW};
use super::heap::{CacheState, Checks};
use super::system;
use crate::program::CacheOf;
use crate::thread::{self, Stage};

/// Sees to it that the gate is closed around every fork. Called before the first lock is taken.
#[inline]
pub(super) fn watch<G: Checks>() {
    if !G::gate().watch() {
        system::at_fork(prepare::<G>, parent::<G>, child::<G>);
    }
}

/// The state of the calling thread, if it has one.
fn own<G: Checks>() -> Option<&'static CacheState> {
    match thread::stage::<G>() {
        Stage::Live(cache) => Some(cache.state()),
        _ => None,
    }
}

/// Calls `visit` with the state of every other thread that has one.
fn for_each_other<G: Checks>(mut visit: impl FnMut(&'static CacheState)) {
    let own = own::<G>().map_or(ptr::null(), ptr::from_ref);
    G::central().for_each_owner(|owner| {
        // SAFETY: every owner registered with these lists begins a state, which is never unmapped
        // (contract of `Cache::new`).
        let (state, active) = unsafe { (owner.cast().as_ref(), Owner::is_active(owner.as_ref())) };
        if active && !ptr::eq(state, own) {
            visit(state);
        }
    });
}

extern "C" fn prepare<G: Checks>() {
    let inside = own::<G>().map_or(OUTSIDE, |state| state.inside().load(Ordering::Relaxed));
    G::gate().close(inside != SLOW, || {
        let mut out = true;
        // SeqCst pairs with the swap of a thread that enters.
        for_each_other::<G>(|state| out &= state.inside().load(Ordering::SeqCst) != SLOW);
        out
    });
}

extern "C" fn parent<G: Checks>() {
    G::gate().reopen();
}

/// The child has the caches of threads that it does not have: their spans go to the lists.
extern "C" fn child<G: Checks>() {
    let whole = G::gate().reopen_in_child();
    // A signal handler that forked may have interrupted this thread anywhere in the heap: it is not
    // to be entered before that has come to its end.
    if !whole || is_inside::<G>() {
        return;
    }
    // With signals blocked.
    let Some(_outsider) = G::gate().enter_as_outsider() else { return };
    if let Stage::Live(cache) = thread::stage::<G>() {
        cache.set_thread(system::thread());
    }
    // The fallback's cache is registered like a thread's: it closes itself.
    *G::fallback().lock() = ThreadCache::with_policy(G::central());
    for_each_other::<G>(|state| {
        // SAFETY: the state was registered with these lists; its thread is not in this process, was
        // not in a slow path, and will never be back.
        unsafe {
            let cache = CacheOf::<G>::new(state, G::central());
            // Nobody is at it: who empties it is inside.
            let _kept = cache.keep();
            cache.close();
        }
        state.inside().store(OUTSIDE, Ordering::Relaxed);
    });
}
