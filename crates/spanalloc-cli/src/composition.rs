//! An allocator put together for a replay.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::time::Duration;

use spanalloc_cache::{Policy, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::ClassTable;
use spanalloc_os::OsSource;
use spanalloc_pages::{Clock, PageHeap, Pages};
use spanalloc_testkit::Subject;

use crate::residence::Residence;

/// The layers from the source to the central lists, as values.
pub(crate) type Heap<'a, O> = PageHeap<&'a Residence<O>>;
pub(crate) type Lists<'a, T, O> = CentralLists<T, &'a Heap<'a, O>>;

/// The caches of a program's threads over them, all used by one thread.
pub(crate) struct Composition<'a, T: ClassTable, O: OsSource, P: Policy> {
    heap: &'a Heap<'a, O>,
    central: &'a Lists<'a, T, O>,
    caches: Vec<ThreadCache<&'a Lists<'a, T, O>, P>>,
    current: usize,
    microseconds: u64,
    /// When the scavenger looks again.
    rest_until: Duration,
}

/// Pieces of 2 MB that the scavenger gives back at a time.
const PIECES: usize = 16;

/// The trace's clock, by which no work takes time.
struct TraceClock(Duration);

impl Clock for TraceClock {
    fn now(&self) -> Duration {
        self.0
    }

    fn busy(&self) -> Duration {
        Duration::ZERO
    }
}

impl<'a, T: ClassTable, O: OsSource, P: Policy> Composition<'a, T, O, P> {
    /// With so many caches, at least one; they are opened when they are used.
    pub(crate) fn new(heap: &'a Heap<'a, O>, central: &'a Lists<'a, T, O>, caches: usize) -> Self {
        let caches = (0..caches.max(1)).map(|_| ThreadCache::with_policy(central)).collect();
        Self { heap, central, caches, current: 0, microseconds: 0, rest_until: Duration::ZERO }
    }

    /// The clock of the replay: microseconds since the trace began.
    pub(crate) fn microseconds(&self) -> u64 {
        self.microseconds
    }

    /// Bytes of the allocator's tables.
    pub(crate) fn metadata(&self) -> usize {
        self.heap.stats().metadata_in_use
    }

    #[inline]
    fn cache(&mut self) -> &mut ThreadCache<&'a Lists<'a, T, O>, P> {
        // In range: `switch` is only called with numbers below `caches`.
        #[allow(clippy::indexing_slicing, reason = "see above")]
        &mut self.caches[self.current]
    }
}

// SAFETY: a cache hands out memory that may be used until it is freed through any cache over the
// same lists.
unsafe impl<T: ClassTable, O: OsSource, P: Policy> Subject for Composition<'_, T, O, P> {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.cache().alloc(layout)
    }

    #[inline]
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.cache().alloc_zeroed(layout)
    }

    #[inline]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.cache().free(object, layout) };
    }

    #[inline]
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

    #[inline]
    fn switch(&mut self, cache: usize) {
        self.current = cache;
    }

    fn restart(&mut self, cache: usize) {
        if let Some(cache) = self.caches.get_mut(cache) {
            *cache = ThreadCache::with_policy(self.central);
        }
    }

    fn release(&mut self, most: usize) {
        self.heap.release_free(most);
    }

    /// The one place where time passes: the scavenger works as if a background thread were there.
    #[inline]
    fn advance(&mut self, microseconds: u32) {
        self.microseconds += u64::from(microseconds);
        if Duration::from_micros(self.microseconds) >= self.rest_until {
            self.scavenge(PIECES);
        }
    }

    fn scavenge(&mut self, pieces: usize) {
        let now = Duration::from_micros(self.microseconds);
        self.rest_until = now + self.heap.scavenge(&TraceClock(now), pieces);
    }
}
