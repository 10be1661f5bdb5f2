//! Parts of the page heap's interface that layers above rely on: what a heap has at hand, where it puts
//! what is to grow, what it knows of an address, and heaps that are borrowed or have only what they must.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/mod.rs"]
mod common;

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use common::{Place, Simulated, Watched};
use spanalloc_os::{Any32, Faulty, Geometry, IosArm64, Mips32, Mmap, Native, Report, Verb};
use spanalloc_pages::{
    Listener, PAGE_BYTES, PageCache, PageError, PageHeap, PageState, PageStats, Pages, Pool,
    Pooled, Pressure, Run, WINDOW_BYTES,
};
use spanalloc_sync::Spin;

type Heap = PageHeap<Watched<Simulated>>;

/// The most room for what is to grow, in bytes: 1 GB, or a sixteenth of all addresses.
const MOST_ROOM: usize = most_room::<Native>();

const fn most_room<G: Geometry>() -> usize {
    if G::ADDRESS_BITS < 34 { 1 << (G::ADDRESS_BITS - 4) } else { 1 << 30 }
}

/// An address that no arena of these tests has.
const FAR: usize = 1 << (usize::BITS - 18);

fn heap() -> Heap {
    PageHeap::new(Watched::new(Simulated::new::<Native>(Place::Low, 4096)))
}

fn free(heap: &Heap, run: Run) {
    // SAFETY: the run is handed out, unused, and has no span.
    unsafe { heap.free(run.address, run.pages) }.unwrap();
}

#[test]
fn a_heap_knows_which_pages_somebody_had() {
    let heap = heap();
    let [first, second] = [3, 2].map(|pages| heap.alloc(pages, 1).unwrap());
    let end = second.address + second.pages * PAGE_BYTES;
    let known =
        |address: usize| heap.was_handed_out(address) && Pages::was_handed_out(&&heap, address);
    assert!(known(first.address) && known(first.address + 3 * PAGE_BYTES - 1));
    assert!(known(second.address) && known(end - 1));
    for address in [0, end, end + 100 * PAGE_BYTES, usize::MAX, 1 << (usize::BITS - 17)] {
        assert!(!heap.was_handed_out(address), "{address:#x} was nobody's");
        assert!(!Pages::was_handed_out(&&heap, address));
    }
    free(&heap, second);
    assert!(known(second.address), "it is free and dirty");
    heap.release_free(usize::MAX);
    assert!(!heap.was_handed_out(second.address), "it is as it was before anybody had it");
    assert!(known(first.address));
}

#[test]
fn every_page_of_every_arena_is_visited_once() {
    let heap = heap();
    // Three arenas: one, and two more for a long run.
    let short = heap.alloc(1, 1).unwrap();
    let long = heap.alloc(10_000, 1).unwrap();
    let (mut pages, mut taken, mut end) = (0, 0, 0);
    heap.for_each_run(|address, count, state| {
        assert!(address >= end, "the lowest comes first");
        end = address + count * PAGE_BYTES;
        pages += count;
        taken += if state == PageState::Taken { count } else { 0 };
    });
    assert!(heap.stats().arenas > 1);
    assert_eq!((pages * PAGE_BYTES, taken), (heap.stats().reserved, short.pages + long.pages));
}

#[test]
fn a_cache_says_which_runs_it_has() {
    let (heap, cache) = (heap(), PageCache::new());
    let has = |pages: usize| cache.has(pages);
    assert!(!has(1));
    // SAFETY: this thread alone uses the cache, with this heap; runs are freed as they were got.
    unsafe {
        let run = heap.alloc_cached(&cache, 1).unwrap();
        assert!(has(1) && has(16) && !has(17), "no longer ones are served from it");
        let mut rest = Vec::new();
        while has(5) {
            rest.push(heap.alloc_cached(&cache, 5).unwrap());
        }
        assert!((1..=4).contains(&cache.free_pages()));
        assert!(has(cache.free_pages()) && !has(cache.free_pages() + 1), "they are neighbours");
        heap.free_cached(&cache, run.address, 1).unwrap();
        heap.flush(&cache);
    }
    assert!(!has(1) && cache.free_pages() == 0);
}

