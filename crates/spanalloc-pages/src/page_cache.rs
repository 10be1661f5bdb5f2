use spanalloc_os::{Geometry, OsSource};
use spanalloc_sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::bitmap::{low_ones, runs_of};
use crate::heap::PageHeap;
use crate::held::{Use, address_of};
use crate::pages::{PAGE_BYTES, PAGE_SHIFT, PageError, Run};

/// Pages of the largest run that is served from a page cache.
const CACHED_PAGES: usize = 16;
/// So many windows (2 MB) a thread has filled before its next ones are taken for dense. Of many threads that
/// use little each, a huge page would bring more memory than they come to use.
const DENSE_WINDOWS: u32 = 4;
/// Bytes of the window of a [`PageCache`]: 64 pages.
pub const WINDOW_BYTES: usize = 64 * PAGE_BYTES;

/// Up to 64 free pages that one thread took from the heap at once.
///
/// The pages lie in one block of 64 that is aligned to its size: the window. One thread uses a
/// cache at a time, so the fields are read and written apart, with relaxed loads and stores; they
/// are atomics because other threads read them for statistics.
///
/// | `base`  | `free`, `zero`, `ours`                     | the cache                               |
/// |---------|--------------------------------------------|-----------------------------------------|
/// | any     | `free` is 0                                | has no page                             |
/// | window  | bit i is page i of the window              | `zero` within `free` within `ours`      |
///
/// Zeroed memory is a cache without a window.
#[derive(Debug)]
pub struct PageCache {
    /// Address of the window's first page; 0 for no window.
    base: AtomicUsize,
    /// Pages of the window that the cache may hand out.
    free: AtomicU64,
    /// Those of them that are known to be zero.
    zero: AtomicU64,
    /// Pages of the window that belonged to the heap when it was taken, whoever uses them.
    ours: AtomicU64,
    /// How many windows were taken since the cache was flushed.
    windows: AtomicU32,
}

impl Default for PageCache {
    fn default() -> Self {
        Self::new()
    }
}

impl PageCache {
    /// A cache without pages.
    pub const fn new() -> Self {
        Self {
            base: AtomicUsize::new(0),
            free: AtomicU64::new(0),
            zero: AtomicU64::new(0),
            ours: AtomicU64::new(0),
            windows: AtomicU32::new(0),
        }
    }

    /// Pages that the cache could hand out now. Any thread may ask.
    pub fn free_pages(&self) -> usize {
        self.free.load(Ordering::Relaxed).count_ones() as usize
    }

    /// Whether the cache has a run of `pages` pages.
    #[inline]
    pub fn has(&self, pages: usize) -> bool {
        pages <= CACHED_PAGES && runs_of(self.free.load(Ordering::Relaxed), pages as u32) != 0
    }

    /// Takes the lowest run of `pages` pages.
    #[inline]
    fn take(&self, pages: usize) -> Option<Run> {
        let free = self.free.load(Ordering::Relaxed);
        let starts = runs_of(free, pages as u32);
        if starts == 0 {
            return None;
        }
        let at = starts.trailing_zeros();
        let mask = low_ones(pages) << at;
        let zero = self.zero.load(Ordering::Relaxed);
        self.free.store(free & !mask, Ordering::Relaxed);
        self.zero.store(zero & !mask, Ordering::Relaxed);
        let address = self.base.load(Ordering::Relaxed) + ((at as usize) << PAGE_SHIFT);
        Some(Run { address, pages, zeroed: zero & mask == mask })
    }

