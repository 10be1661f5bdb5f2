//! Giving free pages back to the system.
//!
//! Blocks of 2 MB that are wholly free and Ready go first, the highest address first, each in one call: they
//! may be huge pages, and are not broken. Free pages in other blocks follow, in the same order. What a
//! scavenger does of its own accord leaves those alone that are few in a block that is Ready otherwise: giving
//! them back would cost a huge page and win next to nothing.
//!
//! Nobody holds the heap's lock during a system call: pages that are being given back are taken as far as
//! others can see. Nor does a search hold it for long: it looks at [`MOST_CHUNKS`] chunks at once.

use core::ptr::NonNull;
use core::time::Duration;

use spanalloc_os::{Geometry, OsSource, round_down};
use spanalloc_sync::atomic::Ordering;

use crate::bitmap::{Bits, CHUNK_PAGE_BITS, CHUNK_PAGES};
use crate::heap::PageHeap;
use crate::held::{Held, State, address_of, memory_of};
use crate::pacer::{Advice, Clock, LEAST_KEPT, PIECE_PAGES, Usage};
use crate::pages::PAGE_SHIFT;

/// Pages of a block that may be one huge page: 2 MB.
const BLOCK_PAGES: usize = 256;
/// Of a block that may be a huge page, so many pages are worth breaking it: 256 KB.
const WORTH_PAGES: usize = 32;
/// Chunks that are looked at while the lock is held: 256 MB.
const MOST_CHUNKS: usize = 64;
/// No chunk has this index, and none above it is there.
const NO_CHUNK: u64 = u64::MAX >> CHUNK_PAGE_BITS;
/// Pages that are freed before anybody looks whether some are to be given back: 2 MB.
const TICK_PAGES: usize = 256;

const _: () = assert!(BLOCK_PAGES == PIECE_PAGES && CHUNK_PAGES % BLOCK_PAGES == 0);

/// Which free pages are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Whole blocks that are free and Ready.
    Blocks,
    /// Pages of other blocks, but for few of one that is Ready otherwise.
    Many,
    /// All pages.
    All,
    /// All pages, those that were not written to since they became Ready among them.
    Ready,
}

/// What is known of the places of dirty free pages.
#[derive(Debug)]
pub(crate) struct Dirt {
    /// For each [`What`]: no chunk of this index or above has such pages, but for those below `freed`.
    clean_from: [u64; 3],
    /// The end of the chunks in which pages became free and dirty since that was found out.
    freed: u64,
    /// Pages that became so since somebody last looked whether some are to be given back.
    pub(crate) pages: usize,
    /// The most pages that were needed since then: in use, or Ready when that was not enough.
    most_needed: usize,
    /// Pages given back in all.
    pub(crate) returned: u64,
}

impl Dirt {
    pub(crate) const fn new() -> Self {
        Self { clean_from: [0; 3], freed: 0, pages: 0, most_needed: 0, returned: 0 }
    }

    /// The mark of `what`.
    fn mark(&mut self, what: What) -> &mut u64 {
        let freed = core::mem::take(&mut self.freed);
        for mark in &mut self.clean_from {
            *mark = freed.max(*mark);
        }
        let [blocks, many, all] = &mut self.clean_from;
        match what {
            What::Blocks => blocks,
            What::Many => many,
            What::All | What::Ready => all,
        }
    }

    /// Notes that below page `end` free pages may be dirty, or may complete a block with some that are.
    #[inline]
    pub(crate) fn note(&mut self, end: u64, pages: usize) {
        self.freed = self.freed.max(end.div_ceil(CHUNK_PAGES as u64));
        self.pages += pages;
    }
}

impl<G: Geometry> State<G> {
    /// Counts pages that were handed out.
    #[inline]
    pub(crate) fn count_taken(&mut self, pages: usize) {
        self.free -= pages;
        self.dirt.most_needed = self.dirt.most_needed.max(self.total - self.free);
    }

    /// Counts pages that became Ready because those that were so did not do, though free ones may lie between
    /// those in use: what was given back too early is not given back again at once.
    pub(crate) fn count_ready(&mut self, pages: usize) {
        self.ready += pages;
        self.dirt.most_needed = self.dirt.most_needed.max(self.ready);
    }

    /// Whether it is time to look whether something is to be given back.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.dirt.pages >= TICK_PAGES && self.ready >= LEAST_KEPT + PIECE_PAGES
    }

    /// What a pacer wants to know. Whoever asks has looked.
    fn usage(&mut self) -> Usage {
        let in_use = self.total - self.free;
        let most = core::mem::replace(&mut self.dirt.most_needed, in_use).max(in_use);
        self.dirt.pages = 0;
        Usage { in_use, most, ready: self.ready }
    }
}

