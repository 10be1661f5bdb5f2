//! The bin of caches that check the program.
//!
//! The bin keeps objects that were freed lately in a ring, and hands them out again in turn: their memory
//! is in the processor's cache. What was freed just now is not yet ripe: a few others have to be freed
//! first. So a program that allocates and frees in turn goes round between some objects, and no step
//! waits for the one before. When no object is ripe, objects are handed out bit by bit from a word of the
//! current span's bitmap; when the ring is full, a freed object stays where it is. In any case the bitmap
//! knows at once. So of a slot of any span this is true at any time:
//!
//! | bit in `free` | bit in `remote` | the slot                                                  |
//! |---------------|-----------------|-----------------------------------------------------------|
//! | 0             | 0               | is live                                                   |
//! | 0             | 1               | was freed by another thread than the owner, not folded yet |
//! | 1             | 0               | is free; if the owner's bin keeps it, or it is among the reserved ones, it is next |
//! | 1             | 1               | was freed twice, at once: noticed when it is reserved, handed out again or folded |
//!
//! A slot that the bin keeps counts as used in its span, as a reserved one does. Slots are only
//! reserved when the bin keeps none, ripe or not, and what it keeps later was live then: so no slot is
//! both. Both bits of a slot are compared between its free and its next life.

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
use crate::state::CacheState;

/// The most bytes that are reserved at once, beyond two objects.
const RESERVED_BYTES: usize = 64 << 10;
/// Slots of a word.
const WORD_SLOTS: usize = u64::BITS as usize;

/// The past of slots that were never handed out before.
const FRESH: u8 = 1;
/// The past of slots that were never handed out before, and are known to hold zeros.
const ZEROED: u8 = 2;

/// The most freed objects that a bin keeps.
const KEPT: usize = 16;
/// The most bytes of freed objects that a bin keeps, beyond two objects.
const KEPT_BYTES: usize = 32 << 10;
/// So many objects have to be freed after one before it is ripe, or as many as the ring holds beside it.
const LAG: u32 = 3;

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
    /// Bytes of a slot; 0 until the bin is first used.
    bytes: AtomicU16,
    /// Whether the slots that were reserved were [`FRESH`] or [`ZEROED`].
    past: AtomicU8,
    /// The last place of the ring, which has a power of two of them. As the three that follow, in bytes of
    /// places.
    ring: AtomicU8,
    /// How many objects have to be freed after one before it is ripe. If the policy shuffles, none is kept, and
    /// this is what the next choice is made by.
    lag: AtomicU32,
    /// How many of the kept objects were handed out again so far. It goes round, and what exceeds `ring`
    /// does not count for the place, which is that of the oldest one.
    oldest: AtomicU32,
    /// How many objects were kept so far, likewise: the place for the next one.
    next: AtomicU32,
    spans: Spans,
    objects: [Kept; KEPT],
}

/// A place for a freed object: its address, and its slot. The address is kept beside the slot so that
/// whoever gets the object need not wait for what the slot leads to.
#[derive(Debug)]
struct Kept {
    object: AtomicPtr<u8>,
    slot: AtomicU64,
}

/// Bytes of an entry.
const KEPT_STEP: u32 = size_of::<Kept>() as u32;

impl Kept {
    const fn none() -> Self {
        Self { object: AtomicPtr::new(ptr::null_mut()), slot: AtomicU64::new(0) }
    }
}

const _: () = assert!(
    size_of::<usize>() != 8
        || size_of::<AtomicU64>() != 8
        || (offset_of!(Words, objects) == 64 && size_of::<Words>() == 320)
);

