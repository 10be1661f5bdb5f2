//! The allocators of the project under [`soak`](spanalloc_testkit::soak): threads that allocate, free and
//! hand objects to each other, with every byte of every object checked:
//!
//! ```text
//! cargo run --release -p spanalloc-testkit --example soak -- checked 3600 8
//! ```
//!
//! The allocator is `fast`, `checked` or `hardened`, which are those of a program, or one of these with
//! `-layers`: thread caches over central lists over a page heap, as values. `all` is one after the other,
//! each for its part of the time. Then come the seconds, the threads, and the seconds between two lines.

use std::alloc::{GlobalAlloc, Layout};
use std::env;
use std::marker::PhantomData;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use spanalloc::stats::Snapshot;
use spanalloc::{Checked, Hardened, Spanalloc, background, checked, hardened, stats};
use spanalloc_cache::{self as cache, Policy, ThreadCache};
use spanalloc_central::{Central as _, CentralLists};
use spanalloc_classes::Fine72;
use spanalloc_os::Mmap;
use spanalloc_pages::{Clock, PageHeap};
use spanalloc_testkit::soak::{Heap, Soak};
use spanalloc_testkit::{Returning, layers};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number =
        |index: usize, default| arguments.get(index).map_or(Some(default), |it| it.parse().ok());
    let (Some(seconds), Some(threads), Some(every)) = (number(1, 2), number(2, 4), number(3, 60))
    else {
        return usage();
    };
    let name = arguments.first().map_or("all", String::as_str);
    let names = ["fast", "checked", "hardened", "fast-layers", "checked-layers", "hardened-layers"];
    let names = if name == "all" { &names[..] } else { &[name] };
    let time = Duration::from_secs(seconds) / names.len() as u32;
    let soak = Soak {
        time,
        threads: threads.clamp(1, 1000) as usize,
        every: Duration::from_secs(every.max(1)),
    };
    for name in names {
        let result = match *name {
            "fast" => soak.run(name, &FAST),
            "checked" => soak.run(name, &CHECKED),
            "hardened" => soak.run(name, &HARDENED),
            "fast-layers" => on_layers::<cache::Fast>(&soak, name),
            "checked-layers" => on_layers::<cache::Checked>(&soak, name),
            "hardened-layers" => on_layers::<cache::Hardened>(&soak, name),
            _ => return usage(),
        };
        if let Err(wrong) = result {
            eprintln!("FAILED: {name}: {wrong}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: soak ALLOCATOR [SECONDS [THREADS [SECONDS_A_LINE]]]");
    eprintln!("allocators: all, fast, checked, hardened, or one of the three with -layers");
    ExitCode::FAILURE
}

/// One of the allocators of a program.
struct OfProgram<A> {
    allocator: A,
    release: fn() -> usize,
    snapshot: fn() -> Snapshot,
}

static FAST: OfProgram<Spanalloc> =
    OfProgram { allocator: Spanalloc, release: spanalloc::release, snapshot: stats::snapshot };
static CHECKED: OfProgram<Checked> =
    OfProgram { allocator: Checked, release: checked::release, snapshot: checked::snapshot };
static HARDENED: OfProgram<Hardened> =
    OfProgram { allocator: Hardened, release: hardened::release, snapshot: hardened::snapshot };

// SAFETY: global allocators keep this contract.
unsafe impl<A: GlobalAlloc + Sync> Heap for OfProgram<A> {
    type Cache<'a>
        = ()
    where
        A: 'a;

    fn cache(&self) {
        // From here on what is due goes back without being asked.
        background::start();
    }

    fn alloc(&self, (): &mut (), layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { self.allocator.alloc(layout) })
    }

    fn alloc_zeroed(&self, (): &mut (), layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { self.allocator.alloc_zeroed(layout) })
    }

    unsafe fn free(&self, (): &mut (), object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.allocator.dealloc(object.as_ptr(), layout) };
    }

    unsafe fn realloc(
        &self,
        (): &mut (),
        object: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        NonNull::new(unsafe { self.allocator.realloc(object.as_ptr(), layout, size) })
    }

    fn give_back(&self, (): &mut (), all: bool) {
        if all {
            (self.release)();
        }
    }

    fn live(&self, (): &mut ()) -> (usize, usize) {
        let snapshot = (self.snapshot)();
        (snapshot.live_objects(), snapshot.live_bytes())
    }

    fn audit(&self, (): &mut ()) -> Result<(), String> {
        adds_up(&(self.snapshot)())
    }
}

fn adds_up(snapshot: &Snapshot) -> Result<(), String> {
    if snapshot.adds_up() { Ok(()) } else { Err(format!("{snapshot:?}")) }
}

type Lists<'a> = CentralLists<Fine72, &'a PageHeap<Returning<Mmap>>>;

/// The layers, put together as values.
struct Layers<'a, P> {
    central: Lists<'a>,
    clock: Running,
    policy: PhantomData<fn() -> P>,
}

struct Running(Instant);

impl Clock for Running {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

// SAFETY: a cache hands out memory that may be used until it is freed through any cache over the same lists.
unsafe impl<'l, P: Policy> Heap for Layers<'l, P> {
    type Cache<'a>
        = ThreadCache<&'a Lists<'l>, P>
    where
        Self: 'a;

    fn cache(&self) -> Self::Cache<'_> {
        ThreadCache::with_policy(&self.central)
    }

    fn alloc(&self, cache: &mut Self::Cache<'_>, layout: Layout) -> Option<NonNull<u8>> {
        cache.alloc(layout)
    }

    fn alloc_zeroed(&self, cache: &mut Self::Cache<'_>, layout: Layout) -> Option<NonNull<u8>> {
        cache.alloc_zeroed(layout)
    }

    unsafe fn free(&self, cache: &mut Self::Cache<'_>, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { cache.free(object, layout) };
    }

    unsafe fn realloc(
        &self,
        cache: &mut Self::Cache<'_>,
        object: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        unsafe { cache.realloc(object, layout, size) }
    }

    fn give_back(&self, cache: &mut Self::Cache<'_>, all: bool) {
        let heap = self.central.heap();
        if all {
            if let Some(cache) = cache.cache() {
                cache.reclaim();
            }
            heap.release_free(usize::MAX);
        } else {
            heap.scavenge(&self.clock, 4);
        }
    }

    fn live(&self, cache: &mut Self::Cache<'_>) -> (usize, usize) {
        cache.snapshot().map_or((0, 0), |it| (it.live_objects(), it.live_bytes()))
    }

    fn audit(&self, cache: &mut Self::Cache<'_>) -> Result<(), String> {
        adds_up(&cache.snapshot().ok_or("no memory for a cache")?)
    }
}

fn on_layers<P: Policy>(soak: &Soak, name: &str) -> Result<(), String> {
    // SAFETY: everything above the source is gone before it is.
    let heap = PageHeap::new(unsafe { Returning::new(Mmap::new()) });
    soak.run(
        name,
        &Layers::<P> {
            central: CentralLists::new(&heap),
            clock: Running(Instant::now()),
            policy: PhantomData,
        },
    )?;
    layers::nothing_left(&heap)
}
