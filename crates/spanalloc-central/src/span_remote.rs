//! What other threads do to a span, how its holder takes it in, and the counts of tiny slots.

use spanalloc_sync::atomic::Ordering;

use crate::remote::Marked;
use crate::span::{Put, SpanRef, TINY};

impl SpanRef {
    /// Marks a slot as freed by a thread that is not the holder.
    ///
    /// # Safety
    /// Nobody uses the slot any more; the span is not tiny.
    #[inline]
    pub unsafe fn mark(self, slot: usize) -> Marked {
        debug_assert!(self.class() != TINY && slot < self.slots());
        let words = self.remote_words();
        // SAFETY: slot < slots, so the word exists.
        let word = unsafe { words.get_unchecked(slot / 64) };
        self.shared().balance.mark(word, 1 << (slot % 64), 1)
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
                    match self.drop_tiny(slot, count) {
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
    /// Counts `count` objects more in a tiny slot. Holder only.
    #[inline]
    pub fn add_tiny(self, slot: usize, count: u8) {
        let live = self.live_count(slot);
        live.store(live.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Counts `count` objects fewer in a tiny slot. Holder only.
    #[inline(always)]
    pub fn drop_tiny(self, slot: usize, count: u8) -> TinyDrop {
        let live = self.live_count(slot);
        let before = live.load(Ordering::Relaxed);
        if before < count {
            return TinyDrop::Twice;
        }
        live.store(before - count, Ordering::Relaxed);
        if before == count { TinyDrop::Dead } else { TinyDrop::Live }
    }

    /// Counts one object fewer in a tiny slot, unless it is the last. Holder only.
    #[inline(always)]
    pub fn drop_tiny_unless_last(self, slot: usize) -> bool {
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
