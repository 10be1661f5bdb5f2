//! What a page heap does at its limits.
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

use std::ffi::c_void;
use std::sync::Mutex;

use common::{Place, Simulated, Watched};
use spanalloc_os::{Faulty, Geometry, Limited, Native, Verb};
use spanalloc_pages::{Listener, PAGE_BYTES, PageHeap, Pages};

type Heap = PageHeap<Watched<Simulated>>;

const MB: usize = 1 << 20;

fn heap() -> Heap {
    PageHeap::new(Watched::new(Simulated::new::<Native>(Place::Low, 4096)))
}

fn alloc(heap: &Heap, bytes: usize) -> Option<usize> {
    heap.alloc(bytes / PAGE_BYTES, 1).map(|run| run.address)
}

fn free(heap: &Heap, address: usize, bytes: usize) {
    // SAFETY: the run was handed out, and has no spans.
    unsafe { heap.free(address, bytes / PAGE_BYTES) }.unwrap();
}

/// What a listener was told: committed bytes and limit.
type Told = Mutex<Vec<(usize, usize)>>;

unsafe extern "C" fn listen(told: *mut c_void, committed: usize, limit: usize) {
    // SAFETY: the context that each test gives.
    unsafe { &*told.cast::<Told>() }.lock().unwrap().push((committed, limit));
}

fn listener(told: &Told) -> Listener {
    // SAFETY: the place outlives the heap's use, and may be shared.
    unsafe { Listener::new(listen, std::ptr::from_ref(told).cast_mut().cast()) }
}

/// Heeds as a thread that heard call `heard`, keeps nothing, and delivers. Whether it was asked for what
/// it keeps.
fn heed(heap: &Heap, heard: usize) -> bool {
    let mut asked = false;
    heap.heed(heard, || {
        asked = true;
        false
    });
    if let Some(notice) = heap.take_notice() {
        notice.deliver();
    }
    asked
}

#[test]
fn what_would_exceed_the_hard_limit_is_refused() {
    let heap = heap();
    heap.set_hard_limit(20 * MB);
    assert_eq!(heap.hard_limit(), 20 * MB);
    let large = alloc(&heap, 12 * MB).unwrap();
    let behind = alloc(&heap, PAGE_BYTES).unwrap();
    assert_eq!(alloc(&heap, 12 * MB), None);
    assert!(heap.committed() <= 20 * MB);
    while heap.make_room(12 * MB) {}
    assert_eq!(heap.calls(), 1, "threads are asked for what they keep");
    assert!(!heap.make_room(12 * MB));
    assert_eq!(heap.calls(), 1, "once");
    assert_eq!(alloc(&heap, 12 * MB), None, "nearly all of it is in use");
    free(&heap, large, 12 * MB);
    // The longer run comes to lie behind the small one, where no memory is.
    assert_eq!(alloc(&heap, 16 * MB), None);
    while heap.make_room(16 * MB) {}
    assert!(alloc(&heap, 16 * MB).is_some(), "{:?}", heap.stats());
    assert!(heap.committed() <= 20 * MB);
    assert!(!heap.make_room(40 * MB), "more than there may ever be");
    heap.set_hard_limit(usize::MAX);
    assert!(!heap.make_room(40 * MB), "nothing is in the way");
    assert!(alloc(&heap, 40 * MB).is_some());
    free(&heap, behind, PAGE_BYTES);
}

#[test]
fn memory_that_was_never_written_to_is_given_back_for_room_too() {
    let heap = heap();
    heap.set_hard_limit(18 * MB);
    // Each makes 2 MB Ready, of which it has one page.
    for _ in 0..8 {
        heap.alloc(1, 256).unwrap();
    }
    assert_eq!(heap.release_free(usize::MAX), 0);
    assert!(heap.committed() > 15 * MB);
    assert!(heap.make_room(MB), "2 MB become Ready at once");
    assert_eq!(alloc(&heap, 12 * MB), None);
    assert!(heap.make_room(12 * MB));
    assert!(heap.make_room(18 * MB), "as much as there may be");
    assert!(alloc(&heap, 12 * MB).is_some(), "{:?}", heap.stats());
}

#[test]
fn a_limit_below_what_there_is_takes_nothing_away() {
    let heap = heap();
    let run = alloc(&heap, 4 * MB).unwrap();
    heap.set_hard_limit(MB);
    assert_eq!(alloc(&heap, 4 * MB), None);
    assert!(heap.os().is_ready(run, 4 * MB / PAGE_BYTES));
    free(&heap, run, 4 * MB);
    assert_eq!(alloc(&heap, 4 * MB), Some(run), "that takes no more");
}

