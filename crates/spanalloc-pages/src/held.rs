use core::ptr::{self, NonNull};

use spanalloc_os::{Geometry, OsSource};
use spanalloc_sync::atomic::Ordering;
use spanalloc_sync::{LockGuard, rank};

use crate::bitmap::{CHUNK_PAGE_BITS, CHUNK_PAGES};
use crate::chunk::{Chunk, Segment, segments};
use crate::heap::PageHeap;
use crate::huge::HugePages;
use crate::page_cache::WINDOW_BYTES;
use crate::pages::{PAGE_BYTES, PAGE_SHIFT, PageError, Run};
use crate::scavenge::Dirt;
use crate::slot::{CHUNK_SHIFT, Slot};
use crate::summary::Summary;
use crate::tree::{Fit, Tree};

/// Pages that are committed together: 2 MB.
pub(crate) const COMMIT_PAGES: u64 = 256;

/// From so many Ready pages on (6 MB), memory that will be filled may be so by huge pages.
const LARGE_HEAP_PAGES: usize = 768;

/// Runs of at least so many pages (64 KB) are expected to be used as the one before was,
const LARGE_RUN_PAGES: usize = 8;
/// and so are those of at least so many (1 MB): half a huge page.
const VERY_LARGE_RUN_PAGES: usize = 128;

/// What is known of how a run will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing.
    Any,
    /// From end to end, before long.
    Dense,
}

/// What the heap's lock guards, besides the chunks in the arena slots.
#[derive(Debug)]
pub(crate) struct State<G> {
    pub(crate) tree: Tree<G>,
    /// Pages of this heap.
    pub(crate) total: usize,
    /// Pages that are free.
    pub(crate) free: usize,
    /// Pages whose memory is Ready.
    pub(crate) ready: usize,
    /// Arena slots that have a span map.
    pub(crate) slots: usize,
    /// A span map that no arena slot has, because the arena map had no memory for that.
    pub(crate) slot: Option<NonNull<Slot<G>>>,
    /// Where the next reservation would be welcome: behind the last one.
    pub(crate) reserve_hint: usize,
    /// First byte and length of a range that was reserved, but could be neither entered nor
    /// released; length 0 for none.
    pub(crate) spare: (usize, usize),
    /// Where free pages are dirty.
    pub(crate) dirt: Dirt,
    /// First page and number of pages of the last large run that was handed out, of less than 1 MB, and of more;
    /// 0 pages for none.
    last_large: [(u64, usize); 2],
    /// Whether huge pages were ever asked for.
    pub(crate) dense: bool,
}

// SAFETY: the tree's nodes and the slot are this heap's alone, on whatever thread.
unsafe impl<G> Send for State<G> {}

impl<G: Geometry> State<G> {
    pub(crate) const fn new() -> Self {
        Self {
            tree: Tree::new(),
            total: 0,
            free: 0,
            ready: 0,
            slots: 0,
            slot: None,
            reserve_hint: 0,
            spare: (0, 0),
            dirt: Dirt::new(),
            last_large: [(0, 0); 2],
            dense: false,
        }
    }
}

/// The heap, with its lock held.
pub(crate) struct Held<'a, O: OsSource, G: Geometry> {
    pub(crate) heap: &'a PageHeap<O, G>,
    pub(crate) state: LockGuard<'a, State<G>, O::Wait, { rank::HEAP }>,
}

/// The page number of the page that `address` lies in.
#[inline]
pub(crate) fn page_of(address: usize) -> u64 {
    address as u64 >> PAGE_SHIFT
}

/// The address of a page of an arena.
#[inline]
pub(crate) fn address_of(page: u64) -> usize {
    (page << PAGE_SHIFT) as usize
}

/// The memory of a page of an arena. The provenance of arenas is exposed.
#[inline]
pub(crate) fn memory_of(page: u64) -> Option<NonNull<u8>> {
    NonNull::new(ptr::with_exposed_provenance_mut(address_of(page)))
}

