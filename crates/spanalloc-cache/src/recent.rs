//! Large objects that were freed lately, kept as they are for the next allocations of about their size.
//!
//! They are sorted by size (`steps`), up to 32 of each, and what was freed last is used first. What counts is the memory
//! that they take: of a run that its objects never filled, most is address space only. So when there
//! is too much, the system is asked how much of a run is there, which holds for the next times
//! that it is kept; what is still too much goes back to the heap, the oldest first.

use core::ops::Range;
use core::ptr::{self, NonNull};

use spanalloc_central::{Central, Span, SpanRef};
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

/// How many spans of one size are kept at most.
const PER_SIZE: u32 = 32;
/// The numbers of sizes that are kept.
const KEPT_SIZES: Range<usize> = size_of_run(SMALLEST_PAGES)..size_of_run(LARGEST_PAGES) + 1;

/// Spans of one size, from the one that has been kept longest to the one that was kept last.
#[derive(Debug)]
struct OfSize {
    /// How many spans were ever put here and not taken out again, and how many of these went from the other end.
    end: AtomicU32,
    start: AtomicU32,
    /// Span number `i` is at `i` modulo the length.
    spans: [AtomicPtr<Span>; PER_SIZE as usize],
}

impl OfSize {
    const fn new() -> Self {
        Self {
            end: AtomicU32::new(0),
            start: AtomicU32::new(0),
            spans: [const { AtomicPtr::new(ptr::null_mut()) }; PER_SIZE as usize],
        }
    }

    fn start(&self) -> u32 {
        self.start.load(Ordering::Relaxed)
    }

    fn end(&self) -> u32 {
        self.end.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.start() == self.end()
    }

    /// The span of this number.
    fn get(&self, number: u32) -> Option<SpanRef> {
        let span = self.place(number).load(Ordering::Relaxed);
        // SAFETY: what is kept are spans, which are never unmapped.
        Some(unsafe { SpanRef::from_descriptor(NonNull::new(span)?) })
    }

    fn place(&self, number: u32) -> &AtomicPtr<Span> {
        // SAFETY: the index is below the length.
        unsafe { self.spans.get_unchecked((number % PER_SIZE) as usize) }
    }

    /// The one that was kept last. There is one.
    fn last(&self) -> Option<SpanRef> {
        self.get(self.end().wrapping_sub(1))
    }

    /// The one that has been kept longest, if there is one.
    fn first(&self) -> Option<SpanRef> {
        if self.is_empty() { None } else { self.get(self.start()) }
    }

    fn iter(&self) -> impl Iterator<Item = SpanRef> {
        let count = self.end().wrapping_sub(self.start());
        (0..count).filter_map(|at| self.get(self.start().wrapping_add(at)))
    }
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
    of_size: [OfSize; KEPT_SIZES.end - KEPT_SIZES.start],
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
            of_size: [const { OfSize::new() }; KEPT_SIZES.end - KEPT_SIZES.start],
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
        debug_assert!(KEPT_SIZES.contains(&size), "{size}");
        // SAFETY: the sizes of what is kept are these.
        unsafe { self.of_size.get_unchecked(size.wrapping_sub(KEPT_SIZES.start)) }
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

    /// Notes that a span of so many usable pages and this size was taken out.
    #[inline]
    fn note_taken(&self, size: usize, span: SpanRef, pages: usize) {
        let none_left = u64::from(self.of(size).is_empty());
        self.sizes
            .store(self.sizes.load(Ordering::Relaxed) & !(none_left << size), Ordering::Relaxed);
        add(&self.space, pages.wrapping_neg());
        let mut note = Note::of(span);
        add(&self.weight, usize::from(note.weight).wrapping_neg());
        add(&self.unknown, usize::from(note.trust == 0).wrapping_neg());
        note.trust = note.trust.saturating_sub(1);
        note.write(span);
    }

    /// A span of `pages` to `most` usable pages: one of the smallest size of which there are some, the
    /// one of them that was kept last.
    #[inline]
    fn take(&self, pages: usize, most: usize) -> Option<SpanRef> {
        let (low, high) = (size_of_run(pages), size_of_run(most));
        self.sizes(u64::MAX >> (SIZES - 1 - high) & u64::MAX << low).find_map(|size| {
            let of_size = self.of(size);
            let span = of_size.last()?;
            let usable = usable_pages(span);
            (pages..=most).contains(&usable).then(|| {
                of_size.end.store(of_size.end().wrapping_sub(1), Ordering::Relaxed);
                self.note_taken(size, span, usable);
                span
            })
        })
    }