/// The time as a source tells it.
struct SourceClock<'a, O>(&'a O);

impl<O: OsSource> Clock for SourceClock<'_, O> {
    fn now(&self) -> Duration {
        self.0.now().unwrap_or_default()
    }

    fn busy(&self) -> Duration {
        self.0.busy().unwrap_or_default()
    }
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// Gives the memory of up to `max_pages` free pages back to the system and returns how many it was;
    /// if a whole block of 2 MB comes last, it may be up to that many more. Only pages that were written
    /// to since they became Ready are looked for, by whole OS pages. Stops when the system refuses.
    ///
    /// The heap's lock is not held during the system calls; pages being given back are taken as
    /// far as others can see.
    pub fn release_free(&self, max_pages: usize) -> usize {
        self.give_back(&[What::Blocks, What::All], max_pages)
    }

    /// As [`release_free`](Self::release_free); if huge pages were ever asked for, pages that nobody wrote to go
    /// back, too: as a part of a huge page they have memory.
    pub fn release_all(&self, max_pages: usize) -> usize {
        let dense = self.hold().state.dense;
        if dense { self.release_ready(max_pages) } else { self.release_free(max_pages) }
    }

    /// Gives back what is above the goal, as far as the [`Pacer`](crate::Pacer) allows, but no more than
    /// `pieces` pieces of 2 MB. Returns how long there is nothing more to do; zero if the pieces were not
    /// enough. Does nothing while another thread is in here.
    pub fn scavenge(&self, clock: &impl Clock, pieces: usize) -> Duration {
        let Some(mut pacer) = self.pacer.try_lock() else { return Duration::from_millis(100) };
        for _ in 0..pieces {
            let usage = self.hold().state.usage();
            match pacer.look(clock, usage) {
                Advice::Rest(time) => return time,
                Advice::Give(pages) => {
                    let given = self.give_back(&[What::Blocks, What::Many], pages);
                    pacer.gave(clock, given);
                }
            }
        }
        Duration::ZERO
    }

    /// Says whether somebody calls [`scavenge`](Self::scavenge) at regular times, so that threads that
    /// free pages need not do it. All do in a new heap.
    pub fn set_attended(&self, attended: bool) {
        self.attended.store(attended, Ordering::Relaxed);
    }

    /// One piece of what is due, by a thread that came by.
    #[cold]
    #[inline(never)]
    pub(crate) fn scavenge_slow(&self) {
        self.due.store(false, Ordering::Relaxed);
        if self.attended.load(Ordering::Relaxed) || self.os().now().is_none() {
            return;
        }
        self.scavenge(&SourceClock(self.os()), 1);
    }

    /// Gives up to `max_pages` free pages back as [`release_free`](Self::release_free) does, and if there are not
    /// as many, others that are Ready.
    pub(crate) fn release_ready(&self, max_pages: usize) -> usize {
        self.give_back(&[What::Blocks, What::All, What::Ready], max_pages)
    }

    /// Gives back pages of each kind in turn.
    fn give_back(&self, order: &[What], max_pages: usize) -> usize {
        let os_pages = (self.os().page_bytes() >> PAGE_SHIFT).max(1);
        if os_pages > CHUNK_PAGES {
            return 0;
        }
        let mut released = 0;
        for &what in order {
            let mut limit = u64::MAX;
            while released < max_pages {
                let mut held = self.hold();
                let (page, pages) =
                    match held.last_dirty(what, &mut limit, os_pages, max_pages - released) {
                        Search::Found(page, pages) => (page, pages),
                        Search::NotYet => continue,
                        Search::Nothing => break,
                    };
                if !self.decommit_free(held, page, pages) {
                    self.note_returned();
                    return released;
                }
                released += pages;
            }
        }
        self.note_returned();
        released
    }

    /// Gives back pages that are free and Ready. False if the system refused; they are as they were then.
    fn decommit_free(&self, mut held: Held<'_, O, G>, page: u64, pages: usize) -> bool {
        // Taken, for the time of the call; the zero bits stay as they are.
        held.change(page, pages, |chunk, run| chunk.free.clear(run.from, run.count));
        held.state.free -= pages;
        let (around, count) = held.block_around(page, pages);
        let dense = held.state.dense;
        drop(held);

        let memory = core::ptr::with_exposed_provenance_mut(address_of(page));
        // SAFETY: the pages are Ready, whole OS pages of this source, and taken, so nobody
        // uses them. The provenance of their range is exposed.
        let done = NonNull::new(memory)
            .is_some_and(|at| unsafe { self.source().decommit(at, pages << PAGE_SHIFT) }.is_ok());
        if let (true, Some(at)) = (done && dense, memory_of(around)) {
            // SAFETY: the pages are of arenas of this source, and whole OS pages.
            unsafe { self.source().expect_gaps(at, count << PAGE_SHIFT) };
        }

        let mut held = self.hold();
        held.change(page, pages, |chunk, run| {
            chunk.free.set(run.from, run.count);
            if done {
                chunk.zero.set(run.from, run.count);
                chunk.ready.clear(run.from, run.count);
            }
        });
        held.state.free += pages;
        if done {
            held.state.ready -= pages;
            held.state.dirt.returned += pages as u64;
        } else {
            held.state.dirt.note(page + pages as u64, 0);
        }
        done
    }
}