#[test]
fn memory_goes_back_before_threads_are_asked_and_those_before_the_listener() {
    let (heap, told) = (heap(), Told::default());
    heap.set_listener(Some(listener(&told)));
    heap.set_soft_limit(32 * MB);
    let [a, b] = [(); 2].map(|()| alloc(&heap, 14 * MB).unwrap());
    assert_eq!((heap.calls(), heap.soft_limit()), (0, 32 * MB));
    free(&heap, a, 14 * MB);
    let c = alloc(&heap, 16 * MB).unwrap();
    assert_eq!(heap.calls(), 1, "past the limit");
    assert!(heap.committed() > 32 * MB);
    assert!(!heed(&heap, 0), "free memory was enough");
    assert!(heap.committed() <= 32 * MB && told.lock().unwrap().is_empty());

    // Something free is left, and something that a thread keeps.
    let (d, kept) = (alloc(&heap, 6 * MB).unwrap(), alloc(&heap, MB).unwrap());
    assert_eq!(heap.calls(), 2);
    let mut before = 0;
    heap.heed(1, || {
        before = heap.committed();
        let ready = heap.stats().committed - heap.stats().pages_in_use * PAGE_BYTES;
        assert!(heap.stats().pages_free > 0 && ready == 0, "free memory goes first");
        assert!(told.lock().unwrap().is_empty());
        free(&heap, kept, MB);
        false
    });
    assert!(before > heap.committed() && heap.committed() > 32 * MB);
    let notice = heap.take_notice().unwrap();
    assert!(told.lock().unwrap().is_empty() && heap.take_notice().is_none());
    notice.deliver();
    assert_eq!(*told.lock().unwrap(), [(heap.committed(), 32 * MB)]);
    for (run, bytes) in [(b, 14), (c, 16), (d, 6)] {
        free(&heap, run, bytes * MB);
    }
}

#[test]
fn memory_is_brought_a_sixteenth_below_the_limit() {
    let heap = heap();
    heap.set_soft_limit(32 * MB);
    let (kept, freed) = (alloc(&heap, 20 * MB).unwrap(), alloc(&heap, 16 * MB).unwrap());
    free(&heap, freed, 16 * MB);
    heap.set_soft_limit(heap.committed());
    assert_eq!(heap.calls(), 1, "that is within the limit");
    heap.set_soft_limit(32 * MB);
    assert!(!heed(&heap, 0));
    // What goes back last is 2 MB.
    assert!((28 * MB..=30 * MB).contains(&heap.committed()), "{}", heap.committed());
    free(&heap, kept, 20 * MB);
}

#[test]
fn above_a_large_limit_threads_are_called_at_each_sixteenth_of_it() {
    let heap = heap();
    heap.set_soft_limit(320 * MB);
    alloc(&heap, 320 * MB).unwrap();
    heed(&heap, 0);
    let (mut heard, mut heeded) = (heap.calls(), 0);
    for _ in 0..60 {
        alloc(&heap, MB).unwrap();
        if heap.calls() != heard {
            heed(&heap, heard);
            heard = heap.calls();
            heeded += 1;
        }
    }
    assert!((2..=4).contains(&heeded), "{heeded} times in 60 MB");
}

#[test]
fn the_listener_is_told_once_for_each_time_the_limit_is_passed() {
    let (heap, told) = (heap(), Told::default());
    heap.set_listener(Some(listener(&told)));
    heap.set_soft_limit(16 * MB);
    let count = || told.lock().unwrap().len();
    for crossing in 1..=3 {
        let mut runs = Vec::new();
        let (mut heard, mut heeded) = (heap.calls(), 0);
        for _ in 0..40 {
            runs.push(alloc(&heap, MB).unwrap());
            if heap.calls() != heard {
                heed(&heap, heard);
                heard = heap.calls();
                heeded += 1;
            }
        }
        assert_eq!(count(), crossing);
        // The first time, and after each 2 MB more.
        assert!((5..20).contains(&heeded), "{heeded} times in 24 MB above the limit");
        // It is still above the limit when a little went back.
        free(&heap, runs.pop().unwrap(), MB);
        assert!(heap.release_free(1) > 0);
        runs.push(alloc(&heap, MB).unwrap());
        heed(&heap, heap.calls());
        assert_eq!(count(), crossing);
        for run in runs {
            free(&heap, run, MB);
        }
        assert!(heap.committed() > 16 * MB);
        heap.release_free(usize::MAX);
        assert!(heap.committed() <= 16 * MB);
    }
    heap.set_listener(None);
    let run = alloc(&heap, 40 * MB).unwrap();
    heed(&heap, 0);
    assert_eq!(count(), 3);
    free(&heap, run, 40 * MB);
}

