use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spanalloc_os::{ArenaMap, Geometry, Limited, Native, OsSource, Report};
use spanalloc_sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use spanalloc_sync::{Counter, Lock, rank, spin_pause};

use crate::chunk::segments;
use crate::held::{Held, State, Use, address_of, page_of};
use crate::huge::HugePages;
use crate::limits::{Limits, Notice};
use crate::metadata::Metadata;
use crate::pacer::Pacer;
use crate::page_cache::PageCache;
use crate::pages::{PAGE_BYTES, PAGE_SHIFT, PageError, PageStats, Pages, Run};
use crate::slot::Slot;

/// The most guards: each costs the system two mappings, of which Linux gives a process 65,530.
const MOST_GUARDS: usize = 16 << 10;
/// A run that grows from so many pages (1 MB) is taken to be filled soon.
const DENSE_PAGES: usize = 128;
/// How often the lock is tried for the last words of a process.
const LAST_LOOKS: u32 = 1000;
/// The most pages that become metadata at once.
const METADATA_PAGES: usize = 64;

/// A heap of pages over a source of address space.
///
/// Pages are handed out first fit in the order of their addresses. What is known of each page are
/// bits in the chunk it lies in, so neighbouring free runs are one run by construction; a tree of
/// summaries over the chunks finds the first fit in a number of steps that depends on the number of
/// address bits, not on the number of free runs.
///
/// `O` is where address space comes from, `G` how it is cut into arenas. A heap is meant to be a
/// `static`, or to be borrowed by what is built on it: it never gives address space back, and a
/// heap that is dropped leaves everything to its source.
///
/// Who guards what: `arenas` may be read by anybody and is published to under `state`'s lock; the
/// chunks behind it and the tree belong to that lock too; `metadata` has a lock of its own, of a
/// higher rank.
#[derive(Debug)]
pub struct PageHeap<O: OsSource, G: Geometry = Native> {
    /// The source, with a count of all that is Ready, and the hard limit of it.
    os: Limited<O>,
    pub(crate) arenas: ArenaMap<G, Slot<G>>,
    pub(crate) metadata: Metadata<O::Wait>,
    /// Pages of the arenas that became metadata.
    metadata_pages: Counter,
    /// Pages that are guards.
    guards: Counter,
    /// How often memory was moved without copying it.
    pub(crate) relocations: Counter,
    /// Whether a thread that comes by should look whether memory is to be given back.
    pub(crate) due: AtomicBool,
    /// Whether somebody else looks at regular times.
    pub(crate) attended: AtomicBool,
    /// The [`HugePages`] that was chosen.
    pub(crate) huge: AtomicU8,
    /// See [`Pages::secret`]; 0 before somebody asked.
    secret: AtomicU64,
    /// How much goes back when. Only tried: whoever finds it held leaves the work to the holder.
    pub(crate) pacer: Lock<Pacer, O::Wait, { rank::SCAVENGER }>,
    pub(crate) limits: Limits<O::Wait>,
    state: Lock<State<G>, O::Wait, { rank::HEAP }>,
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    /// The most pages that one run can have, room for its alignment included: 1 TB of them, or the
    /// whole address space. A gigabyte of address space takes a megabyte of span map; without a
    /// bound, a single absurd request could fill the memory with its metadata before it fails.
    const MOST_PAGES: u64 = {
        let bits = if G::ADDRESS_BITS < 40 { G::ADDRESS_BITS } else { 40 };
        1 << (bits - PAGE_SHIFT)
    };

    /// A heap that has reserved nothing yet.
    pub const fn new(os: O) -> Self {
        Self {
            os: Limited::new(os, usize::MAX),
            arenas: ArenaMap::new(),
            metadata: Metadata::new(),
            metadata_pages: Counter::new(),
            guards: Counter::new(),
            relocations: Counter::new(),
            due: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            huge: AtomicU8::new(HugePages::FIRST),
            secret: AtomicU64::new(0),
            pacer: Lock::new(Pacer::new()),
            limits: Limits::new(),
            state: Lock::new(State::new()),
        }
    }

    /// The source of address space.
    #[inline]
    pub fn os(&self) -> &O {
        self.os.inner()
    }

    /// The source as the heap uses it.
    #[inline]
    pub(crate) fn source(&self) -> &Limited<O> {
        &self.os
    }

    /// Takes the heap's lock.
    #[inline]
    pub(crate) fn hold(&self) -> Held<'_, O, G> {
        Held { heap: self, state: self.state.lock() }
    }

    /// Takes a run from the heap itself.
    pub(crate) fn alloc_run(&self, pages: usize, align: usize, usage: Use) -> Option<Run> {
        Self::is_sound(pages, align).then(|| self.hold().alloc(pages, align, usage))?
    }

    /// Whether a run could have so many pages and be aligned to so many.
    fn is_sound(pages: usize, align_pages: usize) -> bool {
        let (pages, align, most) = (pages as u64, align_pages as u64, Self::MOST_PAGES);
        pages > 0
            && align.is_power_of_two()
            && pages <= most
            && align <= most
            && pages + align - 1 <= most
    }
}

