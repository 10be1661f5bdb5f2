//! Which cache the calling thread has.
//!
//! A thread's slot holds one pointer, never null once the library is relocated:
//!
//! | slot       | meaning                                | leaves it by                              |
//! |------------|----------------------------------------|-------------------------------------------|
//! | `unset`    | nothing was allocated or freed yet     | first slow path -> starting               |
//! | `starting` | the cache is being made                | -> a state; no memory -> unset            |
//! | a state    | the thread's cache                     | thread exit, or none that can be watched -> ended |
//! | `ended`    | the cache is gone, or cannot be had    | never                                     |
//!
//! The named ones are caches that hold nothing and take nothing, whatever the fast paths write to them, which
//! need not ask: they come to the slow path by themselves. The slot is set before the thread's exit is watched:
//! watching may allocate, and then finds a working cache.

use core::ptr;
use core::time::Duration;

use spanalloc_cache::Cache;
use spanalloc_sync::atomic::{AtomicU8, Ordering};

use crate::checked::system::{self, Limit};
use crate::program::{CacheOf, Program, State};

/// What the state of a thread says of it in `inside`: it is on no path that others must know of,
pub(crate) const OUTSIDE: u8 = 0;
/// on one that takes from its bins, or puts into them, if that is to be known,
pub(crate) const FAST: u8 = 1;
/// or anywhere in the allocator.
pub(crate) const SLOW: u8 = 2;

/// How long a thread that ends waits for another one that is emptying its cache.
const AT_MOST: Duration = Duration::from_secs(10);

/// The cache in the thread's slot, which may be one of those that hold nothing.
#[inline(always)]
pub(crate) fn slot<G: Program>() -> CacheOf<G> {
    // SAFETY: the slot points to a static, which holds nothing and whose ends are always shut, or to this
    // thread's state, which is never unmapped.
    unsafe { Cache::new(&*G::slot(), G::central()) }
}

/// How far the calling thread is.
#[derive(Debug)]
pub(crate) enum Stage<G: Program> {
    Unset,
    Starting,
    Live(CacheOf<G>),
    Ended,
}

/// How far the calling thread is.
#[inline]
pub(crate) fn stage<G: Program>() -> Stage<G> {
    let (cache, stages) = (slot::<G>(), G::stages());
    if ptr::eq(cache.state(), &stages.unset) {
        Stage::Unset
    } else if ptr::eq(cache.state(), &stages.starting) {
        Stage::Starting
    } else if ptr::eq(cache.state(), &stages.ended) {
        Stage::Ended
    } else {
        Stage::Live(cache)
    }
}

/// The thread's cache; None if it has none any more.
#[inline(always)]
pub(crate) fn cache<G: Program>() -> Option<CacheOf<G>> {
    match stage::<G>() {
        Stage::Live(cache) => Some(cache),
        _ => cache_slow::<G>(),
    }
}

/// The thread's cache, made now if this is its first use.
#[cold]
#[inline(never)]
pub(crate) fn cache_slow<G: Program>() -> Option<CacheOf<G>> {
    match stage::<G>() {
        Stage::Live(cache) => Some(cache),
        Stage::Unset => {
            G::set_slot(&G::stages().starting);
            start::<G>(Cache::open(G::central()))
        }
        Stage::Starting | Stage::Ended => None,
    }
}

/// Makes `cache` that of the calling thread, whose slot says `starting`.
pub(crate) fn start<G: Program>(cache: Option<CacheOf<G>>) -> Option<CacheOf<G>> {
    let Some(cache) = cache else {
        // There may be memory for a cache the next time.
        G::set_slot(&G::stages().unset);
        return None;
    };
    G::set_slot(cache.state());
    if watch::exit_of_this_thread::<G>(cache.state()) {
        cache.state().inside().store(OUTSIDE, Ordering::Relaxed);
        cache.lend(system::thread());
        return Some(cache);
    }
    // Nobody would close the cache when the thread ends.
    end::<G>(cache);
    None
}

/// Closes the thread's cache. What the thread allocates or frees later goes to the fallback.
fn end<G: Program>(cache: CacheOf<G>) {
    G::set_slot(&G::stages().ended);
    let limit = Limit::in_future(AT_MOST);
    while !cache.keep() {
        // Whoever was at it may be gone: in the child of a fork.
        if limit.is_past() {
            return;
        }
        system::yield_now();
    }
    // SAFETY: the cache was opened by this thread, whose slot no longer leads to it.
    unsafe { G::close(cache) };
}

