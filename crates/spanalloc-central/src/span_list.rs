use core::ptr::{self, NonNull};

use spanalloc_sync::atomic::{AtomicPtr, Ordering};

use crate::span::{Span, SpanRef};

/// A doubly linked list of spans. The all-zero list is empty.
///
/// A span is on at most one list; only the holder of the list and of its spans uses it.
#[derive(Debug)]
pub struct SpanList {
    first: AtomicPtr<Span>,
}

impl SpanList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The span put on the list last.
    #[inline]
    pub fn first(&self) -> Option<SpanRef> {
        NonNull::new(self.first.load(Ordering::Relaxed)).map(of)
    }

    /// The span after `span`.
    pub fn after(&self, span: SpanRef) -> Option<SpanRef> {
        NonNull::new(span.shared().next.load(Ordering::Relaxed)).map(of)
    }

    /// The span before `span`.
    pub fn before(&self, span: SpanRef) -> Option<SpanRef> {
        NonNull::new(span.shared().prev.load(Ordering::Relaxed)).map(of)
    }

    /// Puts a span that is on no list at the front.
    #[inline]
    pub fn push(&self, span: SpanRef) {
        let first = self.first();
        let shared = span.shared();
        shared.next.store(as_raw(first), Ordering::Relaxed);
        shared.prev.store(ptr::null_mut(), Ordering::Relaxed);
        if let Some(first) = first {
            first.shared().prev.store(span.as_ptr().as_ptr(), Ordering::Relaxed);
        }
        self.first.store(span.as_ptr().as_ptr(), Ordering::Relaxed);
    }

    /// Takes a span of this list off it.
    #[inline]
    pub fn remove(&self, span: SpanRef) {
        let shared = span.shared();
        let next = NonNull::new(shared.next.load(Ordering::Relaxed)).map(of);
        let prev = NonNull::new(shared.prev.load(Ordering::Relaxed)).map(of);
        match prev {
            Some(prev) => prev.shared().next.store(as_raw(next), Ordering::Relaxed),
            None => self.first.store(as_raw(next), Ordering::Relaxed),
        }
        if let Some(next) = next {
            next.shared().prev.store(as_raw(prev), Ordering::Relaxed);
        }
    }

    /// Takes the first span off the list.
    #[inline]
    pub fn pop(&self) -> Option<SpanRef> {
        let first = self.first()?;
        self.remove(first);
        Some(first)
    }
}

impl Default for SpanList {
    fn default() -> Self {
        Self::new()
    }
}

fn as_raw(span: Option<SpanRef>) -> *mut Span {
    span.map_or(ptr::null_mut(), |span| span.as_ptr().as_ptr())
}

fn of(descriptor: NonNull<Span>) -> SpanRef {
    // SAFETY: only descriptors of spans are put on lists.
    unsafe { SpanRef::from_descriptor(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::span;
    use std::vec::Vec;

    /// The spans from front to back, each of which knows the one before it.
    fn listed(list: &SpanList) -> Vec<SpanRef> {
        let spans: Vec<_> =
            core::iter::successors(list.first(), |span| list.after(*span)).collect();
        assert_eq!(spans.first().and_then(|first| list.before(*first)), None);
        for pair in spans.windows(2) {
            assert_eq!(list.before(pair[1]), Some(pair[0]));
        }
        spans
    }

    #[test]
    fn the_last_one_in_is_the_first_one_out() {
        let list = SpanList::default();
        let [a, b, c] = [(); 3].map(|()| span(1, 64, 10, false));
        assert_eq!((list.first(), list.pop()), (None, None));
        [a, b, c].into_iter().for_each(|span| list.push(span));
        assert_eq!(listed(&list), [c, b, a]);
        assert_eq!(
            [list.pop(), list.pop(), list.pop(), list.pop()],
            [Some(c), Some(b), Some(a), None]
        );
        list.push(b);
        assert_eq!(listed(&list), [b]);
    }

    #[test]
    fn any_span_can_be_removed() {
        for gone in 0..3 {
            let list = SpanList::new();
            let spans = [(); 3].map(|()| span(1, 64, 10, false));
            spans.into_iter().for_each(|span| list.push(span));
            list.remove(spans[gone]);
            let mut left: Vec<_> =
                spans.into_iter().rev().filter(|each| *each != spans[gone]).collect();
            assert_eq!(listed(&list), left);
            // Both ends are whole: what comes and goes afterwards finds its neighbours.
            list.push(spans[gone]);
            left.insert(0, spans[gone]);
            assert_eq!(listed(&list), left);
            list.remove(left.remove(1));
            assert_eq!(listed(&list), left);
            list.remove(left.remove(1));
            assert_eq!(listed(&list), left);
        }
    }
}
