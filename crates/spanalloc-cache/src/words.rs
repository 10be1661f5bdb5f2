//! The bin of caches that check the program.
//!
//! The bin keeps the objects that were freed last, and hands the newest of them out first: its memory
//! is in the processor's cache. When it has none, objects are handed out bit by bit from a word of
//! the current span's bitmap; when it is full, a freed object stays where it is. In any case the
//! bitmap knows at once. So of a slot of any span this is true at any time:
//!
//! | bit in `free` | bit in `remote` | the slot                                                  |
//! |---------------|-----------------|-----------------------------------------------------------|
//! | 0             | 0               | is live                                                   |
//! | 0             | 1               | was freed by another thread than the owner, not folded yet |
//! | 1             | 0               | is free; if the owner's bin keeps it, or it is among the reserved ones, it is next |
//! | 1             | 1               | was freed twice, at once: noticed when it is reserved, handed out again or folded |
//!
//! A slot that the bin keeps counts as used in its span, as a reserved one does. Slots are only
//! reserved when the bin keeps none, and what it keeps later was live then: so no slot is both. Both
//! bits of a slot are compared between its free and its next life.

use core::mem::{offset_of, size_of};
use core::ptr;

use spanalloc_central::{Central, Put, Reserve, SpanRef, SpanSlot};
use spanalloc_sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use crate::bin::{Bin, Keep, Load, Spans};
use crate::by_address::{Freed, mismatch};
use crate::cache::Cache;
use crate::policy::Policy;

/// The most bytes that are reserved at once, beyond two objects.
const RESERVED_BYTES: usize = 64 << 10;
/// Slots of a word.
const WORD_SLOTS: usize = u64::BITS as usize;

/// The past of slots that were never handed out before.
const FRESH: u8 = 1;
/// The past of slots that were never handed out before, and are known to hold zeros.
const ZEROED: u8 = 2;

/// The most freed objects that a bin keeps.
const KEPT: usize = 12;
/// The most bytes of freed objects that a bin keeps, beyond two objects.
const KEPT_BYTES: usize = 32 << 10;

/// A bin that keeps some freed objects and hands out the slots of one word of a bitmap. Its first
/// cache line is all that most calls use of it.
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
    /// Whether the slots that were reserved were [`FRESH`] or [`ZEROED`].
    past: AtomicU8,
    /// Bytes of `objects` that are in use, from its front: one [`Kept`] a freed object, the newest last.
    kept: AtomicU32,
    /// The most bytes that may be; 0 until the bin is first used.
    kept_most: AtomicU32,
    spans: Spans,
    objects: [Kept; KEPT],
}

/// A freed object. Its address is kept beside its slot so that whoever gets it next need not wait
/// for what the slot leads to.
#[derive(Debug)]
struct Kept {
    object: AtomicPtr<u8>,
    slot: AtomicU64,
}

/// Bytes of an entry.
const KEPT_STEP: u32 = size_of::<Kept>() as u32;

impl Kept {
    const NONE: Self = Self { object: AtomicPtr::new(ptr::null_mut()), slot: AtomicU64::new(0) };
}

const _: () = assert!(
    size_of::<usize>() != 8
        || size_of::<AtomicU64>() != 8
        || (offset_of!(Words, objects) == 64 && size_of::<Words>() == 256)
);

impl Words {
    /// Keeps a freed object, if there is room.
    ///
    /// # Safety
    /// The caller is the bin's thread, which owns the span; the slot is of the bin's class, and free,
    /// but counts as used.
    #[inline(always)]
    pub(crate) unsafe fn keep(&self, object: *mut u8, slot: SpanSlot) -> bool {
        let kept = self.kept.load(Ordering::Relaxed);
        if kept >= self.kept_most.load(Ordering::Relaxed) {
            return false;
        }
        // SAFETY: `kept` is below `kept_most`, which is at most the bytes of all.
        let place = unsafe { self.place(kept) };
        place.object.store(object, Ordering::Relaxed);
        place.slot.store(slot.to_bits(), Ordering::Relaxed);
        self.kept.store(kept + KEPT_STEP, Ordering::Relaxed);
        true
    }

    /// The place at so many bytes of `objects`.
    ///
    /// # Safety
    /// It is a multiple of [`KEPT_STEP`], and below the bytes of all.
    #[inline(always)]
    unsafe fn place(&self, kept: u32) -> &Kept {
        // SAFETY: the caller's promise.
        unsafe { &*self.objects.as_ptr().byte_add(kept as usize) }
    }

    /// The newest object, with so many bytes of them in use, which are more than 0.
    ///
    /// # Safety
    /// The caller is the bin's thread.
    #[inline(always)]
    unsafe fn newest(&self, kept: u32) -> (*mut u8, SpanSlot) {
        // SAFETY: at most KEPT objects are kept, and all of them were written by `keep`.
        unsafe {
            let place = self.place(kept - KEPT_STEP);
            let slot = SpanSlot::from_bits(place.slot.load(Ordering::Relaxed));
            (place.object.load(Ordering::Relaxed), slot)
        }
    }

