use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spanalloc_os::Report;
use spanalloc_sync::Wait;
use thiserror::Error;

use crate::{Notice, PageCache, WINDOW_BYTES};

/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 13;
/// Bytes of a page, the unit the heap hands out (as in the Go runtime; not the OS page).
pub const PAGE_BYTES: usize = 1 << PAGE_SHIFT;

/// Whole pages that were handed out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address of the first byte; its provenance is exposed.
    pub address: usize,
    /// How many pages.
    pub pages: usize,
    /// Whether every byte is known to be zero.
    pub zeroed: bool,
}

/// Why pages could not be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PageError {
    /// Some page of the run lies in no arena of this heap, or the address is not a page's.
    #[error("{address:#x} is not a page of this heap")]
    NotOurs {
        /// The address given.
        address: usize,
    },
    /// Some page of the run is free already. Nothing was changed.
    #[error("a page of the {pages} from {address:#x} is free already")]
    AlreadyFree {
        /// First address of the run given.
        address: usize,
        /// Pages of the run given.
        pages: usize,
    },
}

/// What a page heap holds, in bytes unless named otherwise. Exact while no other thread is inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageStats {
    /// Arena slots that have a span map.
    pub arenas: usize,
    /// Address space reserved for pages.
    pub reserved: usize,
    /// Part of `reserved` that is Ready.
    pub committed: usize,
    /// Pages handed out, those in page caches included.
    pub pages_in_use: usize,
    /// Pages free in the heap.
    pub pages_free: usize,
    /// Bytes of those that have no memory now: given back to the system, or never used.
    pub returned: usize,
    /// Bytes that were given back to the system so far, however often.
    pub returned_in_all: u64,
    /// Address space reserved for metadata, the arena map included.
    pub metadata_reserved: usize,
    /// Part of `metadata_reserved` that is Ready.
    pub metadata_committed: usize,
    /// Bytes of metadata handed out.
    pub metadata_in_use: usize,
    /// Pages in use that became metadata because the system had nothing else to give; their bytes
    /// count as metadata too.
    pub metadata_pages: usize,
    /// Pages in use that are guards: nobody may touch them, so they have no memory.
    pub guard_pages: usize,
    /// How often the lock of the pages or that of the metadata was taken before this look.
    pub heap_locks: usize,
}

impl PageStats {
    /// Of a heap that has reserved nothing.
    pub const EMPTY: Self = Self {
        arenas: 0,
        reserved: 0,
        committed: 0,
        pages_in_use: 0,
        pages_free: 0,
        returned: 0,
        returned_in_all: 0,
        metadata_reserved: 0,
        metadata_committed: 0,
        metadata_in_use: 0,
        metadata_pages: 0,
        guard_pages: 0,
        heap_locks: 0,
    };
}

/// Copies whole pages.
///
/// # Safety
/// Both runs are Ready, have so many pages and do not overlap. Nobody else uses them.
pub(crate) unsafe fn copy_pages(from: usize, to: usize, pages: usize) {
    let from = ptr::with_exposed_provenance::<u8>(from);
    let to = ptr::with_exposed_provenance_mut::<u8>(to);
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, to, pages << PAGE_SHIFT) };
}

/// A heap of pages as the layers above see it.
///
/// # Safety
/// An implementor promises: a run handed out is Ready memory that belongs to the caller alone until
/// it is freed; `zeroed` is never claimed wrongly; `span_of` returns for each page what `set_span`
/// last said of it and null for every other address, whatever its bits; metadata is zero when it
/// is handed out, and stays readable and writable for ever; nothing unwinds or allocates from an
/// allocator built on this heap.
pub unsafe trait Pages {
    /// How threads wait for each other.
    type Wait: Wait;

    /// Takes `pages` pages whose address is a multiple of `align_pages` pages (a power of two;
    /// 1 for any). None if the system has no more, or `pages` is 0 or absurd.
    fn alloc(&self, pages: usize, align_pages: usize) -> Option<Run>;

