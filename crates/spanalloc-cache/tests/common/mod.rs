//! Caches over one set of central lists, as a subject of the test kit.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::alloc::Layout;
use std::ptr::NonNull;

use spanalloc_cache::{Magazines, Policy, Snapshot, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::ClassTable;
use spanalloc_os::OsSource;
use spanalloc_pages::{PageHeap, Pages};
use spanalloc_testkit::{Failure, Operation, Replay, Subject, Summary, Tally};

pub type Lists<'a, T, O> = CentralLists<T, &'a PageHeap<O>>;
pub type Cache<'a, T, O, P> = ThreadCache<&'a Lists<'a, T, O>, P>;

/// Packs everything that fits a shared slot.
#[derive(Debug)]
pub struct PackAll;

impl Policy for PackAll {
    type Bin = Magazines;

    const PACK_MAX: usize = 16;
}

/// Packs nothing.
#[derive(Debug)]
pub struct PackNone;

impl Policy for PackNone {
    type Bin = Magazines;

    const PACK_MAX: usize = 0;
}

/// Several caches, used by one thread.
pub struct Caches<'a, T: ClassTable, O: OsSource, P: Policy> {
    heap: &'a PageHeap<O>,
    central: &'a Lists<'a, T, O>,
    caches: Vec<Cache<'a, T, O, P>>,
    current: usize,
    /// Whether a refused cache state is something that may happen.
    scarce: bool,
}

impl<'a, T: ClassTable, O: OsSource, P: Policy> Caches<'a, T, O, P> {
    pub fn new(
        heap: &'a PageHeap<O>,
        central: &'a Lists<'a, T, O>,
        count: usize,
        scarce: bool,
    ) -> Self {
        let caches = (0..count).map(|_| ThreadCache::with_policy(central)).collect();
        Self { heap, central, caches, current: 0, scarce }
    }

    pub fn cache(&mut self) -> &mut Cache<'a, T, O, P> {
        &mut self.caches[self.current]
    }

    pub fn snapshot(&mut self) -> Option<Snapshot> {
        self.caches.iter_mut().find_map(ThreadCache::snapshot)
    }
}

// SAFETY: a cache hands out memory that may be used until it is freed through any cache over the
// same lists.
unsafe impl<T: ClassTable, O: OsSource, P: Policy> Subject for Caches<'_, T, O, P> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.cache().alloc(layout)
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.cache().alloc_zeroed(layout)
    }

    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.cache().free(object, layout) };
    }

    unsafe fn realloc(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.cache().realloc(object, layout, new_size) }
    }

    fn caches(&self) -> usize {
        self.caches.len()
    }

    fn switch(&mut self, cache: usize) {
        self.current = cache;
    }

    fn restart(&mut self, cache: usize) {
        self.caches[cache] = ThreadCache::with_policy(self.central);
    }

    fn release(&mut self, most: usize) {
        self.heap.release_free(most);
    }

    fn audit(&mut self, tally: Tally) -> Result<(), String> {
        let Some(snapshot) = self.snapshot() else {
            return if self.scarce { Ok(()) } else { Err("no memory for a cache state".into()) };
        };
        if !snapshot.adds_up() {
            return Err(format!("{tally:?}, but {:?} does not add up", brief(&snapshot)));
        }
        if snapshot.live_objects() != tally.objects {
            let found = snapshot.live_objects();
            return Err(format!("{found} live objects for {tally:?}: {:?}", brief(&snapshot)));
        }
        // A slot has room for its object, so slots are never fewer bytes than objects.
        if snapshot.live_bytes() < tally.bytes && snapshot.tiny.live == 0 {
            let found = snapshot.live_bytes();
            return Err(format!("{found} live bytes for {tally:?}: {:?}", brief(&snapshot)));
        }
        Ok(())
    }
}

fn brief(snapshot: &Snapshot) -> String {
    let rows: Vec<_> = snapshot.rows().collect();
    let large = (snapshot.large_objects, snapshot.large_pages, snapshot.cached_pages);
    format!("{rows:?}, large {large:?}, {:?}", snapshot.pages)
}

/// Does `operations` to caches over `os`, and checks that nothing is left behind. Returns what
/// came of it.
pub fn replay<T: ClassTable, O: OsSource, P: Policy>(
    os: O,
    caches: usize,
    scarce: bool,
    operations: &[Operation],
) -> Result<Summary, Failure> {
    let heap: PageHeap<O> = PageHeap::new(os);
    let central: Lists<'_, T, O> = CentralLists::new(&heap);
    let subject = Caches::<T, O, P>::new(&heap, &central, caches, scarce);
    let mut replay = Replay::new(subject);
    for operation in operations {
        replay.apply(operation)?;
    }
    replay.finish()?;
    let summary = replay.summary();
    drop(replay);
    assert_nothing_left(&heap);
    Ok(summary)
}

/// Every page is free again, but for those that had to become metadata.
pub fn assert_nothing_left<O: OsSource>(heap: &PageHeap<O>) {
    let stats = heap.stats();
    assert_eq!(stats.pages_in_use, stats.metadata_pages, "{stats:?}");
    assert_eq!((stats.pages_in_use + stats.pages_free) * 8192, stats.reserved, "{stats:?}");
}
