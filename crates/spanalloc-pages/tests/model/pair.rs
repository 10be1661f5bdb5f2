//! A page heap and the naive one beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use spanalloc_os::{Faulty, Geometry, OsSource, Verb};
use spanalloc_pages::{Clock, PAGE_BYTES, PageCache, PageError, PageHeap, Pages, Run};

use crate::common::Watched;
use crate::naive::Model;
use crate::operation::Op;

/// Time that passes when it is told to.
#[derive(Clone, Copy, Debug, Default)]
struct Virtual(Duration);

impl Clock for Virtual {
    fn now(&self) -> Duration {
        self.0
    }
}

/// Pages of a block that goes back as a whole.
const BLOCK_PAGES: u64 = 256;

type Source<O> = Faulty<Watched<O>>;

struct Pair<'a, O: OsSource, G: Geometry> {
    heap: &'a PageHeap<Source<O>, G>,
    cache: PageCache,
    model: Model,
    live: Vec<(u64, u64)>,
    faults: bool,
    clock: Virtual,
    /// Whether the memory is real and may be written.
    real: bool,
    /// The most bytes that may be Ready from now on.
    most: usize,
}

/// Bytes of a page that are looked at and written to, if the memory is real.
const SAMPLES: [usize; 6] = [0, 8, 3000, 4096, 5000, PAGE_BYTES - 8];