    /// As `alloc(pages, 1)`, but from `cache` where that is possible, without the heap's lock.
    ///
    /// # Safety
    /// No other thread is using `cache`, and `cache` is only used with this heap.
    unsafe fn alloc_cached(&self, cache: &PageCache, pages: usize) -> Option<Run>;

    /// Gives pages back. Any pages that were handed out may be freed together or apart.
    ///
    /// # Errors
    /// [`PageError`] if some page is not handed out; nothing is changed then.
    ///
    /// # Safety
    /// Nobody uses these pages any more, and their `set_span` entries are null.
    unsafe fn free(&self, address: usize, pages: usize) -> Result<(), PageError>;

    /// As [`free`](Self::free), but into `cache` if the pages lie in its window.
    ///
    /// # Errors
    /// As [`free`](Self::free).
    ///
    /// # Safety
    /// As [`free`](Self::free) and [`alloc_cached`](Self::alloc_cached).
    unsafe fn free_cached(
        &self,
        cache: &PageCache,
        address: usize,
        pages: usize,
    ) -> Result<(), PageError>;

    /// As [`free_cached`](Self::free_cached), of several runs that lie in one window: bit i of `pages` is
    /// page i from `window` on, whose address is a multiple of [`WINDOW_BYTES`].
    ///
    /// # Errors
    /// As [`free`](Self::free), but some of the runs may be free then.
    ///
    /// # Safety
    /// As [`free_cached`](Self::free_cached), of each page.
    unsafe fn free_window(
        &self,
        cache: &PageCache,
        window: usize,
        pages: u64,
    ) -> Result<(), PageError> {
        debug_assert!(window % WINDOW_BYTES == 0);
        (0..64).filter(|page| pages >> page & 1 != 0).try_for_each(|page| {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.free_cached(cache, window + page * PAGE_BYTES, 1) }
        })
    }

    /// Gives every page of `cache` back to the heap.
    ///
    /// # Safety
    /// As [`alloc_cached`](Self::alloc_cached).
    unsafe fn flush(&self, cache: &PageCache);

    /// Gives some free memory back to the system if that is due. Whoever frees pages calls it now and
    /// then, holding no lock. A heap that keeps its memory does nothing.
    fn tend(&self) {}

    /// How often threads were called because the memory came to a limit. A thread for which that is not the
    /// number it heard last [heeds](Self::heed) the call at the end of its slow path. Relaxed: to hear a
    /// call late does no harm. A heap without limits never calls.
    #[inline]
    fn calls(&self) -> usize {
        0
    }

    /// Does what is to be done about the limits by a thread that heard call number `heard` last. `empty`
    /// gives back to the heap what the thread keeps, and tells whether there are others. Returns the call that
    /// it has heard now. Holds no lock during system calls and while it calls `empty`.
    fn heed(&self, heard: usize, _empty: impl FnOnce() -> bool) -> usize {
        heard
    }

    /// Gives free memory back to the system if a hard limit refused `bytes` bytes for a run. False if that is
    /// not so, or there is no such memory.
    fn make_room(&self, _bytes: usize) -> bool {
        false
    }

    /// What the listener is to be told of the soft limit, by a thread that holds no lock. Whoever
    /// gets it delivers it.
    #[inline]
    fn take_notice(&self) -> Option<Notice<'_>> {
        None
    }

    /// Takes the `more` pages that follow the run of `pages` at `address`, if all of them are free.
    /// Returns the new pages as a run.
    ///
    /// # Safety
    /// The run was handed out by this heap.
    unsafe fn extend(&self, address: usize, pages: usize, more: usize) -> Option<Run>;

    /// As [`alloc`](Self::alloc), where the run has room to grow by [`extend`](Self::extend): the pages
    /// behind it are free, several times as many as it has, and stay so as long as others find pages
    /// elsewhere.
    fn alloc_roomy(&self, pages: usize, align_pages: usize) -> Option<Run> {
        self.alloc(pages, align_pages)
    }

    /// Gives the contents of the first `pages` pages of the run `to` those of the run at `from`, and takes
    /// that back as [`free`](Self::free) does: by copying them, or without. False if nothing was
    /// moved, and the first `pages` pages of `to` are no longer this heap's; those behind them are free then.
    ///
    /// # Safety
    /// Both runs were handed out by this heap and do not overlap, and `to` has not been used since it was;
    /// that at `from` has `pages` pages, and the other no fewer. Nobody else uses `from`, and its
    /// `set_span` entries are null.
    unsafe fn relocate(&self, from: usize, to: Run, pages: usize) -> bool {
        // SAFETY: both runs are Ready, have so many pages and do not overlap; after that, nobody uses
        // the first one (contract).
        unsafe {
            copy_pages(from, to.address, pages);
            let freed = self.free(from, pages);
            debug_assert!(freed.is_ok(), "the run was handed out");
        }
        true
    }

    /// Says that pages that were handed out just now will be filled from the first one on, as far as they are used.
    /// A heap may ask the system for huge pages there.
    ///
    /// # Safety
    /// The pages were handed out by this heap, and the caller may use them.
    unsafe fn expect_filled(&self, _address: usize, _pages: usize) {}

    /// Makes pages read as zero if there is a better way than to write zeros to all of them. False if
    /// there is none; they are then as they were.
    ///
    /// # Safety
    /// The pages were handed out by this heap, and nobody else uses them.
    unsafe fn clear(&self, _address: usize, _pages: usize) -> bool {
        false
    }

    /// Gives the memory of whole pages of the system back that lie in `bytes` bytes of metadata from `at` on, as
    /// far as that can be. Of what is in these bytes, each one is zero afterwards or as it was.
    ///
    /// # Safety
    /// The bytes are of metadata of this heap. Others only read them, by atomics.
    unsafe fn empty_metadata(&self, _at: NonNull<u8>, _bytes: usize) {}

    /// Makes every thread of the process pass a full fence. False if the source below cannot.
    fn fence_threads(&self) -> bool {
        false
    }

    /// Whether a thread sleeps, by its number in the system; false if that is not known.
    fn is_asleep(&self, _thread: u32) -> bool {
        false
    }

    /// How many pages of a run take memory now, as far as is known: all of them if it is not.
    ///
    /// # Safety
    /// The run was handed out by this heap.
    unsafe fn resident(&self, _address: usize, pages: usize) -> usize {
        pages
    }

    /// Makes a page such that whoever touches it ends with a fault. False if the source cannot, the
    /// system refuses, or there are thousands of guards already.
    ///
    /// # Safety
    /// The page was handed out by this heap, nobody uses it, and it is no guard.
    unsafe fn guard(&self, _address: usize) -> bool {
        false
    }

    /// Makes a guard an ordinary page again, with any contents. False if the system refuses.
    ///
    /// # Safety
    /// The page was made a guard by [`guard`](Self::guard), and is one still.
    unsafe fn unguard(&self, _address: usize) -> bool {
        false
    }

    /// Makes `span` (may be null) the span-map entry of every page of a run.
    ///
    /// # Safety
    /// The pages are handed out and no other thread sets their entries. Whoever reads entries
    /// agrees with whoever sets them on what they point to.
    unsafe fn set_span(&self, address: usize, pages: usize, span: *mut ());

    /// The span-map entry of the page that `address` lies in; null for any address, valid or not,
    /// of which nothing was set. Takes no lock.
    fn span_of(&self, address: usize) -> *mut ();

    /// Whether `address` lies in a page of this heap that was handed out before, be it free now or
    /// not: what tells an address that is no more an object's from one that never was. For the last
    /// words of a process: never waits for a lock. A heap that does not know says no.
    fn was_handed_out(&self, _address: usize) -> bool {
        false
    }

    /// Zeroed memory for the allocator's own tables, which is never given back.
    fn metadata(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// What the heap holds.
    fn stats(&self) -> PageStats;

    /// The heap's secret: a number that is not 0 and never changes. If the source knows random numbers,
    /// nobody can foresee it.
    fn secret(&self) -> u64 {
        1
    }

    /// Ends the process with `report`.
    fn die(&self, report: Report) -> !;
}

