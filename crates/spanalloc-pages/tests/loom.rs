//! The page heap in every interleaving of its threads, whole: its lock, chunks, tree and span map.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc-pages --test loom`
//!
//! The source makes the addresses of arenas up. A cell for each page stands for its memory: whoever
//! was handed the page writes it, so loom reports a page that two threads have, and one that comes to
//! the next thread before the last one is done with it.
#![cfg(loom)]
#![allow(
    clippy::arc_with_non_send_sync,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking and are not an interface"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use loom::thread;
use spanalloc_os::{Any32, Geometry, OsError, OsSource, Purpose, Report, Request};
use spanalloc_pages::{PAGE_BYTES, PageHeap, Pages};
use spanalloc_sync::cell::UnsafeCell;
use spanalloc_testkit::models::{Fault, Futex, check, check_bounded, explored, with_fault};

/// Made-up arenas, one behind the other; metadata is real and lives as long as the interleaving.
#[derive(Debug)]
struct Numbers;

std::thread_local! {
    // All threads of a model run on the thread of its test.
    static METADATA: RefCell<Vec<(*mut u8, Layout)>> = const { RefCell::new(Vec::new()) };
    static NEXT: RefCell<usize> = const { RefCell::new(0) };
}

impl Numbers {
    fn reset() {
        for (memory, layout) in METADATA.take() {
            // SAFETY: allocated in `reserve` with this layout; the heap above is gone.
            unsafe { dealloc(memory, layout) };
        }
        NEXT.set(Any32::ARENA_BYTES);
    }
}

// SAFETY: addresses are handed out once, and nobody touches what is at those of arenas; metadata is
// zeroed.
unsafe impl OsSource for Numbers {
    type Wait = Futex;

    fn page_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn reserve(&self, request: Request) -> Result<NonNull<u8>, OsError> {
        let refused = OsError::OutOfMemory { bytes: request.bytes };
        if request.purpose == Purpose::Metadata {
            let align = request.align.max(PAGE_BYTES);
            let layout = Layout::from_size_align(request.bytes + align, 16).unwrap();
            // SAFETY: the size is not zero.
            let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(refused)?;
            METADATA.with_borrow_mut(|all| all.push((memory.as_ptr(), layout)));
            // SAFETY: less than `align` bytes, so that `request.bytes` are left behind it.
            return Ok(unsafe { memory.add(memory.as_ptr().align_offset(align)) });
        }
        let address = NEXT.with_borrow(|next| next.next_multiple_of(request.align));
        NEXT.set(address + request.bytes);
        NonNull::new(ptr::without_provenance_mut(address)).ok_or(refused)
    }

    unsafe fn commit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    unsafe fn decommit(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    unsafe fn release(&self, _at: NonNull<u8>, _bytes: usize) -> Result<(), OsError> {
        Ok(())
    }

    fn die(&self, report: Report) -> ! {
        panic!("{report:?}")
    }
}

type Heap = PageHeap<Numbers, Any32>;

/// A heap that was never used, as an image of new ones: they are larger than a model's stack.
static IMAGE: Heap = PageHeap::new(Numbers);

/// Pages whose memory the models watch, from the heap's first.
const WATCHED: usize = 8;

struct World {
    heap: Box<Heap>,
    first: usize,
    memory: [UnsafeCell<u32>; WATCHED],
}

// SAFETY: the cells are what the model checks; loom reports every racing access to one.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// A heap that has an arena, all of it free.
    fn new() -> Arc<Self> {
        Futex::reset();
        Numbers::reset();
        let mut heap = Box::<Heap>::new_uninit();
        // SAFETY: a heap holds no pointer to itself, needs no drop, and the image is never used.
        let heap = unsafe {
            ptr::copy_nonoverlapping(&raw const IMAGE, heap.as_mut_ptr(), 1);
            heap.assume_init()
        };
        let first = heap.alloc(1, 1).unwrap().address;
        // SAFETY: the page was just handed out.
        unsafe { heap.free(first, 1) }.unwrap();
        Arc::new(Self { heap, first, memory: [const { UnsafeCell::new(0) }; WATCHED] })
    }

    /// Takes a run and uses its memory.
    fn take(&self, pages: usize) -> usize {
        let address = self.heap.alloc(pages, 1).unwrap().address;
        let from = (address - self.first) / PAGE_BYTES;
        for page in &self.memory[from..from + pages] {
            // SAFETY: loom reports every other access that is not ordered with this one.
            page.with_mut(|page| unsafe { *page += 1 });
        }
        address
    }

    fn give(&self, address: usize, pages: usize) {
        // SAFETY: the run was taken, and nobody uses it.
        unsafe { self.heap.free(address, pages) }.unwrap();
    }

    /// Whether all is free again, and one run.
    fn check_whole(&self) {
        let stats = self.heap.stats();
        assert_eq!((stats.pages_in_use, stats.pages_free), (0, stats.reserved / PAGE_BYTES));
        assert_eq!(self.take(WATCHED), self.first, "free neighbours are not one run");
    }
}