impl Words {
    /// Keeps a freed object, if there is room.
    ///
    /// # Safety
    /// The caller is the bin's thread, which owns the span; the slot is of the bin's class, and free,
    /// but counts as used.
    #[inline(always)]
    pub(crate) unsafe fn keep(&self, object: *mut u8, slot: SpanSlot) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        let kept = next.wrapping_sub(self.oldest.load(Ordering::Relaxed));
        let ring = u32::from(self.ring.load(Ordering::Relaxed));
        if kept > ring {
            return false;
        }
        let place = self.place_in(ring, next);
        place.object.store(object, Ordering::Relaxed);
        place.slot.store(slot.to_bits(), Ordering::Relaxed);
        self.next.store(next.wrapping_add(KEPT_STEP), Ordering::Relaxed);
        true
    }

    /// The place of the object that was kept after so many others.
    #[inline(always)]
    fn place(&self, others: u32) -> &Kept {
        self.place_in(self.ring.load(Ordering::Relaxed).into(), others)
    }

    /// As [`place`](Self::place), of a bin with this `ring`.
    #[inline(always)]
    fn place_in(&self, ring: u32, others: u32) -> &Kept {
        // SAFETY: at most the last place of the ring, which is one of `objects`, and a multiple of a
        // place's size, as both numbers are.
        unsafe { &*self.objects.as_ptr().byte_add((others & ring) as usize) }
    }

    /// Whether the oldest object that is kept is ripe.
    #[inline(always)]
    fn is_ripe(&self, oldest: u32) -> bool {
        let kept = self.next.load(Ordering::Relaxed).wrapping_sub(oldest);
        kept > self.lag.load(Ordering::Relaxed)
    }

    /// Takes the oldest object that is kept. None if another thread may have freed it, too.
    ///
    /// # Safety
    /// The caller is the bin's thread, this is `oldest`, and an object is kept.
    #[inline(always)]
    unsafe fn pop_kept(&self, oldest: u32) -> Option<*mut u8> {
        let place = self.place(oldest);
        // SAFETY: what is in the place of a kept object was written by `keep`.
        let slot = unsafe { SpanSlot::from_bits(place.slot.load(Ordering::Relaxed)) };
        if slot.span().may_be_marked() {
            return None;
        }
        // First this: a fork in between leaves the child a slot less, not one too many.
        self.oldest.store(oldest.wrapping_add(KEPT_STEP), Ordering::Relaxed);
        // SAFETY: this thread owns the spans of what it keeps, and the flag was looked at.
        unsafe { slot.span().set_live(slot.index()) };
        Some(place.object.load(Ordering::Relaxed))
    }

    /// The word of which the lowest bit is one of `reserved`, any of them.
    #[inline]
    fn any_of(&self, reserved: u64) -> u64 {
        // The multiplier and the constant of a generator with the period 2^32, of which the upper bits are
        // the better ones.
        let dice =
            self.lag.load(Ordering::Relaxed).wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.lag.store(dice, Ordering::Relaxed);
        let turn = dice >> (u32::BITS - WORD_SLOTS.ilog2());
        let turned = reserved.rotate_right(turn);
        (turned & turned.wrapping_neg()).rotate_left(turn)
    }

    /// The objects that are kept.
    fn kept(&self) -> impl Iterator<Item = &Kept> {
        let next = self.next.load(Ordering::Relaxed);
        let oldest = self.oldest.load(Ordering::Relaxed);
        (0..next.wrapping_sub(oldest))
            .step_by(KEPT_STEP as usize)
            .map(move |others| self.place(oldest.wrapping_add(others)))
    }

    /// The most slots to reserve at once.
    fn most(&self) -> usize {
        let bytes = usize::from(self.bytes.load(Ordering::Relaxed));
        (RESERVED_BYTES / bytes.max(1)).clamp(2, WORD_SLOTS)
    }

    /// Whether this slot of a span is reserved, and never was handed out.
    pub(crate) fn is_next(&self, span: SpanRef, slot: usize) -> bool {
        self.spans.current() == Some(span)
            && self.past.load(Ordering::Relaxed) >= FRESH
            && span.address_of(slot - slot % WORD_SLOTS) == self.base.load(Ordering::Relaxed)
            && self.reserved.load(Ordering::Relaxed) >> (slot % WORD_SLOTS) & 1 != 0
    }
}

/// How many freed objects of `bytes` a bin keeps as a rule: a power of two.
fn first_places(bytes: usize) -> usize {
    1 << (KEPT_BYTES / bytes.max(1)).clamp(2, KEPT).ilog2()
}

impl Bin for Words {}