#[test]
fn pages_of_one_window_are_freed_by_one_call() {
    for in_cache in [true, false] {
        let (heap, cache) = (heap(), PageCache::new());
        // The windows are not the first of their 512 pages.
        heap.alloc(3 * 64, 64).unwrap();
        // SAFETY: this thread alone uses the cache, with this heap; wrong frees are to be refused.
        unsafe {
            let runs: Vec<Run> = (0..10).map(|_| heap.alloc_cached(&cache, 4).unwrap()).collect();
            let window = runs[5].address / WINDOW_BYTES * WINDOW_BYTES;
            let bit = |run: &Run| (run.address - window) / PAGE_BYTES;
            let inside: Vec<&Run> = runs[5..]
                .iter()
                .filter(|run| run.address / WINDOW_BYTES * WINDOW_BYTES == window)
                .collect();
            let (one, two) = (0xf_u64 << bit(inside[0]), 0xf_u64 << bit(inside[1]));
            if !in_cache {
                heap.flush(&cache);
            }
            let before = (heap.stats().pages_free, cache.free_pages());
            assert_eq!(heap.free_window(&cache, window, one | two), Ok(()));
            let (free, cached) = if in_cache { (0, 8) } else { (8, 0) };
            assert_eq!(heap.stats().pages_free, before.0 + free);
            assert_eq!(cache.free_pages(), before.1 + cached);
            let twice = PageError::AlreadyFree { address: window, pages: 64 };
            for again in [one, two, one | 0xf << bit(inside[2])] {
                assert_eq!(heap.free_window(&cache, window, again), Err(twice));
            }
            assert_eq!(heap.stats().pages_free, before.0 + free);
            assert_eq!(cache.free_pages(), before.1 + cached);
            if !in_cache {
                // Wrong windows, and one that is nobody's.
                let odd = window + PAGE_BYTES;
                let foreign = |address| Err(PageError::NotOurs { address });
                assert_eq!(heap.free_window(&cache, odd, 1 << bit(inside[2])), foreign(odd));
                assert_eq!(heap.free_window(&cache, FAR, 1), foreign(FAR));
            }
        }
    }
}

#[test]
fn what_is_to_grow_gets_fifteen_times_its_length_of_room() {
    // Pages, alignment; then the pages of room.
    for (pages, align, room) in [
        (10, 1, 150),
        (10, 16, 150),
        (255, 1, 255 * 15),
        (256, 1, 256 * 15),
        (1000, 1, 15_000),
        (10_000, 1, MOST_ROOM / PAGE_BYTES),
    ] {
        let heap = heap();
        let low = heap.alloc(1, 1).unwrap().address + PAGE_BYTES;
        let run = heap.alloc_roomy(pages, align).unwrap();
        assert_eq!(run.pages, pages);
        let block = if pages >= 256 { 256 } else { align };
        assert_eq!(run.address / PAGE_BYTES % block, 0, "{pages} pages");
        // A quarter of the room lies before it, but for the alignment.
        let before = (run.address - low) / PAGE_BYTES;
        assert!((room / 4..room / 4 + block).contains(&before), "{before} before {pages} pages");
        // All that is left lies behind it, free.
        let behind = room - room / 4 - block;
        // SAFETY: the run is handed out.
        assert!(unsafe { heap.extend(run.address, pages, behind) }.is_some(), "{pages} pages");
    }
}

/// Address space that a heap reserves for a run that is to grow.
fn reserved_for<G: Geometry>(pages: usize) -> usize {
    let source = Watched::new(Simulated::new::<G>(Place::Low, 4096));
    let heap: PageHeap<_, G> = PageHeap::new(source);
    heap.alloc_roomy(pages, 1).unwrap();
    heap.stats().reserved
}

#[test]
fn of_few_addresses_a_sixteenth_is_room() {
    const RUN: usize = 10_000;
    let expected = |room: usize, arena| (RUN * PAGE_BYTES + room).next_multiple_of(arena);
    let (any, mips, ios) = (Any32::ARENA_BYTES, Mips32::ARENA_BYTES, IosArm64::ARENA_BYTES);
    assert_eq!(reserved_for::<Any32>(RUN), expected(256 << 20, any));
    assert_eq!(reserved_for::<Mips32>(RUN), expected(128 << 20, mips));
    assert_eq!(reserved_for::<IosArm64>(RUN), expected(1 << 30, ios));
}