/// The calling thread's cache, on a slow path.
#[derive(Debug)]
pub(crate) struct Inside<G: Program> {
    cache: CacheOf<G>,
    before: u8,
}

impl<G: Program> Inside<G> {
    /// Comes to a slow path of a cache. None if somebody else is at it.
    #[inline]
    fn of(cache: CacheOf<G>) -> Option<Self> {
        let inside: &AtomicU8 = cache.state().inside();
        let before = inside.load(Ordering::Relaxed);
        inside.store(SLOW, Ordering::Relaxed);
        let guard = Self { cache, before };
        cache.enter().then_some(guard)
    }

    pub(crate) fn cache(&self) -> CacheOf<G> {
        self.cache
    }
}

impl<G: Program> Drop for Inside<G> {
    #[inline]
    fn drop(&mut self) {
        // Release pairs with the Acquire of who would empty the cache: it sees what was done.
        self.cache.state().inside().store(self.before, Ordering::Release);
    }
}

/// The calling thread's cache, made now if this is its first use, for a slow path. None if it has none
/// any more, or another thread is emptying it.
#[inline]
pub(crate) fn enter<G: Program>() -> Option<Inside<G>> {
    cache::<G>().and_then(Inside::of)
}

/// Closing the cache when its thread ends: by a pthread key, whose destructors run after those of
/// `thread_local!` values, which may still allocate and free.
#[cfg(unix)]
mod watch {
    use core::ffi::c_void;
    use core::ptr;

    use spanalloc_cache::Cache;
    use spanalloc_sync::atomic::Ordering;

    use super::{Program, State};

    /// Sees to it that the cache is closed when this thread ends. False if the system cannot.
    pub(super) fn exit_of_this_thread<G: Program>(state: &'static State<G::Policy>) -> bool {
        let Some(key) = key::<G>() else { return false };
        // SAFETY: the key was created and is never deleted; the state is never unmapped.
        unsafe { libc::pthread_setspecific(key, ptr::from_ref(state).cast()) == 0 }
    }

    fn key<G: Program>() -> Option<libc::pthread_key_t> {
        let place = G::exit_key();
        // Relaxed: the key is a number, nothing is read through it.
        let known = place.load(Ordering::Relaxed);
        if known != 0 {
            return libc::pthread_key_t::try_from(known - 1).ok();
        }
        let mut key = 0;
        // SAFETY: `key` is valid for writing; `thread_ends` has the right signature.
        if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends::<G>)) } != 0 {
            return None;
        }
        let mine = usize::try_from(key).ok()? + 1;
        match place.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Some(key),
            Err(other) => {
                // SAFETY: this key was created above and nobody else knows it.
                unsafe { libc::pthread_key_delete(key) };
                libc::pthread_key_t::try_from(other - 1).ok()
            }
        }
    }

    /// # Safety
    /// Called with what `exit_of_this_thread` stored, on the same thread.
    unsafe extern "C" fn thread_ends<G: Program>(state: *mut c_void) {
        // SAFETY: the state is never unmapped, and this thread's.
        super::end::<G>(unsafe { Cache::new(&*state.cast::<State<G::Policy>>(), G::central()) });
    }
}

/// Closing the cache when its thread ends: by a `thread_local!` value with a destructor.
#[cfg(not(unix))]
mod watch {
    use core::cell::Cell;

    use super::{Program, State};

    struct Guard(Cell<Option<fn()>>);

    impl Drop for Guard {
        fn drop(&mut self) {
            if let Some(end) = self.0.get() {
                end();
            }
        }
    }

    std::thread_local! {
        static GUARD: Guard = const { Guard(Cell::new(None)) };
    }

    /// Sees to it that the cache is closed when this thread ends. False if it is ending already.
    pub(super) fn exit_of_this_thread<G: Program>(_state: &'static State<G::Policy>) -> bool {
        let end = || super::end::<G>(super::slot::<G>());
        GUARD.try_with(|guard| guard.0.set(Some(end))).is_ok()
    }
}
