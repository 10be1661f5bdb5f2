//! How a thread enters the heap, and where it goes if it may not.

use core::sync::atomic::compiler_fence;
use core::time::Duration;

use spanalloc_sync::atomic::Ordering;

use super::gate::{FAST, Inside, OUTSIDE, Outsider};
use super::heap::Checks;
use super::{fork, system};
use crate::program::CacheOf;
use crate::thread::{self, Stage};

/// How long a thread waits for another one that is emptying its cache before it goes to the shelter.
const PATIENCE: Duration = Duration::from_millis(20);

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
        let fast = Self(cache);
        // As the thread says that it is inside, others leave the cache alone from now on.
        if !cache.state().is_at_hand() {
            fast.leave();
            return None;
        }
        Some(fast)
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
        if matches!(entry, Self::Shelter) && !is_inside::<G>() {
            wait_until_left::<G>();
            if G::gate().wait_a_moment() {
                return Self::find_now();
            }
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
            Some(guard) if cache.enter() => Self::Own(cache, guard),
            _ => Self::Shelter,
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
        thread::start::<G>(cache);
        thread::stage::<G>()
    }
}

/// Waits for a moment for another thread that is emptying what the calling one keeps.
fn wait_until_left<G: Checks>() {
    let limit = system::Limit::in_future(PATIENCE);
    while thread::slot::<G>().state().is_taken() && !limit.is_past() {
        system::yield_now();
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