#[test]
fn where_no_room_can_be_had_the_first_fit_does() {
    let heap = heap();
    let low = heap.alloc(1, 1).unwrap().address + PAGE_BYTES;
    // More alignment than a quarter of the room.
    let run = heap.alloc_roomy(10, 64).unwrap();
    assert_eq!(run.address, low.next_multiple_of(64 * PAGE_BYTES));
    let run = heap.alloc_roomy(1, 1).unwrap();
    assert_eq!(run.address, low + 3 * PAGE_BYTES, "a quarter of 15");
    assert_eq!(heap.alloc_roomy(0, 1), None);
    assert_eq!(heap.alloc_roomy(1, 3), None);
    assert_eq!(heap.alloc_roomy(1 << 28, 1), None, "more than there may be");

    // The first page that is aligned serves, and none a quarter of the room behind it.
    let heap = self::heap();
    heap.alloc(64, 64).unwrap();
    let low = heap.alloc(64, 64).unwrap();
    free(&heap, low);
    assert_eq!(heap.alloc_roomy(10, 64).unwrap().address, low.address);
}

#[test]
fn room_may_be_four_times_the_alignment() {
    let heap = heap();
    let low = heap.alloc(1, 1).unwrap().address;
    // A quarter of the room lies before the run.
    let run = heap.alloc_roomy(10_000, MOST_ROOM / PAGE_BYTES / 4).unwrap();
    assert_eq!(run.address % (MOST_ROOM / 4), 0);
    assert!(run.address > low + MOST_ROOM / 4);
}

#[test]
fn a_run_may_be_as_long_as_it_is_aligned() {
    let run = heap().alloc(1 << 14, 1 << 14).unwrap();
    assert_eq!(run.address % (PAGE_BYTES << 14), 0);
}

#[test]
fn a_run_at_the_end_grows_into_new_address_space() {
    let arena = Native::ARENA_BYTES / PAGE_BYTES;
    let heap = heap();
    let reserved = || heap.stats().reserved / PAGE_BYTES / arena;
    let run = heap.alloc(5, 1).unwrap();
    let end = run.address + 5 * PAGE_BYTES;
    assert_eq!((reserved(), heap.stats().pages_free), (1, arena - 5));
    // SAFETY: the run is handed out, and so are the pages it grew by.
    let extend = |pages, more| unsafe { heap.extend(run.address, pages, more) };
    // All of what is free, and an arena.
    let more = extend(5, 2 * arena - 5).unwrap();
    assert_eq!((more.address, more.pages), (end, 2 * arena - 5));
    assert_eq!((reserved(), heap.stats().pages_free), (2, 0));
    // More than an arena, with nothing free.
    assert!(extend(2 * arena, arena + 1).is_some());
    assert_eq!((reserved(), heap.stats().pages_free), (4, arena - 1));
    // Never across what somebody else has.
    let wall = heap.alloc(1, 1).unwrap();
    assert_eq!(wall.address, run.address + (3 * arena + 1) * PAGE_BYTES);
    assert_eq!(extend(3 * arena + 1, arena), None);
    let far = heap.alloc(1, 1).unwrap();
    free(&heap, wall);
    assert_eq!(extend(3 * arena + 1, arena), None);
    assert_eq!(reserved(), 4);
    assert!(extend(3 * arena + 1, 1).is_some());
    free(&heap, far);
}

#[test]
fn a_run_does_not_grow_into_address_space_that_lies_elsewhere() {
    let arena = Native::ARENA_BYTES / PAGE_BYTES;
    for kept in [0, 1] {
        let source = Watched::new(Simulated::new::<Native>(Place::BothEnds, 4096));
        let heap: PageHeap<Faulty<Watched<Simulated>>> = PageHeap::new(Faulty::new(source));
        let ranges = || heap.os().inner().ranges().len();
        let run = heap.alloc(arena, 1).unwrap();
        let last = run.address + (Native::ARENA_BYTES - 1);
        let all = usize::MAX >> (usize::BITS - Native::ADDRESS_BITS);
        // Of 32 bits the last arena is not used: its end would be 0.
        assert!(all - last <= Native::ARENA_BYTES, "there is nothing behind it");
        if kept == 1 {
            heap.os().fail_from(Verb::Release, 1);
        }
        // SAFETY: the run is handed out.
        assert_eq!(unsafe { heap.extend(run.address, arena, 1) }, None);
        assert_eq!(ranges(), 1 + kept, "what lies elsewhere is released, if that can be");
        assert_eq!(heap.stats().reserved, Native::ARENA_BYTES);
        assert!(heap.alloc(arena, 1).is_some());
        assert_eq!(ranges(), 2, "what could not be released serves others");
    }
}

