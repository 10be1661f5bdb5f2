//! What is done to the slot of a small object when it is handed out and when it is freed, if the policy has
//! canaries or wipes.
//!
//! | a slot is      | its last 8 bytes          | the others       |
//! |----------------|---------------------------|------------------|
//! | never used     | zero if the policy wipes  | the same         |
//! | live           | the canary of its address | the program's    |
//! | free           | zero if the policy wipes  | the same         |
//!
//! So an object is looked at twice: its canary when it is freed, and whether it is still zero when it is
//! handed out. The canary is wiped with the rest, and only of an object known to be live it is looked at,
//! so a second free is found as such.
//!
//! A slot is wiped before it is free, and live before it has a canary: at any moment what is free is zero, also
//! in the child of a fork that came in between, where the thread that was at it is not.

use core::ptr;
use core::slice;
use core::sync::atomic::compiler_fence;

use spanalloc_central::{Central, SpanRef, class_facts};
use spanalloc_os::Misuse;
use spanalloc_pages::{PAGE_BYTES, Pages};
use spanalloc_sync::atomic::Ordering;

use crate::bin::Keep;
use crate::cache::Cache;
use crate::large::{object_of, usable_pages};
use crate::policy::Policy;

/// A number for an address that nobody can foresee who does not know the secret.
#[inline]
pub(crate) fn mixed(secret: u64, address: usize) -> u64 {
    // Addresses differ in their lower bits; the complement has as many above as the secret.
    let product = u128::from(secret) * u128::from(!(address as u64));
    product as u64 ^ (product >> 64) as u64
}

