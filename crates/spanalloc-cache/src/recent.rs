//! Large objects that were freed lately, kept as they are for the next allocations of about their size.
//!
//! They are sorted by size (`steps`), up to 16 of each, and what was freed last is used first. What counts is the memory
//! that they take: of a run that its objects never filled, most is address space only. So when there
//! is too much, the system is asked how much of a run is there, which holds for the next times
//! that it is kept; what is still too much goes back to the heap, the oldest first.

use core::ops::{Range, RangeInclusive};

use spanalloc_central::{Central, SpanRef};
use spanalloc_pages::{PAGE_BYTES, Pages};
use spanalloc_sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::cache::Cache;
use crate::large::{most_pages, usable_pages};
use crate::policy::Policy;
use crate::steps::{SIZES, round_up, size_of_run};
use shelf::{Note, Shelf};

mod at_hand;
mod shelf;
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

/// The numbers of sizes that are kept.
const KEPT_SIZES: Range<usize> = size_of_run(SMALLEST_PAGES)..size_of_run(LARGEST_PAGES) + 1;

/// Spans of large objects that have ended. The thread whose state this is uses it alone; the all-zero
/// value is empty.
#[derive(Debug)]
pub(crate) struct Recent {
    /// The sizes of which there are some: bit i is size i.
    sizes: AtomicU64,
    /// Usable pages of all of them, and those that count as being in memory.
    sums: Sums,
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
    shelves: [Shelf; KEPT_SIZES.end - KEPT_SIZES.start],
}

/// Two sums of pages, each of them far below 2^32: of address space in the high half, of memory in the low one.
#[derive(Debug)]
struct Sums(AtomicU64);

impl Sums {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, note: Note) {
        self.0.store(self.load().wrapping_add(note.sums()), Ordering::Relaxed);
    }

    fn subtract(&self, note: Note) {
        self.0.store(self.load().wrapping_sub(note.sums()), Ordering::Relaxed);
    }

    fn space(sums: u64) -> usize {
        (sums >> 32) as usize
    }

    fn weight(sums: u64) -> usize {
        sums as u32 as usize
    }
}

