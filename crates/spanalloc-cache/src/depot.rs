//! Full magazines that wait behind a bin's two.
//!
//! A program that frees many objects of a class and allocates as many again would have each looked up
//! and given to its span, to be taken from there again. Full magazines are put away whole instead.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use spanalloc_central::Central;
use spanalloc_sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use crate::magazines::MAGAZINE;

/// The most magazines of one class.
const MOST: u8 = 8;

/// A magazine that was put away, or room for one. Lives in metadata and stays with its depot.
#[derive(Debug)]
#[repr(C)]
struct Full {
    /// The one that was put away before.
    below: AtomicPtr<Full>,
    objects: [UnsafeCell<*mut u8>; MAGAZINE],
}

/// A stack of full magazines. The thread whose bin it is uses it alone.
#[derive(Debug)]
pub(crate) struct Depot {
    /// The magazine that was put away last.
    full: AtomicPtr<Full>,
    /// Room for more.
    spare: AtomicPtr<Full>,
    /// How many magazines there are.
    count: AtomicU8,
    /// How many there may be now.
    depth: AtomicU8,
}

impl Depot {
    pub(crate) const fn new() -> Self {
        Self {
            full: AtomicPtr::new(ptr::null_mut()),
            spare: AtomicPtr::new(ptr::null_mut()),
            count: AtomicU8::new(0),
            depth: AtomicU8::new(0),
        }
    }

    /// How many objects there are.
    pub(crate) fn objects(&self) -> usize {
        usize::from(self.count.load(Ordering::Relaxed)) * MAGAZINE
    }

    /// How many objects there may be now.
    pub(crate) fn room(&self) -> usize {
        usize::from(self.depth.load(Ordering::Relaxed)) * MAGAZINE
    }

