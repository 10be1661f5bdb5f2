use spanalloc_sync::atomic::{AtomicBool, Ordering};
use spanalloc_sync::{Lock, Wait, rank};

use crate::span::{Place, SpanRef};
use crate::span_list::SpanList;

/// The lists of one class, under its lock.
type ClassLock<W> = Lock<Lists, W, { rank::CENTRAL }>;

/// The spans of one class that have no owner.
#[derive(Debug)]
pub(crate) struct ClassLists<W> {
    pub(crate) lists: ClassLock<W>,
    /// Whether there is a partial one. Written under the lock; read without, as a hint.
    pub(crate) partial: AtomicBool,
}

impl<W: Wait> ClassLists<W> {
    pub(crate) const fn new() -> Self {
        Self { lists: Lock::new(Lists::new()), partial: AtomicBool::new(false) }
    }

    /// Notes what the lists hold after a change.
    pub(crate) fn note(&self, lists: &Lists) {
        self.partial.store(lists.partial.first().is_some(), Ordering::Relaxed);
    }
}

/// The lists of those spans.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pub(crate) partial: SpanList,
    full: SpanList,
}

// SAFETY: the spans on the lists belong to whoever holds the lock around them.
unsafe impl Send for Lists {}

impl Lists {
    const fn new() -> Self {
        Self { partial: SpanList::new(), full: SpanList::new() }
    }

    pub(crate) fn insert(&self, span: SpanRef, place: Place) {
        span.set_place(place);
        match place {
            Place::Full => self.full.push(span),
            _ => self.partial.push(span),
        }
    }

    pub(crate) fn remove(&self, span: SpanRef) {
        match span.place() {
            Place::Full => self.full.remove(span),
            _ => self.partial.remove(span),
        }
    }
}
