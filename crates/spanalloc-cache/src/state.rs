use core::ptr;

use spanalloc_central::{Owner, Stash, TINY_BYTES};
use spanalloc_classes::MAX_CLASSES;
use spanalloc_sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use spanalloc_sync::lease::Lease;

use crate::bin::Bin;
use crate::empties::{Classes, Empties};
use crate::recent::Recent;

/// What the count of live objects of an open slot begins with: more than the objects that fit it.
pub(crate) const OPEN_CREDIT: u8 = TINY_BYTES as u8 + 1;

/// The slot that tiny objects are being packed into. The all-zero slot has no room.
#[derive(Debug)]
pub(crate) struct OpenSlot {
    /// Address of the slot; null if none is open.
    pub(crate) address: AtomicPtr<u8>,
    /// Bytes at its end that are free.
    pub(crate) room: AtomicU32,
    /// Objects that were packed into it.
    pub(crate) objects: AtomicU32,
}

impl OpenSlot {
    const fn new() -> Self {
        Self {
            address: AtomicPtr::new(ptr::null_mut()),
            room: AtomicU32::new(0),
            objects: AtomicU32::new(0),
        }
    }

    /// What the count of the open slot's live objects holds beyond those objects.
    pub(crate) fn credit(&self) -> usize {
        if self.address.load(Ordering::Relaxed).is_null() {
            return 0;
        }
        usize::from(OPEN_CREDIT) - self.objects.load(Ordering::Relaxed) as usize
    }

    /// Packs one more object, if it fits. `size` is 1 to 16.
    ///
    /// # Safety
    /// The caller is the slot's thread; `align` is a power of two of at most 16.
    #[inline(always)]
    pub(crate) unsafe fn pack(&self, size: usize, align: usize) -> Option<*mut u8> {
        let used = TINY_BYTES - self.room.load(Ordering::Relaxed) as usize;
        let start = (used + align - 1) & !(align - 1);
        let end = start + size;
        if end > TINY_BYTES {
            return None;
        }
        self.room.store((TINY_BYTES - end) as u32, Ordering::Relaxed);
        let objects = self.objects.load(Ordering::Relaxed);
        self.objects.store(objects + 1, Ordering::Relaxed);
        // SAFETY: with room for the object a slot is open, and `start` lies in it.
        Some(unsafe { self.address.load(Ordering::Relaxed).add(start) })
    }
}

/// All that one thread keeps. Lives in metadata, is never unmapped, and serves one thread after
/// another.
///
/// The all-zero state is valid: it is empty, and every use of it comes to a slow path.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct CacheState<B> {
    pub(crate) owner: Owner,
    pub(crate) open: OpenSlot,
    pub(crate) stash: Stash,
    pub(crate) empties: Empties,
    /// How many bytes the bins in use may hold now.
    pub(crate) bin_bytes: AtomicUsize,
    /// How many they might hold when they began.
    pub(crate) begun_bytes: AtomicUsize,
    /// The call of the heap below that this thread heard last.
    pub(crate) heard: AtomicUsize,
    /// See [`inside`](CacheState::inside).
    inside: AtomicU8,
    /// Who may use all that only the thread uses: see [`seize`](crate::seize).
    pub(crate) lease: Lease,
    /// The number of the thread in the system, if the state is lent.
    pub(crate) thread: AtomicU32,
    /// How often somebody looked after idle threads since this one was on a slow path.
    pub(crate) age: AtomicU8,
    /// Whether some span was not rehomed when it should have been.
    pub(crate) untidy: AtomicBool,
    /// The bins that were ever used by this thread.
    used: Classes,
    bins: [B; MAX_CLASSES],
    /// Large objects that this thread freed lately.
    pub(crate) recent: Recent,
}

// SAFETY: the cells are used by the state's thread only (contract of the unsafe methods that reach
// them); everything that others read is atomic.
unsafe impl<B: Sync> Sync for CacheState<B> {}
// SAFETY: as for `Sync`.
unsafe impl<B: Sync> Send for CacheState<B> {}

impl<B: Bin> CacheState<B> {
    /// A state that holds nothing and takes nothing. A thread without a cache may point to one in a
    /// static: the fast paths find it empty and full at once, whatever several of them write to it.
    #[must_use]
    pub const fn empty() -> Self {
        Self::empty_and(0)
    }

    /// As [`empty`](Self::empty), with a number in [`inside`](Self::inside) that tells it from the
    /// state of a thread.
    #[must_use]
    pub const fn empty_and(inside: u8) -> Self {
        Self {
            owner: Owner::new(),
            open: OpenSlot::new(),
            stash: Stash::new(),
            empties: Empties::new(),
            bin_bytes: AtomicUsize::new(0),
            begun_bytes: AtomicUsize::new(0),
            heard: AtomicUsize::new(0),
            inside: AtomicU8::new(inside),
            lease: Lease::new(),
            thread: AtomicU32::new(0),
            age: AtomicU8::new(0),
            untidy: AtomicBool::new(false),
            used: Classes::new(),
            bins: [const { B::EMPTY }; MAX_CLASSES],
            recent: Recent::new(),
        }
    }