impl<O: OsSource, G: Geometry> PageHeap<O, G> {
    #[cold]
    #[inline(never)]
    fn secret_slow(&self) -> u64 {
        let fresh = self.os.random() | 1;
        // Relaxed: a number, nothing is read through it. All take that of the first who asked.
        match self.secret.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => fresh,
            Err(first) => first,
        }
    }

    /// Makes free pages metadata, for good: when the system has nothing more to give, a page that
    /// no object needs still serves as the descriptors of those that are needed. Several are taken
    /// at once if there are plenty, so that they do not end up scattered over the arenas.
    #[cold]
    #[inline(never)]
    fn metadata_from_pages(&self, layout: Layout) -> Option<NonNull<u8>> {
        let need = layout.size().div_ceil(PAGE_BYTES).max(1);
        let plenty = self.stats().pages_free / 8;
        let align = layout.align().div_ceil(PAGE_BYTES);
        let run = self
            .alloc_run(need.max(plenty.min(METADATA_PAGES)), align, Use::Any)
            .or_else(|| self.alloc_run(need, align, Use::Any))?;
        let bytes = run.pages << PAGE_SHIFT;
        let start = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(run.address))?;
        if !run.zeroed {
            // SAFETY: the run was just handed out to this thread.
            unsafe { start.write_bytes(0, bytes) };
        }
        self.metadata_pages.add(run.pages);
        self.metadata.alloc_from(start, bytes, layout)
    }
}

// SAFETY: runs are marked taken under the lock before they are returned, and committed before that;
// a page has its zero bit only between becoming Ready (zero by the source's contract) and being
// handed out, so `zeroed` is true; entries of the span map are found for exactly the arenas that
// were published, and are null until they are set; metadata comes zeroed from the source and is
// handed out once. Nothing here panics or allocates from above.
unsafe impl<O: OsSource, G: Geometry> Pages for PageHeap<O, G> {
    type Wait = O::Wait;

    fn alloc(&self, pages: usize, align_pages: usize) -> Option<Run> {
        self.alloc_run(pages, align_pages, Use::Any)
    }