#[test]
fn pages_become_metadata_when_there_is_nothing_else() {
    let heap: PageHeap<Faulty<Mmap>> = PageHeap::new(Faulty::new(Mmap::new()));
    let dirty = heap.alloc(1000, 1).unwrap();
    let memory = std::ptr::with_exposed_provenance_mut::<u8>(dirty.address);
    // SAFETY: the run is handed out, and nobody uses it when it is freed.
    unsafe {
        memory.write_bytes(0xff, 1000 * PAGE_BYTES);
        heap.free(dirty.address, 1000).unwrap();
    }
    heap.os().fail_from(Verb::Reserve, 1);
    let layout = Layout::from_size_align(64 << 10, 64).unwrap();
    let piece = || {
        let piece = NonNull::slice_from_raw_parts(heap.metadata(layout).unwrap(), 64 << 10);
        // SAFETY: metadata is ours alone.
        let bytes = unsafe { &mut *piece.as_ptr() };
        assert!(bytes.iter().all(|byte| *byte == 0));
        bytes.fill(1);
        heap.stats().metadata_pages
    };
    while heap.stats().metadata_pages == 0 {
        piece();
    }
    // Of plenty, 512 KB at once, which serve 8 times.
    for _ in 1..8 {
        assert_eq!(piece(), 64);
    }
    assert_eq!(piece(), 128);
    assert_eq!(heap.stats().pages_in_use, 128);
    // Of few, an eighth.
    heap.alloc(heap.stats().pages_free - 80, 1).unwrap();
    while piece() == 128 {}
    assert_eq!(heap.stats().metadata_pages, 128 + 10);
}

/// A heap of exactly what a heap must have.
struct Plain(Heap);

// SAFETY: passed on to a heap that keeps the contract.
unsafe impl Pages for Plain {
    type Wait = Spin;

    fn alloc(&self, pages: usize, align_pages: usize) -> Option<Run> {
        self.0.alloc(pages, align_pages)
    }

    unsafe fn alloc_cached(&self, _: &PageCache, pages: usize) -> Option<Run> {
        self.0.alloc(pages, 1)
    }

    unsafe fn free(&self, address: usize, pages: usize) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.free(address, pages) }
    }

    unsafe fn free_cached(
        &self,
        _: &PageCache,
        address: usize,
        pages: usize,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.free(address, pages) }
    }

    unsafe fn free_window(&self, _: &PageCache, at: usize, _: u64) -> Result<(), PageError> {
        Err(PageError::NotOurs { address: at })
    }

    unsafe fn flush(&self, _: &PageCache) {}

    unsafe fn extend(&self, _: usize, _: usize, _: usize) -> Option<Run> {
        None
    }

    unsafe fn set_span(&self, address: usize, pages: usize, span: *mut ()) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.set_span(address, pages, span) }
    }

    fn span_of(&self, address: usize) -> *mut () {
        self.0.span_of(address)
    }

    fn metadata(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.metadata(layout)
    }

    fn stats(&self) -> PageStats {
        self.0.stats()
    }

    fn die(&self, report: Report) -> ! {
        panic!("{report:?}")
    }
}

#[test]
fn a_heap_without_limits_guards_and_room_says_so() {
    let plain = Plain(heap());
    assert_eq!((plain.calls(), plain.heed(7, || panic!("nobody asked"))), (0, 7));
    assert!(!plain.make_room(1) && plain.take_notice().is_none());
    let run = plain.alloc_roomy(3, 1).unwrap();
    assert_eq!(run.pages, 3);
    assert!(!plain.was_handed_out(run.address), "it does not know");
    // SAFETY: the page is handed out, and unused.
    assert!(!unsafe { plain.guard(run.address) });
    assert!(!plain.fence_threads() && !plain.is_asleep(1));
    assert_ne!(plain.secret(), 0, "0 is none");
    plain.tend();
}

