//! Frees by threads that do not own the span.
//!
//! A freer first *marks* its slots in one of the span's remote words, then *announces* the marks by
//! counting them in `balance`. A fold takes the marks it finds and subtracts their number. So the
//! balance is the number of announced marks minus the number of folded ones.
//!
//! Whoever raises the balance above zero receives the span's *token*: the duty to bring the span to
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
        // comes before the slot is handed out again. Acquire pairs with the Release of such an
        // exchange before: what the folder did before it is seen after a mark that it did not find.
        // SeqCst for the flag `MARKED` of the span: it pairs with the fence in `clear_marked`.
        let order = fault::ordering(Fault::MarkRelaxed, Ordering::SeqCst);
        if word.fetch_or(mask, order) & mask != 0 {
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
        // one's use of the queue link. It also pairs with the Release of earlier announcements: if
        // the descriptor has become another span's, one of that span's freers was among them, and
        // the token's holder sees the new class and owner.
        let order = if fault::seeded(Fault::AnnounceDropsAcquire) {
            Ordering::Release
        } else {
            fault::ordering(Fault::AnnounceRelaxed, Ordering::AcqRel)
        };
        let before = self.0.fetch_add(count, order) as i32;
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
                // Acquire pairs with the Release in `mark` and `count`, Release with the Acquire in
                // `mark`.
                let value = if fault::seeded(Fault::FoldTorn) {
                    let value = word.load(Ordering::Acquire);
                    word.store(0, Ordering::Relaxed);
                    value
                } else {
                    word.swap(0, Ordering::AcqRel)
                };
                found += take(index, value);
            }
            // Acquire and Release pair with those in `announce`. A balance above zero means marks
            // that were announced since: their words are seen now.
            let order = fault::ordering(Fault::FoldRelaxed, Ordering::AcqRel);
            let before = self.0.fetch_sub(found, order);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Folds and returns the words found.
    fn fold(balance: &Balance, words: &[AtomicU64]) -> Vec<(usize, u64)> {
        let mut found = Vec::new();
        balance.fold(words, |index, value| {
            found.push((index, value));
            value.count_ones()
        });
        found
    }

    #[test]
    fn the_first_of_many_receives_the_token() {
        let (balance, words) = (Balance::default(), [const { AtomicU64::new(0) }; 3]);
        assert_eq!(balance.mark(&words[2], 0b100, 1), Marked::Token);
        assert_eq!(balance.mark(&words[0], 0b011, 2), Marked::Done);
        assert_eq!(balance.mark(&words[0], 0b001, 1), Marked::Twice);
        assert_eq!(balance.unfolded(), 3);
        assert_eq!(fold(&balance, &words), [(0, 0b011), (2, 0b100)]);
        assert_eq!((balance.unfolded(), fold(&balance, &words).len()), (0, 0));
        assert_eq!(balance.mark(&words[0], 0b001, 1), Marked::Token);
    }

    #[test]
    fn a_mark_may_be_folded_before_it_is_announced() {
        let (balance, words) = (Balance::new(), [AtomicU64::new(0)]);
        assert_eq!(balance.mark(&words[0], 1, 1), Marked::Token);
        // Another freer has marked two slots, and stops there.
        words[0].fetch_or(0b110, Ordering::Release);
        assert_eq!(fold(&balance, &words), [(0, 0b111)]);
        assert_eq!(balance.unfolded(), 0);
        // One mark more does not make up for the two that are owed...
        assert_eq!(balance.mark(&words[0], 0b1000, 1), Marked::Done);
        // ...but the late announcement does, and brings the token for both.
        assert_eq!(balance.announce(2), Marked::Token);
        assert_eq!(balance.unfolded(), 1);
        assert_eq!(fold(&balance, &words), [(0, 0b1000)]);
        // One that makes up for what is owed and no more leaves nothing to fold.
        assert_eq!(balance.mark(&words[0], 1, 1), Marked::Token);
        words[0].fetch_or(0b10, Ordering::Release);
        assert_eq!(fold(&balance, &words), [(0, 0b11)]);
        assert_eq!(balance.announce(1), Marked::Done);
        assert_eq!(balance.mark(&words[0], 0b100, 1), Marked::Token);
    }

    #[test]
    fn a_fold_goes_on_while_frees_come() {
        let (balance, words) = (Balance::new(), [const { AtomicU64::new(0) }; 2]);
        assert_eq!(balance.mark(&words[1], 1, 1), Marked::Token);
        let mut found = Vec::new();
        balance.fold(&words, |index, value| {
            found.push((index, value));
            if found.len() == 1 {
                assert_eq!(balance.mark(&words[0], 1, 1), Marked::Done);
            }
            1
        });
        assert_eq!(found, [(1, 1), (0, 1)]);
        assert_eq!(balance.mark(&words[1], 1, 1), Marked::Token);
    }

    #[test]
    fn frees_of_one_slot_are_counted() {
        let (balance, words) = (Balance::new(), [AtomicU64::new(0)]);
        assert_eq!(balance.count(&words[0], 1 << 8), Marked::Token);
        assert_eq!(balance.count(&words[0], 1 << 8), Marked::Done);
        assert_eq!(balance.count(&words[0], 1 << 56), Marked::Done);
        assert_eq!(balance.unfolded(), 3);
        balance.fold(&words, |_, value| {
            assert_eq!(value, (1 << 56) + (2 << 8));
            3
        });
        assert_eq!(balance.unfolded(), 0);
    }
}