fn add(sum: &AtomicUsize, more: usize) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Recent {
    pub(crate) const fn new() -> Self {
        Self {
            sizes: AtomicU64::new(0),
            sums: Sums(AtomicU64::new(0)),
            unknown: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
            more: AtomicUsize::new(0),
            time: AtomicU32::new(0),
            time_of_cut: AtomicU32::new(0),
            shelves: [const { Shelf::new() }; KEPT_SIZES.end - KEPT_SIZES.start],
        }
    }

    /// Bytes that count as being in memory.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        Sums::weight(self.sums.load()) * PAGE_BYTES
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.sizes.load(Ordering::Relaxed) == 0
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts an object of the thread in or out.
    #[inline]
    fn note(&self, pages: usize, born: bool) {
        let live = self.live();
        let live = if born { live + pages } else { live.saturating_sub(pages) };
        self.live.store(live, Ordering::Relaxed);
    }

    #[inline]
    fn shelf(&self, size: usize) -> &Shelf {
        debug_assert!(KEPT_SIZES.contains(&size), "{size}");
        // SAFETY: the sizes of what is kept are these.
        unsafe { self.shelves.get_unchecked(size.wrapping_sub(KEPT_SIZES.start)) }
    }

    /// The sizes of which there are some, the lowest first, of those that are ones in `wanted`.
    #[inline]
    fn sizes(&self, wanted: u64) -> impl Iterator<Item = usize> {
        let mut sizes = self.sizes.load(Ordering::Relaxed) & wanted;
        core::iter::from_fn(move || {
            let size = (sizes != 0).then(|| sizes.trailing_zeros() as usize)?;
            sizes &= sizes - 1;
            Some(size)
        })
    }

    /// Counts a span of this size out of which that was noted.
    #[inline]
    fn note_taken(&self, size: usize, note: Note) {
        let none_left = u64::from(self.shelf(size).is_empty());
        let sizes = self.sizes.load(Ordering::Relaxed);
        self.sizes.store(sizes & !(none_left << size), Ordering::Relaxed);
        self.sums.subtract(note);
        if !note.is_weighed() {
            add(&self.unknown, 1_usize.wrapping_neg());
        }
    }

    /// A span of these sizes and so many usable pages, and how many it has: one of the smallest size of which there are
    /// some, the one of them that was kept last.
    #[inline(always)]
    fn take(&self, sizes: u64, pages: RangeInclusive<usize>) -> Option<(SpanRef, usize)> {
        self.sizes(sizes).find_map(|size| {
            let shelf = self.shelf(size);
            let note = shelf.last_note();
            let usable = note.pages();
            if !pages.contains(&usable) {
                return None;
            }
            let span = shelf.pop(note)?;
            self.note_taken(size, note);
            Some((span, usable))
        })
    }

    /// Keeps a span of this size, for which its shelf has a place.
    #[inline(always)]
    fn put(&self, size: usize, span: SpanRef, note: Note) {
        self.shelf(size).push(span, note);
        self.sizes.store(self.sizes.load(Ordering::Relaxed) | 1 << size, Ordering::Relaxed);
        let time = self.time.load(Ordering::Relaxed);
        self.time.store(time.wrapping_add(1), Ordering::Relaxed);
        self.sums.add(note);
        if !note.is_weighed() {
            add(&self.unknown, 1);
        }
    }

    /// What will be noted of a span of so many usable pages if it is kept now.
    #[inline]
    fn next_note(&self, span: SpanRef, pages: usize) -> Note {
        Note::of(span, pages, self.time.load(Ordering::Relaxed).wrapping_add(1))
    }

    /// Whether one more span, of which that will be noted, is not too much for its shelf, nor for all.
    #[inline(always)]
    fn has_room(&self, size: usize, note: Note, most: usize) -> bool {
        let live = self.live().saturating_sub(note.pages());
        let sums = self.sums.load() + note.sums();
        !self.shelf(size).is_full() && self.is_enough(sums, live, most)
    }

    /// Takes the span of this size out that has been kept longest, if there is one.
    fn take_first(&self, size: usize) -> Option<SpanRef> {
        let (span, note) = self.shelf(size).pop_first()?;
        self.note_taken(size, note);
        Some(span)
    }

    /// The size of the span that has been kept longest, and how many were kept since.
    fn oldest(&self) -> Option<(usize, u32)> {
        let now = self.time.load(Ordering::Relaxed);
        self.sizes(u64::MAX)
            .filter_map(|size| Some((size, self.shelf(size).first_note()?.age(now))))
            .max_by_key(|(_, age)| *age)
    }

    /// The most pages in memory that should be kept beside so many live ones, and `most` in any case.
    #[inline]
    fn most_weight(&self, live: usize, most: usize) -> usize {
        (LEAST_PAGES + self.more.load(Ordering::Relaxed) + live / PART).min(most)
    }

    /// The most pages of address space that should be kept beside so many live ones.
    #[inline]
    fn most_space(live: usize) -> usize {
        (LEAST_SPACE + live * SPACE_FACTOR).min(MOST_SPACE)
    }

    /// Whether that is not more than should be kept beside so many live pages.
    #[inline]
    fn is_enough(&self, sums: u64, live: usize, most: usize) -> bool {
        Sums::weight(sums) <= self.most_weight(live, most)
            && Sums::space(sums) <= Self::most_space(live)
    }

    /// Whether more memory is kept than should be, of which more than `most` pages are too many in any case.
    fn is_heavy(&self, most: usize) -> bool {
        Sums::weight(self.sums.load()) > self.most_weight(self.live(), most)
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

    /// Finds out how much memory the spans of some sizes take of which that is not known.
    fn weigh<P: Pages>(&self, heap: &P, sizes: u64) {
        for size in self.sizes(sizes) {
            self.shelf(size).change_notes(|span, note| {
                if note.is_weighed() {
                    return note;
                }
                // SAFETY: the pages are a span's, so this heap handed them out.
                let weight = unsafe { heap.resident(span.base(), note.pages()) };
                let weighed = note.weighed(weight, LEAST_TRUST, MOST_TRUST);
                self.sums.subtract(note);
                self.sums.add(weighed);
                add(&self.unknown, 1_usize.wrapping_neg());
                weighed
            });
        }
    }
}

impl<C: Central, P: Policy> Cache<'_, C, P> {
    /// The pages that are asked of the heap for an object that needs `pages`.
    pub(crate) const fn rounded_pages(pages: usize) -> usize {
        let rounded = round_up(pages);
        if rounded <= Self::most_kept(pages) { rounded } else { pages }
    }

    /// The most usable pages of a kept run that may serve an object that needs `pages`.
    const fn most_kept(pages: usize) -> usize {
        // What has no guard may not have the size of what has one.
        let unguarded = (P::GUARDED_FROM - 1) / PAGE_BYTES;
        let limit =
            if pages <= unguarded && unguarded < LARGEST_PAGES { unguarded } else { LARGEST_PAGES };
        let most = most_pages(pages);
        if most < limit { most } else { limit }
    }

    /// For each number of pages up to the largest of what is kept: the sizes of what may serve an object that needs so
    /// many, as ones.
    const SERVE: [u64; LARGEST_PAGES + 1] = {
        let mut serve = [0; LARGEST_PAGES + 1];
        let mut pages = SMALLEST_PAGES;
        while pages <= LARGEST_PAGES {
            let low = size_of_run(Self::rounded_pages(pages));
            let high = size_of_run(Self::most_kept(pages));
            #[allow(clippy::indexing_slicing, reason = "in bounds, in a constant")]
            {
                serve[pages] = u64::MAX >> (SIZES - 1 - high) & u64::MAX << low;
            }
            pages += 1;
        }
        serve
    };

    /// A span that is kept, for an object that needs `pages` usable pages.
    #[inline(always)]
    fn find_recent(self, pages: usize) -> Option<SpanRef> {
        let serve = Self::SERVE.get(pages)?;
        let recent = &self.state.recent;
        let (span, usable) = recent.take(*serve, pages..=Self::most_kept(pages))?;
        span.begin_large();
        recent.note(usable, true);
        Some(span)
    }

    /// Whether spans with so many usable pages are kept. Those that lack a guard are not, so that the size tells what
    /// has one.
    #[inline]
    fn is_kept(pages: usize, guarded: bool) -> bool {
        (SMALLEST_PAGES..=LARGEST_PAGES).contains(&pages)
            && guarded == Self::is_guarded(pages * PAGE_BYTES)
    }

    /// A new object of at least `pages` usable pages, where one of about that size was freed.
    pub(crate) fn take_recent(self, pages: usize) -> Option<SpanRef> {
        if pages > LARGEST_PAGES {
            return None;
        }
        let span = self.find_recent(pages);
        if span.is_none() {
            self.state.recent.note_miss();
        }
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
        if !Self::is_kept(pages, span.is_guarded()) {
            // SAFETY: the caller ended the object; this thread is the only user of its stash.
            unsafe { self.central.discard_large(span, Some(&self.state.stash)) };
            return self.keep_within();
        }
        let size = size_of_run(pages);
        let excess = if recent.shelf(size).is_full() { recent.take_first(size) } else { None };
        recent.put(size, span, recent.next_note(span, pages));
        let most = self.most_recent() / PAGE_BYTES;
        if excess.is_some() || !recent.is_enough(recent.sums.load(), recent.live(), most) {
            self.keep_less_slow(size, excess, most);
        }
    }

    /// Gives kept spans back until few enough are left, of `most` pages at most, and `excess`, which is not kept any
    /// more. The one that was kept last has this size.
    #[cold]
    #[inline(never)]
    fn keep_less_slow(self, size: usize, excess: Option<SpanRef>, most: usize) {
        let (recent, heap) = (&self.state.recent, self.central.heap());
        if let Some(span) = excess {
            self.give_back(span);
        }
        if recent.is_heavy(most) {
            recent.weigh(heap, 1 << size);
        }
        if recent.is_heavy(most) && recent.unknown.load(Ordering::Relaxed) > 0 {
            recent.weigh(heap, u64::MAX);
        }
        while !recent.is_enough(recent.sums.load(), recent.live(), most) {
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
        if let Some((size, age)) = recent.oldest() {
            if age >= unused {
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
