//! The tiny path: several objects in one 16-byte slot.
//!
//! A slot's live objects are counted outside the slot, in the descriptor of its span. While a slot
//! is open the count holds a credit of [`OPEN_CREDIT`] instead of the objects packed so far, so that
//! packing writes only to the cache and no free can bring the count to zero. Closing the slot
//! exchanges the credit for the true number.

use spanalloc_central::{Central, SpanRef, TINY_BYTES, TinyDrop};
use spanalloc_os::Misuse;
use spanalloc_sync::atomic::Ordering;

use crate::bin::Keep;
use crate::cache::{Cache, SHARED};
use crate::policy::Policy;
use crate::small::class_bytes;
use crate::state::OPEN_CREDIT;

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// Packs an object for which the open slot has no room.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_tiny_slow(self, size: usize, align: usize) -> *mut u8 {
        let bin = self.state.bin(SHARED);
        // SAFETY: this thread uses the state (contract of `Cache::new`).
        let slot = match unsafe { bin.pop::<P>() } {
            Some(slot) => slot,
            None => self.alloc_small_slow(SHARED).0,
        };
        let Some(span) = self.central.span_at(slot.addr()) else {
            return core::ptr::null_mut();
        };
        let index = span.slot_of(slot.addr());
        let open = &self.state.open;
        if (open.room.load(Ordering::Relaxed) as usize) < TINY_BYTES - size {
            self.close_open_slot();
            // SAFETY: this thread owns the span the slot came from; only tiny slots are in this bin.
            unsafe { span.add_tiny(index, OPEN_CREDIT) };
            open.address.store(slot, Ordering::Relaxed);
            open.room.store(TINY_BYTES as u32, Ordering::Relaxed);
            open.objects.store(0, Ordering::Relaxed);
            // SAFETY: this thread uses the state; the caller's align is at most 16.
            return unsafe { open.pack(size, align) }.unwrap_or(core::ptr::null_mut());
        }
        // The open slot stays: it has more room left than the new one would.
        // SAFETY: as above.
        unsafe { span.add_tiny(index, 1) };
        slot
    }

    /// Closes the open slot, if there is one.
    pub(crate) fn close_open_slot(self) {
        let open = &self.state.open;
        let slot = open.address.load(Ordering::Relaxed);
        open.address.store(core::ptr::null_mut(), Ordering::Relaxed);
        let objects = open.objects.load(Ordering::Relaxed) as u8;
        open.room.store(0, Ordering::Relaxed);
        open.objects.store(0, Ordering::Relaxed);
        if let Some(span) = self.central.span_at(slot.addr()) {
            let index = span.slot_of(slot.addr());
            // SAFETY: this thread owns the span of its open slot, which is a tiny one.
            if unsafe { span.drop_tiny(index, OPEN_CREDIT - objects) } == TinyDrop::Dead {
                self.keep_slot(span, index);
            }
        }
    }

    /// Frees a tiny object of this thread's, if other objects live on in its slot.
    ///
    /// # Safety
    /// The object is tiny and nobody uses it any more.
    #[inline(always)]
    pub(crate) unsafe fn try_free_tiny(self, object: *mut u8) -> bool {
        let mine =
            |span: &SpanRef| span.ownership().is(&self.state.owner.queue) && span.class() == SHARED;
        self.central.span_at(object.addr()).filter(mine).is_some_and(|span| {
            let slot = span.offset_of(object.addr()) / TINY_BYTES;
            // SAFETY: this thread owns the span, which is tiny; the object lies in its slots.
            unsafe { span.drop_tiny_unless_last(slot) }
        })
    }

    /// Frees a tiny object: the last of its slot, or another thread's.
    ///
    /// # Safety
    /// The object is tiny and nobody uses it any more.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_tiny_slow(self, object: *mut u8) {
        let address = object.addr();
        let (span, index) = Self::locate_tiny(self.central, address);
        if span.ownership().is(&self.state.owner.queue) {
            // SAFETY: this thread owns the span, which is tiny and has the slot.
            match unsafe { span.drop_tiny(index, 1) } {
                TinyDrop::Live => {}
                TinyDrop::Dead => self.keep_slot(span, index),
                TinyDrop::Twice => self.central.die(Misuse::DoubleFree, address, TINY_BYTES),
            }
        } else {
            // SAFETY: the caller's promise; the span is tiny.
            Self::announce(self.central, span, unsafe { span.mark_tiny(index) }, address);
        }
    }

    /// The span and the slot of a tiny object; ends the process if there is none.
    pub(crate) fn locate_tiny(central: &C, address: usize) -> (SpanRef, usize) {
        let Some(span) = central.span_at(address) else {
            central.die(central.foreign(address), address, 0);
        };
        if span.class() != SHARED {
            central.die(Misuse::SizeMismatch, address, class_bytes(span));
        }
        (span, span.offset_of(address) / TINY_BYTES)
    }

    /// Keeps a slot of this thread's, in which no object lives, for the next one to open.
    fn keep_slot(self, span: SpanRef, index: usize) {
        let slot = core::ptr::with_exposed_provenance_mut(span.address_of(index));
        // SAFETY: this thread uses the state and owns the span; nobody uses the slot.
        unsafe {
            if !P::Bin::push(self, SHARED, slot) {
                P::Bin::push_slow(self, SHARED, slot);
            }
        }
    }
}
