//! The part of a thread cache that central knows: its queue, and its place in the register.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spanalloc_pages::Pages;
use spanalloc_sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use spanalloc_sync::{Lock, Wait, rank};

use crate::queue::Queue;
use crate::span::Span;

/// A thread cache as an owner of spans: the first field of its state.
///
/// The all-zero owner is valid: an open queue, used by nobody. Owners are never unmapped.
#[derive(Debug)]
#[repr(C)]
pub struct Owner {
    /// Where other threads leave spans in which they freed something.
    pub queue: Queue<Span>,
    next: AtomicPtr<Owner>,
    next_idle: AtomicPtr<Owner>,
    active: AtomicBool,
}

impl Owner {
    /// An owner that is not registered and owns nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: Queue::new(),
            next: AtomicPtr::new(ptr::null_mut()),
            next_idle: AtomicPtr::new(ptr::null_mut()),
            active: AtomicBool::new(false),
        }
    }

    /// Whether a thread uses this owner's cache now.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::new()
    }
}

/// Every owner there is, and those that no thread uses.
#[derive(Debug)]
pub(crate) struct Register<W> {
    all: AtomicPtr<Owner>,
    idle: Lock<Idle, W, { rank::CACHES }>,
}

#[derive(Debug)]
struct Idle {
    first: *mut Owner,
}

// SAFETY: the pointer is only followed under the lock.
unsafe impl Send for Idle {}

impl<W: Wait> Register<W> {
    pub(crate) const fn new() -> Self {
        Self {
            all: AtomicPtr::new(ptr::null_mut()),
            idle: Lock::new(Idle { first: ptr::null_mut() }),
        }
    }

    /// An owner that nobody uses: one that was put back, or a new one in zeroed metadata.
    ///
    /// # Safety
    /// `layout` is the same at every call and begins with an [`Owner`]; zero is a valid value of
    /// the rest.
    pub(crate) unsafe fn get<P: Pages>(&self, pages: &P, layout: Layout) -> Option<NonNull<Owner>> {
        let mut idle = self.idle.lock();
        let owner = match NonNull::new(idle.first) {
            Some(owner) => {
                // SAFETY: owners are never unmapped.
                idle.first = unsafe { owner.as_ref() }.next_idle.load(Ordering::Relaxed);
                owner
            }
            None => {
                let owner: NonNull<Owner> = pages.metadata(layout)?.cast();
                let first = self.all.load(Ordering::Relaxed);
                // SAFETY: the metadata is large enough, zeroed and never unmapped.
                unsafe { owner.as_ref() }.next.store(first, Ordering::Relaxed);
                // Release pairs with the Acquire in `for_each`. The lock admits one writer.
                self.all.store(owner.as_ptr(), Ordering::Release);
                owner
            }
        };
        // SAFETY: owners are never unmapped.
        let state = unsafe { owner.as_ref() };
        state.queue.open();
        state.active.store(true, Ordering::Relaxed);
        Some(owner)
    }

    /// Keeps an owner whose queue is closed and which owns nothing for the next thread.
    pub(crate) fn put(&self, owner: &Owner) {
        let mut idle = self.idle.lock();
        owner.active.store(false, Ordering::Relaxed);
        owner.next_idle.store(idle.first, Ordering::Relaxed);
        idle.first = ptr::from_ref(owner).cast_mut();
    }

    /// How often the lock of the register was taken.
    pub(crate) fn acquisitions(&self) -> usize {
        self.idle.acquisitions()
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(NonNull<Owner>)) {
        // Acquire pairs with the Release in `get`.
        let mut next = NonNull::new(self.all.load(Ordering::Acquire));
        while let Some(owner) = next {
            visit(owner);
            // SAFETY: owners are never unmapped.
            next = NonNull::new(unsafe { owner.as_ref() }.next.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Refusing;
    use std::vec::Vec;

    #[test]
    fn owners_are_used_again_and_never_forgotten() {
        let pages = Refusing::new();
        let register = Register::<<Refusing as Pages>::Wait>::new();
        let layout = Layout::new::<Owner>();
        // SAFETY: the layout is always this one.
        let get = || unsafe { register.get(&pages, layout).map(|owner| owner.as_ref()) };
        let [a, b] = [get().unwrap(), get().unwrap()];
        assert!(!ptr::eq(a, b) && a.is_active() && b.is_active());
        assert!(!Owner::default().is_active());
        for owner in [a, b] {
            assert_eq!(owner.queue.close().count(), 0);
            register.put(owner);
            assert!(!owner.is_active());
        }
        // The last one put back comes first, with its queue open.
        pages.no_metadata.set(true);
        let again = get().unwrap();
        assert!(ptr::eq(again, b) && again.is_active());
        let span = crate::testing::span(1, 64, 10, false);
        // SAFETY: only this test uses the span's link.
        assert_eq!(unsafe { again.queue.push(span.as_ptr()) }, Ok(()));
        assert!(ptr::eq(get().unwrap(), a));
        assert!(get().is_none(), "no memory for a third one");
        let mut all = Vec::new();
        register.for_each(|owner| all.push(owner.as_ptr().cast_const()));
        assert_eq!(all, [ptr::from_ref(b), ptr::from_ref(a)]);
    }
}
