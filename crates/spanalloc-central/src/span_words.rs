//! What a cache does that hands the slots of a span out one by one, and frees them at once.

use core::ptr::{self, NonNull};

use spanalloc_classes::MAX_SLOTS;
use spanalloc_sync::atomic::{AtomicU64, Ordering};
use spanalloc_sync::fault::{self, Fault};

use crate::span::{LARGE, SpanRef};
use crate::span_slots::{Put, ones_below};

/// Free slots of one word of a span's bitmap that its owner may hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Which word of the bitmap.
    pub word: usize,
    /// The slots, as bits of the word. They stay set until the slot is handed out.
    pub bits: u64,
    /// Whether none of the slots was ever handed out.
    pub fresh: bool,
}

/// What [`SpanRef::reserve`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Slots that are the caller's to hand out.
    Some(Reserved),
    /// No slot of the span is free.
    Exhausted,
    /// This slot is free, and another thread has freed it, too. Nothing is reserved.
    Twice(usize),
}

/// A slot of a span, in one word: the address of the descriptor, which has at most 48 bits, and the
/// index of the slot above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanSlot(u64);

/// Where the index begins.
const INDEX_SHIFT: u32 = 48;
const _: () = assert!(MAX_SLOTS <= 1 << (u64::BITS - INDEX_SHIFT));

impl SpanSlot {
    /// The word that stands for it.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The slot that a word stands for.
    ///
    /// # Safety
    /// The word came from [`to_bits`](Self::to_bits).
    #[inline(always)]
    #[must_use]
    pub const unsafe fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The span.
    #[inline(always)]
    #[must_use]
    pub fn span(self) -> SpanRef {
        let address = (self.0 << (u64::BITS - INDEX_SHIFT) >> (u64::BITS - INDEX_SHIFT)) as usize;
        // SAFETY: the address of a descriptor, which is never 0 and never unmapped.
        unsafe {
            SpanRef::from_descriptor(NonNull::new_unchecked(ptr::with_exposed_provenance_mut(
                address,
            )))
        }
    }

    /// The index of the slot in its span.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 >> INDEX_SHIFT) as usize
    }
}

impl SpanRef {
    /// This slot of the span.
    #[inline(always)]
    pub fn slot(self, index: usize) -> SpanSlot {
        SpanSlot(self.as_ptr().as_ptr().expose_provenance() as u64 | (index as u64) << INDEX_SHIFT)
    }

    /// Makes the slot free, and calls `first` before that; false, and nothing is done, if it is free already,
    /// or it is the tail. It still counts as used.
    ///
    /// # Safety
    /// The caller is the holder, the span is not tiny, nobody uses the slot, and no other thread
    /// [may have freed it](Self::may_be_marked).
    #[inline(always)]
    pub unsafe fn set_free(self, slot: usize, first: impl FnOnce()) -> bool {
        let word = self.free_word(slot / 64);
        let live = word.load(Ordering::Relaxed);
        let free = live | 1 << (slot % 64);
        if free == live {
            return false;
        }
        first();
        word.store(free, Ordering::Relaxed);
        true
    }

    /// Makes the slot live.
    ///
    /// # Safety
    /// The caller is the holder, the slot is its to hand out, and no other thread
    /// [may have freed it](Self::may_be_marked).
    #[inline(always)]
    pub unsafe fn set_live(self, slot: usize) {
        let (word, mask) = (self.free_word(slot / 64), 1 << (slot % 64));
        word.store(word.load(Ordering::Relaxed) & !mask, Ordering::Relaxed);
    }
}

