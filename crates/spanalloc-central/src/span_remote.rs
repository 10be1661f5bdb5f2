//! What other threads do to a span, how its holder takes it in, and the counts of tiny slots.
//!
//! The holder of a span that is not tiny looks at the flag [`MARKED`] before it reads a remote word:
//!
//! | `MARKED` | remote words                                              | leaves it by            |
//! |----------|-----------------------------------------------------------|-------------------------|
//! | false    | hold no mark of a free that has returned                  | mark -> true            |
//! | true     | may hold marks                                            | begin of a fold -> false |
//!
//! A freer sets the flag, if it is not set, before it marks the slot and when it has done so. A fold
//! clears it before it looks at the words. If the fold does not find the mark, the mark was made
//! after that look, and so the freer finds the flag cleared.

use spanalloc_sync::atomic::{Ordering, fence};
use spanalloc_sync::fault::{self, Fault};

use crate::remote::Marked;
use crate::span::{MARKED, SpanRef, TINY};
use crate::span_slots::Put;

impl SpanRef {
    /// Marks a slot as freed by a thread that is not the holder.
    ///
    /// # Safety
    /// Nobody uses the slot any more; the span is not tiny.
    #[inline]
    pub unsafe fn mark(self, slot: usize) -> Marked {
        debug_assert!(slot < self.slots());
        // SAFETY: the caller's promise is passed on.
        unsafe { self.mark_all(slot / 64, 1 << (slot % 64)) }.unwrap_or(Marked::Twice)
    }

    /// Marks the slots `mask` of a word of the bitmap, at least one, as freed by a thread that is not
    /// the holder.
    ///
    /// # Errors
    /// A slot that was freed already. Of the others some may be marked then.
    ///
    /// # Safety
    /// As for [`mark`](Self::mark), of each of the slots.
    #[inline]
    pub unsafe fn mark_all(self, word: usize, mask: u64) -> Result<Marked, usize> {
        debug_assert!(self.class() != TINY && mask != 0);
        // Before the mark, so that the holder does not miss one that it knows of or that is made at the
        // same time; and after it, because a fold may have cleared the flag in between.
        self.say_marked();
        // SAFETY: the span has these slots, so the word exists.
        let remote = unsafe { self.remote_word(word) };
        // The holder cleared these bits before the objects were handed out, and sets them only when
        // they are freed: whoever frees them now sees them clear, unless they are free already.
        let free = self.free_word(word).load(Ordering::Relaxed);
        let twice = (free | remote.load(Ordering::Relaxed)) & mask;
        if twice != 0 {
            return Err(word * 64 + twice.trailing_zeros() as usize);
        }
        let marked = self.shared().balance.mark(remote, mask, mask.count_ones());
        self.say_marked_again();
        match marked {
            Marked::Twice => Err(word * 64 + mask.trailing_zeros() as usize),
            other => Ok(other),
        }
    }

    /// Which of the slots `mask` of a word of the bitmap other threads freed, as far as it can be seen.
    ///
    /// # Safety
    /// The span is not tiny, and has such a word.
    #[inline]
    pub unsafe fn marked_among(self, word: usize, mask: u64) -> u64 {
        if !self.may_be_marked() {
            return 0;
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.remote_word(word) }.load(Ordering::Relaxed) & mask
    }

    /// Whether some slot may be marked.
    #[inline(always)]
    pub fn may_be_marked(self) -> bool {
        self.head().class.load(Ordering::Relaxed) & MARKED != 0
    }