#[test]
fn other_threads_are_asked_once_and_what_they_give_back_goes_on() {
    let heap = heap();
    heap.set_soft_limit(16 * MB);
    let (mine, kept) = (alloc(&heap, 15 * MB).unwrap(), alloc(&heap, 4 * MB).unwrap());
    assert!(heed(&heap, 0));
    assert!(heap.committed() > 16 * MB);
    let heard = heap.heed(0, || {
        heap.heed(heap.calls(), || panic!("one thread at a time brings the memory down"));
        free(&heap, kept, 4 * MB);
        true
    });
    assert!(heap.committed() <= 16 * MB);
    assert_eq!(heard, heap.calls());
    assert!(!heed(&heap, heard), "it has heard that");
    assert!(heed(&heap, 0), "and others have not");
    let (calls, heard) = (heap.calls(), heap.heed(heard, || false));
    assert!(calls > 1 && heard == calls, "there is nothing new");
    free(&heap, mine, 15 * MB);
    let committed = heap.committed();
    heap.set_soft_limit(committed);
    assert!(heed(&heap, 0));
    assert_eq!(heap.committed(), committed, "that is within the limit");
}

#[test]
fn other_threads_get_time_to_come_by_before_the_listener_is_told() {
    let (heap, told) = (heap(), Told::default());
    heap.set_listener(Some(listener(&told)));
    heap.set_soft_limit(16 * MB);
    let heed = || {
        heap.heed(heap.calls(), || true);
        heap.take_notice().map(spanalloc_pages::Notice::deliver).is_some()
    };
    for round in 1..=2 {
        let first = alloc(&heap, 17 * MB).unwrap();
        assert!(!heed(), "they were asked just now");
        let calls = heap.calls();
        let second = alloc(&heap, 3 * MB).unwrap();
        assert_eq!(heap.calls(), calls + 1, "as much more as it takes to look again");
        assert!(heed() && !heed());
        assert_eq!(told.lock().unwrap().len(), round);
        free(&heap, first, 17 * MB);
        free(&heap, second, 3 * MB);
        heap.release_free(usize::MAX);
    }
}

#[test]
fn lowering_the_limit_calls_and_lifting_it_ends_that() {
    let heap = heap();
    let run = alloc(&heap, 8 * MB).unwrap();
    free(&heap, run, 8 * MB);
    assert_eq!(heap.calls(), 0);
    heap.set_soft_limit(4 * MB);
    assert_eq!(heap.calls(), 1);
    assert!(!heed(&heap, 0));
    assert!(heap.committed() <= 4 * MB);
    heap.set_soft_limit(usize::MAX);
    let run = alloc(&heap, 8 * MB).unwrap();
    assert_eq!(heap.calls(), 1);
    assert!(!heed(&heap, 0));
    free(&heap, run, 8 * MB);
}

/// What is refused first of the first arena: metadata, memory of the arena map, or that of the page.
#[test]
fn a_heap_without_memory_for_its_tables_tries_one_range() {
    for nth in 1..=3 {
        let source = Watched::new(Simulated::new::<Native>(Place::Low, 4096));
        let heap = PageHeap::<_>::new(Faulty::new(source));
        heap.os().fail_from(Verb::Commit, nth);
        assert_eq!(heap.alloc(1, 1), None);
        let asked = heap.os().calls(Verb::Reserve);
        for times in 1..=10 {
            assert_eq!(heap.alloc(1, 1), None);
            // One for metadata, until it has a range, and one for the arena.
            assert!(heap.os().calls(Verb::Reserve) <= asked + 2 * times, "{nth}");
        }
        heap.os().heal();
        assert!(heap.alloc(1, 1).is_some());
    }
}

#[test]
fn a_span_map_for_which_the_arena_map_has_no_memory_is_kept() {
    let heap = PageHeap::<_>::new(Faulty::new(Simulated::new::<Native>(Place::Low, 4096)));
    // The first call is for the span map.
    heap.os().fail_nth(Verb::Commit, 2);
    assert_eq!(heap.alloc(1, 1), None);
    let tables = heap.stats().metadata_in_use;
    for _ in 0..10 {
        heap.os().fail_nth(Verb::Commit, 1);
        assert_eq!(heap.alloc(1, 1), None);
        assert_eq!(heap.stats().metadata_in_use, tables);
    }
    assert!(heap.alloc(1, 1).is_some());
}

#[test]
fn an_arena_that_leaves_no_address_space_for_its_tables_is_halved() {
    for (budget, parts) in [(1, 2), (2, 1)] {
        let arena = Native::ARENA_BYTES;
        let source = Simulated::new::<Native>(Place::Low, 4096);
        let heap = PageHeap::<_>::new(Limited::new(source, budget * arena));
        assert!(heap.alloc(1, 1).is_some());
        assert_eq!(heap.stats().reserved, arena / parts);
    }
    // The source itself refuses the metadata of the first arena, however little: some of so many calls are that.
    let halved = (1..12).filter(|refusals| {
        let heap = PageHeap::<_>::new(Faulty::new(Simulated::new::<Native>(Place::Low, 4096)));
        heap.os().fail_calls(Verb::Reserve, 2, *refusals);
        heap.alloc(1, 1).is_some() && heap.stats().reserved == Native::ARENA_BYTES / 2
    });
    assert_eq!(halved.count(), 1);
}
