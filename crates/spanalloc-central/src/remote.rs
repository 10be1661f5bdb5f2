//! Frees by threads that do not own the span.
//!
//! A span's remote words are written by every thread but its owner. A freer counts itself in
//! `pending`, then marks its slot in a remote word. Whoever counts from zero receives the span's
//! *token*: the duty to bring the span to somebody who may fold it, and the sole right to its queue
//! link. A fold takes all marks, subtracts what it found from `pending` and, if nothing is left,
//! ends the token. If frees are still on their way the folder keeps it.
//!
//! | pending | token                | remote words            |
//! |---------|----------------------|-------------------------|
//! | 0       | does not exist       | all zero                |
//! | n > 0   | held by exactly one: a freer, a queue, or the folder | at most n marks |
//!
//! Two things follow. A span is queued at most once at a time. And a descriptor is never touched by
//! a freer after its mark can be folded, unless that freer holds the token, which the fold needs:
//! so a span whose slots are all free again has no freer left inside, and may be reused.

use spanalloc_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spanalloc_sync::fault::{self, Fault};

/// What a freer has to do after its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Somebody else brings the span to its owner.
    Done,
    /// This thread received the token.
    Token,
    /// A mark was there already: the slot was freed twice.
    Twice,
}

/// Whether a fold ended the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// The token is gone; the next freer makes a new one.
    All,
    /// Frees were under way: the folder still holds the token and has to fold again later.
    More,
}

/// The number of remote frees of a span that no fold has taken yet.
#[derive(Debug)]
pub struct Pending(AtomicU32);

impl Pending {
    /// No remote frees.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Marks the slots `mask` of `word`, `count` of them, as freed.
    #[inline]
    pub fn mark(&self, word: &AtomicU64, mask: u64, count: u32) -> Marked {
        // Acquire pairs with the Release of `fold`: a new token's holder sees that the last one is
        // done with the queue link.
        let before = self.0.fetch_add(count, Ordering::Acquire);
        // Release pairs with the Acquire exchange in `fold`: the freer's last use of the object
        // comes before the slot is handed out again.
        if word.fetch_or(mask, Ordering::Release) & mask != 0 {
            return Marked::Twice;
        }
        if before == 0 || fault::seeded(Fault::RemoteAlwaysQueues) {
            Marked::Token
        } else {
            Marked::Done
        }
    }

    /// Adds `amount` to `word`, in which several frees of one slot are counted, as one free.
    #[inline]
    pub fn count(&self, word: &AtomicU64, amount: u64) -> Marked {
        // Acquire and Release as in `mark`.
        let before = self.0.fetch_add(1, Ordering::Acquire);
        word.fetch_add(amount, Ordering::Release);
        if before == 0 { Marked::Token } else { Marked::Done }
    }

    /// Takes what the remote `words` hold. `take` is called with the index and the value of each
    /// word that holds something and returns how many frees that is. Only the holder of the token
    /// may call this.
    #[inline]
    pub fn fold(&self, words: &[AtomicU64], mut take: impl FnMut(usize, u64) -> u32) -> Folded {
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
        // Release pairs with the Acquire in `mark` and `count`.
        let before = self.0.fetch_sub(found, Ordering::Release);
        if before == found || fault::seeded(Fault::FoldDropsRecheck) {
            Folded::All
        } else {
            Folded::More
        }
    }

    /// Frees that no fold has taken yet. A snapshot.
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self::new()
    }
}