/// What came of a search.
enum Search {
    /// These pages: first and number.
    Found(u64, usize),
    /// Nothing so far; the search goes on where it ended.
    NotYet,
    /// There are none.
    Nothing,
}

impl<O: OsSource, G: Geometry> Held<'_, O, G> {
    /// The block of 2 MB around pages of one, if all of it is ours, or those pages.
    fn block_around(&mut self, page: u64, pages: usize) -> (u64, usize) {
        let block = page & !(BLOCK_PAGES as u64 - 1);
        let from = block as usize % CHUNK_PAGES;
        let inside = page + pages as u64 <= block + BLOCK_PAGES as u64;
        let chunk = self.chunk(block >> CHUNK_PAGE_BITS);
        if inside && chunk.is_some_and(|chunk| chunk.ours.all(from, BLOCK_PAGES)) {
            return (block, BLOCK_PAGES);
        }
        (page, pages)
    }

    /// The highest run, in one chunk and of at most `max_pages` pages or one block, of OS pages that are
    /// free, Ready and dirty, below page `limit`, which is lowered to where the search ended.
    fn last_dirty(
        &mut self,
        what: What,
        limit: &mut u64,
        os_pages: usize,
        max_pages: usize,
    ) -> Search {
        let longest = round_down(max_pages, os_pages);
        if longest == 0 && what != What::Blocks {
            return Search::Nothing;
        }
        let any = what == What::Ready;
        let clean_from = if any { NO_CHUNK } else { *self.state.dirt.mark(what) };
        // A walk from the mark downwards lowers it. Dirty pages may be left above it that are only
        // part of an OS page or of a block; the free that completes one raises the mark again.
        let lower_the_mark = !any && *limit >= clean_from << CHUNK_PAGE_BITS;
        *limit = (*limit).min(clean_from << CHUNK_PAGE_BITS);
        for _ in 0..MOST_CHUNKS {
            if *limit == 0 {
                return Search::Nothing;
            }
            let last = limit.div_ceil(CHUNK_PAGES as u64);
            let Some(index) = self.state.tree.last_free_below(last) else {
                return Search::Nothing;
            };
            if index + 1 < last {
                *limit = (index + 1) << CHUNK_PAGE_BITS;
            }
            let base = index << CHUNK_PAGE_BITS;
            let Some(chunk) = self.chunk(index) else { return Search::Nothing };
            let candidates = chunk.free.both(&chunk.ready);
            let dirty = candidates.without(&chunk.zero);
            let end = (*limit - base) as usize;
            let found = match what {
                What::Blocks => last_block(&candidates, &dirty, end, os_pages),
                What::Many => {
                    let worth = worth_breaking(&dirty, &chunk.ready);
                    last_run(&candidates, &dirty.both(&worth), end, os_pages, longest)
                }
                What::All => last_run(&candidates, &dirty, end, os_pages, longest),
                What::Ready => last_run(&candidates, &candidates, end, os_pages, longest),
            };
            if let Some((from, count)) = found {
                *limit = base + from as u64;
                return Search::Found(*limit, count);
            }
            if lower_the_mark {
                *self.state.dirt.mark(what) = index;
            }
            *limit = base;
        }
        Search::NotYet
    }
}

/// The highest block that ends at or below `end`, all of it in `candidates` and some in `dirty`.
fn last_block(
    candidates: &Bits,
    dirty: &Bits,
    end: usize,
    os_pages: usize,
) -> Option<(usize, usize)> {
    let block = BLOCK_PAGES.max(os_pages);
    let mut high = round_down(end, block);
    while high > 0 {
        let low = high - block;
        if candidates.all(low, block) && dirty.any(low, block) {
            return Some((low, block));
        }
        high = low;
    }
    None
}