#[test]
fn a_borrowed_heap_is_the_heap() {
    let heap = heap();
    let borrowed = &&heap;
    let run = Pages::alloc(borrowed, 5, 1).unwrap();
    assert_eq!(heap.stats().pages_in_use, 5);
    assert_eq!(Pages::stats(borrowed).pages_in_use, 5);
    let mut span = 0_u8;
    let entry = std::ptr::from_mut(&mut span).cast();
    // SAFETY: the run is handed out.
    unsafe { Pages::set_span(borrowed, run.address, 5, entry) };
    assert_eq!(Pages::span_of(borrowed, run.address + PAGE_BYTES), entry);
    assert_eq!(Pages::span_of(borrowed, run.address + 5 * PAGE_BYTES), std::ptr::null_mut());
    let in_use = heap.stats().metadata_in_use;
    assert!(Pages::metadata(borrowed, Layout::new::<u64>()).is_some());
    assert_eq!(heap.stats().metadata_in_use, in_use + 8);
    let roomy = Pages::alloc_roomy(borrowed, 10, 1).unwrap();
    assert!(roomy.address > run.address + 20 * PAGE_BYTES);
}

#[test]
fn limits_are_heeded_through_a_borrow() {
    let heap = heap();
    let borrowed = &&heap;
    heap.alloc(1024, 1).unwrap();
    heap.set_listener(Some(Listener::of(|pressure: Pressure| assert!(pressure.limit > 0))));
    assert_eq!((heap.calls(), Pages::calls(borrowed)), (0, 0));
    heap.set_soft_limit(PAGE_BYTES);
    assert_eq!((heap.calls(), Pages::calls(borrowed)), (1, 1), "it is above the limit at once");
    // What is in use cannot be given back, so threads are asked, which is another call.
    let mut asked = 0;
    let heard = Pages::heed(borrowed, 0, || {
        asked += 1;
        false
    });
    assert_eq!((heard, asked), (2, 1));
    assert_eq!((heap.calls(), Pages::calls(borrowed)), (2, 2));
    let notice = Pages::take_notice(borrowed);
    assert!(notice.is_some() && heap.take_notice().is_none());
    notice.unwrap().deliver();
    // Whether there was anything to be had for a hard limit.
    let run = heap.alloc(1024, 1).unwrap();
    heap.set_hard_limit(heap.committed());
    assert!(!Pages::make_room(borrowed, PAGE_BYTES));
    free(&heap, run);
    assert!(Pages::make_room(borrowed, PAGE_BYTES));
}

#[test]
fn a_borrowed_heap_is_tended() {
    let heap = heap();
    let set = |time: u64| heap.os().time.store(time, Ordering::Relaxed);
    set(1);
    let large = heap.alloc(64 * 256, 256).unwrap();
    free(&heap, large);
    for time in 1..500 {
        set(time * 100);
        let run = heap.alloc(256, 1).unwrap();
        free(&heap, run);
        Pages::tend(&&heap);
    }
    assert!(heap.stats().returned_in_all > 0);
}

#[repr(C)]
struct Thing(AtomicPtr<Thing>);

// SAFETY: zeroes are a thing; nothing else uses the link.
unsafe impl Pooled for Thing {
    unsafe fn next<'a>(object: NonNull<Self>) -> &'a AtomicPtr<Self> {
        // SAFETY: the caller passes a thing, which is never unmapped.
        unsafe { &object.as_ref().0 }
    }
}

#[test]
fn a_pool_takes_its_lock_once_for_many() {
    let heap = heap();
    let pool: Pool<Thing, Spin> = Pool::new(0);
    assert_eq!((pool.object_bytes(), pool.acquisitions()), (128, 0));
    let in_use = heap.stats().metadata_in_use;
    let mut got = Vec::new();
    pool.get_many(&heap, 5, |thing| got.push(thing));
    assert_eq!((got.len(), pool.acquisitions()), (1, 1), "new ones are made as they are needed");
    got.extend((0..4).map(|_| pool.get(&heap).unwrap()));
    assert_eq!(pool.acquisitions(), 5);
    assert_eq!(heap.stats().metadata_in_use, in_use + 17 * 128, "a block of 16");
    // SAFETY: the things came from the pool, and nobody uses them.
    unsafe { pool.put_many(got.drain(..)) };
    assert_eq!((pool.acquisitions(), pool.free_objects()), (6, 5));
    pool.get_many(&heap, 3, |thing| got.push(thing));
    assert_eq!((got.len(), pool.free_objects()), (3, 2));
}

#[test]
fn a_pool_whose_objects_are_absurdly_large_has_none() {
    let heap = heap();
    for bytes in [usize::MAX, usize::MAX / 16, isize::MAX as usize / 16] {
        let pool: Pool<Thing, Spin> = Pool::new(bytes);
        assert_eq!((pool.get(&heap), pool.free_objects()), (None, 0));
    }
}