// SAFETY: everything is passed on to a heap that keeps the contract.
unsafe impl<P: Pages + ?Sized> Pages for &P {
    type Wait = P::Wait;

    #[inline]
    fn alloc(&self, pages: usize, align_pages: usize) -> Option<Run> {
        (**self).alloc(pages, align_pages)
    }

    #[inline]
    unsafe fn alloc_cached(&self, cache: &PageCache, pages: usize) -> Option<Run> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).alloc_cached(cache, pages) }
    }

    #[inline]
    unsafe fn free(&self, address: usize, pages: usize) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).free(address, pages) }
    }

    #[inline]
    unsafe fn free_cached(
        &self,
        cache: &PageCache,
        address: usize,
        pages: usize,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).free_cached(cache, address, pages) }
    }

    unsafe fn free_window(
        &self,
        cache: &PageCache,
        window: usize,
        pages: u64,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).free_window(cache, window, pages) }
    }

    #[inline]
    unsafe fn flush(&self, cache: &PageCache) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).flush(cache) }
    }

    #[inline]
    fn tend(&self) {
        (**self).tend();
    }

    #[inline]
    fn calls(&self) -> usize {
        (**self).calls()
    }

    fn heed(&self, heard: usize, empty: impl FnOnce() -> bool) -> usize {
        (**self).heed(heard, empty)
    }

    fn make_room(&self, bytes: usize) -> bool {
        (**self).make_room(bytes)
    }

    #[inline]
    fn take_notice(&self) -> Option<Notice<'_>> {
        (**self).take_notice()
    }

    #[inline]
    unsafe fn extend(&self, address: usize, pages: usize, more: usize) -> Option<Run> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).extend(address, pages, more) }
    }

    fn alloc_roomy(&self, pages: usize, align_pages: usize) -> Option<Run> {
        (**self).alloc_roomy(pages, align_pages)
    }

    unsafe fn relocate(&self, from: usize, to: Run, pages: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).relocate(from, to, pages) }
    }

    unsafe fn expect_filled(&self, address: usize, pages: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).expect_filled(address, pages) };
    }

    unsafe fn clear(&self, address: usize, pages: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).clear(address, pages) }
    }

    unsafe fn empty_metadata(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).empty_metadata(at, bytes) }
    }

    fn fence_threads(&self) -> bool {
        (**self).fence_threads()
    }

    fn is_asleep(&self, thread: u32) -> bool {
        (**self).is_asleep(thread)
    }

    unsafe fn resident(&self, address: usize, pages: usize) -> usize {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).resident(address, pages) }
    }

    unsafe fn guard(&self, address: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).guard(address) }
    }

    unsafe fn unguard(&self, address: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).unguard(address) }
    }

    #[inline]
    unsafe fn set_span(&self, address: usize, pages: usize, span: *mut ()) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).set_span(address, pages, span) }
    }

    #[inline(always)]
    fn span_of(&self, address: usize) -> *mut () {
        (**self).span_of(address)
    }

    fn was_handed_out(&self, address: usize) -> bool {
        (**self).was_handed_out(address)
    }

    #[inline]
    fn metadata(&self, layout: Layout) -> Option<NonNull<u8>> {
        (**self).metadata(layout)
    }

    fn stats(&self) -> PageStats {
        (**self).stats()
    }

    #[inline]
    fn secret(&self) -> u64 {
        (**self).secret()
    }

    fn die(&self, report: Report) -> ! {
        (**self).die(report)
    }
}
