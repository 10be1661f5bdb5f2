//! Which cache the calling thread has.
//!
//! A thread's slot holds one pointer, never null:
//!
//! | slot           | meaning                                | leaves it by                      |
//! |----------------|----------------------------------------|-----------------------------------|
//! | `heap::UNSET`  | nothing was allocated or freed yet     | first slow path -> a state, or ENDED |
//! | a state        | the thread's cache                     | thread exit -> ENDED              |
//! | `heap::ENDED`  | the cache is gone, or cannot be had    | never                             |
//!
//! The two statics are caches that hold nothing and take nothing, so the fast paths need not ask:
//! they come to the slow path by themselves. The slot is set before the thread's exit is watched:
//! watching may allocate, and then finds a working cache.

use core::cell::Cell;
use core::ptr;

use spanalloc_cache::CacheState;

use crate::heap::{CENTRAL, Cache, ENDED, UNSET};

std::thread_local! {
    static SLOT: Cell<*const CacheState> = const { Cell::new(&raw const UNSET) };
}

/// The cache in the thread's slot, which may be one of the two that hold nothing.
#[inline(always)]
pub(crate) fn slot() -> Cache {
    // SAFETY: the slot points to one of the two statics, which hold nothing and are never written
    // to, or to this thread's state, which is never unmapped.
    unsafe { Cache::new(&*SLOT.get(), &CENTRAL) }
}

/// The thread's cache; None if it has none any more.
#[inline(always)]
pub(crate) fn cache() -> Option<Cache> {
    let cache = slot();
    if ptr::eq(cache.state(), &UNSET) || ptr::eq(cache.state(), &ENDED) {
        return cache_slow();
    }
    Some(cache)
}

/// The thread's cache, made now if this is its first use.
#[cold]
#[inline(never)]
pub(crate) fn cache_slow() -> Option<Cache> {
    let cache = slot();
    if ptr::eq(cache.state(), &ENDED) {
        return None;
    }
    if !ptr::eq(cache.state(), &UNSET) {
        return Some(cache);
    }
    let cache = Cache::open(&CENTRAL)?;
    SLOT.set(cache.state());
    if watch::exit_of_this_thread(cache.state()) {
        return Some(cache);
    }
    // Nobody would close the cache when the thread ends.
    end(cache);
    None
}

/// Closes the thread's cache. What the thread allocates or frees later goes to the fallback.
fn end(cache: Cache) {
    SLOT.set(&ENDED);
    // SAFETY: the cache was opened by this thread, whose slot no longer leads to it.
    unsafe { cache.close() };
}

/// Closing the cache when its thread ends: by a pthread key, whose destructors run after those of
/// `thread_local!` values, which may still allocate and free.
#[cfg(unix)]
mod watch {
    use core::ffi::c_void;
    use core::ptr;

    use spanalloc_cache::CacheState;
    use spanalloc_sync::atomic::{AtomicUsize, Ordering};

    use crate::heap::{CENTRAL, Cache};

    /// The key plus one; 0 while there is none.
    static KEY: AtomicUsize = AtomicUsize::new(0);

    /// Sees to it that the cache is closed when this thread ends. False if the system cannot.
    pub(super) fn exit_of_this_thread(state: &'static CacheState) -> bool {
        let Some(key) = key() else { return false };
        // SAFETY: the key was created and is never deleted; the state is never unmapped.
        unsafe { libc::pthread_setspecific(key, ptr::from_ref(state).cast()) == 0 }
    }

    fn key() -> Option<libc::pthread_key_t> {
        // Relaxed: the key is a number, nothing is read through it.
        let known = KEY.load(Ordering::Relaxed);
        if known != 0 {
            return libc::pthread_key_t::try_from(known - 1).ok();
        }
        let mut key = 0;
        // SAFETY: `key` is valid for writing; `thread_ends` has the right signature.
        if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) } != 0 {
            return None;
        }
        let mine = usize::try_from(key).ok()? + 1;
        match KEY.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed) {
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
    unsafe extern "C" fn thread_ends(state: *mut c_void) {
        // SAFETY: the state is never unmapped, and this thread's.
        super::end(unsafe { Cache::new(&*state.cast::<CacheState>(), &CENTRAL) });
    }
}

/// Closing the cache when its thread ends: by a `thread_local!` value with a destructor.
#[cfg(not(unix))]
mod watch {
    use core::cell::Cell;

    use spanalloc_cache::CacheState;

    struct Guard(Cell<bool>);

    impl Drop for Guard {
        fn drop(&mut self) {
            super::end(super::slot());
        }
    }

    std::thread_local! {
        static GUARD: Guard = const { Guard(Cell::new(false)) };
    }

    /// Sees to it that the cache is closed when this thread ends. False if it is ending already.
    pub(super) fn exit_of_this_thread(_state: &'static CacheState) -> bool {
        GUARD.try_with(|guard| guard.0.set(true)).is_ok()
    }
}