    #[inline]
    unsafe fn alloc_cached(&self, cache: &PageCache, pages: usize) -> Option<Run> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.take_cached(cache, pages) }
    }

    unsafe fn free(&self, address: usize, pages: usize) -> Result<(), PageError> {
        self.hold().free(address, pages)
    }

    #[inline]
    unsafe fn free_cached(
        &self,
        cache: &PageCache,
        address: usize,
        pages: usize,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.give_cached(cache, address, pages) }
    }

    unsafe fn free_window(
        &self,
        cache: &PageCache,
        window: usize,
        pages: u64,
    ) -> Result<(), PageError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.give_window(cache, window, pages) }
    }

    unsafe fn flush(&self, cache: &PageCache) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.flush_cached(cache) }
    }

    #[inline]
    fn tend(&self) {
        // Relaxed: a thread that misses it leaves it to the next one.
        if self.due.load(Ordering::Relaxed) {
            self.scavenge_slow();
        }
    }

    #[inline]
    fn calls(&self) -> usize {
        self.limit_calls()
    }

    fn heed(&self, heard: usize, empty: impl FnOnce() -> bool) -> usize {
        self.heed_limits(heard, empty)
    }

    fn make_room(&self, bytes: usize) -> bool {
        self.make_room_within(bytes)
    }

    #[inline]
    fn take_notice(&self) -> Option<Notice<'_>> {
        self.take_limits_notice()
    }

    unsafe fn extend(&self, address: usize, pages: usize, more: usize) -> Option<Run> {
        let next = address.checked_add(pages.checked_mul(PAGE_BYTES)?)?;
        if more == 0 || more as u64 > Self::MOST_PAGES || next % PAGE_BYTES != 0 {
            return None;
        }
        let mut held = self.hold();
        if !held.all_free(page_of(next), more) && !held.grow_behind(page_of(next), more) {
            return None;
        }
        // What grows was filled before.
        let usage = if pages >= DENSE_PAGES { Use::Dense } else { Use::Any };
        held.take(page_of(next), more, usage)
    }

    fn alloc_roomy(&self, pages: usize, align_pages: usize) -> Option<Run> {
        if !Self::is_sound(pages, align_pages) {
            return None;
        }
        let mut held = self.hold();
        held.alloc_roomy(pages, align_pages, Self::MOST_PAGES)
            .or_else(|| held.alloc(pages, align_pages, Use::Dense))
    }

    unsafe fn relocate(&self, from: usize, to: Run, pages: usize) -> bool {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.relocate_run(from, to, pages) }
    }

    unsafe fn expect_filled(&self, address: usize, pages: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.expect_run_filled(page_of(address), pages) };
    }

    unsafe fn clear(&self, address: usize, pages: usize) -> bool {
        let memory = NonNull::new(ptr::with_exposed_provenance_mut(address));
        let whole = self.os.page_bytes() <= PAGE_BYTES;
        // SAFETY: pages that were handed out are Ready, of this source, and whole OS pages; nobody else
        // uses them (contract).
        memory.is_some_and(|at| whole && unsafe { self.os.clear(at, pages << PAGE_SHIFT) }.is_ok())
    }

    unsafe fn empty_metadata(&self, at: NonNull<u8>, bytes: usize) {
        let (low, page) = (at.addr().get(), self.os.page_bytes());
        let (from, to) = (low.next_multiple_of(page), (low + bytes) & !(page - 1));
        if let Some(first) = NonNull::new(at.as_ptr().wrapping_add(from - low)) {
            if from < to {
                // SAFETY: metadata is Ready, and these are whole OS pages of it; the caller's promise.
                let _ = unsafe { self.os.empty(first, to - from) };
            }
        }
    }

    fn fence_threads(&self) -> bool {
        self.os.fence_threads()
    }

    fn is_asleep(&self, thread: u32) -> bool {
        self.os.is_asleep(thread)
    }

    unsafe fn resident(&self, address: usize, pages: usize) -> usize {
        let memory = NonNull::new(ptr::with_exposed_provenance_mut(address));
        let (whole, bytes) = (self.os.page_bytes() <= PAGE_BYTES, pages << PAGE_SHIFT);
        match memory {
            // SAFETY: pages that were handed out are Ready, of this source, and whole OS pages.
            Some(at) if whole => unsafe { self.os.resident(at, bytes) }.div_ceil(PAGE_BYTES),
            _ => pages,
        }
    }

    unsafe fn guard(&self, address: usize) -> bool {
        let memory = NonNull::new(ptr::with_exposed_provenance_mut(address));
        let room = self.guards.get() < MOST_GUARDS && self.os.page_bytes() <= PAGE_BYTES;
        // SAFETY: a page that was handed out is Ready, of this source, and whole OS pages; nobody
        // uses it (contract).
        let done = memory
            .is_some_and(|memory| room && unsafe { self.os.guard(memory, PAGE_BYTES) }.is_ok());
        self.guards.add(usize::from(done));
        done
    }

    unsafe fn unguard(&self, address: usize) -> bool {
        let memory = NonNull::new(ptr::with_exposed_provenance_mut(address));
        // SAFETY: the guard is a page of this source, and whole OS pages.
        let done =
            memory.is_some_and(|memory| unsafe { self.os.unguard(memory, PAGE_BYTES) }.is_ok());
        self.guards.sub(usize::from(done));
        done
    }

    unsafe fn set_span(&self, address: usize, pages: usize, span: *mut ()) {
        for segment in segments(page_of(address), pages as u64) {
            let page = (segment.chunk << crate::bitmap::CHUNK_PAGE_BITS) + segment.from as u64;
            let at = address_of(page);
            let slot = self.arenas.get(at);
            if !slot.is_null() {
                // SAFETY: published slots are whole and never given back; a chunk lies in one slot.
                unsafe { Slot::set_entries(slot, at, segment.count, span) };
            }
        }
    }

    #[inline(always)]
    fn span_of(&self, address: usize) -> *mut () {
        let slot = self.arenas.get(address);
        if slot.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: published slots are whole and never given back.
        let entry = unsafe { Slot::entry(slot, address) };
        // Acquire pairs with the Release store in `Slot::set_entries`.
        entry.load(Ordering::Acquire)
    }

    fn was_handed_out(&self, address: usize) -> bool {
        // Whoever holds the lock may be what these last words interrupted.
        let lock = (0..LAST_LOOKS).find_map(|_| {
            spin_pause();
            self.state.try_lock()
        });
        lock.is_some_and(|state| Held { heap: self, state }.was_handed_out(page_of(address)))
    }

    fn metadata(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.metadata.alloc(&self.os, layout).or_else(|| self.metadata_from_pages(layout))
    }

    fn stats(&self) -> PageStats {
        let heap_locks = self.state.acquisitions().wrapping_add(self.metadata.acquisitions());
        let held = self.hold();
        let state = &held.state;
        let metadata = self.metadata.stats();
        PageStats {
            arenas: state.slots,
            reserved: state.total << PAGE_SHIFT,
            committed: state.ready << PAGE_SHIFT,
            pages_in_use: state.total - state.free,
            pages_free: state.free,
            returned: (state.total - state.ready) << PAGE_SHIFT,
            returned_in_all: state.dirt.returned << PAGE_SHIFT,
            metadata_reserved: metadata.reserved + self.arenas.reserved_bytes(),
            metadata_committed: metadata.committed + self.arenas.committed_bytes(),
            metadata_in_use: metadata.in_use,
            metadata_pages: self.metadata_pages.get(),
            guard_pages: self.guards.get(),
            heap_locks,
        }
    }

    #[inline]
    fn secret(&self) -> u64 {
        match self.secret.load(Ordering::Relaxed) {
            0 => self.secret_slow(),
            secret => secret,
        }
    }

    fn die(&self, report: Report) -> ! {
        self.os.die(report)
    }
}
