//! The one heap of the program: every static of spanalloc is here or in `thread`.

use spanalloc_cache::{CacheState, Fast, ThreadCache};
use spanalloc_central::CentralLists;
use spanalloc_classes::Go67;
use spanalloc_os::{Mmap, OsSource};
use spanalloc_pages::PageHeap;
use spanalloc_sync::{Lock, rank};

pub(crate) type Wait = <Mmap as OsSource>::Wait;
pub(crate) type Pages = PageHeap<Mmap>;
pub(crate) type Central = CentralLists<Go67, &'static Pages>;
pub(crate) type Cache = spanalloc_cache::Cache<'static, Central, Fast>;

/// Runs of pages, and which span each page belongs to.
static PAGES: Pages = PageHeap::new(Mmap::new());

/// The spans that no thread holds.
pub(crate) static CENTRAL: Central = CentralLists::new(&PAGES);

/// What the slot of a thread points to before the thread's first allocation.
pub(crate) static UNSET: CacheState = CacheState::empty();

/// What the slot of a thread points to after its cache is gone.
pub(crate) static ENDED: CacheState = CacheState::empty();

/// The cache of the threads that have none any more.
pub(crate) static FALLBACK: Lock<ThreadCache<&'static Central, Fast>, Wait, { rank::FALLBACK }> =
    Lock::new(ThreadCache::with_policy(&CENTRAL));