/// The pages of the blocks that may be broken: those that are so already, and those in which many pages are
/// `dirty`.
fn worth_breaking(dirty: &Bits, ready: &Bits) -> Bits {
    let mut worth = Bits::default();
    for low in (0..CHUNK_PAGES).step_by(BLOCK_PAGES) {
        if !ready.all(low, BLOCK_PAGES) || dirty.count(low, BLOCK_PAGES) >= WORTH_PAGES {
            worth.set(low, BLOCK_PAGES);
        }
    }
    worth
}

/// The highest run below `end` of groups of `group` pages, all of them in `candidates` and one in
/// `dirty`, not longer than `longest`: first page and number of pages.
fn last_run(
    candidates: &Bits,
    dirty: &Bits,
    end: usize,
    group: usize,
    longest: usize,
) -> Option<(usize, usize)> {
    let good = groups(candidates, dirty, group);
    let high = good.last(round_down(end, group), true)? + 1;
    let low = good.last(high, false).map_or(0, |before| before + 1);
    let low = low.max(high.saturating_sub(longest));
    Some((low, high - low))
}

/// The pages of groups of `group` pages, all of them in `candidates` and one in `dirty`.
fn groups(candidates: &Bits, dirty: &Bits, group: usize) -> Bits {
    if group == 1 {
        return candidates.both(dirty);
    }
    let mut good = Bits::default();
    for at in (0..CHUNK_PAGES).step_by(group) {
        if candidates.all(at, group) && dirty.any(at, group) {
            good.set(at, group);
        }
    }
    good
}

#[cfg(test)]
mod tests {
    use spanalloc_os::Mmap;

    use super::*;
    use crate::PAGE_BYTES;
    use crate::bitmap::tests::{noise, samples};
    use crate::pages::Pages;

    /// The same page by page.
    fn naive_run(
        candidates: &Bits,
        dirty: &Bits,
        end: usize,
        group: usize,
        longest: usize,
    ) -> Option<(usize, usize)> {
        let is_good = |at: usize| {
            (at..at + group).all(|page| candidates.all(page, 1))
                && (at..at + group).any(|page| dirty.all(page, 1))
        };
        let mut high = end / group * group;
        while high > 0 && !is_good(high - group) {
            high -= group;
        }
        let mut low = high;
        while low > 0 && high - low < longest && is_good(low - group) {
            low -= group;
        }
        (high > low).then_some((low, high - low))
    }

    #[test]
    fn the_last_run_is_the_one_that_a_walk_finds() {
        let (samples, mut seed) = (samples(), 3);
        let mut found = 0;
        for pair in samples.windows(2) {
            let [candidates, dirty] = pair else { continue };
            for group in [1, 2, 4, 8, 16, 128, CHUNK_PAGES] {
                let end = noise(&mut seed) as usize % (CHUNK_PAGES + 1);
                let some = noise(&mut seed) as usize % CHUNK_PAGES + group;
                for (end, longest) in [(end, some / group * group), (CHUNK_PAGES, CHUNK_PAGES)] {
                    let run = last_run(candidates, dirty, end, group, longest);
                    assert_eq!(run, naive_run(candidates, dirty, end, group, longest), "{group}");
                    found += usize::from(run.is_some());
                }
            }
        }
        assert!(found > samples.len(), "{found}");
    }

    #[test]
    fn what_is_moved_away_may_complete_a_block() {
        let heap: PageHeap<Mmap> = PageHeap::new(Mmap::new());
        let all = heap.alloc(3 * BLOCK_PAGES, BLOCK_PAGES).unwrap();
        let pages = all.pages - 20;
        let rest = all.address + pages * PAGE_BYTES;
        // SAFETY: the pages were handed out and nobody uses them.
        unsafe { heap.free(rest, 20) }.unwrap();
        assert_eq!(heap.give_back(&[What::Blocks], 1), 0, "no block is whole");
        let to = heap.alloc_roomy(pages, 1).unwrap();
        // SAFETY: both runs are handed out, and have no spans.
        assert!(unsafe { heap.relocate(all.address, to, pages) });
        // Where memory cannot be moved its pages have none afterwards.
        if heap.relocations.get() > 0 {
            assert_eq!(heap.give_back(&[What::Blocks], 1), BLOCK_PAGES);
        }
    }
}