    /// The bits of the window that a run is; None if some page of it lies outside, or is not the
    /// heap's.
    #[inline]
    fn mask(&self, address: usize, pages: usize) -> Option<u64> {
        let offset = address.wrapping_sub(self.base.load(Ordering::Relaxed));
        let page = offset >> PAGE_SHIFT;
        if offset >= WINDOW_BYTES || offset % PAGE_BYTES != 0 || pages > 64 - page {
            return None;
        }
        let mask = low_ones(pages) << page;
        (mask & self.ours.load(Ordering::Relaxed) == mask).then_some(mask)
    }
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// See [`Pages::alloc_cached`](crate::Pages::alloc_cached).
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(crate) unsafe fn take_cached(&self, cache: &PageCache, pages: usize) -> Option<Run> {
        if pages == 0 || pages > CACHED_PAGES {
            return self.alloc_run(pages, 1, Use::Dense);
        }
        match cache.take(pages) {
            Some(run) => Some(run),
            // SAFETY: the caller's promise is passed on.
            None => unsafe { self.refill_slow(cache, pages) },
        }
    }

    /// Gives the window back, takes the block of the heap's first fit as the new window and serves
    /// the request from there. If that run lies across two blocks, it is taken alone and the cache
    /// stays without pages.
    ///
    /// # Safety
    /// As [`take_cached`](Self::take_cached).
    #[cold]
    #[inline(never)]
    unsafe fn refill_slow(&self, cache: &PageCache, pages: usize) -> Option<Run> {
        let windows = cache.windows.load(Ordering::Relaxed);
        cache.windows.store(windows.saturating_add(1), Ordering::Relaxed);
        let usage = if windows < DENSE_WINDOWS { Use::Any } else { Use::Dense };
        let mut held = self.hold();
        let (base, free, zero) = cache.leave();
        if free != 0 {
            held.give_block(base, free, zero);
        }
        let page = held.find_or_grow(pages)?;
        if page % 64 + pages as u64 > 64 {
            return held.take(page, pages, usage);
        }
        let (free, zero, ours) = held.take_block(page, usage)?;
        cache.base.store(address_of(page & !63), Ordering::Relaxed);
        cache.zero.store(zero, Ordering::Relaxed);
        cache.ours.store(ours, Ordering::Relaxed);
        cache.free.store(free, Ordering::Relaxed);
        cache.take(pages)
    }

    /// See [`Pages::free_cached`](crate::Pages::free_cached).
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(crate) unsafe fn give_cached(
        &self,
        cache: &PageCache,
        address: usize,
        pages: usize,
    ) -> Result<(), PageError> {
        let Some(mask) = cache.mask(address, pages) else {
            return self.hold().free(address, pages);
        };
        let free = cache.free.load(Ordering::Relaxed);
        if free & mask != 0 {
            return Err(PageError::AlreadyFree { address, pages });
        }
        cache.free.store(free | mask, Ordering::Relaxed);
        Ok(())
    }

    /// See [`Pages::free_window`](crate::Pages::free_window).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn give_window(
        &self,
        cache: &PageCache,
        window: usize,
        pages: u64,
    ) -> Result<(), PageError> {
        let free = cache.free.load(Ordering::Relaxed);
        let ours = cache.ours.load(Ordering::Relaxed);
        if cache.base.load(Ordering::Relaxed) == window {
            if pages & free != 0 {
                return Err(PageError::AlreadyFree { address: window, pages: 64 });
            }
            if pages & !ours == 0 {
                cache.free.store(free | pages, Ordering::Relaxed);
                return Ok(());
            }
        }
        self.hold().free_block(window, pages)
    }

    /// See [`Pages::flush`](crate::Pages::flush).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn flush_cached(&self, cache: &PageCache) {
        cache.windows.store(0, Ordering::Relaxed);
        let (base, free, zero) = cache.leave();
        if free != 0 {
            self.hold().give_block(base, free, zero);
        }
    }
}

impl PageCache {
    /// Forgets the window; returns its base, its free pages and the zero ones of them.
    fn leave(&self) -> (usize, u64, u64) {
        let base = self.base.load(Ordering::Relaxed);
        let free = self.free.load(Ordering::Relaxed);
        let zero = self.zero.load(Ordering::Relaxed);
        self.free.store(0, Ordering::Relaxed);
        self.zero.store(0, Ordering::Relaxed);
        self.ours.store(0, Ordering::Relaxed);
        self.base.store(0, Ordering::Relaxed);
        (base, free, zero)
    }
}
