//! Allocators that are put together from the layers, as subjects: a class table, a policy and a source of
//! address space are all that is left to say.

use std::alloc::Layout;
use std::fmt::{self, Debug, Formatter};
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::time::Duration;

use spanalloc_cache::{Fast, Policy, Snapshot, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::{ClassTable, Go67};
use spanalloc_os::{Faulty, Geometry, Native, OsSource, Verb};
use spanalloc_pages::{Clock, PAGE_BYTES, PageHeap, Pages};

use crate::{Failure, Operation, Replay, Returning, Subject, Summary, Tally, Violation};

/// Pieces of 2 MB that the scavenger gives back at a time when time passes.
const PIECES: usize = 16;
/// Bytes that may live at once.
const BUDGET: usize = 64 << 20;

/// The page heap of a composition. Its source fails when it is told to.
pub type Heap<O, G = Native> = PageHeap<Faulty<O>, G>;
/// Its central lists.
pub type Lists<'a, T, O, G = Native> = CentralLists<T, &'a Heap<O, G>>;
/// One of its thread caches.
pub type Cache<'a, T, O, P, G = Native> = ThreadCache<&'a Lists<'a, T, O, G>, P>;

/// How an allocator is put together: caches of policy `P` over central lists with the classes of `T`,
/// over a page heap with arenas of `G`, over a source that is given to [`run`](Self::run).
pub struct Layers<T = Go67, P = Fast, G = Native> {
    caches: usize,
    scarce: bool,
    sparse: bool,
    budget: usize,
    audit_every: usize,
    parts: PhantomData<Parts<T, P, G>>,
}

/// Only names the types: it holds none of them.
type Parts<T, P, G> = fn() -> (T, P, G);

impl<T, P, G> Debug for Layers<T, P, G> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { caches, scarce, sparse, budget, audit_every, .. } = self;
        let mut fields = out.debug_struct("Layers");
        fields.field("caches", caches).field("scarce", scarce).field("sparse", sparse);
        fields.field("budget", budget).field("audit_every", audit_every).finish()
    }
}

impl<T: ClassTable, P: Policy> Layers<T, P> {
    /// With three caches, over a source that has memory unless it is told to fail.
    #[must_use]
    pub const fn new() -> Self {
        let (scarce, sparse, parts) = (false, false, PhantomData);
        Self { caches: 3, scarce, sparse, budget: BUDGET, audit_every: 1, parts }
    }

    /// The same with the arenas of another machine.
    #[must_use]
    pub const fn arenas_of<G: Geometry>(self) -> Layers<T, P, G> {
        let Self { caches, scarce, sparse, budget, audit_every, .. } = self;
        Layers { caches, scarce, sparse, budget, audit_every, parts: PhantomData }
    }
}

impl<T: ClassTable, P: Policy, G: Geometry> Layers<T, P, G> {
    /// The same with this many caches.
    #[must_use]
    pub const fn caches(self, caches: usize) -> Self {
        Self { caches, ..self }
    }

    /// The same over a source that may run out of memory.
    #[must_use]
    pub const fn scarce(self) -> Self {
        Self { scarce: true, ..self }
    }

    /// The same with a [`sparse`](crate::Shadow::sparse) shadow.
    #[must_use]
    pub const fn sparse(self) -> Self {
        Self { sparse: true, ..self }
    }

    /// The same with at most this many bytes live at once; operations that would make more of them are
    /// left out.
    #[must_use]
    pub const fn budget(self, budget: usize) -> Self {
        Self { budget, ..self }
    }

    /// The same with the accounts looked at after every so many operations instead of each, and in the end.
    #[must_use]
    pub const fn audit_every(self, operations: usize) -> Self {
        Self { audit_every: operations, ..self }
    }

    /// Puts the allocator together over `os`, does `operations` to it, frees what is left and ends the
    /// caches. All that was reserved goes back to `os`.
    ///
    /// # Errors
    /// The first promise that was not kept: of the objects, of the accounts after each operation, or that
    /// in the end nothing is in use.
    pub fn run<O: OsSource>(&self, os: O, operations: &[Operation]) -> Result<Summary, Failure> {
        // SAFETY: the heap is dropped with the source, and all objects and caches before it.
        let heap = Heap::<_, G>::new(Faulty::new(unsafe { Returning::new(os) }));
        let central = Lists::<T, _, G>::new(&heap);
        let caches = Caches::<T, _, P, G>::new(&heap, &central, self.caches, self.scarce);
        let mut replay = Replay::with_budget(caches, self.budget).audit_every(self.audit_every);
        if self.sparse {
            replay = replay.sparse();
        }
        let result = operations.iter().try_for_each(|operation| replay.apply(operation));
        if let Err(failure) = result.and_then(|()| replay.finish()) {
            // A cache of an allocator that is broken had better not be ended.
            mem::forget(replay);
            return Err(failure);
        }
        let summary = replay.summary();
        drop(replay);
        nothing_left(&heap).map_err(|what| Failure {
            step: operations.len(),
            operation: None,
            violation: Violation::Accounts(what),
        })?;
        Ok(summary)
    }
}

