//! Large objects that were freed lately, kept as they are for the next allocations of about their size.
//!
//! They are sorted by size (`steps`), and what was freed last is used first. What counts is the memory
//! that they take: of a run that its objects never filled, most is address space only. So when there
//! is too much, the system is asked how much of a run is there, which holds for the next times
//! that it is kept; what is still too much goes back to the heap, the oldest first.

use core::ptr::{self, NonNull};

use spanalloc_central::{Central, Span, SpanList, SpanRef};
use spanalloc_pages::{PAGE_BYTES, Pages};
use spanalloc_sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::cache::Cache;
use crate::large::{most_pages, usable_pages};
use crate::policy::Policy;
use crate::steps::{SIZES, round_up, size_of_run};

#[cfg(test)]
mod tests;

/// The smallest object that is kept: what has fewer pages was large by its alignment alone, for which
/// nothing that is kept is used.
const SMALLEST_PAGES: usize = (32 << 10) / PAGE_BYTES + 1;
/// The largest object that is kept: 1.25 MB.
pub(crate) const LARGEST_PAGES: usize = (1280 << 10) / PAGE_BYTES;
/// What may be kept in any case: 2 MB of memory,
const LEAST_PAGES: usize = (2 << 20) / PAGE_BYTES;
/// 128 KB more each time that the heap was asked for pages when some had been given back, 4 MB at most,
const MORE_PAGES: usize = (128 << 10) / PAGE_BYTES;
const MOST_MORE: usize = (4 << 20) / PAGE_BYTES;
/// and this part of the thread's live large objects; but never more than [`Cache::most_recent`].
const PART: usize = 2;
/// So much address space may be kept in any case (16 MB),
const LEAST_SPACE: usize = (16 << 20) / PAGE_BYTES;
/// and so many times what the thread's live large objects have,
const SPACE_FACTOR: usize = 4;
/// but never more than 256 MB.
const MOST_SPACE: usize = (256 << 20) / PAGE_BYTES;
/// A run that was looked at is kept so many times without another look, and twice as many times after
/// each,
const LEAST_TRUST: u8 = 32;
/// up to so many.
const MOST_TRUST: u8 = 128;

/// What is noted of a span that is kept, in its note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Note {
    /// Pages that count as being in memory.
    weight: u16,
    /// For how many more times that it is kept, this one included, they are taken for right; 0 if they
    /// were not counted.
    trust: u8,
    /// What that began with at the last look.
    trusted: u8,
    /// When the span was kept.
    time: u32,
}

impl Note {
    fn of(span: SpanRef) -> Self {
        let note = span.note().load(Ordering::Relaxed);
        Self {
            weight: note as u16,
            trust: (note >> 16) as u8,
            trusted: (note >> 24) as u8,
            time: (note >> 32) as u32,
        }
    }

    fn write(self, span: SpanRef) {
        let low = u64::from(self.weight) | u64::from(self.trust) << 16;
        let high = u64::from(self.trusted) << 24 | u64::from(self.time) << 32;
        span.note().store(low | high, Ordering::Relaxed);
    }
}

/// Spans of one size.
#[derive(Debug)]
struct OfSize {
    list: SpanList,
    /// The last one of the list, if there is one: that which has been kept longest.
    last: AtomicPtr<Span>,
}

/// Spans of large objects that have ended. The thread whose state this is uses it alone; the all-zero
/// value is empty.
#[derive(Debug)]
pub(crate) struct Recent {
    /// The sizes of which there are some: bit i is size i.
    sizes: AtomicU64,
    /// Usable pages of all of them.
    space: AtomicUsize,
    /// Those that count as being in memory.
    weight: AtomicUsize,
    /// Spans of which all pages count so, for want of a look.
    unknown: AtomicUsize,
    /// Pages of the objects that this thread allocated less those it freed, never below 0.
    live: AtomicUsize,
    /// How many spans were given back of which another one was not missed yet.
    given: AtomicUsize,
    /// How many pages more may be kept, because some were missed.
    more: AtomicUsize,
    /// How many spans were kept so far.
    time: AtomicU32,
    /// How many that were when pages were needed for spans the last time.
    time_of_cut: AtomicU32,
    of_size: [OfSize; SIZES],
}