    /// A place to note what this thread is doing, for whoever has to keep signal handlers or forks
    /// out of it, and who would seize it. The cache itself writes it in
    /// `alone` only; it is 0 in a new state.
    #[inline(always)]
    pub fn inside(&self) -> &AtomicU8 {
        &self.inside
    }

    /// Whether the state's thread may use it on a fast path, after it said in [`inside`](Self::inside) that it is.
    #[inline(always)]
    pub fn is_at_hand(&self) -> bool {
        self.lease.is_at_hand()
    }

    /// Says that the thread is at what it keeps, on a path that says so nowhere else: nobody may do that who has
    /// seized the state meanwhile. None if somebody has.
    #[inline(always)]
    pub(crate) fn alone(&self) -> Option<Alone<'_>> {
        let before = self.inside.load(Ordering::Relaxed);
        self.inside.store(before | 1, Ordering::Relaxed);
        let alone = Alone { inside: &self.inside, before };
        self.lease.is_at_hand().then_some(alone)
    }

    /// Whether another thread is at what this one keeps.
    pub fn is_taken(&self) -> bool {
        self.lease.is_taken()
    }

    #[inline(always)]
    pub(crate) fn bin(&self, class: u8) -> &B {
        debug_assert!(usize::from(class) < MAX_CLASSES);
        // SAFETY: classes are below MAX_CLASSES; LARGE never comes here.
        unsafe { self.bins.get_unchecked(usize::from(class)) }
    }

    /// Notes whether a bin is in use.
    pub(crate) fn set_used(&self, class: u8, used: bool) {
        self.used.set(class, used);
    }

    /// The bins in use, so that a cache that ends does not touch the others.
    pub(crate) fn used_bins(&self) -> impl Iterator<Item = (u8, &B)> {
        self.used.iter().map(|class| (class, self.bin(class)))
    }

    /// Forgets what an ended cache kept. Its bins are empty already.
    pub(crate) fn reset(&self) {
        self.bin_bytes.store(0, Ordering::Relaxed);
        self.begun_bytes.store(0, Ordering::Relaxed);
        self.age.store(0, Ordering::Relaxed);
        self.used.clear();
    }
}

/// The thread says that it is at what it keeps until this is dropped.
pub(crate) struct Alone<'a> {
    inside: &'a AtomicU8,
    before: u8,
}

impl Drop for Alone<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release pairs with the Acquire of who would seize the state.
        self.inside.store(self.before, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    /// Opens `slot` and packs objects of these sizes and alignments; the offsets at which they land.
    fn pack(objects: &[(usize, usize)]) -> Vec<Option<usize>> {
        let mut slot = [0u128; 1];
        let address: *mut u8 = slot.as_mut_ptr().cast();
        let open = OpenSlot::new();
        open.address.store(address, Ordering::Relaxed);
        open.room.store(TINY_BYTES as u32, Ordering::Relaxed);
        let offset = |object: *mut u8| object.addr() - address.addr();
        // SAFETY: this thread is the slot's, and the alignments are powers of two up to 16.
        objects.iter().map(|&(size, align)| unsafe { open.pack(size, align) }.map(offset)).collect()
    }

    #[test]
    fn a_slot_is_filled_from_the_front_as_alignment_allows() {
        assert_eq!(pack(&[(1, 1), (2, 2), (4, 4), (8, 8)]), [Some(0), Some(2), Some(4), Some(8)]);
        assert_eq!(pack(&[(1, 1), (8, 8), (1, 1)]), [Some(0), Some(8), None]);
        assert_eq!(pack(&[(16, 16), (1, 1)]), [Some(0), None]);
        assert_eq!(pack(&[(1, 1); 17])[16], None);
        assert_eq!(pack(&[(1, 16), (1, 16)]), [Some(0), None]);
    }

    #[test]
    fn a_slot_without_room_packs_nothing_and_has_no_credit() {
        let open = OpenSlot::new();
        // SAFETY: this thread is the slot's.
        assert_eq!(unsafe { open.pack(1, 1) }, None);
        assert_eq!(open.credit(), 0);
    }

    #[test]
    fn only_bins_in_use_are_visited() {
        let state = Box::new(CacheState::<crate::Magazines>::empty());
        assert_eq!(state.used_bins().count(), 0);
        for class in [0, 63, 64, 127] {
            state.set_used(class, true);
        }
        assert_eq!(state.used_bins().map(|(class, _)| class).collect::<Vec<_>>(), [0, 63, 64, 127]);
        state.reset();
        assert_eq!(state.used_bins().count(), 0);
    }
}
