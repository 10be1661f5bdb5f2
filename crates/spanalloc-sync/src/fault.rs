//! Seeded faults: how a model shows that it would notice a mistake.
//!
//! Production code names the places whose orderings or re-checks its models defend. In an
//! ordinary build [`seeded`] is `const` false and the names vanish. Under `--cfg loom` a test plants
//! one fault for its own thread with `fault::plant` and expects its next model to fail.

use crate::atomic::Ordering;

/// A mistake that a model can plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The lock is released with a relaxed store.
    LockReleaseRelaxed,
    /// A waiter does not mark the lock contended, so nobody wakes it.
    LockForgetsWaiter,
    /// A span is pushed on a queue with a relaxed exchange.
    QueuePushRelaxed,
    /// A queue is drained by a load and a store instead of one exchange.
    QueueDrainTorn,
    /// A remote free marks its slot with a relaxed exchange.
    MarkRelaxed,
    /// A remote free announces its mark with a relaxed addition.
    AnnounceRelaxed,
    /// A remote free announces its mark without an acquire, so the token's holder may find the span
    /// that the descriptor was before.
    AnnounceDropsAcquire,
    /// A fold subtracts what it took with a relaxed subtraction.
    FoldRelaxed,
    /// The remote bits are read and then cleared instead of exchanged.
    FoldTorn,
    /// The fold forgets to look for frees that came while it ran.
    FoldDropsRecheck,
    /// Every remote free queues the span, not only the first.
    RemoteAlwaysQueues,
    /// An arena is published with a relaxed store.
    PublishRelaxed,
    /// A late remote free does not look at the owner again under the central lock.
    LateFreeDropsRecheck,
    /// Slots are reserved without a look for marks of other threads.
    ReserveDropsCheck,
    /// A span is handed over to central without a look for a token that waits with it.
    GiveForgetsToken,
    /// A thread that comes to use what is its own looks for one that seizes it without a fence.
    LeaseEnterUnfenced,
    /// What was seized is given back with a relaxed store.
    LeaseEndRelaxed,
    /// An object is handed out before it is known whether the outlet was shut.
    OutletUnfenced,
    /// The place behind the last one of an empty outlet is taken for an object that came back.
    OutletForgetsEnd,
    /// A freer looks relaxed whether the flag for its mark is still set.
    FlagRelaxed,
    /// A span is entered in the span map with a relaxed store.
    SpanMapRelaxed,
    /// A thread that enters looks relaxed whether the gate is closed.
    GateRelaxed,
    /// A thread leaves the inside of the gate with a relaxed store.
    LeaveRelaxed,
}

/// Whether `fault` is planted. Constant false outside of loom.
#[cfg(not(loom))]
#[inline(always)]
pub const fn seeded(_fault: Fault) -> bool {
    false
}

/// `order`, or `Relaxed` if `fault` is planted.
#[cfg(not(loom))]
#[inline(always)]
pub const fn ordering(_fault: Fault, order: Ordering) -> Ordering {
    order
}

#[cfg(loom)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Whether `fault` is planted on this thread.
#[cfg(loom)]
pub fn seeded(fault: Fault) -> bool {
    PLANTED.with(|planted| planted.get() == Some(fault))
}

/// `order`, or `Relaxed` if `fault` is planted on this thread.
#[cfg(loom)]
pub fn ordering(fault: Fault, order: Ordering) -> Ordering {
    if seeded(fault) { Ordering::Relaxed } else { order }
}

/// Plants `fault` in the next model this thread runs with
/// [`model::check`](crate::model::check), which uproots it however it ends.
#[cfg(loom)]
pub fn plant(fault: Fault) {
    PLANTED.with(|planted| planted.set(Some(fault)));
}

/// Takes the fault out again.
#[cfg(loom)]
pub(crate) fn uproot() {
    PLANTED.with(|planted| planted.set(None));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted() {
        assert!(!seeded(Fault::LockForgetsWaiter));
        assert_eq!(ordering(Fault::LockReleaseRelaxed, Ordering::Release), Ordering::Release);
    }
}
