//! The bin of caches that check the program.
//!
//! Objects are handed out bit by bit from a word of the current span's bitmap, and freed into the
//! bitmap at once. So of a slot of any span this is true at any time:
//!
//! | bit in `free` | bit in `remote` | the slot                                                  |
//! |---------------|-----------------|-----------------------------------------------------------|
//! | 0             | 0               | is live                                                   |
//! | 0             | 1               | was freed by another thread than the owner, not folded yet |
//! | 1             | 0               | is free; if the bit is also among the reserved ones of the owner's bin, it is next |
//! | 1             | 1               | was freed twice, at once: noticed when it is reserved or folded |
//!
//! A slot that its owner frees is never among the reserved ones, which were all taken from the word at
//! once. So there is a moment between the free of a slot and its next life, the reservation, at which
//! both bits are compared.

use core::ptr;

use spanalloc_central::{Central, Reserve, SpanRef};
use spanalloc_sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use crate::bin::{Bin, Keep, Load, Spans};
use crate::by_address::{Freed, mismatch};
use crate::cache::Cache;
use crate::policy::Policy;

/// The most bytes that are reserved at once, beyond two objects.
const RESERVED_BYTES: usize = 64 << 10;
/// Slots of a word.
const WORD_SLOTS: usize = u64::BITS as usize;

/// A bin that hands out the slots of one word of a bitmap. One cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Words {
    /// Slots of the word that may be handed out.
    reserved: AtomicU64,
    /// The word in the span's bitmap.
    word: AtomicPtr<AtomicU64>,
    /// Address of the word's first slot.
    base: AtomicUsize,
    /// Bytes of a slot.
    bytes: AtomicU32,
    /// Which word of the span it is.
    index: AtomicU16,
    /// The most slots to reserve at once; 0 until the bin is first used.
    most: AtomicU8,
    /// Whether no slot that was reserved had been handed out before.
    fresh: AtomicBool,
    /// Whether every slot that was reserved is known to hold zeros.
    zeroed: AtomicBool,
    spans: Spans,
}

impl Words {
    /// Whether this slot of a span is reserved, and never was handed out.
    pub(crate) fn is_next(&self, span: SpanRef, slot: usize) -> bool {
        self.spans.current() == Some(span)
            && self.fresh.load(Ordering::Relaxed)
            && slot / WORD_SLOTS == usize::from(self.index.load(Ordering::Relaxed))
            && self.reserved.load(Ordering::Relaxed) >> (slot % WORD_SLOTS) & 1 != 0
    }
}

impl Bin for Words {}

impl Keep for Words {
    const EMPTY: Self = Self {
        reserved: AtomicU64::new(0),
        word: AtomicPtr::new(ptr::null_mut()),
        base: AtomicUsize::new(0),
        bytes: AtomicU32::new(0),
        index: AtomicU16::new(0),
        most: AtomicU8::new(0),
        fresh: AtomicBool::new(false),
        zeroed: AtomicBool::new(false),
        spans: Spans::new(),
    };

    fn spans(&self) -> &Spans {
        &self.spans
    }

    fn begin(&self, bytes: usize) {
        let most = (RESERVED_BYTES / bytes.max(1)).clamp(2, WORD_SLOTS);
        self.bytes.store(bytes as u32, Ordering::Relaxed);
        self.most.store(most as u8, Ordering::Relaxed);
    }

    fn is_in_use(&self) -> bool {
        self.most.load(Ordering::Relaxed) > 0
    }

    fn end(&self) {
        debug_assert!(self.cached() == 0);
        self.word.store(ptr::null_mut(), Ordering::Relaxed);
        self.most.store(0, Ordering::Relaxed);
    }

    #[inline(always)]
    unsafe fn pop(&self) -> Option<*mut u8> {
        let reserved = self.reserved.load(Ordering::Relaxed);
        if reserved == 0 {
            return None;
        }
        let slot = reserved & reserved.wrapping_neg();
        self.reserved.store(reserved ^ slot, Ordering::Relaxed);
        // SAFETY: with a slot reserved, this is a word of a descriptor, which is never unmapped.
        let word = unsafe { &*self.word.load(Ordering::Relaxed) };
        word.store(word.load(Ordering::Relaxed) & !slot, Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed) as usize;
        let base = self.base.load(Ordering::Relaxed);
        let address = base.wrapping_add(reserved.trailing_zeros() as usize * bytes);
        Some(ptr::with_exposed_provenance_mut(address))
    }

    #[inline]
    fn zeroed(&self) -> bool {
        self.zeroed.load(Ordering::Relaxed)
    }

    fn cached(&self) -> usize {
        self.reserved.load(Ordering::Relaxed).count_ones() as usize
    }

    fn recover(&self) -> bool {
        false
    }

    unsafe fn load(&self, span: SpanRef) -> Load {
        let most = self.most.load(Ordering::Relaxed).into();
        // SAFETY: this thread owns the span, and nothing is reserved of it (contract).
        let found = match unsafe { span.reserve(most) } {
            Reserve::Some(found) => found,
            Reserve::Exhausted => return Load::Exhausted,
            Reserve::Twice(slot) => return Load::Twice(slot),
        };
        self.word.store(ptr::from_ref(span.bitmap_word(found.word)).cast_mut(), Ordering::Relaxed);
        self.base.store(span.address_of(found.word * WORD_SLOTS), Ordering::Relaxed);
        self.index.store(found.word as u16, Ordering::Relaxed);
        self.fresh.store(found.fresh, Ordering::Relaxed);
        self.zeroed.store(found.fresh && span.zeroed(), Ordering::Relaxed);
        self.reserved.store(found.bits, Ordering::Relaxed);
        Load::Loaded
    }

    #[inline(always)]
    unsafe fn push<C: Central, P: Policy<Bin = Self>>(
        cache: Cache<'_, C, P>,
        class: u8,
        object: *mut u8,
    ) -> bool {
        let freed = match cache.own_span(object.addr()) {
            // SAFETY: this thread owns the span; nobody uses the object (contract).
            Some(span) if span.class() == class => unsafe { cache.put(span, object.addr()) },
            _ => Freed::Not,
        };
        match freed {
            Freed::Done => true,
            Freed::Rehome(span) => {
                cache.rehome_slow(span);
                true
            }
            Freed::Not => false,
        }
    }

    unsafe fn push_slow<C: Central, P: Policy<Bin = Self>>(
        cache: Cache<'_, C, P>,
        class: u8,
        object: *mut u8,
    ) {
        let found = Cache::<C, P>::find(cache.central, object.addr());
        let done = match found {
            Ok((span, _)) if span.class() != class => Err(mismatch(span, object.addr())),
            // SAFETY: nobody uses the object (contract).
            Ok(_) => unsafe { cache.free_unsized_slow(object) },
            Err(report) => Err(report),
        };
        if let Err(report) = done {
            Cache::<C, P>::die(cache.central, report);
        }
    }

    fn flush<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) {
        let bin = cache.state.bin(class);
        if let Some(span) = bin.spans.current() {
            // SAFETY: this thread owns its current span, of which these slots are reserved.
            unsafe { span.unreserve(bin.cached()) };
        }
        bin.reserved.store(0, Ordering::Relaxed);
    }
}
