//! What a thread does about the limits of the heap below.

use core::ptr::NonNull;

use spanalloc_central::{Central, Owner};
use spanalloc_pages::{Notice, Pages};
use spanalloc_sync::atomic::Ordering;

use crate::cache::Cache;
use crate::policy::Policy;

impl<'a, C: Central, P: Policy> Cache<'a, C, P> {
    /// Hears whether the heap calls because its memory came to a limit. For the end of a slow path: the
    /// thread may give back all that it keeps.
    #[inline]
    pub(crate) fn heed(self) {
        // Only this thread writes what it heard.
        if self.central.heap().calls() != self.state.heard.load(Ordering::Relaxed) {
            self.heed_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn heed_slow(self) {
        let heard = self.state.heard.load(Ordering::Relaxed);
        let heard = self.central.heap().heed(heard, || {
            self.reclaim();
            Self::tend_idle(self.central, true);
            self.has_others()
        });
        self.state.heard.store(heard, Ordering::Relaxed);
    }

    /// Whether other threads have caches.
    fn has_others(self) -> bool {
        let mut others = false;
        self.central.for_each_owner(|owner| {
            // SAFETY: owners are never unmapped.
            let active = unsafe { Owner::is_active(owner.as_ref()) };
            others |= active && owner != NonNull::from(&self.state.owner);
        });
        others
    }

    /// Calls `alloc`, which was refused a run of `bytes` bytes, when the thread has given back what it keeps.
    /// Calls it once more when the empty spans of all threads went back, and what the heap gives to the
    /// system for its hard limit. That is all: what is refused takes memory before it is, so there would
    /// always be some to be given back.
    #[cold]
    #[inline(never)]
    pub(crate) fn insist<T>(self, bytes: usize, alloc: impl Fn() -> Option<T>) -> Option<T> {
        self.reclaim();
        alloc().or_else(|| {
            Self::tend_idle(self.central, true);
            self.central.heap().make_room(bytes);
            alloc()
        })
    }

    /// What somebody is to be told of the heap's soft limit. Whoever has a cache asks when a slow path is over
    /// and it holds no lock, and delivers it.
    #[inline]
    pub fn take_notice(self) -> Option<Notice<'a>> {
        self.central.heap().take_notice()
    }
}
