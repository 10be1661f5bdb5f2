//! The free descriptors: a pool for each size of the bitmap, and what a thread keeps of them.

use core::ptr;

use spanalloc_classes::MAX_SLOTS;
use spanalloc_pages::{PageCache, Pages, Pool, Pooled};
use spanalloc_sync::Wait;
use spanalloc_sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::span::{Span, SpanRef, TINY, descriptor_bytes};

/// Bitmap words of the descriptors in each pool of ordinary and large spans.
const POOL_WORDS: [usize; 5] = [2, 4, 8, 16, MAX_SLOTS / 64 + 1];
/// The kinds of descriptors: those, and the tiny ones.
const KINDS: usize = POOL_WORDS.len() + 1;

/// The most descriptors of a kind that a thread keeps; of one more, half of all go to the pool.
const MOST_KEPT: usize = 64;
/// The most descriptors that a thread takes from a pool at once.
const MOST_TAKEN: u32 = MOST_KEPT as u32 / 2;

/// Which pool a descriptor is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(usize);

impl Kind {
    /// The kind for spans of `class` with so many bits.
    #[inline]
    pub(crate) fn of(class: u8, bits: usize) -> Self {
        Self(match bits.div_ceil(64) {
            _ if class == TINY => POOL_WORDS.len(),
            0..=2 => 0,
            3..=4 => 1,
            5..=8 => 2,
            9..=16 => 3,
            _ => 4,
        })
    }
}

/// One of as many things as there are kinds.
fn pick<T>(things: &[T; KINDS], kind: Kind) -> &T {
    let [a, b, c, d, e, tiny] = things;
    match kind.0 {
        0 => a,
        1 => b,
        2 => c,
        3 => d,
        4 => e,
        _ => tiny,
    }
}

/// A descriptor from a pool, and the words of its bitmap.
pub(crate) type Blank = (SpanRef, usize);

/// The pools.
#[derive(Debug)]
pub(crate) struct Descriptors<W: Wait> {
    pools: [Pool<Span, W>; KINDS],
    tiny_words: usize,
}

impl<W: Wait> Descriptors<W> {
    pub(crate) const fn new(tiny_words: usize) -> Self {
        let [a, b, c, d, e] = POOL_WORDS;
        Self {
            pools: [
                Pool::new(descriptor_bytes(a, false)),
                Pool::new(descriptor_bytes(b, false)),
                Pool::new(descriptor_bytes(c, false)),
                Pool::new(descriptor_bytes(d, false)),
                Pool::new(descriptor_bytes(e, false)),
                Pool::new(descriptor_bytes(tiny_words, true)),
            ],
            tiny_words,
        }
    }

    /// A descriptor that is nobody's, from `stash` if that has one. None if there is no metadata.
    pub(crate) fn get<P: Pages>(
        &self,
        pages: &P,
        kind: Kind,
        stash: Option<&Stash>,
    ) -> Option<Blank> {
        let pool = pick(&self.pools, kind);
        let descriptor = match stash.map(|stash| pick(&stash.descriptors, kind)) {
            None => pool.get(pages)?,
            Some(kept) => kept.pop().or_else(|| {
                pool.get_many(pages, kept.next_batch(), |descriptor| kept.push(descriptor));
                kept.pop()
            })?,
        };
        let words = POOL_WORDS.get(kind.0).copied().unwrap_or(self.tiny_words);
        // SAFETY: pools hold descriptors.
        Some((unsafe { SpanRef::from_descriptor(descriptor) }, words))
    }

    /// Takes back the descriptor of a span that is no more.
    ///
    /// # Safety
    /// The descriptor is of this kind, came from [`get`](Self::get), and no freer is left in it
    /// (`remote`).
    pub(crate) unsafe fn put(&self, span: SpanRef, kind: Kind, stash: Option<&Stash>) {
        let pool = pick(&self.pools, kind);
        let Some(kept) = stash.map(|stash| pick(&stash.descriptors, kind)) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { pool.put(span.as_ptr()) };
        };
        kept.push(span.as_ptr());
        if kept.count() > MOST_KEPT {
            // SAFETY: what a thread keeps came from `get`, and nobody uses it.
            unsafe { pool.put_many(core::iter::from_fn(|| kept.pop()).take(MOST_KEPT / 2)) };
        }
    }

    /// Takes back every descriptor that `stash` has.
    pub(crate) fn flush(&self, stash: &Stash) {
        for (pool, kept) in self.pools.iter().zip(&stash.descriptors) {
            if kept.count() > 0 {
                // SAFETY: what a thread keeps came from `get`, and nobody uses it.
                unsafe { pool.put_many(core::iter::from_fn(|| kept.pop())) };
            }
            kept.batch.store(0, Ordering::Relaxed);
        }
    }

    /// Every descriptor that was ever used.
    pub(crate) fn all(&self) -> impl Iterator<Item = SpanRef> + '_ {
        // SAFETY: pools hold descriptors.
        let span = |descriptor| unsafe { SpanRef::from_descriptor(descriptor) };
        self.pools.iter().flat_map(Pool::objects).map(span)
    }

    /// How often the locks of the pools were taken.
    pub(crate) fn acquisitions(&self) -> usize {
        self.pools.iter().map(Pool::acquisitions).fold(0, usize::wrapping_add)
    }
}

/// What one thread keeps to make spans of, so that most of them need no lock: pages, and free
/// descriptors.
///
/// One thread uses it at a time; the fields are atomics because others read them for statistics.
/// Zeroed memory is a stash that has nothing.
#[derive(Debug)]
pub struct Stash {
    pub(crate) pages: PageCache,
    descriptors: [Kept; KINDS],
}

