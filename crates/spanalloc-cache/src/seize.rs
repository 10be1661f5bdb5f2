//! Emptying what a thread keeps by another thread, while the first one sleeps and may never come again.
//!
//! A state whose thread says when it is inside can be [lent](Cache::lend). Whoever looks after idle threads seizes
//! it then (see [`lease`](spanalloc_sync::lease)), which costs the thread nothing on a fast path that says nowhere
//! that it is taken, and two instructions on one that does. The seizer is the only one then who uses what only slow
//! paths use. Bins that have a fast path of the first kind are [shut](Keep::shut) before they are looked at,
//! and every thread passes a second fence: what is in them afterwards is the seizer's, but for one object that
//! the thread may be about to free into one of them, and one that it thought to have taken and puts back. Both of them it
//! finds itself when it [comes back](Cache::enter).
//!
//! Only a thread that sleeps is seized: one that runs would have to fill anew what it lost. The memory of the bins
//! themselves is given back only if it still sleeps then. An object is lost, neither used by anybody nor given back,
//! if a signal handler interrupted the thread between the two stores by which it keeps a freed object, or moves an
//! outlet back, and sleeps for that long.

use spanalloc_central::Central;
use spanalloc_pages::Pages;
use spanalloc_sync::atomic::Ordering;
use spanalloc_sync::lease::Entry;

use crate::bin::Keep;
use crate::cache::Cache;
use crate::policy::Policy;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Says by which number the system knows the thread now: it has another one in the child of a fork.
    pub fn set_thread(self, thread: u32) {
        self.state.thread.store(thread, Ordering::Relaxed);
    }

    /// Lets other threads empty this cache from now on while the calling thread, which the system knows by
    /// this number, sleeps outside of it. So the thread says in [`inside`](crate::CacheState::inside) when it is on
    /// any path that does more than to take an object from a bin, or to put one into it, and [enters](Self::enter)
    /// then.
    pub fn lend(self, thread: u32) {
        self.set_thread(thread);
        self.state.lease.lend();
    }

    /// Whether the calling thread may use its cache, now that it has said to be inside: not if somebody is
    /// emptying it. Does what is left to be done if somebody was.
    #[inline]
    #[must_use]
    pub fn enter(self) -> bool {
        self.enter_as(self.state.lease.enter())
    }

    #[inline]
    fn enter_as(self, entry: Entry) -> bool {
        if entry == Entry::Emptied {
            self.reopen_slow();
        }
        entry != Entry::Taken
    }

    /// As [`enter`](Self::enter), and lets nobody empty the cache from then on. For the end of a thread.
    #[must_use]
    pub fn keep(self) -> bool {
        self.enter_as(self.state.lease.keep())
    }

    #[cold]
    #[inline(never)]
    fn reopen_slow(self) {
        for (_, bin) in self.state.used_bins() {
            bin.reopen();
        }
    }

    /// Gives back what the thread of this cache keeps, for it, if it is asleep and has lent it.
    pub(crate) fn seize(self) {
        let (state, heap) = (self.state, self.central.heap());
        // There may be something new from other threads in what was emptied already.
        if !state.lease.may_be_seized()
            || state.lease.is_emptied() && state.owner.queue.is_empty()
            || !self.is_asleep()
        {
            return;
        }
        let emptied = state.lease.is_emptied();
        let Some(seized) = state.lease.seize(state.inside(), || heap.fence_threads()) else {
            return;
        };
        if !emptied && self.shut_bins() {
            self.give_back_all();
        } else if emptied {
            self.drain();
            self.trim(0);
            // SAFETY: who has seized the state is the only user of its stash.
            unsafe { self.central.flush(&state.stash) };
        }
        // It comes back to nothing that it should give back.
        self.stay_awake();
        seized.end();
    }

    fn is_asleep(self) -> bool {
        self.central.heap().is_asleep(self.state.thread.load(Ordering::Relaxed))
    }

    /// Shuts all bins and finds out what is in them. False, and nothing was done, if the system cannot fence threads,
    /// which it could a moment ago.
    fn shut_bins(self) -> bool {
        self.state.used_bins().for_each(|(_, bin)| bin.shut());
        let fenced = self.central.heap().fence_threads();
        debug_assert!(fenced);
        self.state.used_bins().for_each(|(_, bin)| bin.find_ends());
        fenced
    }

    fn give_back_all(self) {
        self.give_back_kept();
        if self.is_asleep() {
            self.rest();
        }
    }
}

#[cfg(test)]
mod tests;