impl Keep for Words {
    const EMPTY: Self = Self {
        reserved: AtomicU64::new(0),
        word: AtomicPtr::new(ptr::null_mut()),
        base: AtomicUsize::new(0),
        bytes: AtomicU16::new(0),
        past: AtomicU8::new(0),
        ring: AtomicU8::new(0),
        lag: AtomicU32::new(0),
        oldest: AtomicU32::new(0),
        next: AtomicU32::new(0),
        spans: Spans::new(),
        objects: [const { Kept::none() }; KEPT],
    };

    const KNOWS_LIVE: bool = true;

    fn spans(&self) -> &Spans {
        &self.spans
    }

    fn begin(&self, bytes: usize, room: usize) -> usize {
        self.bytes.store(bytes as u16, Ordering::Relaxed);
        let first = first_places(bytes);
        let places = if first * bytes > room { 2 } else { first };
        let ring = (places as u32 - 1) * KEPT_STEP;
        self.ring.store(ring as u8, Ordering::Relaxed);
        self.lag.store(ring.min(LAG * KEPT_STEP), Ordering::Relaxed);
        self.oldest.store(0, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        places * bytes
    }

    fn holds(&self, bytes: usize) -> (usize, usize) {
        let ring = usize::from(self.ring.load(Ordering::Relaxed));
        ((ring / KEPT_STEP as usize + 1) * bytes, first_places(bytes) * bytes)
    }

    fn is_in_use(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    fn end<C: Central>(&self, _central: &C) {
        debug_assert!(self.cached() == 0);
        self.word.store(ptr::null_mut(), Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    #[inline(always)]
    unsafe fn pop<P: Policy>(&self) -> Option<*mut u8> {
        let oldest = self.oldest.load(Ordering::Relaxed);
        if !P::SHUFFLES && self.is_ripe(oldest) {
            // SAFETY: the caller is the bin's thread (contract).
            return unsafe { self.pop_kept(oldest) };
        }
        let reserved = self.reserved.load(Ordering::Relaxed);
        if reserved == 0 {
            return None;
        }
        let from = if P::SHUFFLES { self.any_of(reserved) } else { reserved };
        let slot = from & from.wrapping_neg();
        self.reserved.store(reserved ^ slot, Ordering::Relaxed);
        // SAFETY: with a slot reserved, this is a word of a descriptor, which is never unmapped.
        let word = unsafe { &*self.word.load(Ordering::Relaxed) };
        word.store(word.load(Ordering::Relaxed) & !slot, Ordering::Relaxed);
        let bytes = usize::from(self.bytes.load(Ordering::Relaxed));
        let base = self.base.load(Ordering::Relaxed);
        let address = base.wrapping_add(from.trailing_zeros() as usize * bytes);
        Some(ptr::with_exposed_provenance_mut(address))
    }

    #[inline]
    unsafe fn pop_or_load<P: Policy>(&self, _state: &CacheState<Self>) -> Option<*mut u8> {
        // SAFETY: the caller is the bin's thread, which owns the current span (contract); nothing is
        // reserved of it.
        unsafe {
            self.pop::<P>().or_else(|| {
                let oldest = self.oldest.load(Ordering::Relaxed);
                if oldest != self.next.load(Ordering::Relaxed) {
                    return self.pop_kept(oldest);
                }
                let loaded = self.load(self.spans.current()?) == Load::Loaded;
                if loaded { self.pop::<P>() } else { None }
            })
        }
    }

    #[inline]
    fn zeroed(&self) -> bool {
        self.past.load(Ordering::Relaxed) == ZEROED
            && !self.is_ripe(self.oldest.load(Ordering::Relaxed))
    }

    fn cached(&self) -> usize {
        self.kept().count()
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed).count_ones() as usize
    }

    /// Kept objects could not be popped because another thread has freed into a span of theirs: that
    /// is taken in, and it turns out whether one of them was freed twice.
    fn recover<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) -> bool {
        let bin = cache.state.bin(class);
        if bin.kept().next().is_some() {
            give_back(cache, class);
            cache.drain();
        }
        bin.reserved.load(Ordering::Relaxed) != 0
    }

    unsafe fn load(&self, span: SpanRef) -> Load {
        // SAFETY: this thread owns the span, and nothing is reserved of it (contract).
        let found = match unsafe { span.reserve(self.most()) } {
            Reserve::Some(found) => found,
            Reserve::Exhausted => return Load::Exhausted,
            Reserve::Twice(slot) => return Load::Twice(slot),
        };
        self.word.store(ptr::from_ref(span.bitmap_word(found.word)).cast_mut(), Ordering::Relaxed);
        self.base.store(span.address_of(found.word * WORD_SLOTS), Ordering::Relaxed);
        let past = if !found.fresh {
            0
        } else if span.zeroed() {
            ZEROED
        } else {
            FRESH
        };
        self.past.store(past, Ordering::Relaxed);
        self.reserved.store(found.bits, Ordering::Relaxed);
        Load::Loaded
    }

    fn stir(&self, random: u32) {
        self.lag.store(self.lag.load(Ordering::Relaxed) ^ random, Ordering::Relaxed);
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

    /// The lowest free slot is handed out first again, not one that was never touched.
    fn settle<C: Central, P: Policy<Bin = Self>>(cache: Cache<'_, C, P>, class: u8) {
        Self::flush(cache, class);
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
    while let Some(place) = bin.kept().next() {
        // SAFETY: what is in the place of a kept object was written by `keep`.
        let slot = unsafe { SpanSlot::from_bits(place.slot.load(Ordering::Relaxed)) };
        let oldest = bin.oldest.load(Ordering::Relaxed);
        bin.oldest.store(oldest.wrapping_add(KEPT_STEP), Ordering::Relaxed);
        // SAFETY: this thread is the bin's, which owns the spans of the objects; each is free by its
        // state.
        unsafe {
            if slot.span().count_free(1) == Put::Notify {
                cache.rehome_slow(slot.span());
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
    use std::vec::Vec;

    use super::KEPT;
    use crate::ThreadCache;
    use crate::policy::Checked;

    type Lists = CentralLists<Go67, PageHeap<Mmap>>;

    /// Allocates and frees an object of `bytes` so many times; where it was.
    fn pairs(bytes: usize, count: usize) -> Vec<usize> {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let mut cache = ThreadCache::<&Lists, Checked>::with_policy(&lists);
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        let mut pair = || {
            let object = cache.alloc(layout).unwrap();
            // SAFETY: allocated just now with this layout.
            unsafe { cache.free(object, layout) };
            object.addr().get()
        };
        (0..count).map(|_| pair()).collect()
    }

    #[test]
    fn a_loop_goes_round_between_a_few_objects() {
        for (bytes, ring) in [(64, 4), (2048, 4), (8192, 4), (16384, 2), (32768, 2)] {
            let places = pairs(bytes, 40);
            let (first, rest) = places.split_at(ring);
            assert!(first.iter().all(|place| first.iter().filter(|it| *it == place).count() == 1));
            assert!(rest.iter().zip(first.iter().cycle()).all(|(place, then)| place == then));
        }
    }

    #[test]
    fn what_was_freed_is_handed_out_in_turn_and_at_last_the_newest() {
        let lists = Lists::new(PageHeap::new(Mmap::new()));
        let mut cache = ThreadCache::<&Lists, Checked>::with_policy(&lists);
        let layout = Layout::from_size_align(64, 8).unwrap();
        // All of a word, so that nothing is reserved.
        let objects = Vec::from_iter((0..64).map(|_| cache.alloc(layout).unwrap()));
        let (few, others) = objects.split_at(KEPT);
        for object in few {
            // SAFETY: allocated above with this layout.
            unsafe { cache.free(*object, layout) };
        }
        let again = Vec::from_iter((0..KEPT).map(|_| cache.alloc(layout).unwrap()));
        assert_eq!(again, few);
        assert!(!objects.contains(&cache.alloc(layout).unwrap()));
        for object in again.iter().chain(others) {
            // SAFETY: allocated above with this layout; the last one is the cache's to forget.
            unsafe { cache.free(*object, layout) };
        }
    }
}