/// Whether bytes are all zero.
///
/// # Safety
/// The bytes may be read.
#[inline]
unsafe fn is_zero(at: *const u8, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice::from_raw_parts(at, bytes) };
    // The first 8 are, and each of the others is as the one 8 before it: one comparison of memory.
    let (first, others) = bytes.split_at(bytes.len().min(8));
    first.iter().all(|byte| *byte == 0) && bytes.starts_with(others)
}

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Bytes at the end of a slot that are not the program's.
    pub(crate) const CANARY_BYTES: usize = if P::CANARIES { size_of::<u64>() } else { 0 };

    /// Whether there is anything to do to slots.
    const TREATS: bool = P::CANARIES || P::WIPES;

    /// Takes an object from the bin of a class, if one is at hand.
    ///
    /// # Safety
    /// This thread uses the state.
    #[inline(always)]
    pub(crate) unsafe fn pop(self, class: u8) -> Option<*mut u8> {
        let bin = self.state.bin(class);
        let zeroed = Self::TREATS && bin.zeroed();
        // SAFETY: the bin is this thread's (contract).
        unsafe { bin.pop::<P>() }.map(|object| self.handed_out(class, object, zeroed))
    }

    /// An object of the class that is being handed out, and is `zeroed` for sure or not.
    #[inline(always)]
    pub(crate) fn handed_out(self, class: u8, object: *mut u8, zeroed: bool) -> *mut u8 {
        if Self::TREATS {
            // SAFETY: the object is of the class, and nobody else uses it.
            unsafe { self.begin_slot(class, object, zeroed) };
        }
        object
    }

    /// # Safety
    /// The object is of the class and nobody else uses it.
    #[inline(never)]
    unsafe fn begin_slot(self, class: u8, object: *mut u8, zeroed: bool) {
        let bytes = class_facts::<C::Table>(class).bytes as usize;
        // SAFETY: the slot has so many bytes, and is this thread's (contract).
        unsafe {
            if P::WIPES && !zeroed && !is_zero(object, bytes) {
                self.central.die(Misuse::WriteAfterFree, object.addr(), bytes);
            }
            if P::CANARIES {
                // The slot is live before it has a canary, whenever the process forks.
                compiler_fence(Ordering::Release);
                let place = object.add(bytes - Self::CANARY_BYTES).cast::<u64>();
                place.write_unaligned(Self::canary(self.central, object.addr()));
            }
        }
    }

    /// The canary of the object at `address`. Its first byte is no ASCII character and not 0, so a text
    /// that is too long always changes it.
    #[inline]
    fn canary(central: &C, address: usize) -> u64 {
        mixed(central.heap().secret(), address) | u64::from_ne_bytes([0x80, 0, 0, 0, 0, 0, 0, 0])
    }

    /// Looks at the slot of a live object that will be free, and wipes it.
    ///
    /// # Safety
    /// The span has a slot at `address`, which is this thread's alone.
    #[inline(always)]
    pub(crate) unsafe fn end_slot(central: &C, span: SpanRef, address: usize) {
        if Self::TREATS {
            // SAFETY: the caller's promise is passed on.
            unsafe { Self::try_end_slot(central, span, address, || true) };
        }
    }

    /// As [`end_slot`](Self::end_slot), of a slot that may be free already: then false, and nothing was done.
    ///
    /// # Safety
    /// This is a slot of the span, at `address`. If it is live, its object is the caller's.
    #[inline(always)]
    pub(crate) unsafe fn end_slot_if_live(
        central: &C,
        span: SpanRef,
        slot: usize,
        address: usize,
    ) -> bool {
        let is_live = || span.is_live(slot);
        // SAFETY: the caller's promise is passed on.
        !Self::TREATS
            || (is_live() && unsafe { Self::try_end_slot(central, span, address, is_live) })
    }

    /// # Safety
    /// As for [`end_slot`](Self::end_slot). A wrong canary is a program's fault if the slot `is_live`; else
    /// another thread has freed the object meanwhile.
    #[inline(never)]
    unsafe fn try_end_slot(
        central: &C,
        span: SpanRef,
        address: usize,
        is_live: impl FnOnce() -> bool,
    ) -> bool {
        let (object, bytes) = (ptr::with_exposed_provenance_mut::<u8>(address), span.bytes());
        // SAFETY: the slot has so many bytes, and is this thread's (contract).
        unsafe {
            if P::CANARIES {
                let place = object.add(bytes - Self::CANARY_BYTES).cast::<u64>();
                if place.read_unaligned() != Self::canary(central, address) {
                    if !is_live() {
                        return false;
                    }
                    central.die(Misuse::HeapOverflow, address, bytes);
                }
            }
            if P::WIPES {
                object.write_bytes(0, bytes);
            }
        }
        // The zeros are there before the slot is free, whenever the process forks.
        compiler_fence(Ordering::Release);
        true
    }

    /// A new span, or one that had slots of another class, all of whose slots are zero if the policy wipes.
    #[inline]
    pub(crate) fn wiped(span: SpanRef) -> SpanRef {
        if P::WIPES && !span.zeroed() {
            // SAFETY: the pages are those of the span, which is this thread's and has no live object.
            unsafe { object_of(span).write_bytes(0, span.pages() * PAGE_BYTES) };
        }
        span
    }

    /// Wipes a large object that has ended, if the policy wipes.
    ///
    /// # Safety
    /// The caller ended the object.
    #[inline]
    pub(crate) unsafe fn wipe_large(central: &C, span: SpanRef) {
        if P::WIPES {
            // SAFETY: the pages are the object's, which is the caller's.
            unsafe {
                Self::fill_with_zeros(central, object_of(span), usable_pages(span) * PAGE_BYTES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::alloc::Layout;

    use spanalloc_central::CentralLists;
    use spanalloc_classes::Go67;
    use spanalloc_os::Mmap;
    use spanalloc_pages::PageHeap;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;
    use crate::ThreadCache;
    use crate::policy::Hardened;

    type Lists = CentralLists<Go67, PageHeap<Mmap>>;
    type Hard<'a> = ThreadCache<&'a Lists, Hardened>;

    fn lists() -> Lists {
        Lists::new(PageHeap::new(Mmap::new()))
    }

    #[test]
    fn every_byte_is_looked_at() {
        for bytes in [1, 7, 8, 9, 24, 63, 64, 200] {
            let mut memory = Vec::from_iter(core::iter::repeat_n(0_u8, bytes));
            // SAFETY: the bytes are there.
            let zero = |memory: &[u8]| unsafe { is_zero(memory.as_ptr(), memory.len()) };
            assert!(zero(&memory));
            for at in 0..bytes {
                memory[at] = 1 << (at % 8);
                assert!(!zero(&memory), "byte {at} of {bytes}");
                memory[at] = 0;
            }
        }
    }

    #[test]
    fn neighbours_and_heaps_have_canaries_that_tell_nothing_of_each_other() {
        let secrets = [0x0123_4567_89ab_cdef_u64, 0x0123_4567_89ab_cdee];
        let addresses = (0..1000).map(|slot| 0x7f12_3456_0000_u64 as usize + 16 * slot);
        let all = addresses.flat_map(|at| secrets.map(|secret| mixed(secret, at)));
        let all = Vec::from_iter(all);
        assert_eq!(BTreeSet::from_iter(all.iter()).len(), 2000);
        // Half of the bits change from one to the next.
        let changes: u32 = all.windows(2).map(|pair| (pair[0] ^ pair[1]).count_ones()).sum();
        assert!((24..40).contains(&(changes / 2000)), "{changes}");
    }

    #[test]
    fn slots_end_in_a_canary_and_are_zero_when_they_are_free() {
        let lists = lists();
        let mut cache = Hard::with_policy(&lists);
        for size in [0_usize, 1, 8, 9, 100, 1000, 1016, 1017, 32_760] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let object = cache.alloc(layout).unwrap();
            let usable = cache.cache().unwrap().usable_bytes(object.addr().get()).unwrap();
            assert!(usable >= size);
            // SAFETY: the object is this test's. Its slot is read behind the object and when it is free, while
            // no other thread is there.
            unsafe {
                object.write_bytes(0xee, usable);
                let canary = object.add(usable).cast::<u64>().read_unaligned();
                assert_eq!(canary, Cache::<&Lists, Hardened>::canary(&&lists, object.addr().get()));
                assert!(object.add(usable).read() >= 0x80, "no text goes on so");
                cache.free(object, layout);
                assert!(is_zero(object.as_ptr(), usable + 8));
            }
        }
        let no_slot = Layout::from_size_align(32_761, 8).unwrap();
        let path = Cache::<Lists, Hardened>::path(no_slot);
        assert_eq!(path, crate::cache::Path::Large, "with its canary it fits no slot");
    }

    #[test]
    fn no_order_of_addresses_and_no_early_reuse() {
        let lists = lists();
        let mut cache = Hard::with_policy(&lists);
        let layout = Layout::from_size_align(40, 8).unwrap();
        let mut objects = Vec::from_iter((0..64).map(|_| cache.alloc(layout).unwrap()));
        let rising = objects.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((16..48).contains(&rising), "{rising} of 63 steps go up");
        for object in objects.drain(..) {
            // SAFETY: allocated above.
            unsafe { cache.free(object, layout) };
        }
        // One at a time: how many others come before a slot is used again.
        let mut last = Vec::new();
        let mut distances = Vec::new();
        for _ in 0..6400 {
            let object = cache.alloc(layout).unwrap();
            // SAFETY: allocated just now.
            unsafe { cache.free(object, layout) };
            distances.extend(last.iter().rev().position(|earlier| *earlier == object));
            last.push(object);
        }
        let mean = distances.iter().sum::<usize>() / distances.len();
        assert!((40..=80).contains(&mean), "{mean}");
        let soon = distances.iter().filter(|distance| **distance < 4).count();
        assert!(soon * 50 < distances.len(), "{soon} of {}", distances.len());
    }

    #[test]
    fn large_objects_are_wiped_and_have_guards() {
        let lists = lists();
        let mut cache = Hard::with_policy(&lists);
        let layout = Layout::from_size_align(50_000, 8).unwrap();
        let object = cache.alloc(layout).unwrap();
        // So that the first one cannot grow where it is.
        let behind = cache.alloc(layout).unwrap();
        assert_eq!(cache.snapshot().unwrap().pages.guard_pages, 2);
        // SAFETY: the object is this test's; when it is free its pages are kept by the cache.
        unsafe {
            object.write_bytes(1, 50_000);
            let larger = cache.realloc(object, layout, 300_000).unwrap();
            assert!(is_zero(object.as_ptr(), 50_000), "what was moved is gone where it was");
            assert_eq!(larger.add(49_999).read(), 1);
            let large = Layout::from_size_align(300_000, 8).unwrap();
            let smaller = cache.realloc(larger, large, 60_000).unwrap();
            assert!(is_zero(larger.as_ptr(), 300_000), "what is too much is gone");
            assert_eq!(smaller.add(49_999).read(), 1);
            cache.free(smaller, Layout::from_size_align(60_000, 8).unwrap());
            cache.free(behind, layout);
        }
    }
}