    /// Keeps a span of so many usable pages. Returns the one that has been kept longest of its size, which is
    /// not kept any more, if there were too many.
    #[inline]
    fn put(&self, span: SpanRef, pages: usize) -> Option<SpanRef> {
        let size = size_of_run(pages);
        let of_size = self.of(size);
        let end = of_size.end();
        let full = end.wrapping_sub(of_size.start()) == PER_SIZE;
        let excess = if full { self.take_first(size) } else { None };
        of_size.place(end).store(span.as_ptr().as_ptr(), Ordering::Relaxed);
        of_size.end.store(end.wrapping_add(1), Ordering::Relaxed);
        self.sizes.store(self.sizes.load(Ordering::Relaxed) | 1 << size, Ordering::Relaxed);
        let mut note = Note::of(span);
        note.time = self.time.load(Ordering::Relaxed).wrapping_add(1);
        self.time.store(note.time, Ordering::Relaxed);
        let unknown = note.trust == 0;
        note.weight = if unknown { pages as u16 } else { note.weight };
        add(&self.unknown, unknown.into());
        note.write(span);
        add(&self.space, pages);
        add(&self.weight, note.weight.into());
        excess
    }

    /// Takes the span of this size out that has been kept longest, if there is one.
    fn take_first(&self, size: usize) -> Option<SpanRef> {
        let of_size = self.of(size);
        let span = of_size.first()?;
        of_size.start.store(of_size.start().wrapping_add(1), Ordering::Relaxed);
        self.note_taken(size, span, usable_pages(span));
        Some(span)
    }

    /// The span that has been kept longest, and its size.
    fn oldest(&self) -> Option<(usize, SpanRef)> {
        let now = self.time.load(Ordering::Relaxed);
        self.sizes(u64::MAX)
            .filter_map(|size| Some((size, self.of(size).first()?)))
            .max_by_key(|(_, span)| now.wrapping_sub(Note::of(*span).time))
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
            self.of(size).iter().for_each(|span| self.weigh(heap, span));
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
        let excess = recent.put(span, pages);
        let most = self.most_recent() / PAGE_BYTES;
        if excess.is_some() || recent.is_heavy(most) || recent.is_wide() {
            self.keep_less_slow(span, excess, most);
        }
    }

    /// Gives kept spans back until few enough are left, of `most` pages at most, and `excess`, which is not kept any
    /// more. `newest` is one of those kept.
    #[cold]
    #[inline(never)]
    fn keep_less_slow(self, newest: SpanRef, excess: Option<SpanRef>, most: usize) {
        let (recent, heap) = (&self.state.recent, self.central.heap());
        if let Some(span) = excess {
            self.give_back(span);
        }
        if recent.is_heavy(most) {
            recent.weigh(heap, newest);
        }
        if recent.is_heavy(most) && recent.unknown.load(Ordering::Relaxed) > 0 {
            recent.weigh_all(heap);
        }
        while recent.is_heavy(most) || recent.is_wide() {
            let Some((size, _)) = recent.oldest() else { break };
            add(&recent.given, 1);
            self.give_first(size);
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
        if let Some((size, span)) = recent.oldest() {
            if now.wrapping_sub(Note::of(span).time) >= unused {
                self.give_first(size);
            }
        }
    }

    /// Gives the span of this size back that has been kept longest. Returns whether there was one.
    fn give_first(self, size: usize) -> bool {
        let span = self.state.recent.take_first(size);
        span.map(|span| self.give_back(span)).is_some()
    }

    /// Gives a span back that was taken out.
    fn give_back(self, span: SpanRef) {
        // SAFETY: what was kept has ended, and is given back once; this thread is the only user of its
        // stash.
        unsafe { self.central.discard_large(span, Some(&self.state.stash)) };
    }

    /// Gives every span that is kept back.
    pub(crate) fn flush_recent(self) {
        let recent = &self.state.recent;
        recent.given.store(0, Ordering::Relaxed);
        recent.more.store(0, Ordering::Relaxed);
        for size in recent.sizes(u64::MAX) {
            while self.give_first(size) {}
        }
    }
}
