//! Frees by threads that do not own the span.
//!
//! A freer first *marks* its slot in one of the span's remote words, then *announces* the mark by
//! counting it in `balance`. A fold takes the marks it finds and subtracts their number. So the
//! balance is the number of announced marks minus the number of folded ones.
//!
//! Whoever announces from zero to one receives the span's *token*: the duty to bring the span to
//! somebody who may fold it, and the sole right to its queue link. A fold goes on until the
//! balance is zero or less; then the token is gone.
//!
//! | balance | token                                            | marks                          |
//! |---------|--------------------------------------------------|--------------------------------|
//! | n < 0   | none                                             | n were folded before their announcement, which will make up for it |
//! | 0       | none                                             | as many unfolded as folded early |
//! | n > 0   | held by exactly one: a freer, a queue, or the folder | at least n unfolded        |
//!
//! A span is therefore queued at most once at a time, a fold never waits for a freer, and once all
//! have announced, every mark has been folded or a token is on its way. A span whose slots are all
//! free again has no unfolded mark, hence no token, and its descriptor may be reused at once: a
//! late announcement then reaches the next span of the same descriptor, whose balance is still
//! short by it.

use spanalloc_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spanalloc_sync::fault::{self, Fault};

/// What a freer has to do after its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Nothing: somebody else brings the span to its owner, or has folded the mark already.
    Done,
    /// This thread received the token.
    Token,
    /// A mark was there already: the slot was freed twice.
    Twice,
}

/// Announced minus folded remote frees of a span.
#[derive(Debug)]
pub struct Balance(AtomicU32);

impl Balance {
    /// No remote frees.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Marks the slots `mask` of `word`, `count` of them, as freed.
    #[inline]
    pub fn mark(&self, word: &AtomicU64, mask: u64, count: u32) -> Marked {
        // Release pairs with the Acquire exchange in `fold`: the freer's last use of the object
        // comes before the slot is handed out again.
        if word.fetch_or(mask, Ordering::Release) & mask != 0 {
            return Marked::Twice;
        }
        self.announce(count)
    }

    /// Adds `amount` to `word`, in which several frees of one slot are counted, as one free.
    #[inline]
    pub fn count(&self, word: &AtomicU64, amount: u64) -> Marked {
        // Release as in `mark`.
        word.fetch_add(amount, Ordering::Release);
        self.announce(1)
    }

    #[inline]
    fn announce(&self, count: u32) -> Marked {
        // Release pairs with the Acquire in `fold`: a folder that sees the announcement sees the
        // mark. Acquire pairs with the Release in `fold`: a new token's holder comes after the last
        // one's use of the queue link.
        let before = self.0.fetch_add(count, Ordering::AcqRel) as i32;
        let rises = before <= 0 && before + count as i32 > 0;
        if rises || fault::seeded(Fault::RemoteAlwaysQueues) { Marked::Token } else { Marked::Done }
    }

    /// Takes what the remote `words` hold and ends the token, which the caller has. `take` is
    /// called with the index and the value of each word that holds something, and returns how many
    /// frees that is.
    #[inline]
    pub fn fold(&self, words: &[AtomicU64], mut take: impl FnMut(usize, u64) -> u32) {
        loop {
            let mut found = 0;
            for (index, word) in words.iter().enumerate() {
                if word.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                // Acquire pairs with the Release in `mark` and `count`.
                let value = if fault::seeded(Fault::FoldTorn) {
                    let value = word.load(Ordering::Acquire);
                    word.store(0, Ordering::Relaxed);
                    value
                } else {
                    word.swap(0, Ordering::Acquire)
                };
                found += take(index, value);
            }
            // Acquire and Release pair with those in `announce`. A balance above zero means marks
            // that were announced since: their words are seen now.
            let before = self.0.fetch_sub(found, Ordering::AcqRel);
            if before.wrapping_sub(found) as i32 <= 0 || fault::seeded(Fault::FoldDropsRecheck) {
                return;
            }
        }
    }

    /// Frees that no fold has taken yet, as far as they are announced. A snapshot.
    #[inline]
    pub fn unfolded(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed) as i32).unwrap_or(0)
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self::new()
    }
}