fn add(sum: &AtomicUsize, more: usize) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Recent {
    pub(crate) const fn new() -> Self {
        Self {
            sizes: AtomicU64::new(0),
            space: AtomicUsize::new(0),
            weight: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
            more: AtomicUsize::new(0),
            time: AtomicU32::new(0),
            time_of_cut: AtomicU32::new(0),
            of_size: [const { OfSize { list: SpanList::new(), last: AtomicPtr::new(ptr::null_mut()) } };
                SIZES],
        }
    }

    /// Bytes that count as being in memory.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.weight.load(Ordering::Relaxed) * PAGE_BYTES
    }

    /// Counts an object of the thread in or out.
    fn note(&self, pages: usize, born: bool) {
        let live = self.live.load(Ordering::Relaxed);
        let live = if born { live + pages } else { live.saturating_sub(pages) };
        self.live.store(live, Ordering::Relaxed);
    }

    fn of(&self, size: usize) -> &OfSize {
        // SAFETY: the index is below the length.
        unsafe { self.of_size.get_unchecked(size % SIZES) }
    }

    /// The sizes of which there are some, the lowest first, of those that are ones in `wanted`.
    fn sizes(&self, wanted: u64) -> impl Iterator<Item = usize> {
        let mut sizes = self.sizes.load(Ordering::Relaxed) & wanted;
        core::iter::from_fn(move || {
            let size = (sizes != 0).then(|| sizes.trailing_zeros() as usize)?;
            sizes &= sizes - 1;
            Some(size)
        })
    }

    /// Takes a span out.
    fn remove(&self, span: SpanRef) {
        let pages = usable_pages(span);
        self.remove_from(size_of_run(pages), span, pages);
    }

    /// Takes a span of so many usable pages out, which has this size.
    #[inline]
    fn remove_from(&self, size: usize, span: SpanRef, pages: usize) {
        let of_size = self.of(size);
        if of_size.last.load(Ordering::Relaxed) == span.as_ptr().as_ptr() {
            let before = of_size.list.before(span);
            let last = before.map_or(ptr::null_mut(), |span| span.as_ptr().as_ptr());
            of_size.last.store(last, Ordering::Relaxed);
        }
        of_size.list.remove(span);
        if of_size.list.first().is_none() {
            let sizes = self.sizes.load(Ordering::Relaxed);
            self.sizes.store(sizes & !(1 << size), Ordering::Relaxed);
        }
        add(&self.space, pages.wrapping_neg());
        let mut note = Note::of(span);
        add(&self.weight, usize::from(note.weight).wrapping_neg());
        if note.trust == 0 {
            add(&self.unknown, 1_usize.wrapping_neg());
        } else {
            note.trust -= 1;
            note.write(span);
        }
    }

    /// A span of `pages` to `most` usable pages: one of the smallest size of which there are some, the
    /// one of them that was kept last.
    fn take(&self, pages: usize, most: usize) -> Option<SpanRef> {
        let (low, high) = (size_of_run(pages), size_of_run(most));
        self.sizes(u64::MAX >> (SIZES - 1 - high) & u64::MAX << low).find_map(|size| {
            let span = self.of(size).list.first()?;
            let usable = usable_pages(span);
            (pages..=most).contains(&usable).then(|| {
                self.remove_from(size, span, usable);
                span
            })
        })
    }

    /// Keeps a span of so many usable pages.
    fn put(&self, span: SpanRef, pages: usize) {
        let size = size_of_run(pages);
        let of_size = self.of(size);
        let sizes = self.sizes.load(Ordering::Relaxed);
        if sizes >> size & 1 == 0 {
            of_size.last.store(span.as_ptr().as_ptr(), Ordering::Relaxed);
            self.sizes.store(sizes | 1 << size, Ordering::Relaxed);
        }
        of_size.list.push(span);
        let mut note = Note::of(span);
        note.time = self.time.load(Ordering::Relaxed).wrapping_add(1);
        self.time.store(note.time, Ordering::Relaxed);
        if note.trust == 0 {
            note.weight = pages as u16;
            add(&self.unknown, 1);
        }
        note.write(span);
        add(&self.space, pages);
        add(&self.weight, note.weight.into());
    }

    /// The span that has been kept longest.
    fn oldest(&self) -> Option<SpanRef> {
        let now = self.time.load(Ordering::Relaxed);
        let last = |size| {
            let span = NonNull::new(self.of(size).last.load(Ordering::Relaxed))?;
            // SAFETY: what is kept are spans.
            Some(unsafe { SpanRef::from_descriptor(span) })
        };
        self.sizes(u64::MAX)
            .filter_map(last)
            .max_by_key(|span| now.wrapping_sub(Note::of(*span).time))
    }

    /// Whether more memory is kept than should be, of which more than `most` pages are too many in any case.
    fn is_heavy(&self, most: usize) -> bool {
        let wanted = LEAST_PAGES
            + self.more.load(Ordering::Relaxed)
            + self.live.load(Ordering::Relaxed) / PART;
        self.weight.load(Ordering::Relaxed) > wanted.min(most)
    }

    /// Notes that the heap is asked for an object of a size that is kept.
    fn note_miss(&self) {
        let given = self.given.load(Ordering::Relaxed);
        if given > 0 {
            self.given.store(given - 1, Ordering::Relaxed);
            let more = self.more.load(Ordering::Relaxed) + MORE_PAGES;
            self.more.store(more.min(MOST_MORE), Ordering::Relaxed);
        }
    }

    /// Whether more address space is kept than should be.
    fn is_wide(&self) -> bool {
        let most = LEAST_SPACE + self.live.load(Ordering::Relaxed) * SPACE_FACTOR;
        self.space.load(Ordering::Relaxed) > most.min(MOST_SPACE)
    }

    /// Finds out how much memory a kept span takes, if that is not known.
    fn weigh<P: Pages>(&self, heap: &P, span: SpanRef) {
        let mut note = Note::of(span);
        if note.trust != 0 {
            return;
        }
        add(&self.weight, usize::from(note.weight).wrapping_neg());
        add(&self.unknown, 1_usize.wrapping_neg());
        // SAFETY: the pages are a span's, so this heap handed them out.
        note.weight = unsafe { heap.resident(span.base(), usable_pages(span)) } as u16;
        note.trusted = note.trusted.saturating_mul(2).clamp(LEAST_TRUST, MOST_TRUST);
        note.trust = note.trusted;
        note.write(span);
        add(&self.weight, note.weight.into());
    }

    /// Finds out how much memory every kept span takes.
    fn weigh_all<P: Pages>(&self, heap: &P) {
        for size in self.sizes(u64::MAX) {
            let list = &self.of(size).list;
            core::iter::successors(list.first(), |span| list.after(*span))
                .for_each(|span| self.weigh(heap, span));
        }
    }
}

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// The pages that are asked of the heap for an object that needs `pages`.
    pub(crate) fn rounded_pages(pages: usize) -> usize {
        let rounded = round_up(pages);
        if rounded <= Self::most_kept(pages) { rounded } else { pages }
    }

    /// The most usable pages of a kept run that may serve an object that needs `pages`.
    fn most_kept(pages: usize) -> usize {
        // What has no guard may not have the size of what has one.
        let unguarded = (P::GUARDED_FROM - 1) / PAGE_BYTES;
        let limit = if pages > unguarded { LARGEST_PAGES } else { unguarded.min(LARGEST_PAGES) };
        most_pages(pages).min(limit)
    }

    /// A new object of at least `pages` usable pages, where one of about that size was freed.
    pub(crate) fn take_recent(self, pages: usize) -> Option<SpanRef> {
        if pages > LARGEST_PAGES {
            return None;
        }
        let recent = &self.state.recent;
        let span = recent.take(Self::rounded_pages(pages), Self::most_kept(pages));
        span.map_or_else(|| recent.note_miss(), SpanRef::begin_large);
        span
    }

    /// Notes that a large object was allocated.
    pub(crate) fn note_large(self, span: SpanRef) {
        self.state.recent.note(usable_pages(span), true);
    }

    /// Keeps the span of a large object that ended, or gives it back.
    ///
    /// # Safety
    /// The caller ended the object.
    pub(crate) unsafe fn keep_large(self, span: SpanRef) {
        let (recent, pages) = (&self.state.recent, usable_pages(span));
        recent.note(pages, false);
        // Those that lack a guard are not kept, so that the size tells what has one.
        if !(SMALLEST_PAGES..=LARGEST_PAGES).contains(&pages)
            || span.is_guarded() != Self::is_guarded(pages * PAGE_BYTES)
        {
            // SAFETY: the caller ended the object; this thread is the only user of its stash.
            unsafe { self.central.discard_large(span, Some(&self.state.stash)) };
            return self.keep_within();
        }
        recent.put(span, pages);
        let most = self.most_recent() / PAGE_BYTES;
        if recent.is_heavy(most) || recent.is_wide() {
            self.keep_less_slow(span, most);
        }
    }

    /// Gives kept spans back until few enough are left, of `most` pages at most. `newest` is one of them.
    #[cold]
    #[inline(never)]
    fn keep_less_slow(self, newest: SpanRef, most: usize) {
        let (recent, heap) = (&self.state.recent, self.central.heap());
        if recent.is_heavy(most) {
            recent.weigh(heap, newest);
        }
        if recent.is_heavy(most) && recent.unknown.load(Ordering::Relaxed) > 0 {
            recent.weigh_all(heap);
        }
        while recent.is_heavy(most) || recent.is_wide() {
            let Some(span) = recent.oldest() else { break };
            add(&recent.given, 1);
            self.give_back(span);
        }
        self.keep_within();
    }

    /// Gives back what has been kept longest, for the thread's next spans: its pages are in memory, as a rule. But
    /// nothing that was used since the thread needed pages for spans the last time.
    pub(crate) fn give_oldest(self) {
        let recent = &self.state.recent;
        let now = recent.time.load(Ordering::Relaxed);
        let unused = now.wrapping_sub(recent.time_of_cut.load(Ordering::Relaxed));
        recent.time_of_cut.store(now, Ordering::Relaxed);
        if let Some(span) = recent.oldest() {
            if now.wrapping_sub(Note::of(span).time) >= unused {
                self.give_back(span);
            }
        }
    }

    fn give_back(self, span: SpanRef) {
        self.state.recent.remove(span);
        // SAFETY: what is kept has ended, and is given back once; this thread is the only user of its
        // stash.
        unsafe { self.central.discard_large(span, Some(&self.state.stash)) };
    }

    /// Gives every span that is kept back.
    pub(crate) fn flush_recent(self) {
        let recent = &self.state.recent;
        recent.given.store(0, Ordering::Relaxed);
        recent.more.store(0, Ordering::Relaxed);
        for size in recent.sizes(u64::MAX) {
            while let Some(span) = recent.of(size).list.first() {
                self.give_back(span);
            }
        }
    }
}