impl Stash {
    /// A stash that has nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: PageCache::new(), descriptors: [const { Kept::new() }; KINDS] }
    }

    /// Pages that new spans could be made of now. Any thread may ask.
    pub fn free_pages(&self) -> usize {
        self.pages.free_pages()
    }

    /// Whether a run of `pages` pages is at hand.
    #[inline]
    pub fn has(&self, pages: usize) -> bool {
        self.pages.has(pages)
    }
}

impl Default for Stash {
    fn default() -> Self {
        Self::new()
    }
}

/// Free descriptors of one kind that a thread keeps.
#[derive(Debug)]
struct Kept {
    first: AtomicPtr<Span>,
    count: AtomicU32,
    /// How many the pool gave last.
    batch: AtomicU32,
}

impl Kept {
    const fn new() -> Self {
        Self {
            first: AtomicPtr::new(ptr::null_mut()),
            count: AtomicU32::new(0),
            batch: AtomicU32::new(0),
        }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed) as usize
    }

    /// How many to take from the pool: few at first, for most threads need few.
    fn next_batch(&self) -> usize {
        let batch = (2 * self.batch.load(Ordering::Relaxed)).clamp(2, MOST_TAKEN);
        self.batch.store(batch, Ordering::Relaxed);
        batch as usize
    }

    fn push(&self, descriptor: ptr::NonNull<Span>) {
        // SAFETY: a descriptor, which is never unmapped; it is free, and this thread's.
        let next = unsafe { Span::next(descriptor) };
        next.store(self.first.load(Ordering::Relaxed), Ordering::Relaxed);
        self.first.store(descriptor.as_ptr(), Ordering::Relaxed);
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn pop(&self) -> Option<ptr::NonNull<Span>> {
        let descriptor = ptr::NonNull::new(self.first.load(Ordering::Relaxed))?;
        // SAFETY: as in `push`.
        let next = unsafe { Span::next(descriptor) };
        self.first.store(next.load(Ordering::Relaxed), Ordering::Relaxed);
        self.count.store(self.count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        Some(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Refusing;
    use std::vec::Vec;

    type Pools = Descriptors<<Refusing as Pages>::Wait>;

    const KIND: Kind = Kind(1);

    fn get(pools: &Pools, pages: &Refusing, stash: &Stash) -> SpanRef {
        let (span, words) = pools.get(pages, KIND, Some(stash)).unwrap();
        assert_eq!(words, POOL_WORDS[KIND.0]);
        span
    }

    #[test]
    fn every_span_gets_the_smallest_descriptor_that_has_room() {
        for slots in 1..=MAX_SLOTS {
            let words = POOL_WORDS[Kind::of(1, slots).0];
            assert!(words * 64 >= slots, "{slots}");
            assert!(
                POOL_WORDS.iter().all(|other| *other >= words || other * 64 < slots),
                "{slots}"
            );
        }
        assert_eq!(Kind::of(TINY, 512).0, POOL_WORDS.len());
    }

    #[test]
    fn every_kind_has_a_pool_of_descriptors_that_are_no_larger_than_it_needs() {
        let (pools, pages) = (Pools::new(8), Refusing::new());
        for kind in 0..KINDS {
            let (words, tiny) = POOL_WORDS.get(kind).map_or((8, true), |words| (*words, false));
            let before = pages.stats().metadata_in_use;
            assert_eq!(pools.get(&pages, Kind(kind), None).unwrap().1, words);
            let bytes = descriptor_bytes(words, tiny).next_multiple_of(128);
            let block = pages.stats().metadata_in_use - before;
            assert_eq!(block, 128 + 16 * bytes, "kind {kind}");
        }
    }

    #[test]
    fn a_stash_takes_more_at_each_time_and_few_locks() {
        let (pools, pages, stash) = (Pools::new(8), Refusing::new(), Stash::new());
        let count = 2 + 4 + 8 + 16 + 32;
        let made: Vec<_> = (0..count).map(|_| pools.get(&pages, KIND, None).unwrap().0).collect();
        for span in made {
            // SAFETY: the descriptor came from these pools and is not used.
            unsafe { pools.put(span, KIND, None) };
        }
        let before = pools.acquisitions();
        let taken: Vec<_> = (0..count).map(|_| get(&pools, &pages, &stash)).collect();
        assert_eq!(pools.acquisitions(), before + 5);
        for span in &taken {
            // SAFETY: the descriptor came from these pools and is not used.
            unsafe { pools.put(*span, KIND, Some(&stash)) };
        }
        assert_eq!(pools.acquisitions(), before + 5, "as many as that may be kept");
        let again: Vec<_> = taken.iter().map(|_| get(&pools, &pages, &stash)).collect();
        assert!(again.iter().rev().eq(&taken), "last in, first out");
        assert_eq!(pools.acquisitions(), before + 5);
    }

    #[test]
    fn what_a_stash_has_too_many_of_or_is_flushed_can_be_had_by_others() {
        let (pools, pages, stash) = (Pools::new(8), Refusing::new(), Stash::new());
        let taken: Vec<_> =
            (0..=MOST_KEPT).map(|_| pools.get(&pages, KIND, None).unwrap().0).collect();
        for span in taken {
            // SAFETY: the descriptor came from these pools and is not used.
            unsafe { pools.put(span, KIND, Some(&stash)) };
        }
        pages.no_metadata.set(true);
        let rest = || core::iter::from_fn(|| pools.get(&pages, KIND, None)).count();
        // The last block of the pool was not used up; the rest comes from the stash.
        let unused = (MOST_KEPT + 1).next_multiple_of(16) - (MOST_KEPT + 1);
        assert_eq!(rest(), unused + MOST_KEPT / 2);
        pools.flush(&stash);
        assert_eq!(rest(), MOST_KEPT / 2 + 1);
        assert!(pools.get(&pages, KIND, Some(&stash)).is_none());
    }
}