impl SpanRef {
    /// Reserves up to `most` free slots of the first word that has some. They count as used.
    ///
    /// # Safety
    /// The caller is the holder, and nothing is reserved of the span.
    pub unsafe fn reserve(self, most: usize) -> Reserve {
        let (used, slots) = (self.used(), self.slots());
        if used == slots {
            return Reserve::Exhausted;
        }
        let below = self.handed_out_below();
        for (word, remote) in self.remote_words().iter().enumerate() {
            let free = self.free_word(word).load(Ordering::Relaxed) & ones_below(slots, word);
            if free == 0 {
                continue;
            }
            // A free by another thread that this one knows of is seen here, before the slot is
            // handed out again.
            let twice = free & remote.load(Ordering::Relaxed);
            if twice != 0 && !fault::seeded(Fault::ReserveDropsCheck) {
                return Reserve::Twice(word * 64 + twice.trailing_zeros() as usize);
            }
            let bits = lowest(free, most);
            let first = word * 64 + bits.trailing_zeros() as usize;
            let end = word * 64 + (64 - bits.leading_zeros() as usize);
            self.set_used(used + bits.count_ones() as usize);
            self.set_handed_out_below(below.max(end));
            return Reserve::Some(Reserved { word, bits, fresh: first >= below });
        }
        Reserve::Exhausted
    }

    /// Gives back `count` reserved slots that were not handed out.
    ///
    /// # Safety
    /// The caller is the holder and has as many slots reserved, all of which it forgets.
    pub unsafe fn unreserve(self, count: usize) {
        self.set_used(self.used().saturating_sub(count));
    }

    /// The word of the bitmap in which a slot's bit is cleared when it is handed out. The holder's to
    /// write.
    #[inline]
    pub fn bitmap_word<'a>(self, word: usize) -> &'a AtomicU64 {
        self.free_word(word)
    }

    /// Gives a slot back, unless it is free already or another thread has freed it.
    ///
    /// # Safety
    /// As for [`put`](Self::put); the span is not tiny.
    #[inline(always)]
    pub unsafe fn put_once(self, slot: usize) -> Put {
        if self.is_marked(slot) {
            return Put::Twice;
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.put(slot) }
    }

    /// Whether another thread has freed the slot, and no fold has taken it yet.
    #[inline(always)]
    fn is_marked(self, slot: usize) -> bool {
        // SAFETY: slots of the span have a remote word (callers pass slot < slots).
        let word = unsafe { self.remote_word(slot / 64) };
        word.load(Ordering::Relaxed) >> (slot % 64) & 1 != 0
    }

    /// Whether a slot is handed out, in spans whose bits are cleared at that moment; or a large
    /// object.
    #[inline]
    pub fn is_live(self, slot: usize) -> bool {
        if self.class() == LARGE {
            return self.is_large_live();
        }
        self.free_word(slot / 64).load(Ordering::Relaxed) >> (slot % 64) & 1 == 0
            && !self.is_marked(slot)
    }
}