    /// Whether no magazine can be put away unless there may be [more](Self::deepen).
    pub(crate) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) == self.depth.load(Ordering::Relaxed)
    }

    /// Lets there be one magazine more. False if there may be as many as ever.
    pub(crate) fn deepen(&self) -> bool {
        let depth = self.depth.load(Ordering::Relaxed);
        if depth < MOST {
            self.depth.store(depth + 1, Ordering::Relaxed);
        }
        depth < MOST
    }

    /// Lets there be none, and leaves the room to others. There is none.
    pub(crate) fn end<C: Central>(&self, central: &C) {
        debug_assert!(self.objects() == 0);
        self.depth.store(0, Ordering::Relaxed);
        let mut spare = self.spare.load(Ordering::Relaxed);
        self.spare.store(ptr::null_mut(), Ordering::Relaxed);
        while let Some(room) = NonNull::new(spare) {
            // SAFETY: it came from metadata, which is never unmapped, and is in no stack now.
            unsafe {
                spare = room.as_ref().below.load(Ordering::Relaxed);
                central.leave_room(room.cast());
            }
        }
    }

    /// Puts away the [`MAGAZINE`] objects at `objects`. False if there is no memory for that.
    ///
    /// # Safety
    /// The caller is the depot's thread, and there are so many.
    pub(crate) unsafe fn push<C: Central>(&self, central: &C, objects: *const *mut u8) -> bool {
        let mut full = self.spare.load(Ordering::Relaxed);
        if full.is_null() {
            // SAFETY: the layout is always this one; all zeroes and whatever it held are valid.
            let memory = unsafe { central.room(Layout::new::<Full>()) };
            let Some(memory) = memory else { return false };
            full = memory.as_ptr().cast();
        } else {
            // SAFETY: it came from metadata, which is never unmapped, and all zeroes are valid.
            self.spare.store(unsafe { &*full }.below.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        // SAFETY: as above; it is in no stack, and there are so many objects (contract).
        unsafe {
            ptr::copy_nonoverlapping(objects, (*full).objects.as_ptr().cast_mut().cast(), MAGAZINE);
            (*full).below.store(self.full.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.full.store(full, Ordering::Relaxed);
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        true
    }

    /// Writes the [`MAGAZINE`] objects that were put away last to `objects`, if there are some.
    ///
    /// # Safety
    /// The caller is the depot's thread, and there is room for so many.
    pub(crate) unsafe fn pop(&self, objects: *mut *mut u8) -> bool {
        let Some(full) = self.take() else { return false };
        // SAFETY: there are so many, and room for them (contract).
        unsafe { ptr::copy_nonoverlapping(full, objects, MAGAZINE) };
        true
    }

    /// The [`MAGAZINE`] objects that were put away last, if there are some. They are there until something else is put
    /// away. Only for the depot's thread.
    pub(crate) fn take(&self) -> Option<*const *mut u8> {
        let full = NonNull::new(self.full.load(Ordering::Relaxed))?;
        // SAFETY: it lives in metadata, which is never unmapped.
        let place = unsafe { full.as_ref() };
        self.count.store(self.count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        self.full.store(place.below.load(Ordering::Relaxed), Ordering::Relaxed);
        place.below.store(self.spare.load(Ordering::Relaxed), Ordering::Relaxed);
        self.spare.store(full.as_ptr(), Ordering::Relaxed);
        Some(place.objects.as_ptr().cast())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use spanalloc_central::{Central as _, CentralLists};
    use spanalloc_classes::Go67;
    use spanalloc_os::Mmap;
    use spanalloc_pages::{PageHeap, Pages as _};

    use super::*;
    use crate::ThreadCache;

    type Lists = CentralLists<Go67, PageHeap<Mmap>>;

    #[test]
    fn magazines_come_back_whole_and_the_last_one_first() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let depot = Depot::new();
        let magazine =
            |number: usize| Vec::from_iter((0..MAGAZINE).map(|it| number * MAGAZINE + it));
        for round in 0..3 {
            for number in 1..=2 {
                let objects =
                    Vec::from_iter(magazine(number).into_iter().map(ptr::without_provenance_mut));
                assert!(depot.is_full() == (round == 0) && (round > 0 || depot.deepen()));
                // SAFETY: this thread is the depot's.
                assert!(unsafe { depot.push(&lists, objects.as_ptr()) });
            }
            assert_eq!((depot.objects(), depot.room()), (2 * MAGAZINE, 2 * MAGAZINE));
            let mut room = [ptr::null_mut::<u8>(); MAGAZINE];
            for number in [2, 1] {
                // SAFETY: this thread is the depot's, and there is room.
                assert!(unsafe { depot.pop(room.as_mut_ptr()) });
                assert_eq!(Vec::from(room.map(|object| object.addr())), magazine(number));
            }
            // SAFETY: as above.
            assert!(!unsafe { depot.pop(room.as_mut_ptr()) });
        }
        // What was made once is used again.
        let before = lists.heap().stats().metadata_in_use;
        for _ in 0..2 {
            // SAFETY: as above.
            assert!(unsafe { depot.push(&lists, [ptr::null_mut(); MAGAZINE].as_ptr()) });
        }
        assert_eq!(lists.heap().stats().metadata_in_use, before);
    }

    #[test]
    fn there_are_only_so_many() {
        let depot = Depot::new();
        assert_eq!((0..100).filter(|_| depot.deepen()).count(), usize::from(MOST));
        assert_eq!(depot.room(), usize::from(MOST) * MAGAZINE);
        depot.end(&Lists::new(PageHeap::new(Mmap::new())));
        assert_eq!(depot.room(), 0);
    }

    #[test]
    fn a_batch_that_comes_again_is_the_same_objects() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let mut cache = ThreadCache::<&Lists>::new(&lists);
        let layout = Layout::from_size_align(64, 8).unwrap();
        let batch = (usize::from(MOST) + 2) * MAGAZINE;
        let mut places = BTreeSet::new();
        for _ in 0..40 {
            let objects = Vec::from_iter((0..batch).map(|_| cache.alloc(layout).unwrap()));
            assert_eq!(BTreeSet::from_iter(&objects).len(), batch);
            places = objects.iter().map(|object| object.addr().get()).collect();
            for object in objects {
                // SAFETY: allocated above with this layout.
                unsafe { cache.free(object, layout) };
            }
        }
        let again = Vec::from_iter((0..batch).map(|_| cache.alloc(layout).unwrap()));
        assert!(again.iter().all(|object| places.contains(&object.addr().get())));
        let snapshot = cache.snapshot().unwrap();
        assert!(snapshot.adds_up());
        assert_eq!(snapshot.live_objects(), batch);
        for object in again {
            // SAFETY: allocated above with this layout.
            unsafe { cache.free(object, layout) };
        }
        drop(cache);
        let pages = lists.heap().stats();
        assert_eq!(pages.pages_in_use, pages.metadata_pages);
    }
}