impl<T: ClassTable, P: Policy> Default for Layers<T, P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether all pages of a heap are free that did not have to become metadata.
///
/// # Errors
/// The figures that do not add up.
pub fn nothing_left<O: OsSource, G: Geometry>(heap: &PageHeap<O, G>) -> Result<(), String> {
    let stats = heap.stats();
    let all = (stats.pages_in_use + stats.pages_free) * PAGE_BYTES;
    if stats.pages_in_use == stats.metadata_pages && all == stats.reserved {
        return Ok(());
    }
    Err(format!("in the end: {stats:?}"))
}

/// Time that passes when an operation says so.
#[derive(Clone, Copy, Debug, Default)]
struct Virtual(Duration);

impl Clock for Virtual {
    fn now(&self) -> Duration {
        self.0
    }
}

/// Several caches over one set of central lists, used by one thread, as a subject.
pub struct Caches<'a, T: ClassTable, O: OsSource, P: Policy, G: Geometry = Native> {
    heap: &'a Heap<O, G>,
    central: &'a Lists<'a, T, O, G>,
    caches: Vec<Cache<'a, T, O, P, G>>,
    current: usize,
    /// Whether it may be that there is no memory for the state of a cache.
    scarce: bool,
    clock: Virtual,
    /// When the scavenger looks again.
    rest_until: Duration,
}

impl<T: ClassTable, O: OsSource, P: Policy, G: Geometry> Debug for Caches<'_, T, O, P, G> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { current, scarce, clock, .. } = self;
        let mut fields = out.debug_struct("Caches");
        fields.field("count", &self.caches.len()).field("current", current);
        fields.field("scarce", scarce).field("clock", clock).finish_non_exhaustive()
    }
}

impl<'a, T: ClassTable, O: OsSource, P: Policy, G: Geometry> Caches<'a, T, O, P, G> {
    /// `count` caches, at least one; `scarce` says that the source may run out of memory.
    #[must_use]
    pub fn new(
        heap: &'a Heap<O, G>,
        central: &'a Lists<'a, T, O, G>,
        count: usize,
        scarce: bool,
    ) -> Self {
        let caches = (0..count.max(1)).map(|_| ThreadCache::with_policy(central)).collect();
        let (clock, rest_until) = (Virtual::default(), Duration::ZERO);
        Self { heap, central, caches, current: 0, scarce, clock, rest_until }
    }

    /// The cache that serves.
    pub fn cache(&mut self) -> &mut Cache<'a, T, O, P, G> {
        &mut self.caches[self.current]
    }

    /// What there is, if one of the caches has a state.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        self.caches.iter_mut().find_map(ThreadCache::snapshot)
    }
}

// SAFETY: a cache hands out memory that may be used until it is freed through any cache over the
// same lists.
unsafe impl<T: ClassTable, O: OsSource, P: Policy, G: Geometry> Subject for Caches<'_, T, O, P, G> {
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

    fn advance(&mut self, microseconds: u32) {
        self.clock.0 += Duration::from_micros(microseconds.into());
        if self.clock.0 >= self.rest_until {
            self.scavenge(PIECES);
        }
    }

    fn scavenge(&mut self, pieces: usize) {
        self.rest_until = self.clock.0 + self.heap.scavenge(&self.clock, pieces);
    }

    fn os_fails(&mut self, verb: Verb, after: usize, calls: usize) {
        self.scarce = true;
        self.heap.os().fail_calls(verb, after.saturating_add(1), calls);
    }

    fn os_works(&mut self) {
        self.heap.os().heal();
    }

    fn audit(&mut self, tally: Tally) -> Result<(), String> {
        let Some(snapshot) = self.snapshot() else {
            return if self.scarce { Ok(()) } else { Err("no memory for a cache state".into()) };
        };
        if !snapshot.adds_up() {
            return Err(format!("{tally:?}, but {} does not add up", Brief(&snapshot)));
        }
        if snapshot.live_objects() != tally.objects {
            let found = snapshot.live_objects();
            return Err(format!("{found} live objects for {tally:?}: {}", Brief(&snapshot)));
        }
        // A slot has room for its object, so slots are never fewer bytes than objects.
        if snapshot.live_bytes() < tally.bytes && snapshot.tiny.live == 0 {
            let found = snapshot.live_bytes();
            return Err(format!("{found} live bytes for {tally:?}: {}", Brief(&snapshot)));
        }
        Ok(())
    }
}

/// A snapshot without the classes that have nothing.
struct Brief<'a>(&'a Snapshot);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self(it) = self;
        let rows: Vec<_> = it.rows().collect();
        let large = (it.large_objects, it.large_pages, it.cached_pages);
        write!(out, "{rows:?}, large {large:?}, {:?}", it.pages)
    }
}