impl<O: OsSource, G: Geometry> Held<'_, O, G> {
    /// What is known of the chunk of this index; None if no arena slot is there.
    #[inline]
    pub(crate) fn chunk(&mut self, index: u64) -> Option<&mut Chunk> {
        let address = usize::try_from(index << CHUNK_SHIFT).ok()?;
        let slot = self.heap.arenas.get(address);
        if slot.is_null() {
            return None;
        }
        // SAFETY: the map holds slots that are never given back; chunks are guarded by the lock,
        // and the borrow of the guard lets one reference to one of them live at a time.
        Some(unsafe { &mut *Slot::<G>::chunk(slot, address) })
    }

    /// Writes the summary of a chunk of a run that ends in chunk `last`.
    #[inline]
    pub(crate) fn summarise(&mut self, index: u64, alone: bool, last: u64) {
        let Some(chunk) = self.chunk(index) else { return };
        let (leaf, summary) = (chunk.leaf, Summary::of_chunk(&chunk.free));
        if leaf.is_null() {
            return;
        }
        // SAFETY: a chunk that has a leaf got it from the tree's `insert`. Runs are walked in the
        // order of their addresses, up to the last chunk, with the lock held.
        unsafe {
            if alone {
                self.state.tree.set(leaf, index, summary);
            } else {
                self.state.tree.set_up_to(leaf, index, last, summary);
            }
        }
    }

    /// Calls `change` for the chunks of a run, lowest first, and updates the tree.
    #[inline]
    pub(crate) fn change(
        &mut self,
        page: u64,
        pages: usize,
        mut change: impl FnMut(&mut Chunk, Segment),
    ) {
        if pages == 0 {
            return;
        }
        let first = page >> CHUNK_PAGE_BITS;
        let last = (page + pages as u64 - 1) >> CHUNK_PAGE_BITS;
        for segment in segments(page, pages as u64) {
            if let Some(chunk) = self.chunk(segment.chunk) {
                change(chunk, segment);
            }
            self.summarise(segment.chunk, first == last, last);
        }
    }

    /// The lowest run of `pages` free pages.
    #[inline]
    pub(crate) fn find(&mut self, pages: usize) -> Option<u64> {
        // The lowest chunk with a free page often has the run, and then no lower one exists.
        let hint = self.state.tree.hint();
        if pages <= CHUNK_PAGES {
            if let Some(chunk) = self.chunk(hint) {
                if let Some(at) = chunk.free.find(pages) {
                    return Some((hint << CHUNK_PAGE_BITS) + at as u64);
                }
            }
        }
        match self.state.tree.first_fit(pages as u64)? {
            Fit::Page(page) => Some(page),
            Fit::Chunk(index) => {
                let at = self.chunk(index)?.free.find(pages)?;
                Some((index << CHUNK_PAGE_BITS) + at as u64)
            }
        }
    }

    /// As [`find`](Self::find); reserves address space if there is no such run.
    #[inline]
    pub(crate) fn find_or_grow(&mut self, pages: usize) -> Option<u64> {
        match self.find(pages) {
            Some(page) => Some(page),
            None => self.grow_slow(pages),
        }
    }

    /// Takes `pages` pages of which the first is a multiple of `align`.
    pub(crate) fn alloc(&mut self, pages: usize, align: usize, usage: Use) -> Option<Run> {
        // A run that much longer has an aligned part that is long enough; the rest stays free.
        let around = pages.checked_add(align - 1)?;
        let found = self.find_or_grow(around)?;
        let below = align as u64 - 1;
        let page = found.checked_add(below)? & !below;
        self.take(page, pages, usage)
    }

    /// Makes free pages Ready and takes them. None if the memory was refused; the pages are still
    /// free then.
    pub(crate) fn take(&mut self, page: u64, pages: usize, usage: Use) -> Option<Run> {
        if !self.commit(page, pages, usage) {
            return None;
        }
        let mut zeroed = true;
        self.change(page, pages, |chunk, segment| {
            zeroed &= chunk.zero.all(segment.from, segment.count);
            chunk.free.clear(segment.from, segment.count);
            chunk.zero.clear(segment.from, segment.count);
        });
        self.state.count_taken(pages);
        if pages >= LARGE_RUN_PAGES {
            *self.last_like(pages) = (page, pages);
        }
        Some(Run { address: address_of(page), pages, zeroed })
    }

    /// Whether every page of a run is free.
    pub(crate) fn all_free(&mut self, page: u64, pages: usize) -> bool {
        segments(page, pages as u64).all(|segment| {
            self.chunk(segment.chunk)
                .is_some_and(|chunk| chunk.free.all(segment.from, segment.count))
        })
    }

    /// Whether a page is ours and not one that nobody had since its memory became Ready.
    pub(crate) fn was_handed_out(&mut self, page: u64) -> bool {
        let at = page as usize % CHUNK_PAGES;
        self.chunk(page >> CHUNK_PAGE_BITS).is_some_and(|chunk| {
            chunk.ours.all(at, 1) && !(chunk.free.all(at, 1) && chunk.zero.all(at, 1))
        })
    }

    /// Gives pages back, dirty.
    pub(crate) fn free(&mut self, address: usize, pages: usize) -> Result<(), PageError> {
        let foreign = PageError::NotOurs { address };
        let end = pages.checked_mul(PAGE_BYTES).and_then(|bytes| address.checked_add(bytes));
        if address % PAGE_BYTES != 0 || end.is_none() {
            return Err(foreign);
        }
        let page = page_of(address);
        for segment in segments(page, pages as u64) {
            let chunk = self.chunk(segment.chunk).ok_or(foreign)?;
            if !chunk.ours.all(segment.from, segment.count) {
                return Err(foreign);
            }
            if chunk.free.any(segment.from, segment.count) {
                return Err(PageError::AlreadyFree { address, pages });
            }
        }
        self.change(page, pages, |chunk, segment| chunk.free.set(segment.from, segment.count));
        self.state.free += pages;
        self.note_dirty(page, pages);
        Ok(())
    }

    /// Remembers that some of these free pages may be dirty.
    #[inline]
    pub(crate) fn note_dirty(&mut self, page: u64, pages: usize) {
        self.state.dirt.note(page + pages as u64, pages);
        if self.state.is_due() {
            self.heap.due.store(true, Ordering::Relaxed);
        }
    }

    /// Gives pages of one aligned block of 64 back: the ones of `mask`, of which the ones of `zero`
    /// are known to be zero. Pages that are free already stay as they are.
    pub(crate) fn give_block(&mut self, base: usize, mask: u64, zero: u64) {
        let page = page_of(base);
        let word = (page as usize % CHUNK_PAGES) / 64;
        let index = page >> CHUNK_PAGE_BITS;
        let Some(chunk) = self.chunk(index) else { return };
        let mask = mask & chunk.ours.word(word) & !chunk.free.word(word);
        chunk.free.set_word(word, mask);
        chunk.zero.set_word(word, mask & zero);
        self.state.free += mask.count_ones() as usize;
        self.summarise(index, true, index);
        self.note_dirty(page, 64);
    }

    /// Gives the pages of `mask`, of one aligned block of 64, back dirty.
    pub(crate) fn free_block(&mut self, base: usize, mask: u64) -> Result<(), PageError> {
        let page = page_of(base);
        let word = (page as usize % CHUNK_PAGES) / 64;
        let foreign = PageError::NotOurs { address: base };
        let chunk = self.chunk(page >> CHUNK_PAGE_BITS).ok_or(foreign)?;
        if mask & !chunk.ours.word(word) != 0 || base % WINDOW_BYTES != 0 {
            return Err(foreign);
        }
        if mask & chunk.free.word(word) != 0 {
            return Err(PageError::AlreadyFree { address: base, pages: 64 });
        }
        self.give_block(base, mask, 0);
        Ok(())
    }

    /// Takes every free page of the aligned block of 64 that `page` lies in, Ready. Returns the
    /// pages taken, the ones of them known to be zero and the ones of the block that are ours, as
    /// bits; None if the memory was refused.
    pub(crate) fn take_block(&mut self, page: u64, usage: Use) -> Option<(u64, u64, u64)> {
        let base = page & !63;
        let index = base >> CHUNK_PAGE_BITS;
        let word = (base as usize % CHUNK_PAGES) / 64;
        let free = self.chunk(index)?.free.word(word);
        let first = free.trailing_zeros();
        let last = 63_u32.checked_sub(free.leading_zeros())?;
        if !self.commit(base + u64::from(first), (last - first + 1) as usize, usage) {
            return None;
        }
        let chunk = self.chunk(index)?;
        let zero = chunk.zero.word(word) & free;
        let ours = chunk.ours.word(word);
        chunk.free.clear_word(word, free);
        chunk.zero.clear_word(word, free);
        self.state.count_taken(free.count_ones() as usize);
        self.summarise(index, true, index);
        Some((free, zero, ours))
    }

    /// Makes the pages of a run Ready, as far as they are not.
    #[inline]
    fn commit(&mut self, page: u64, pages: usize, usage: Use) -> bool {
        let ready = segments(page, pages as u64).all(|segment| {
            self.chunk(segment.chunk).is_some_and(|chunk| {
                let others = chunk.ours.without(&chunk.ready);
                !others.any(segment.from, segment.count)
            })
        });
        ready || self.commit_slow(page, pages, usage)
    }

    /// Commits all of the 2 MB steps that a run touches, as far as they are ours and not Ready; if
    /// that is refused, only the OS pages it touches.
    #[cold]
    #[inline(never)]
    fn commit_slow(&mut self, page: u64, pages: usize, usage: Use) -> bool {
        let os_page = (self.heap.source().page_bytes() as u64 >> PAGE_SHIFT).max(1);
        let end = page + pages as u64;
        let around = |step: u64| (page & !(step - 1), (end + step - 1) & !(step - 1));
        let (low, high) = around(COMMIT_PAGES.max(os_page));
        if !self.commit_range(low, high) {
            let (low, high) = around(os_page);
            if !self.commit_range(low, high) {
                return false;
            }
            self.heap.limits.note_committed(self.heap.committed());
            return true;
        }
        self.heap.limits.note_committed(self.heap.committed());
        let high = match self.heap.huge_pages() {
            HugePages::Off => 0,
            HugePages::Advise if self.state.ready < LARGE_HEAP_PAGES => 0,
            HugePages::Advise => self.dense_until(page, pages, usage),
            HugePages::Always => high,
        };
        if low < high && self.all_ready(low, high) {
            let bytes = ((high - low) as usize) << PAGE_SHIFT;
            if let Some(memory) = memory_of(low) {
                // SAFETY: the pages are ours and Ready, and whole OS pages.
                unsafe { self.heap.source().expect_use(memory, bytes) };
                self.state.dense = true;
            }
        }
        true
    }

    /// The last run of at least 1 MB, or that of less; for one with so many pages.
    fn last_like(&mut self, pages: usize) -> &mut (u64, usize) {
        let [large, very_large] = &mut self.state.last_large;
        if pages < VERY_LARGE_RUN_PAGES { large } else { very_large }
    }

    /// Up to where the 2 MB steps of a run, and what lies around it there, are expected to be filled:
    /// all of them, if that is what is known of it. If nothing is known and the run is large, those of which it
    /// has half or more, or its only one, if the last run like it was filled: programs that leave most of a
    /// large object alone do so again. Else none, which is page 0.
    fn dense_until(&mut self, page: u64, pages: usize, usage: Use) -> u64 {
        let end = page + pages as u64;
        let all = end.next_multiple_of(COMMIT_PAGES);
        if usage == Use::Dense {
            return all;
        }
        let (last, count) = *self.last_like(pages);
        let filled = |memory| self.heap.source().is_filled(memory, count << PAGE_SHIFT);
        if pages < LARGE_RUN_PAGES || count == 0 || !memory_of(last).is_some_and(filled) {
            return 0;
        }
        if pages < VERY_LARGE_RUN_PAGES {
            all
        } else {
            (end + COMMIT_PAGES / 2) & !(COMMIT_PAGES - 1)
        }
    }

    /// Whether every page of `low .. high` is Ready.
    fn all_ready(&mut self, low: u64, high: u64) -> bool {
        segments(low, high - low).all(|segment| {
            self.chunk(segment.chunk)
                .is_some_and(|chunk| chunk.ready.all(segment.from, segment.count))
        })
    }

    /// Commits every page of `low .. high` that is ours and not Ready.
    fn commit_range(&mut self, low: u64, high: u64) -> bool {
        let mut at = low;
        while let Some(from) = self.next_to_commit(at, high, true) {
            let to = self.next_to_commit(from, high, false).unwrap_or(high);
            let pages = (to - from) as usize;
            let Some(memory) = memory_of(from) else { return false };
            // SAFETY: the pages are ours, so they lie in ranges that this source reserved, whose
            // provenance is exposed. Pages become ours, Ready and Decommitted by whole OS pages.
            if unsafe { self.heap.source().commit(memory, pages << PAGE_SHIFT) }.is_err() {
                // What became Ready before that stays free, and may complete a block for the scavenger.
                self.state.dirt.note(high, 0);
                return false;
            }
            for segment in segments(from, to - from) {
                if let Some(chunk) = self.chunk(segment.chunk) {
                    chunk.ready.set(segment.from, segment.count);
                }
            }
            self.state.count_ready(pages);
            at = to;
        }
        true
    }

    /// The first page of `at .. high` that is ours and not Ready, or, for false, the first that is
    /// not.
    fn next_to_commit(&mut self, at: u64, high: u64, wanted: bool) -> Option<u64> {
        segments(at, high.saturating_sub(at)).find_map(|segment| {
            let bits = match self.chunk(segment.chunk) {
                Some(chunk) => chunk.ours.without(&chunk.ready),
                None => crate::bitmap::Bits::default(),
            };
            let hit = bits.next(segment.from, wanted)?;
            (hit < segment.from + segment.count)
                .then_some((segment.chunk << CHUNK_PAGE_BITS) + hit as u64)
        })
    }
}