impl<O: OsSource, G: Geometry> Pair<'_, O, G> {
    fn watched(&self) -> &Watched<O> {
        self.heap.os().inner()
    }

    /// Tells the model of address space that the heap has reserved since.
    fn sync(&mut self) {
        for (address, bytes) in self.watched().ranges() {
            let (page, pages) = ((address / PAGE_BYTES) as u64, (bytes / PAGE_BYTES) as u64);
            if !self.model.ours.has(page, 1) {
                self.model.grow(page, pages);
            }
        }
    }

    /// Tells the model of free pages that went back to the system, whichever they were.
    fn sync_returned(&mut self) {
        let mut touched = std::mem::take(&mut self.model.touched);
        touched.retain(|&page| {
            let ready = self.watched().is_ready(page as usize * PAGE_BYTES, 1);
            assert!(ready || self.model.free.has(page, 1), "page {page:#x} is in use");
            ready
        });
        self.model.touched = touched;
    }

    fn expect_fit(&mut self, pages: u64) -> Option<u64> {
        let found = self.model.free.first_fit(pages);
        if found.is_some() {
            return found;
        }
        self.sync();
        self.model.free.first_fit(pages)
    }

    /// Checks a run against where the model expects it, and writes to it.
    fn got(&mut self, run: Run, page: u64, pages: u64) {
        assert_eq!((run.address / PAGE_BYTES) as u64, page, "{run:?}, expected page {page:#x}");
        assert_eq!(run.address % PAGE_BYTES, 0);
        assert_eq!(run.pages as u64, pages);
        assert!(self.watched().is_ready(run.address, run.pages), "{run:?} is not Ready");
        assert_eq!(run.zeroed, self.model.hand_out(page, pages), "{run:?}");
        if self.real {
            for at in 0..run.pages {
                for sample in SAMPLES {
                    let address = run.address + at * PAGE_BYTES + sample;
                    let word: *mut u64 = std::ptr::with_exposed_provenance_mut(address);
                    // SAFETY: the run is Ready and ours.
                    unsafe {
                        assert!(!run.zeroed || word.read() == 0, "{run:?} is not zero");
                        word.write(!0);
                    }
                }
            }
        }
    }

    fn free(&mut self, page: u64, pages: u64) {
        // SAFETY: the run is handed out, unused, and has no span.
        unsafe { self.heap.free(page as usize * PAGE_BYTES, pages as usize) }.unwrap();
        self.model.free.add(page, pages);
    }

    fn choose(&self, which: usize) -> Option<usize> {
        (!self.live.is_empty()).then(|| which % self.live.len())
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Alloc { pages, align } => {
                let align = 1_usize << align;
                let run = self.heap.alloc(pages, align);
                let around = (pages + align - 1) as u64;
                let Some(run) = run else {
                    assert!(self.faults, "no memory for {op:?}");
                    return;
                };
                let page = self.expect_fit(around).expect("the heap found room, the model none");
                let page = page.next_multiple_of(align as u64);
                self.model.free.remove(page, pages as u64);
                self.got(run, page, pages as u64);
                self.live.push((page, pages as u64));
            }
            Op::Free { which } => {
                if let Some(index) = self.choose(which) {
                    let (page, pages) = self.live.swap_remove(index);
                    self.free(page, pages);
                }
            }
            Op::FreePart { which, from, count } => {
                if let Some(index) = self.choose(which) {
                    let (page, pages) = self.live.swap_remove(index);
                    let from = from as u64 % pages;
                    let count = count as u64 % (pages - from) + 1;
                    self.free(page + from, count);
                    if from > 0 {
                        self.live.push((page, from));
                    }
                    if from + count < pages {
                        self.live.push((page + from + count, pages - from - count));
                    }
                }
            }
            Op::FreeNeighbours { which } => {
                if let Some(index) = self.choose(which) {
                    let (page, mut pages) = self.live.swap_remove(index);
                    while let Some(next) = self.live.iter().position(|run| run.0 == page + pages) {
                        pages += self.live.swap_remove(next).1;
                    }
                    self.free(page, pages);
                }
            }
            Op::FreeAgain { which, before, after } => self.free_wrongly(which, before, after),
            Op::Extend { which, more } => {
                let Some(index) = self.choose(which) else { return };
                let (page, pages) = self.live[index];
                let possible = self.model.free.has(page + pages, more as u64);
                let address = page as usize * PAGE_BYTES;
                // SAFETY: the run is handed out.
                let run = unsafe { self.heap.extend(address, pages as usize, more) };
                let Some(run) = run else {
                    assert!(!possible || self.faults, "{op:?} was possible");
                    return;
                };
                // The heap may have reserved the space that follows.
                self.sync();
                let possible = self.model.free.has(page + pages, more as u64);
                assert!(possible, "{op:?} was not possible");
                self.model.free.remove(page + pages, more as u64);
                self.got(run, page + pages, more as u64);
                self.live[index].1 += more as u64;
            }
            Op::Relocate { which, more } => self.relocate(which, more),
            Op::CacheAlloc { pages } => {
                // SAFETY: this thread alone uses the cache, with this heap.
                let run = unsafe { self.heap.alloc_cached(&self.cache, pages) };
                let count = pages as u64;
                let page = if pages > 16 {
                    let Some(_) = run else {
                        assert!(self.faults);
                        return;
                    };
                    let page = self.expect_fit(count).unwrap();
                    self.model.free.remove(page, count);
                    page
                } else if let Some(page) = self.model.take_from_window(count) {
                    page
                } else {
                    self.model.flush();
                    let Some(_) = run else {
                        assert!(self.faults);
                        return;
                    };
                    let page = self.expect_fit(count).unwrap();
                    if page % 64 + count > 64 {
                        self.model.free.remove(page, count);
                        page
                    } else {
                        self.model.open_window(page);
                        self.model.take_from_window(count).unwrap()
                    }
                };
                self.got(run.expect("the window had the pages"), page, count);
                self.live.push((page, count));
            }
            Op::CacheFree { which } => {
                let Some(index) = self.choose(which) else { return };
                let (page, pages) = self.live.swap_remove(index);
                let address = page as usize * PAGE_BYTES;
                let inside = self.model.in_window(page, pages);
                // SAFETY: the run is handed out, unused, without a span; the cache is ours.
                unsafe { self.heap.free_cached(&self.cache, address, pages as usize) }.unwrap();
                if inside {
                    self.model.window.as_mut().unwrap().free.extend(page..page + pages);
                    // SAFETY: a wrong free of pages in the window, which must be refused.
                    let again = unsafe { self.heap.free_cached(&self.cache, address, 1) };
                    assert_eq!(again, Err(PageError::AlreadyFree { address, pages: 1 }));
                } else {
                    self.model.free.add(page, pages);
                }
            }
            Op::Flush => {
                // SAFETY: this thread alone uses the cache.
                unsafe { self.heap.flush(&self.cache) };
                self.model.flush();
                assert_eq!(self.cache.free_pages(), 0);
            }
            Op::Release { most } => {
                let group = (self.heap.os().page_bytes() / PAGE_BYTES).max(1) as u64;
                let block = group.max(BLOCK_PAGES);
                let ready =
                    |page: u64| self.heap.os().inner().is_ready(page as usize * PAGE_BYTES, 1);
                let expected = self.model.to_release(most as u64, group, block, ready);
                let failures = self.heap.os().failures(Verb::Decommit);
                let gone = self.watch_pages_go(|heap| heap.release_free(most));
                if self.heap.os().failures(Verb::Decommit) == failures {
                    assert_eq!(gone, expected);
                } else {
                    assert!(gone.is_subset(&expected));
                }
            }
            Op::Scavenge { pass_ms, pieces } => {
                self.clock.0 += Duration::from_millis(pass_ms);
                let clock = self.clock;
                let gone = self.watch_pages_go(|heap| {
                    let before = heap.stats().returned_in_all;
                    heap.scavenge(&clock, pieces);
                    (heap.stats().returned_in_all - before) as usize / PAGE_BYTES
                });
                // The last piece may end with a block.
                assert!(gone.len() <= 2 * pieces * BLOCK_PAGES as usize);
            }
            Op::Fail { verb, nth, forever } => {
                let verb = [Verb::Reserve, Verb::Commit, Verb::Decommit][verb];
                if forever {
                    self.heap.os().fail_from(verb, nth);
                } else {
                    self.heap.os().fail_nth(verb, nth);
                }
            }
            Op::Heal => self.heap.os().heal(),
            Op::HardLimit { room } => {
                let limit = (room.saturating_mul(PAGE_BYTES)).saturating_add(10 << 20);
                self.heap.set_hard_limit(limit);
                self.most = limit.max(self.heap.committed());
            }
            Op::SoftLimit { room } => {
                self.heap.set_soft_limit(room.saturating_mul(PAGE_BYTES));
            }
            Op::Heed { heard } => {
                let (limit, before) = (self.heap.soft_limit(), self.heap.committed());
                let mut emptied = false;
                self.heap.heed(heard, || {
                    emptied = true;
                    heard % 2 == 0
                });
                self.sync_returned();
                let (after, stats) = (self.heap.committed(), self.heap.stats());
                let none_left = stats.committed == stats.pages_in_use * PAGE_BYTES;
                let group = self.heap.os().page_bytes().max(PAGE_BYTES);
                assert!(after <= limit || none_left || group > PAGE_BYTES, "{stats:?}");
                assert!(before > limit || emptied || after == before, "given back for nothing");
                assert!(before <= limit || after <= limit || emptied, "not all was tried");
            }
            Op::MakeRoom { pages } => {
                let before = self.heap.committed();
                let made = self.heap.make_room(pages * PAGE_BYTES);
                self.sync_returned();
                assert_eq!(made, self.heap.committed() < before);
            }
        }
    }

    /// The pages that had memory before `act` and have none after it: as many as it says, all of them free.
    fn watch_pages_go(
        &mut self,
        act: impl FnOnce(&PageHeap<Source<O>, G>) -> usize,
    ) -> BTreeSet<u64> {
        let before = self.watched().ready_set();
        let said = act(self.heap);
        let after = self.watched().ready_set();
        assert!(after.is_subset(&before));
        let gone: BTreeSet<u64> = before.difference(&after).map(|&page| page as u64).collect();
        assert_eq!(gone.len(), said);
        for page in &gone {
            assert!(self.model.free.has(*page, 1), "page {page:#x} is in use");
            self.model.touched.remove(page);
        }
        gone
    }

    /// Moves a run to where it has `more` pages and room.
    fn relocate(&mut self, which: usize, more: usize) {
        let Some(index) = self.choose(which) else { return };
        let (page, pages) = self.live[index];
        let count = pages + more as u64;
        let Some(to) = self.heap.alloc_roomy(count as usize, 1) else {
            assert!(self.faults, "no memory for {count} pages");
            return;
        };
        self.sync();
        let target = (to.address / PAGE_BYTES) as u64;
        self.model.free.remove(target, count);
        let room = self.model.free.has(target + count, count);
        assert!(room || self.faults || G::ADDRESS_BITS < 48, "{to:?} has no room");
        if !self.real {
            self.got(to, target, count);
            self.live.push((target, count));
            return;
        }
        assert_eq!(to.zeroed, self.model.hand_out(target, count), "{to:?}");
        let from = page as usize * PAGE_BYTES;
        let failures = self.heap.os().failures(Verb::Decommit);
        // SAFETY: both runs are handed out, one of them just now, and have no spans.
        assert!(unsafe { self.heap.relocate(from, to, pages as usize) });
        self.model.free.add(page, pages);
        // Large runs leave no memory behind, unless the source refuses to take it.
        let refused = self.heap.os().failures(Verb::Decommit) > failures;
        if to.zeroed && pages >= 512 && !refused {
            (page..page + pages).for_each(|page| _ = self.model.touched.remove(&page));
        }
        for at in 0..count as usize {
            for sample in SAMPLES {
                let address = to.address + at * PAGE_BYTES + sample;
                let word: *mut u64 = std::ptr::with_exposed_provenance_mut(address);
                // SAFETY: the run is Ready and ours.
                unsafe {
                    assert!(at >= pages as usize || word.read() == !0, "{to:?} lost its contents");
                    word.write(!0);
                }
            }
        }
        self.live[index] = (target, count);
    }

    /// Frees a free run again, a run that is partly free, and addresses that are nobody's.
    fn free_wrongly(&mut self, which: usize, before: usize, after: usize) {
        let heap = self.heap;
        let bad = |address: usize, pages: usize| {
            // SAFETY: a wrong free, which the heap must refuse and survive.
            unsafe { heap.free(address, pages) }.expect_err("a wrong free was accepted")
        };
        let free: Vec<_> = self.model.free.0.iter().map(|(&at, &len)| (at, len)).collect();
        if let Some(&(page, pages)) = free.get(which % free.len().max(1)) {
            let address = page as usize * PAGE_BYTES;
            let error = bad(address, pages as usize);
            assert_eq!(error, PageError::AlreadyFree { address, pages: pages as usize });
            assert_eq!(bad(address + 8, 1), PageError::NotOurs { address: address + 8 });
        }
        if let Some(index) = self.choose(which) {
            let (page, pages) = self.live[index];
            let (low, high) = (page - (before as u64).min(page), page + pages + after as u64);
            if self.model.free.touches(low, high - low) || !self.model.ours.has(low, high - low) {
                let address = low as usize * PAGE_BYTES;
                bad(address, (high - low) as usize);
                assert!(matches!(
                    bad(address, usize::MAX / PAGE_BYTES + 1),
                    PageError::NotOurs { .. }
                ));
            }
        }
        let end = (1_u64 << G::ADDRESS_BITS).wrapping_sub(PAGE_BYTES as u64) as usize;
        for address in [0, end, usize::MAX - PAGE_BYTES + 1, 3] {
            if !self.model.ours.has((address / PAGE_BYTES) as u64, 1) || address % PAGE_BYTES != 0 {
                assert_eq!(bad(address, 1), PageError::NotOurs { address });
            }
        }
    }

    fn check_stats(&mut self) {
        self.sync();
        let stats = self.heap.stats();
        let in_use: u64 = self.live.iter().map(|run| run.1).sum();
        assert_eq!(stats.pages_in_use as u64, in_use + self.model.window_pages());
        assert_eq!(stats.pages_free as u64, self.model.free.total());
        assert_eq!(stats.pages_in_use + stats.pages_free, stats.reserved / PAGE_BYTES);
        assert_eq!((stats.reserved / PAGE_BYTES) as u64, self.model.ours.total());
        assert_eq!(stats.committed / PAGE_BYTES, self.watched().ready_pages());
        assert_eq!(stats.returned, stats.reserved - stats.committed);
        assert_eq!(self.cache.free_pages() as u64, self.model.window_pages());
        let ready = stats.committed + stats.metadata_committed;
        assert_eq!(self.heap.committed(), ready - stats.metadata_pages * PAGE_BYTES);
        assert!(self.heap.committed() <= self.most, "{stats:?} above {}", self.most);
        assert!(stats.metadata_in_use <= stats.metadata_committed);
        assert!(stats.metadata_committed <= stats.metadata_reserved);
    }

    /// Frees everything; each reserved range must then be one run again.
    fn finish(&mut self) {
        self.heap.os().heal();
        self.heap.set_hard_limit(usize::MAX);
        self.most = usize::MAX;
        // SAFETY: this thread alone uses the cache.
        unsafe { self.heap.flush(&self.cache) };
        self.model.flush();
        for (page, pages) in std::mem::take(&mut self.live) {
            self.free(page, pages);
        }
        self.check_stats();
        assert_eq!(self.model.free.0, self.model.ours.0);
        if self.real {
            return;
        }
        // Largest first, so that the first fit is the only fit.
        let mut runs: Vec<_> = self.model.free.0.iter().map(|(&at, &len)| (at, len)).collect();
        runs.sort_by_key(|&(at, len)| (std::cmp::Reverse(len), at));
        for (page, pages) in runs {
            let run = self.heap.alloc(pages as usize, 1).unwrap();
            self.model.free.remove(page, pages);
            self.got(run, page, pages);
        }
        assert_eq!(self.heap.stats().pages_free, 0);
    }
}

/// Does `ops` to a heap over `source` and to the model, checks the figures on the way, and frees
/// everything.
pub fn run<O: OsSource, G: Geometry>(source: O, ops: &[Op], faults: bool, real: bool) {
    let heap: PageHeap<Source<O>, G> = PageHeap::new(Faulty::new(Watched::new(source)));
    let mut pair = Pair {
        heap: &heap,
        cache: PageCache::new(),
        model: Model::default(),
        live: Vec::new(),
        faults,
        clock: Virtual::default(),
        real,
        most: usize::MAX,
    };
    for (step, op) in ops.iter().enumerate() {
        pair.apply(op);
        // An operation that failed may have reserved address space before it did.
        pair.sync();
        if step % 8 == 0 {
            pair.check_stats();
        }
    }
    pair.finish();
    drop(pair);
    heap.os().inner().release_everything();
}
