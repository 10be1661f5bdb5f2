//! Where threads allocate that may not enter the heap: during somebody else's fork, and in signal
//! handlers that interrupt an allocation.
//!
//! It is a small heap of its own under one lock, which is held for short with all signals blocked, so
//! that nobody waits for it for long. In the child of a fork it is lost if some thread was in it.

use core::alloc::Layout;
use core::ptr::NonNull;

use spanalloc_central::Central as _;
use spanalloc_os::{OsSource, Report};
use spanalloc_sync::atomic::{AtomicBool, Ordering};
use spanalloc_sync::{Lock, rank};

use super::heap::Cache;
use super::system::Signals;
use crate::program::{self, Central, Os};

static CENTRAL: Central = program::central();
static SHELTER: Lock<Option<Cache>, <Os as OsSource>::Wait, { rank::FALLBACK }> = Lock::new(None);
static LOST: AtomicBool = AtomicBool::new(false);

/// Uses the shelter's cache; None if there is no memory for one, or the shelter is lost.
fn with<R>(use_it: impl FnOnce(Cache) -> R) -> Option<R> {
    if LOST.load(Ordering::Relaxed) {
        return None;
    }
    let _signals = Signals::block();
    let mut shelter = SHELTER.lock();
    let cache = match *shelter {
        Some(cache) => cache,
        None => *shelter.insert(Cache::open(&CENTRAL)?),
    };
    Some(use_it(cache))
}

/// Memory for `layout`, and whether it is known to be zero.
pub(super) fn alloc(layout: Layout) -> Option<(NonNull<u8>, bool)> {
    with(|cache| cache.alloc_known(layout))
        .and_then(|(object, zeroed)| NonNull::new(object).map(|object| (object, zeroed)))
}

/// Whether an address lies in an object of the shelter.
pub(super) fn owns(address: usize) -> bool {
    CENTRAL.span_at(address).is_some()
}

/// Frees an object of the shelter; one of a lost shelter stays.
///
/// # Safety
/// Nobody uses the object any more.
pub(super) unsafe fn free(object: *mut u8) -> Result<(), Report> {
    // SAFETY: the shelter owns the address; the caller's promise.
    with(|cache| unsafe { cache.free_unsized_slow(object) }).unwrap_or(Ok(()))
}

/// Bytes of a live object of the shelter.
pub(super) fn usable_bytes(address: usize) -> Result<usize, Report> {
    with(|cache| cache.usable_bytes(address)).unwrap_or(Ok(0))
}

/// Gives the shelter up if a thread that does not exist in this process was in it.
pub(super) fn reopen_in_child() {
    if SHELTER.try_lock().is_none() {
        LOST.store(true, Ordering::Relaxed);
    }
}
