//! The part of a thread cache that central knows: its queue, and its place in the register.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spanalloc_pages::Pages;
use spanalloc_sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use spanalloc_sync::{Lock, Wait, rank};

use crate::queue::Queue;
use crate::span::Span;

/// The most free bytes that all parked owners keep.
const MOST_PARKED_BYTES: usize = 2 << 20;
/// The most owners that are parked.
const MOST_PARKED: usize = 16;

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
    /// Free bytes that it keeps while it is parked.
    parked_bytes: AtomicUsize,
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
            parked_bytes: AtomicUsize::new(0),
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
///
/// | an owner is | its queue | owns                      | leaves it by            |
/// |-------------|-----------|---------------------------|-------------------------|
/// | active      | open      | the spans of its thread   | `park`, `put`           |
/// | parked      | open      | the spans of a thread that ended | `get`, `take_parked` -> active |
/// | idle        | closed    | nothing                   | `get` -> active         |
#[derive(Debug)]
pub(crate) struct Register<W> {
    all: AtomicPtr<Owner>,
    idle: Lock<Idle, W, { rank::CACHES }>,
    /// Whether there is room that was left: a hint.
    rooms: AtomicBool,
}

/// The beginning of metadata that was left.
type Room = AtomicPtr<u8>;

#[derive(Debug)]
struct Idle {
    /// Owners that own nothing.
    first: *mut Owner,
    /// Room that was left.
    room: *mut Room,
    /// Owners that were left with all that they own.
    parked: *mut Owner,
    /// How many those are, and the free bytes that they keep.
    parked_count: usize,
    parked_bytes: usize,
}

impl Idle {
    /// The owner that was parked last.
    fn take_parked(&mut self) -> Option<NonNull<Owner>> {
        let parked = NonNull::new(self.parked)?;
        // SAFETY: owners are never unmapped.
        let owner = unsafe { parked.as_ref() };
        self.parked = owner.next_idle.load(Ordering::Relaxed);
        self.parked_count -= 1;
        self.parked_bytes -= owner.parked_bytes.load(Ordering::Relaxed);
        owner.active.store(true, Ordering::Relaxed);
        Some(parked)
    }
}

// SAFETY: the pointers are only followed under the lock.
unsafe impl Send for Idle {}

impl<W: Wait> Register<W> {
    pub(crate) const fn new() -> Self {
        Self {
            all: AtomicPtr::new(ptr::null_mut()),
            idle: Lock::new(Idle {
                first: ptr::null_mut(),
                room: ptr::null_mut(),
                parked: ptr::null_mut(),
                parked_count: 0,
                parked_bytes: 0,
            }),
            rooms: AtomicBool::new(false),
        }
    }

    /// Metadata that was left, if there is some.
    pub(crate) fn room(&self) -> Option<NonNull<u8>> {
        if !self.rooms.load(Ordering::Relaxed) {
            return None;
        }
        let mut idle = self.idle.lock();
        let room = NonNull::new(idle.room)?;
        // SAFETY: what was left begins with a link, is never unmapped and used by nobody else.
        idle.room = unsafe { room.as_ref() }.load(Ordering::Relaxed).cast();
        self.rooms.store(!idle.room.is_null(), Ordering::Relaxed);
        Some(room.cast())
    }

    /// Keeps metadata for the next who needs some.
    ///
    /// # Safety
    /// It is never unmapped, and nobody uses it.
    pub(crate) unsafe fn leave_room(&self, room: NonNull<Room>) {
        let mut idle = self.idle.lock();
        // SAFETY: the caller's promise.
        unsafe { room.as_ref() }.store(idle.room.cast(), Ordering::Relaxed);
        idle.room = room.as_ptr();
        self.rooms.store(true, Ordering::Relaxed);
    }

    /// An owner that nobody uses: one that was parked, with all that it owns, one that was put back, or
    /// a new one in zeroed metadata.
    ///
    /// # Safety
    /// `layout` is the same at every call and begins with an [`Owner`]; zero is a valid value of
    /// the rest.
    pub(crate) unsafe fn get<P: Pages>(&self, pages: &P, layout: Layout) -> Option<NonNull<Owner>> {
        let mut idle = self.idle.lock();
        if let Some(parked) = idle.take_parked() {
            return Some(parked);
        }
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

    /// Keeps an owner with all that it owns, `bytes` of which are free, for the next thread. False, and nothing is
    /// changed, if too much would be kept so.
    pub(crate) fn park(&self, owner: &Owner, bytes: usize) -> bool {
        let mut idle = self.idle.lock();
        if idle.parked_count == MOST_PARKED || idle.parked_bytes + bytes > MOST_PARKED_BYTES {
            return false;
        }
        owner.active.store(false, Ordering::Relaxed);
        owner.parked_bytes.store(bytes, Ordering::Relaxed);
        owner.next_idle.store(idle.parked, Ordering::Relaxed);
        idle.parked = ptr::from_ref(owner).cast_mut();
        idle.parked_count += 1;
        idle.parked_bytes += bytes;
        true
    }

    /// An owner that was parked, with all that it owns.
    pub(crate) fn take_parked(&self) -> Option<NonNull<Owner>> {
        self.idle.lock().take_parked()
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

    #[test]
    fn a_parked_owner_comes_first_and_with_its_open_queue() {
        let pages = Refusing::new();
        let register = Register::<<Refusing as Pages>::Wait>::new();
        // SAFETY: the layout is always this one.
        let get = || unsafe { register.get(&pages, Layout::new::<Owner>()).unwrap().as_ref() };
        let [a, b] = [get(), get()];
        assert!(register.park(a, 1000) && !a.is_active());
        assert_eq!(b.queue.close().count(), 0);
        register.put(b);
        // What others free meanwhile waits.
        let span = crate::testing::span(1, 64, 10, false);
        // SAFETY: only this test uses the span's link.
        assert_eq!(unsafe { a.queue.push(span.as_ptr()) }, Ok(()));
        let again = get();
        assert!(ptr::eq(again, a) && a.is_active());
        assert_eq!(a.queue.drain().next(), Some(span.as_ptr()));
        assert!(ptr::eq(get(), b), "no other was parked");
        assert!(register.take_parked().is_none());
    }

    #[test]
    fn parked_owners_are_few_and_keep_little() {
        let pages = Refusing::new();
        let register = Register::<<Refusing as Pages>::Wait>::new();
        // SAFETY: the layout is always this one.
        let get = || unsafe { register.get(&pages, Layout::new::<Owner>()).unwrap().as_ref() };
        let [a, b, c] = [get(), get(), get()];
        assert!(register.park(a, MOST_PARKED_BYTES - 10));
        assert!(!register.park(b, 11) && b.is_active());
        assert!(register.park(b, 10) && register.park(c, 0));
        let taken =
            [(); 4].map(|()| register.take_parked().map(|owner| owner.as_ptr().cast_const()));
        let [a, b, c] = [a, b, c].map(|owner| Some(ptr::from_ref(owner)));
        assert_eq!(taken, [c, b, a, None]);
        let owners: Vec<&Owner> = (0..=MOST_PARKED).map(|_| get()).collect();
        let parked = owners.iter().filter(|owner| register.park(owner, 0)).count();
        assert_eq!(parked, MOST_PARKED);
    }
}
