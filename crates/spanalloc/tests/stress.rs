//! Real threads that pass objects to each other, every byte checked, every object accounted for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Barrier, Mutex};

use common::{alone, settled};
use spanalloc::Spanalloc;
use spanalloc_cache::ThreadCache;
use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::Mmap;
use spanalloc_pages::{PageHeap, Pages};
use spanalloc_testkit::{Returning, pattern};

#[global_allocator]
static ALLOCATOR: Spanalloc = Spanalloc;

/// How much more an optimised build does.
const SCALE: usize = if cfg!(debug_assertions) { 1 } else { 20 };
const THREADS: usize = 6;

/// What a thread allocates from.
trait Allocator {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// # Safety
    /// The object is live with this layout, and came from an allocator over the same heap.
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout);
}

type Heap = PageHeap<Returning<Mmap>>;
type Lists<'a> = CentralLists<Go67, &'a Heap>;

impl Allocator for ThreadCache<&Lists<'_>> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        ThreadCache::alloc(self, layout)
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { ThreadCache::free(self, object, layout) };
    }
}

impl Allocator for Spanalloc {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: this allocator serves every layout.
        NonNull::new(unsafe { GlobalAlloc::alloc(self, layout) })
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.dealloc(object.as_ptr(), layout) };
    }
}

/// Something that makes an allocator for each thread.
trait Source: Sync {
    type Allocator: Allocator;

    fn allocator(&self) -> Self::Allocator;
}

impl<'a> Source for &'a Lists<'a> {
    type Allocator = ThreadCache<&'a Lists<'a>>;

    fn allocator(&self) -> Self::Allocator {
        ThreadCache::new(self)
    }
}

struct Global;

impl Source for Global {
    type Allocator = Spanalloc;

    fn allocator(&self) -> Spanalloc {
        Spanalloc
    }
}

/// A live object full of a pattern of its own, on its way between threads.
struct Parcel {
    address: NonNull<u8>,
    layout: Layout,
    id: u64,
}

// SAFETY: a parcel owns its object.
unsafe impl Send for Parcel {}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Parcel {
    fn pack(allocator: &mut impl Allocator, random: &mut Random) -> Self {
        let size = random.size();
        let align = 1 << random.below(5);
        let layout = Layout::from_size_align(size, align).unwrap();
        let address = allocator.alloc(layout).expect("memory");
        assert_eq!(address.addr().get() % align, 0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the object was just allocated with this size.
        unsafe { pattern::fill(address.as_ptr(), 0, size, id) };
        Self { address, layout, id }
    }

    fn unpack(self, allocator: &mut impl Allocator) {
        let size = self.layout.size();
        // SAFETY: the object is live with this layout, full, and only ours.
        unsafe {
            if let Err(wrong) = pattern::check(self.address.as_ptr(), size, self.id) {
                panic!("object {} of {size} bytes at {:?}: {wrong:?}", self.id, self.address);
            }
            allocator.free(self.address, self.layout);
        }
    }
}

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 20) as usize % end
    }

    /// Mostly small, one in 64 up to 4 KB, one in 500 up to 100 KB.
    fn size(&mut self) -> usize {
        match self.below(500) {
            0 => self.below(100_000),
            1..=7 => self.below(4096),
            8..=200 => self.below(17),
            _ => self.below(400),
        }
    }
}

fn random(seed: usize) -> Random {
    Random((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Producers allocate, consumers free, a channel lies between.
fn producers_and_consumers(source: &impl Source, objects: usize) {
    std::thread::scope(|scope| {
        for pair in 0..THREADS / 2 {
            let (sender, receiver) = sync_channel::<Vec<Parcel>>(8);
            scope.spawn(move || {
                let (mut allocator, mut random) = (source.allocator(), random(pair));
                for _ in 0..objects / 64 {
                    let pack = |_| Parcel::pack(&mut allocator, &mut random);
                    sender.send((0..64).map(pack).collect()).unwrap();
                }
            });
            scope.spawn(move || {
                let mut allocator = source.allocator();
                for parcel in receiver.into_iter().flatten() {
                    parcel.unpack(&mut allocator);
                }
            });
        }
    });
}

/// Every thread sends to every thread, itself included.
fn all_to_all(source: &impl Source, rounds: usize) {
    let mailboxes: [Mutex<Vec<Parcel>>; THREADS] = Default::default();
    let everybody_is_done = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (mailboxes, everybody_is_done) = (&mailboxes, &everybody_is_done);
            scope.spawn(move || {
                let (mut allocator, mut random) = (source.allocator(), random(100 + thread));
                for _ in 0..rounds {
                    for _ in 0..20 {
                        let parcel = Parcel::pack(&mut allocator, &mut random);
                        mailboxes[random.below(THREADS)].lock().unwrap().push(parcel);
                    }
                    let mail = std::mem::take(&mut *mailboxes[thread].lock().unwrap());
                    for parcel in mail {
                        parcel.unpack(&mut allocator);
                    }
                }
                everybody_is_done.wait();
                for parcel in mailboxes[thread].lock().unwrap().drain(..) {
                    parcel.unpack(&mut allocator);
                }
            });
        }
    });
}