    /// Whether this slot of a span is reserved, and never was handed out.
    pub(crate) fn is_next(&self, span: SpanRef, slot: usize) -> bool {
        self.spans.current() == Some(span)
            && self.past.load(Ordering::Relaxed) >= FRESH
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
        past: AtomicU8::new(0),
        kept: AtomicU32::new(0),
        kept_most: AtomicU32::new(0),
        spans: Spans::new(),
        objects: [Kept::NONE; KEPT],
    };

    fn spans(&self) -> &Spans {
        &self.spans
    }

    fn begin(&self, bytes: usize) {
        let most = (RESERVED_BYTES / bytes.max(1)).clamp(2, WORD_SLOTS);
        self.bytes.store(bytes as u32, Ordering::Relaxed);
        self.most.store(most as u8, Ordering::Relaxed);
        let kept = (KEPT_BYTES / bytes.max(1)).clamp(2, KEPT);
        self.kept_most.store(kept as u32 * KEPT_STEP, Ordering::Relaxed);
    }

    fn is_in_use(&self) -> bool {
        self.most.load(Ordering::Relaxed) > 0
    }

    fn end(&self) {
        debug_assert!(self.cached() == 0);
        self.word.store(ptr::null_mut(), Ordering::Relaxed);
        self.most.store(0, Ordering::Relaxed);
        self.kept_most.store(0, Ordering::Relaxed);
    }

    #[inline(always)]
    unsafe fn pop(&self) -> Option<*mut u8> {
        let kept = self.kept.load(Ordering::Relaxed);
        if kept != 0 {
            // SAFETY: the caller is the bin's thread (contract).
            let (object, slot) = unsafe { self.newest(kept) };
            let span = slot.span();
            if span.may_be_marked() {
                return None;
            }
            // First this: a fork in between leaves the child a slot less, not one too many.
            self.kept.store(kept - KEPT_STEP, Ordering::Relaxed);
            // SAFETY: this thread owns the spans of what it keeps, and the flag was looked at.
            unsafe { span.set_live(slot.index()) };
            return Some(object);
        }
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
    unsafe fn pop_or_load(&self) -> Option<*mut u8> {
        // SAFETY: the caller is the bin's thread, which owns the current span (contract); nothing is
        // reserved of it.
        unsafe {
            self.pop().or_else(|| {
                let loaded = self.cached() == 0 && self.load(self.spans.current()?) == Load::Loaded;
                if loaded { self.pop() } else { None }
            })
        }
    }

    #[inline]
    fn zeroed(&self) -> bool {
        self.kept.load(Ordering::Relaxed) == 0 && self.past.load(Ordering::Relaxed) == ZEROED
    }

    fn cached(&self) -> usize {
        let kept = (self.kept.load(Ordering::Relaxed) / KEPT_STEP) as usize;
        kept + self.reserved.load(Ordering::Relaxed).count_ones() as usize
    }

    /// Kept objects could not be popped because another thread has freed into a span of theirs: that
    /// is taken in, and it turns out whether one of them was freed twice.
    fn recover<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) -> bool {
        let bin = cache.state.bin(class);
        if bin.kept.load(Ordering::Relaxed) > 0 {
            give_back(cache, class);
            cache.drain();
        }
        bin.reserved.load(Ordering::Relaxed) != 0
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
        let past = if !found.fresh { 0 } else if span.zeroed() { ZEROED } else { FRESH };
        self.past.store(past, Ordering::Relaxed);
        self.reserved.store(found.bits, Ordering::Relaxed);
        Load::Loaded
    }

    #[inline(always)]
    unsafe fn push<C: Central, P: Policy<Bin = Self>>(
        cache: Cache<'_, C, P>,
        class: u8,
        object: *mut u8,
    ) -> bool {
        // SAFETY: the caller's promise is passed on.
        let freed = unsafe { cache.try_free_as(object, class) };
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
            let reserved = bin.reserved.load(Ordering::Relaxed).count_ones() as usize;
            // SAFETY: this thread owns its current span, of which these slots are reserved.
            unsafe { span.unreserve(reserved) };
        }
        bin.reserved.store(0, Ordering::Relaxed);
        give_back(cache, class);
    }
}

/// Gives the objects that a bin keeps back to their spans.
fn give_back<C: Central, P: Policy<Bin = Words>>(cache: Cache<'_, C, P>, class: u8) {
    let bin = cache.state.bin(class);
    loop {
        let kept = bin.kept.load(Ordering::Relaxed);
        if kept == 0 {
            return;
        }
        bin.kept.store(kept - KEPT_STEP, Ordering::Relaxed);
        // SAFETY: this thread is the bin's, which owns the spans of the objects; each is free by its
        // state.
        unsafe {
            let span = bin.newest(kept).1.span();
            if span.count_free(1) == Put::Notify {
                cache.rehome_slow(span);
            }
        }
    }
}