    #[inline(always)]
    fn say_marked(self) {
        // Relaxed: `say_marked_again` looks once more when the mark is made.
        if !self.may_be_marked() {
            self.head().class.fetch_or(MARKED, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn say_marked_again(self) {
        // SeqCst, here and where the mark is made, pairs with the fence in `clear_marked`.
        // In a model a fence stands for it, which would also make up for the acquire of an announcement.
        let order = if fault::seeded(Fault::AnnounceDropsAcquire) {
            Ordering::Relaxed
        } else {
            fault::ordering(Fault::FlagRelaxed, Ordering::SeqCst)
        };
        if self.head().class.load(order) & MARKED == 0 {
            self.head().class.fetch_or(MARKED, Ordering::Relaxed);
        }
    }

    /// Clears the flag, before the remote words are looked at.
    fn clear_marked(self) {
        self.head().class.fetch_and(!MARKED, Ordering::Relaxed);
        // SeqCst pairs with the exchange of a remote word in `mark` and the load in `say_marked_again`:
        // either the look at the word finds the mark, or the freer finds the flag cleared.
        fence(Ordering::SeqCst);
    }

    /// Clears the flag if there is no mark: a freer may have set it when its mark was folded already.
    ///
    /// # Safety
    /// The caller is the holder.
    pub unsafe fn look_for_marks(self) {
        self.clear_marked();
        if self.remote_words().iter().any(|word| word.load(Ordering::Relaxed) != 0) {
            self.say_marked();
        }
    }

    /// Counts one object of a tiny slot as freed by a thread that is not the holder.
    ///
    /// # Safety
    /// Nobody uses the object any more; the span is tiny.
    #[inline]
    pub unsafe fn mark_tiny(self, slot: usize) -> Marked {
        debug_assert!(self.class() == TINY && slot < self.slots());
        let words = self.remote_words();
        // SAFETY: slot < slots, so the word exists.
        let word = unsafe { words.get_unchecked(slot / 8) };
        self.shared().balance.count(word, 1 << (slot % 8 * 8))
    }

    /// Takes the frees of other threads into the free bitmap, and ends the token. Returns a slot
    /// that was found free already, if there was one: it was freed twice.
    ///
    /// # Safety
    /// The caller is the holder and has the token.
    pub unsafe fn fold(self) -> Option<usize> {
        let mut twice = None;
        let tiny = self.class() == TINY;
        self.clear_marked();
        self.shared().balance.fold(self.remote_words(), |word, mut value| {
            let mut found = 0;
            while value != 0 {
                let bit = value.trailing_zeros() as usize;
                let slot = if tiny {
                    let lane = bit / 8;
                    let count = (value >> (lane * 8)) as u8;
                    value &= !(0xff << (lane * 8));
                    found += u32::from(count);
                    let slot = word * 8 + lane;
                    // SAFETY: the caller is the holder; only slots of the span are marked.
                    match unsafe { self.drop_tiny(slot, count) } {
                        TinyDrop::Live => continue,
                        TinyDrop::Dead => slot,
                        TinyDrop::Twice => {
                            twice = Some(slot);
                            continue;
                        }
                    }
                } else {
                    value &= value - 1;
                    found += 1;
                    word * 64 + bit
                };
                // SAFETY: the caller is the holder; the freer is done with the slot.
                if unsafe { self.put(slot) } == Put::Twice {
                    twice = Some(slot);
                }
            }
            found
        });
        twice
    }

    /// Frees of other threads that no fold has taken yet.
    pub fn unfolded(self) -> usize {
        self.shared().balance.unfolded()
    }
}

/// What became of a tiny slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TinyDrop {
    /// Other objects live in it.
    Live,
    /// Its last object died.
    Dead,
    /// More objects were freed than lived in it.
    Twice,
}

impl SpanRef {
    /// Counts `count` objects more in a tiny slot.
    ///
    /// # Safety
    /// The caller is the holder; the span is tiny and has this slot.
    #[inline]
    pub unsafe fn add_tiny(self, slot: usize, count: u8) {
        let live = self.live_count(slot);
        live.store(live.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Counts `count` objects fewer in a tiny slot.
    ///
    /// # Safety
    /// As for [`add_tiny`](Self::add_tiny).
    #[inline(always)]
    pub unsafe fn drop_tiny(self, slot: usize, count: u8) -> TinyDrop {
        let live = self.live_count(slot);
        let before = live.load(Ordering::Relaxed);
        if before < count {
            return TinyDrop::Twice;
        }
        live.store(before - count, Ordering::Relaxed);
        if before == count { TinyDrop::Dead } else { TinyDrop::Live }
    }

    /// Counts one object fewer in a tiny slot, unless it is the last.
    ///
    /// # Safety
    /// As for [`add_tiny`](Self::add_tiny).
    #[inline(always)]
    pub unsafe fn drop_tiny_unless_last(self, slot: usize) -> bool {
        let live = self.live_count(slot);
        let before = live.load(Ordering::Relaxed);
        let others = before > 1;
        if others {
            live.store(before - 1, Ordering::Relaxed);
        }
        others
    }

    /// Objects that live in a tiny span, the credits of open slots included.
    pub fn tiny_objects(self) -> usize {
        let live: usize = (0..self.slots())
            .map(|slot| self.live_count(slot).load(Ordering::Relaxed))
            .map(usize::from)
            .sum();
        live.saturating_sub(self.unfolded())
    }
}

#[cfg(test)]
mod tests {
    use core::ptr;

    use super::*;
    use crate::testing::span;
    use std::vec;

    fn taken(class: u8, slots: usize) -> SpanRef {
        let span = span(class, 16, slots, false);
        let mut out = vec![ptr::null_mut(); slots];
        // SAFETY: the test is the holder; there is room.
        assert_eq!(unsafe { span.take(out.as_mut_ptr(), slots) }.count, slots);
        span
    }

    // SAFETY: the tests use no slot, and are holder and freer in one.
    fn mark(span: SpanRef, slot: usize) -> Marked {
        if span.class() == TINY {
            // SAFETY: as above.
            unsafe { span.mark_tiny(slot) }
        } else {
            // SAFETY: as above.
            unsafe { span.mark(slot) }
        }
    }

    fn fold(span: SpanRef) -> Option<usize> {
        // SAFETY: the test is the holder, and has the token that a mark gave it.
        unsafe { span.fold() }
    }

    #[test]
    fn slots_of_a_word_are_marked_together() {
        let span = taken(7, 130);
        // SAFETY: the test uses no slot, and is holder and freer in one.
        let mark_all = |word, mask| unsafe { span.mark_all(word, mask) };
        assert!(!span.may_be_marked());
        assert_eq!(mark_all(1, 0b111), Ok(Marked::Token));
        assert!(span.may_be_marked());
        assert_eq!((mark_all(2, 0b11), mark_all(1, 0b1100)), (Ok(Marked::Done), Err(66)));
        assert_eq!((span.unfolded(), fold(span), span.used()), (5, None, 125));
        assert!(!span.may_be_marked());
        assert_eq!((mark_all(1, 0b1010), mark_all(2, 1)), (Err(65), Err(128)));
    }

    #[test]
    fn a_fold_frees_what_was_marked() {
        let span = taken(7, 130);
        assert_eq!(mark(span, 0), Marked::Token);
        for slot in [1, 63, 64, 129] {
            assert_eq!(mark(span, slot), Marked::Done);
        }
        assert_eq!(mark(span, 64), Marked::Twice);
        assert_eq!((span.unfolded(), span.used()), (5, 130));
        assert_eq!(fold(span), None);
        assert_eq!((span.unfolded(), span.used()), (0, 125));
        for slot in [0, 1, 63, 64, 129] {
            // SAFETY: the test is the holder.
            assert_eq!(unsafe { span.put(slot) }, Put::Twice);
        }
        assert_eq!(mark(span, 2), Marked::Token);
    }

    #[test]
    fn a_fold_notices_a_slot_that_is_free() {
        let span = taken(7, 130);
        assert_eq!((mark(span, 100), mark(span, 99)), (Marked::Token, Marked::Done));
        // SAFETY: the test is the holder.
        assert_eq!(unsafe { span.put(100) }, Put::Done);
        assert_eq!(fold(span), Some(100));
        assert_eq!((span.unfolded(), span.used()), (0, 128));
    }

    #[test]
    fn a_mark_notices_a_slot_that_is_free() {
        let span = taken(7, 130);
        for slot in [0, 64, 129] {
            // SAFETY: the test is the holder.
            assert_eq!(unsafe { span.put(slot) }, Put::Done);
            assert_eq!(mark(span, slot), Marked::Twice);
        }
        assert_eq!((span.unfolded(), span.used()), (0, 127));
        assert_eq!(mark(span, 128), Marked::Token);
    }

    #[test]
    fn tiny_slots_die_with_their_last_object() {
        let span = taken(TINY, 130);
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        unsafe { span.add_tiny(9, 3) };
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        unsafe { span.add_tiny(129, 1) };
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        unsafe { span.add_tiny(8, 2) };
        assert_eq!(span.tiny_objects(), 6);
        assert_eq!((mark(span, 9), mark(span, 9)), (Marked::Token, Marked::Done));
        assert_eq!((mark(span, 129), mark(span, 8)), (Marked::Done, Marked::Done));
        assert_eq!((span.unfolded(), span.tiny_objects()), (4, 2));
        assert_eq!(fold(span), None);
        assert_eq!((span.unfolded(), span.tiny_objects(), span.used()), (0, 2, 129));
        // SAFETY: the test is the holder.
        assert_eq!(unsafe { span.put(129) }, Put::Twice);
        assert_eq!((mark(span, 9), mark(span, 8)), (Marked::Token, Marked::Done));
        assert_eq!(fold(span), None);
        assert_eq!((span.tiny_objects(), span.used()), (0, 127));
    }

    #[test]
    fn a_fold_notices_tiny_objects_that_never_lived() {
        let span = taken(TINY, 130);
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        unsafe { span.add_tiny(9, 1) };
        assert_eq!((mark(span, 9), mark(span, 9)), (Marked::Token, Marked::Done));
        assert_eq!(fold(span), Some(9));
        assert_eq!((span.unfolded(), span.used()), (0, 130));
        // A slot that is dead, and lies free already.
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert_eq!(unsafe { span.drop_tiny(9, 1) }, TinyDrop::Dead);
        // SAFETY: the test is the holder.
        assert_eq!(unsafe { span.put(9) }, Put::Done);
        assert_eq!(mark(span, 9), Marked::Token);
        assert_eq!(fold(span), Some(9));
    }

    #[test]
    fn the_holder_counts_tiny_objects() {
        let span = taken(TINY, 130);
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        unsafe { span.add_tiny(0, 17) };
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert_eq!(unsafe { span.drop_tiny(0, 14) }, TinyDrop::Live);
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert!(unsafe { span.drop_tiny_unless_last(0) && span.drop_tiny_unless_last(0) });
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert!(unsafe { !span.drop_tiny_unless_last(0) });
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert_eq!(unsafe { span.drop_tiny(0, 2) }, TinyDrop::Twice);
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert_eq!(unsafe { span.drop_tiny(0, 1) }, TinyDrop::Dead);
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert_eq!(unsafe { span.drop_tiny(0, 1) }, TinyDrop::Twice);
        // SAFETY: the test is the holder, the span is tiny and has the slot.
        assert!(unsafe { !span.drop_tiny_unless_last(0) });
        assert_eq!(span.tiny_objects(), 0);
    }
}