/// Threads that end at once and leave objects behind, which later threads free.
fn short_threads(source: &impl Source, threads: usize) {
    let left = Mutex::new(Vec::new());
    for group in 0..threads / THREADS {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let left = &left;
                scope.spawn(move || {
                    let seed = group * THREADS + thread;
                    let (mut allocator, mut random) = (source.allocator(), random(seed));
                    let mut mine: Vec<_> = (0..1 + random.below(12))
                        .map(|_| Parcel::pack(&mut allocator, &mut random))
                        .collect();
                    let mut left = left.lock().unwrap();
                    for _ in 0..random.below(14) {
                        if left.is_empty() {
                            break;
                        }
                        let index = random.below(left.len());
                        mine.push(left.swap_remove(index));
                    }
                    let keep = mine.split_off(mine.len() / 2);
                    left.extend(keep);
                    drop(left);
                    for parcel in mine {
                        parcel.unpack(&mut allocator);
                    }
                });
            }
        });
    }
    let mut allocator = source.allocator();
    for parcel in left.into_inner().unwrap() {
        parcel.unpack(&mut allocator);
    }
}

/// Runs `work` on a heap of its own and checks that nothing is left of it.
fn on_a_heap_of_its_own(work: impl for<'a> FnOnce(&&'a Lists<'a>)) {
    let _alone = alone();
    // SAFETY: everything above the source is gone before it is.
    let heap: Heap = PageHeap::new(unsafe { Returning::new(Mmap::new()) });
    let central: Lists<'_> = CentralLists::new(&heap);
    work(&&central);
    let mut cache = ThreadCache::<_>::new(&central);
    let snapshot = cache.snapshot().unwrap();
    assert_eq!(snapshot.live_objects(), 0);
    assert_eq!(snapshot.caches, 1, "every other cache has ended");
    assert!(snapshot.adds_up(), "{snapshot:?}");
    drop(cache);
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, 0, "{stats:?}");
}

/// Runs `work` five times on the program's heap. From the second time on it must not grow.
fn on_the_programs_heap(work: impl Fn(&Global)) {
    let _alone = alone();
    work(&Global);
    work(&Global);
    let before = settled();
    for _ in 0..3 {
        work(&Global);
    }
    let after = settled();
    // The test harness has its own few objects.
    let (was, is) = (before.live_objects(), after.live_objects());
    assert!(is.abs_diff(was) < 100, "{was} objects before, {is} after");
    // How far the threads run apart differs from run to run.
    let (was, is) = (before.pages.committed, after.pages.committed);
    assert!(is <= was + was / 2 + (8 << 20), "{was} bytes committed before, {is} after");
    assert!(after.caches <= before.caches + 2, "{} caches, {}", before.caches, after.caches);
}

#[test]
fn producers_and_consumers_on_a_heap_of_their_own() {
    on_a_heap_of_its_own(|source| producers_and_consumers(source, 25_000 * SCALE));
}

#[test]
fn producers_and_consumers_on_the_programs_heap() {
    on_the_programs_heap(|source| producers_and_consumers(source, 5_000 * SCALE));
}

#[test]
fn all_to_all_on_a_heap_of_its_own() {
    on_a_heap_of_its_own(|source| all_to_all(source, 600 * SCALE));
}

#[test]
fn all_to_all_on_the_programs_heap() {
    on_the_programs_heap(|source| all_to_all(source, 120 * SCALE));
}

#[test]
fn ten_thousand_short_threads_on_a_heap_of_their_own() {
    on_a_heap_of_its_own(|source| short_threads(source, 10_000));
}

#[test]
fn short_threads_on_the_programs_heap() {
    on_the_programs_heap(|source| short_threads(source, 2000));
}
