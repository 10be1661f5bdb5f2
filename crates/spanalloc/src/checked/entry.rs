//! How a thread enters the heap, and where it goes if it may not.

use core::sync::atomic::compiler_fence;

use spanalloc_sync::atomic::Ordering;

use super::gate::{FAST, Inside, OUTSIDE, Outsider};
use super::heap::Checks;
use super::{fork, system};
use crate::program::CacheOf;
use crate::thread::{self, Stage};

/// The cache of the calling thread on a fast path, from which a signal handler is kept out.
pub(super) struct Fast<G: Checks>(pub(super) CacheOf<G>);

impl<G: Checks> Fast<G> {
    /// None if the thread has no cache, or is inside already.
    #[inline(always)]
    pub(super) fn enter() -> Option<Self> {
        if is_early::<G>() {
            return None;
        }
        let cache = thread::slot::<G>();
        let inside = cache.state().inside();
        if inside.load(Ordering::Relaxed) != OUTSIDE {
            return None;
        }
        inside.store(FAST, Ordering::Relaxed);
        // A signal handler on this thread sees the store before anything that follows.
        compiler_fence(Ordering::SeqCst);
        Some(Self(cache))
    }

    #[inline(always)]
    pub(super) fn leave(self) {
        compiler_fence(Ordering::SeqCst);
        self.0.state().inside().store(OUTSIDE, Ordering::Relaxed);
    }
}

/// Where a thread on a slow path may go.
pub(super) enum Entry<G: Checks> {
    /// Into the heap, with the thread's own cache.
    Own(CacheOf<G>, #[allow(dead_code, reason = "held until it is dropped")] Inside<'static>),
    /// Into the heap, without a cache.
    Outsider(#[allow(dead_code, reason = "held until it is dropped")] Outsider<'static>),
    /// Not into the heap.
    Shelter,
}

/// Whether the library is not relocated yet: then nothing may be called that is not part of it, not even
/// what copies memory.
#[inline(always)]
pub(super) fn is_early<G: Checks>() -> bool {
    G::slot().is_null()
}

impl<G: Checks> Entry<G> {
    /// Where the calling thread may go, now or in a moment.
    pub(super) fn find() -> Self {
        let entry = Self::find_now();
        if matches!(entry, Self::Shelter) && !is_inside::<G>() && G::gate().wait_a_moment() {
            return Self::find_now();
        }
        entry
    }

    fn find_now() -> Self {
        let stage = match thread::stage::<G>() {
            Stage::Unset => Self::start(),
            other => other,
        };
        match stage {
            Stage::Live(cache) => Self::own(cache),
            Stage::Ended => G::gate().enter_as_outsider().map_or(Self::Shelter, Self::Outsider),
            Stage::Unset | Stage::Starting => Self::Shelter,
        }
    }

    fn own(cache: CacheOf<G>) -> Self {
        let inside = cache.state().inside();
        if inside.load(Ordering::Relaxed) != OUTSIDE {
            return Self::Shelter;
        }
        match G::gate().enter(inside) {
            Some(guard) => Self::Own(cache, guard),
            None => Self::Shelter,
        }
    }

    /// Makes the cache of a thread that has none yet, if the gate is open and there is memory.
    fn start() -> Stage<G> {
        // A signal handler that came first may have made it.
        let _signals = system::Signals::block();
        match thread::stage::<G>() {
            Stage::Unset => G::set_slot(&G::stages().starting),
            other => return other,
        }
        fork::watch::<G>();
        let cache = match G::gate().enter_as_outsider() {
            Some(_outsider) => CacheOf::<G>::open(G::central()),
            None => None,
        };
        if let Some(cache) = cache {
            // The last thread with this state may have ended in a signal handler.
            cache.state().inside().store(OUTSIDE, Ordering::Relaxed);
        }
        thread::start::<G>(cache);
        thread::stage::<G>()
    }
}

/// Whether this is a signal handler that interrupted the calling thread in the heap.
pub(super) fn is_inside<G: Checks>() -> bool {
    match thread::stage::<G>() {
        Stage::Live(cache) => cache.state().inside().load(Ordering::Relaxed) != OUTSIDE,
        Stage::Starting => true,
        Stage::Unset | Stage::Ended => false,
    }
}