/// Two threads free neighbours, and one takes a run of two: where the two free pages became one run,
/// or behind what is taken.
fn alloc_against_free() {
    let world = World::new();
    let pages = [(); 3].map(|()| world.take(1));
    assert_eq!(pages[2], world.first + 2 * PAGE_BYTES);
    let other = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.give(pages[0], 1))
    };
    world.give(pages[1], 1);
    let run = world.take(2);
    assert!(run == world.first || run == world.first + 3 * PAGE_BYTES);
    other.join().unwrap();
    world.give(run, 2);
    world.give(pages[2], 1);
    world.check_whole();
}

// Exhaustive: 861 interleavings.
#[test]
fn free_neighbours_become_one_run() {
    explored("neighbours", check(alloc_against_free), 800);
}

/// The same, and both take a run.
fn allocs_against_frees() {
    let world = World::new();
    let pages = [(); 3].map(|()| world.take(1));
    let other = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.give(pages[0], 1);
            let run = world.take(2);
            world.give(run, 2);
        })
    };
    world.give(pages[1], 1);
    let run = world.take(2);
    other.join().unwrap();
    world.give(run, 2);
    world.give(pages[2], 1);
    world.check_whole();
}

// Bounded at 4 preemptions: 431 interleavings.
#[test]
fn two_threads_take_runs_of_what_they_freed() {
    explored("neighbours, two runs", check_bounded(4, allocs_against_frees), 400);
}

/// Three threads take and free pages.
fn three_take_and_free() {
    let world = World::new();
    let others = [1, 2].map(|pages| {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            let run = world.take(pages);
            world.give(run, pages);
        })
    });
    let run = world.take(1);
    world.give(run, 1);
    for other in others {
        other.join().unwrap();
    }
    world.check_whole();
}

// Bounded at 3 preemptions: 4,061 interleavings.
#[test]
fn three_threads_have_different_pages() {
    explored("three of the heap", check_bounded(3, three_take_and_free), 3500);
}

/// Two threads need a whole arena, and there is one.
fn two_need_an_arena() {
    let world = World::new();
    let arena = Any32::ARENA_BYTES / PAGE_BYTES;
    let others = [(); 2].map(|()| {
        let world = Arc::clone(&world);
        thread::spawn(move || world.heap.alloc(arena, 1).unwrap().address)
    });
    let taken = others.map(|other| other.join().unwrap());
    assert!(taken[0].abs_diff(taken[1]) >= Any32::ARENA_BYTES, "one run was handed out twice");
    assert_eq!(world.heap.stats().pages_in_use, 2 * arena);
}

// Exhaustive: 93 interleavings.
#[test]
fn two_threads_that_need_an_arena() {
    explored("arena", check(two_need_an_arena), 80);
}

/// A span is entered for two pages while another thread looks one up.
fn entry_against_lookup() {
    let world = World::new();
    let run = world.take(2);
    let descriptor = Arc::new(UnsafeCell::new(0));
    let writer = {
        let (world, descriptor) = (Arc::clone(&world), Arc::clone(&descriptor));
        thread::spawn(move || {
            // SAFETY: nobody has found it yet; loom reports it if somebody has.
            descriptor.with_mut(|field| unsafe { *field = 42 });
            let span = Arc::as_ptr(&descriptor).cast_mut().cast();
            // SAFETY: the run was handed out; the descriptor lives as long as the model.
            unsafe { world.heap.set_span(run, 2, span) };
        })
    };
    for page in 0..2 {
        let found = world.heap.span_of(run + page * PAGE_BYTES);
        if !found.is_null() {
            // SAFETY: only the descriptor is entered.
            let found = unsafe { &*found.cast::<UnsafeCell<i32>>() };
            // SAFETY: the writer is done with what it has entered.
            assert_eq!(found.with(|field| unsafe { *field }), 42);
        }
    }
    assert!(world.heap.span_of(run + 2 * PAGE_BYTES).is_null());
    writer.join().unwrap();
    assert!(!world.heap.span_of(run + PAGE_BYTES).is_null());
}

// Exhaustive: 30 interleavings.
#[test]
fn a_span_is_found_whole() {
    explored("span map", check(entry_against_lookup), 25);
}

/// The figures are of one moment, whatever happens meanwhile.
fn figures_against_alloc() {
    let world = World::new();
    let other = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            let run = world.take(3);
            world.give(run, 3);
        })
    };
    let stats = world.heap.stats();
    assert!(matches!(stats.pages_in_use, 0 | 3));
    assert_eq!(stats.pages_in_use + stats.pages_free, stats.reserved / PAGE_BYTES);
    other.join().unwrap();
    world.check_whole();
}

// Exhaustive: 400 interleavings.
#[test]
fn figures_are_of_one_moment() {
    explored("figures", check(figures_against_alloc), 350);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_entry_in_the_span_map_is_noticed() {
    with_fault(Fault::SpanMapRelaxed, entry_against_lookup);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_release_of_the_heap_is_noticed() {
    with_fault(Fault::LockReleaseRelaxed, alloc_against_free);
}
