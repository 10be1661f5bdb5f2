//! What idle threads keep, and how they lose it.
//!
//! Somebody, if there is such a thread, comes by at regular times: see [`Cache::tend_idle`]. Each time it makes
//! the age of every cache one more, and a thread sets its own back to 0 whenever it comes to a slow path.
//! So the age tells for how many rounds a thread was idle, or busy with what it has at hand.
//!
//! From [`IDLE_ROUNDS`] on, the empty spans of a cache are taken from it and given back. Nothing else may be
//! touched by another thread: the bins belong to the thread's fast path, which says nothing to anybody. So the
//! thread itself gives back the rest, its large objects and its magazines, when it comes to a slow path after
//! [`LONG_ROUNDS`]: what it kept is of no use to it after so long. A thread that never comes keeps that,
//! which is bounded.

use core::ptr::NonNull;

use spanalloc_central::{Central, Owner, Stash};
use spanalloc_sync::atomic::Ordering;

use crate::cache::Cache;
use crate::empties::release_to;
use crate::policy::Policy;
use crate::state::CacheState;

/// So many rounds without a slow path make a thread idle.
const IDLE_ROUNDS: u8 = 2;
/// After so many it gives back all it keeps as soon as it comes.
const LONG_ROUNDS: u8 = 10;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// One round: makes all caches over `central` one round older, and gives back the empty spans of those
    /// that are idle, or of `all`. Any thread may do so at any time.
    pub fn tend_idle(central: &C, all: bool) {
        let stash = Stash::new();
        central.for_each_owner(|owner| {
            let state: NonNull<CacheState<P::Bin>> = owner.cast();
            // SAFETY: every owner registered with these lists begins a state, which is never unmapped
            // (contract of `Cache::new`).
            let state = unsafe { state.as_ref() };
            if !Owner::is_active(&state.owner) {
                return;
            }
            // Relaxed: a round that gets lost because the thread comes to a slow path is none.
            let age = state.age.load(Ordering::Relaxed).saturating_add(1);
            state.age.store(age, Ordering::Relaxed);
            if state.empties.bytes() > 0 && (all || age > IDLE_ROUNDS) {
                if let Some(held) = state.empties.hold() {
                    release_to::<C, P>(central, state, &held, &stash, 0);
                }
            }
        });
        // SAFETY: the stash is this call's own.
        unsafe { central.flush(&stash) };
    }

    /// Notes that the thread is on a slow path; after a long time it gives back what it keeps.
    #[inline]
    pub(crate) fn wake(self) {
        if self.state.age.load(Ordering::Relaxed) != 0 {
            self.wake_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_slow(self) {
        let long = self.state.age.load(Ordering::Relaxed) > LONG_ROUNDS;
        self.stay_awake();
        if long {
            self.reclaim_own();
        }
    }

    /// Notes that the thread is on a slow path, where it gives nothing back.
    #[inline]
    pub(crate) fn stay_awake(self) {
        if self.state.age.load(Ordering::Relaxed) != 0 {
            self.state.age.store(0, Ordering::Relaxed);
        }
    }
}
