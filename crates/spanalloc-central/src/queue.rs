//! The queue on which other threads leave spans for their owner.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use spanalloc_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use spanalloc_sync::fault::{self, Fault};

/// Something with a link for a [`Queue`].
///
/// # Safety
/// `link` returns the same field of the entry each time, and entries are never moved or unmapped.
pub unsafe trait Linked: Sized {
    /// The link, used by the one queue this entry is on.
    ///
    /// # Safety
    /// `entry` is one.
    unsafe fn link<'a>(entry: NonNull<Self>) -> &'a AtomicPtr<Self>;
}

// The states of `Queue::head`:
//
// | value        | meaning                           | leaves it by                        |
// |--------------|-----------------------------------|-------------------------------------|
// | EMPTY        | open, nothing queued              | push, close                         |
// | an address   | open, the newest entry            | push, drain -> EMPTY, close         |
// | CLOSED       | the owner takes no more           | open -> EMPTY                       |
const EMPTY: usize = 0;
const CLOSED: usize = 1;

/// A stack that any thread pushes on and its one owner takes whole.
///
/// The all-zero queue is open and empty. Because entries are only taken all together there is no
/// ABA problem.
#[derive(Debug)]
pub struct Queue<T> {
    head: AtomicUsize,
    entries: PhantomData<AtomicPtr<T>>,
}

/// Refusal of a closed queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl<T: Linked> Queue<T> {
    /// An open, empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: AtomicUsize::new(EMPTY), entries: PhantomData }
    }

    /// Puts `entry` on the queue.
    ///
    /// # Errors
    /// [`Closed`] if the owner has closed the queue; the entry is then on no queue.
    ///
    /// # Safety
    /// The caller alone may use the entry's link, and the entry stays mapped for ever.
    #[inline]
    pub unsafe fn push(&self, entry: NonNull<T>) -> Result<(), Closed> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == CLOSED {
                return Err(Closed);
            }
            // SAFETY: the caller passes an entry, which stays mapped for ever.
            let link = unsafe { T::link(entry) };
            link.store(ptr::with_exposed_provenance_mut(head), Ordering::Relaxed);
            // Release pairs with the Acquire exchange in `drain` and `close`: the owner sees the
            // link, and what the pusher did to the span.
            match self.head.compare_exchange_weak(
                head,
                entry.as_ptr().expose_provenance(),
                fault::ordering(Fault::QueuePushRelaxed, Ordering::Release),
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(found) => head = found,
            }
        }
    }

    /// Whether [`drain`](Self::drain) would find nothing now.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) <= CLOSED
    }

    /// Takes everything, newest first. Only the owner of an open queue may call this.
    #[inline]
    pub fn drain(&self) -> Drain<T> {
        // Acquire pairs with the Release exchange in `push`.
        let head = if fault::seeded(Fault::QueueDrainTorn) {
            let head = self.head.load(Ordering::Acquire);
            self.head.store(EMPTY, Ordering::Relaxed);
            head
        } else {
            self.head.swap(EMPTY, Ordering::Acquire)
        };
        Drain::from(head)
    }

    /// Refuses every later push and takes what was queued.
    #[inline]
    pub fn close(&self) -> Drain<T> {
        // Acquire pairs with the Release exchange in `push`.
        Drain::from(self.head.swap(CLOSED, Ordering::Acquire))
    }

    /// Opens a closed queue for its next owner.
    #[inline]
    pub fn open(&self) {
        self.head.store(EMPTY, Ordering::Relaxed);
    }
}

impl<T: Linked> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The entries that were on a queue. Taking one gives its link back to the taker.
#[derive(Debug)]
pub struct Drain<T> {
    next: Option<NonNull<T>>,
}

impl<T> From<usize> for Drain<T> {
    fn from(head: usize) -> Self {
        let next = if head == CLOSED {
            None
        } else {
            NonNull::new(ptr::with_exposed_provenance_mut(head))
        };
        Self { next }
    }
}

impl<T: Linked> Iterator for Drain<T> {
    type Item = NonNull<T>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<T>> {
        let entry = self.next?;
        // SAFETY: only entries were pushed (contract of `push`). The link is read before the entry
        // is handed out, so it is still the queue's.
        let link = unsafe { T::link(entry) };
        self.next = NonNull::new(link.load(Ordering::Relaxed));
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::{Span, SpanRef};
    use crate::testing::span;
    use std::vec::Vec;

    fn push(queue: &Queue<Span>, span: SpanRef) -> Result<(), Closed> {
        // SAFETY: only this test uses the span's link, and descriptors stay.
        unsafe { queue.push(span.as_ptr()) }
    }

    #[test]
    fn everything_is_taken_newest_first() {
        let queue = Queue::default();
        let spans = [(); 3].map(|()| span(1, 64, 10, false));
        assert!(queue.is_empty() && queue.drain().next().is_none());
        assert_eq!(spans.map(|span| push(&queue, span)), [Ok(()); 3]);
        assert!(!queue.is_empty());
        let order: Vec<_> = queue.drain().collect();
        assert_eq!(order, [spans[2].as_ptr(), spans[1].as_ptr(), spans[0].as_ptr()]);
        assert!(queue.is_empty() && queue.drain().next().is_none());
    }

    #[test]
    fn an_entry_may_be_pushed_again_as_soon_as_it_is_taken() {
        let (queue, other) = (Queue::new(), Queue::new());
        let spans = [(); 2].map(|()| span(1, 64, 10, false));
        assert_eq!(spans.map(|span| push(&queue, span)), [Ok(()); 2]);
        let mut drain = queue.drain();
        let first = drain.next().unwrap();
        assert_eq!(first, spans[1].as_ptr());
        // SAFETY: the link came back with the entry.
        assert_eq!(unsafe { other.push(first) }, Ok(()));
        assert_eq!((drain.next(), drain.next()), (Some(spans[0].as_ptr()), None));
    }

    #[test]
    fn a_closed_queue_refuses_until_it_is_opened() {
        let queue = Queue::new();
        let spans = [(); 2].map(|()| span(1, 64, 10, false));
        assert_eq!(push(&queue, spans[0]), Ok(()));
        assert_eq!(queue.close().collect::<Vec<_>>(), [spans[0].as_ptr()]);
        assert_eq!(push(&queue, spans[1]), Err(Closed));
        assert!(queue.is_empty() && queue.close().next().is_none());
        queue.open();
        assert_eq!(push(&queue, spans[1]), Ok(()));
        assert_eq!(queue.drain().count(), 1);
    }
}
