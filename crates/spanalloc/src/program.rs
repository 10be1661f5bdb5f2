//! What the allocators of a program have in common: the statics behind each, and their types.

use spanalloc_cache::{Cache, CacheState, Policy, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::Fine72;
use spanalloc_os::{Mmap, OsSource};
use spanalloc_pages::PageHeap;
use spanalloc_sync::atomic::AtomicUsize;
use spanalloc_sync::{Lock, rank};

/// Where memory comes from.
pub(crate) type Os = Mmap;
/// The central lists, with the page heap below them.
pub(crate) type Central = CentralLists<Fine72, PageHeap<Os>>;
/// What the slot of a thread points to.
pub(crate) type State<P> = CacheState<<P as Policy>::Bin>;
/// The cache of a thread.
pub(crate) type CacheOf<G> = Cache<'static, Central, <G as Program>::Policy>;
/// A cache for many threads, under a lock.
pub(crate) type Shared<P> =
    Lock<ThreadCache<&'static Central, P>, <Os as OsSource>::Wait, { rank::FALLBACK }>;

/// Empty central lists over a page heap that has reserved nothing.
pub(crate) const fn central(os: Os) -> Central {
    CentralLists::new(PageHeap::new(os))
}

/// States that no thread owns, which say in a slot how far its thread is. A slot begins with the
/// address of the first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Stages<P: Policy> {
    /// Nothing was allocated or freed yet.
    pub(crate) unset: State<P>,
    /// The thread's cache is being made.
    pub(crate) starting: State<P>,
    /// The cache is gone, or cannot be had.
    pub(crate) ended: State<P>,
}

impl<P: Policy> Stages<P> {
    /// The three states, with `inside` in each.
    pub(crate) const fn new(inside: u8) -> Self {
        Self {
            unset: CacheState::empty_and(inside),
            starting: CacheState::empty_and(inside),
            ended: CacheState::empty_and(inside),
        }
    }
}

/// One allocator of the whole program: its statics, and its slot in each thread.
pub(crate) trait Program: 'static {
    /// What its caches trust.
    type Policy: Policy;

    /// The spans that no thread holds, and the pages below.
    fn central() -> &'static Central;

    /// The states that are no thread's.
    fn stages() -> &'static Stages<Self::Policy>;

    /// The cache of the threads that have none any more.
    fn fallback() -> &'static Shared<Self::Policy>;

    /// The key by which the system tells that a thread ends, plus one; 0 while there is none.
    fn exit_key() -> &'static AtomicUsize;

    /// What the slot of the calling thread holds.
    fn slot() -> *const State<Self::Policy>;

    /// Sets the slot of the calling thread.
    fn set_slot(state: *const State<Self::Policy>);

    /// Closes the cache of a thread that ends.
    ///
    /// # Safety
    /// The cache was opened by this thread, whose slot no longer leads to it.
    unsafe fn close(cache: CacheOf<Self>)
    where
        Self: Sized;
}