/// The lowest `most` bits of `bits` that are set.
#[inline]
fn lowest(bits: u64, most: usize) -> u64 {
    if bits.count_ones() as usize <= most {
        return bits;
    }
    let mut rest = bits;
    for _ in 0..most {
        rest &= rest.wrapping_sub(1);
    }
    bits ^ rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Marked;
    use crate::testing::span;

    fn reserve(span: SpanRef, most: usize) -> Reserve {
        // SAFETY: the test is the holder, and hands everything out before it reserves again.
        unsafe { span.reserve(most) }
    }

    fn hand_out(span: SpanRef, reserved: Reserved) {
        let word = span.bitmap_word(reserved.word);
        word.store(word.load(Ordering::Relaxed) & !reserved.bits, Ordering::Relaxed);
    }

    fn some(reserve: Reserve) -> Reserved {
        match reserve {
            Reserve::Some(reserved) => reserved,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_are_reserved_from_the_lowest_on_until_the_span_is_exhausted() {
        let span = span(7, 16, 130, false);
        let first = some(reserve(span, 64));
        assert_eq!(first, Reserved { word: 0, bits: u64::MAX, fresh: true });
        assert!((0..130).all(|slot| !span.is_live(slot)), "reserved is not handed out");
        hand_out(span, first);
        assert!((0..64).all(|slot| span.is_live(slot)) && !span.is_live(64));
        let second = some(reserve(span, 10));
        assert_eq!(second, Reserved { word: 1, bits: 0x3ff, fresh: true });
        hand_out(span, second);
        assert_eq!(span.used(), 74);
        for word in [1, 2] {
            let rest = some(reserve(span, 64));
            assert_eq!((rest.word, rest.fresh), (word, true));
            hand_out(span, rest);
        }
        assert_eq!((span.used(), reserve(span, 64)), (130, Reserve::Exhausted));
    }

    #[test]
    fn a_slot_can_be_given_back_once() {
        let span = span(7, 16, 130, false);
        hand_out(span, some(reserve(span, 64)));
        // SAFETY: the test is the holder.
        unsafe {
            assert_eq!((span.put_once(5), span.put_once(5)), (Put::Done, Put::Twice));
            assert_eq!(span.mark(9), Marked::Token);
            assert_eq!(span.put_once(9), Put::Twice);
        }
        assert!(!span.is_live(5) && !span.is_live(9) && span.is_live(10));
        let again = some(reserve(span, 64));
        assert_eq!(again, Reserved { word: 0, bits: 1 << 5, fresh: false });
        assert_eq!(span.used(), 64);
        // SAFETY: the test is the holder, and forgets what it reserved.
        unsafe { span.unreserve(1) };
        assert_eq!((span.used(), some(reserve(span, 64))), (63, again));
    }

    #[test]
    fn the_tail_of_a_span_is_never_live() {
        // 100 slots of 48 bytes leave a tail, in which another one would begin; 128 of 64 do not.
        let (with, without) = (span(7, 48, 100, false), span(7, 64, 128, false));
        let tail = with.base() + 100 * 48;
        assert_eq!((with.slot_at(tail), with.slot_or_tail_at(tail)), (None, Some(100)));
        assert_eq!(with.slot_or_tail_at(tail + 1), None);
        assert_eq!((with.bits(), without.bits()), (101, 128));
        let mut slots = 0;
        while let Reserve::Some(reserved) = reserve(with, 64) {
            slots += reserved.bits.count_ones();
            hand_out(with, reserved);
        }
        assert_eq!((slots, with.used()), (100, 100), "the tail is not handed out");
        // SAFETY: the test is the holder.
        unsafe {
            assert!(!with.set_free(100, || panic!("no slot")), "and not freed");
            assert!(with.set_free(99, || assert!(with.is_live(99), "only then it is free")));
            assert!(!with.set_free(99, || panic!("free already")));
            with.set_live(99);
        }
    }

    #[test]
    fn a_slot_that_was_freed_from_two_sides_is_not_reserved() {
        let span = span(7, 16, 130, false);
        hand_out(span, some(reserve(span, 64)));
        // SAFETY: the test is the holder and the other thread in one.
        unsafe {
            assert_eq!(span.mark(3), Marked::Token);
            // As if the owner had not seen the mark.
            assert_eq!(span.put(3), Put::Done);
        }
        assert_eq!(reserve(span, 64), Reserve::Twice(3));
        assert_eq!(span.used(), 63);
    }

    #[test]
    fn a_slot_in_one_word_is_the_slot_of_its_span() {
        for span in [span(7, 16, 130, false), span(7, 64, 128, false)] {
            for index in [0, 1, 64, MAX_SLOTS - 1, MAX_SLOTS] {
                let slot = span.slot(index);
                // SAFETY: the word stands for a slot.
                let again = unsafe { SpanSlot::from_bits(slot.to_bits()) };
                assert_eq!((again, again.span(), again.index()), (slot, span, index));
            }
        }
    }

    #[test]
    fn the_lowest_bits() {
        assert_eq!(
            [lowest(0b1011, 2), lowest(0b1011, 3), lowest(0b1011, 64)],
            [0b11, 0b1011, 0b1011]
        );
        assert_eq!((lowest(u64::MAX, 64), lowest(u64::MAX, 63)), (u64::MAX, u64::MAX >> 1));
        assert_eq!((lowest(1 << 63, 1), lowest(0, 5)), (1 << 63, 0));
    }
}
