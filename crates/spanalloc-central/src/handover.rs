//! How the token of a span finds somebody who may fold it, while spans change hands.
//!
//! A span is owned by a thread cache, named by the cache's queue, or by nobody: then it is in
//! central and belongs to whoever holds the lock of its class. The owner only changes under that
//! lock. An owner that leaves first closes its queue, then hands over its spans one by one.

use core::ptr::{self, NonNull};

use spanalloc_sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use spanalloc_sync::fault::{self, Fault};
use spanalloc_sync::{Lock, Wait};

use crate::queue::{Linked, Queue};

/// Who owns a span: the queue of a thread cache, or nobody (null).
#[derive(Debug)]
pub struct Ownership<S>(AtomicPtr<Queue<S>>);

/// Whether a span's token waits with the span, because its owner's queue was closed. Guarded by the
/// lock of the class.
#[derive(Debug)]
pub struct Stranded(AtomicBool);

/// A span as far as ownership is concerned.
///
/// # Safety
/// As for [`Linked`]; each method returns the same field each time.
pub unsafe trait Owned: Linked {
    /// The ownership field.
    ///
    /// # Safety
    /// `span` is one.
    unsafe fn ownership<'a>(span: NonNull<Self>) -> &'a Ownership<Self>;

    /// The place of a token that found no folder.
    ///
    /// # Safety
    /// `span` is one.
    unsafe fn stranded<'a>(span: NonNull<Self>) -> &'a Stranded;
}

impl<S> Ownership<S> {
    /// Nobody's.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Whether the span is owned by the cache with this queue.
    #[inline(always)]
    pub fn is(&self, queue: &Queue<S>) -> bool {
        ptr::eq(self.0.load(Ordering::Relaxed), queue)
    }

    /// Makes the cache with this queue the owner. Needs the lock of the class, or a span that
    /// nobody else knows yet. Queues stay mapped for ever.
    #[inline]
    pub fn claim(&self, queue: &Queue<S>) {
        // Release pairs with the Acquire in `deliver`.
        self.0.store(ptr::from_ref(queue).cast_mut(), Ordering::Release);
    }

    /// Makes the span nobody's. Needs the lock of the class and an owner that has closed its
    /// queue, or a span without a token.
    #[inline]
    pub fn disclaim(&self) {
        // Release pairs with the Acquire in `deliver`.
        self.0.store(ptr::null_mut(), Ordering::Release);
    }
}

impl Stranded {
    /// No token here.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Leaves the token here until somebody takes it.
    #[inline]
    pub fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes the token if it is here.
    #[inline]
    pub fn take(&self) -> bool {
        let here = self.0.load(Ordering::Relaxed);
        if here {
            self.0.store(false, Ordering::Relaxed);
        }
        here
    }
}

impl Default for Stranded {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Default for Ownership<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// Brings the token of `span` to its owner; false if it has none, or one that is leaving, and the
/// token stays with the caller. Takes no lock.
///
/// # Safety
/// The caller holds the token, and every queue that ever owned the span is still mapped.
#[inline]
pub unsafe fn push_to_owner<S: Owned>(span: NonNull<S>) -> bool {
    // SAFETY: the caller passes a span; the token keeps it from being reused.
    let ownership = unsafe { S::ownership(span) };
    // Acquire pairs with the Release in `claim` and `disclaim`.
    let seen = ownership.0.load(Ordering::Acquire);
    // SAFETY: the token gives the right to the link; a queue, once an owner, stays mapped for ever.
    !seen.is_null() && unsafe { (*seen).push(span) }.is_ok()
}

/// Brings the token of `span` to its owner, or calls `fold` under the lock if it has none.
///
/// # Safety
/// The caller holds the token, `lock` is the one that guards the span's owner, and every queue that
/// ever owned the span is still mapped.
#[inline]
pub unsafe fn deliver<S: Owned, L, W: Wait, const RANK: u8>(
    span: NonNull<S>,
    lock: &Lock<L, W, RANK>,
    fold: impl FnOnce(&mut L, NonNull<S>),
) {
    // SAFETY: the caller's promise is passed on.
    if unsafe { push_to_owner(span) } {
        return;
    }
    let mut guard = lock.lock();
    // SAFETY: the caller passes a span; the token keeps it from being reused.
    let ownership = unsafe { S::ownership(span) };
    // The owner changes only under the lock, which is now held.
    let owner = ownership.0.load(Ordering::Relaxed);
    if owner.is_null() || fault::seeded(Fault::LateFreeDropsRecheck) {
        return fold(&mut guard, span);
    }
    // SAFETY: as above. An owner that is leaving finds the token when it hands the span over.
    if unsafe { (*owner).push(span) }.is_err() {
        // SAFETY: as above; the lock is held.
        unsafe { S::stranded(span) }.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Span;
    use crate::testing::span;
    use spanalloc_sync::Spin;

    type Class = Lock<usize, Spin, 1>;

    /// Delivers and returns whether the span was folded under the lock.
    fn delivered(span: crate::SpanRef, class: &Class) -> bool {
        let before = *class.lock();
        // SAFETY: the test is alone, so it has the token; the queues outlive it.
        unsafe { deliver(span.as_ptr(), class, |folds, _| *folds += 1) };
        *class.lock() > before
    }

    #[test]
    fn a_token_comes_to_the_owner_or_is_folded_under_the_lock() {
        let (class, queue, other) = (Class::new(0), Queue::<Span>::new(), Queue::new());
        let span = span(1, 64, 10, false);
        assert!(!span.ownership().is(&queue));
        assert!(delivered(span, &class), "nobody's");
        span.ownership().claim(&queue);
        assert!(span.ownership().is(&queue) && !span.ownership().is(&other));
        assert!(!delivered(span, &class));
        assert_eq!(queue.drain().next(), Some(span.as_ptr()));
        span.ownership().disclaim();
        assert!(delivered(span, &class), "nobody's again");
        assert!(!span.stranded().take());
    }

    #[test]
    fn a_token_waits_for_an_owner_that_leaves() {
        let (class, queue) = (Class::new(0), Queue::<Span>::new());
        let span = span(1, 64, 10, false);
        span.ownership().claim(&queue);
        assert_eq!(queue.close().count(), 0);
        assert!(!delivered(span, &class));
        assert!(span.stranded().take() && !span.stranded().take());
    }
}
